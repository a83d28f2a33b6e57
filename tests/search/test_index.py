"""The interface of every search: three indexes and a plain loop give the same hits under every filter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectoolkit.errors import UserError
from rectoolkit.search import open_index, packed
from rectoolkit.search.codes import CodeTable, PackedTable, dot
from rectoolkit.search.float32 import FloatIndex
from rectoolkit.search.index import Hits, SearchIndex
from rectoolkit.search.inverted_lists import InvertedLists
from rectoolkit.search.keys import mix
from rectoolkit.search.packed import Index


class AllLists(InvertedLists):
    """Inverted lists that open all of them."""

    def search(self, queries: Any, k: int, **asked: Any) -> Hits:
        return super().search(queries, k, probe=self.lists, **asked)


def of_lists(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in lists])])
    return indptr, np.concatenate([np.zeros(0, np.int64), *map(np.asarray, lists)]).astype(np.int64)


def filters(draw: st.DrawFn, random: np.random.Generator, num: int, rows: int) -> tuple[dict[str, Any], np.ndarray]:
    """The arguments of a search, and a mask of the items each query may get, bool (num, rows)."""
    given_as: dict[str, Any] = {}
    kept = np.ones((num, rows), bool)
    for name, share in (("seen", 0.1), ("allow", draw(st.sampled_from([0.0, 0.02, 0.6]))), ("deny", 0.3)):
        form = draw(st.sampled_from(["none", "by query"] if name == "seen" else ["none", "ids", "mask", "by query"]))
        named = random.random((num, rows)) < share
        if form == "none":
            continue
        if form == "by query":
            lists = [random.permutation(np.repeat(np.flatnonzero(row), 2)) for row in named]  # unsorted, each twice
            given_as[name] = of_lists([row.tolist() for row in lists])
        else:
            named = np.broadcast_to(named[0], named.shape)
            given_as[name] = named[0].copy() if form == "mask" else random.permutation(np.flatnonzero(named[0]))
        kept &= named if name == "allow" else ~named
    return given_as, kept


def by_hand(scores: np.ndarray, kept: np.ndarray, k: int) -> Hits:
    ids, best = np.full((len(scores), k), -1), np.full((len(scores), k), -np.inf, np.float32)
    for row, rankable in enumerate(kept):
        order = np.lexsort((mix(np.arange(scores.shape[1])), -scores[row]))
        order = order[rankable[order]][:k]
        ids[row, : len(order)], best[row, : len(order)] = order, scores[row, order]
    return Hits(ids, best)


@given(st.data())
@settings(max_examples=150, deadline=None)
@pytest.mark.parametrize("kernels", [True, False])
def test_all_indexes_give_the_hits_of_a_loop(kernels: bool, data: st.DataObject) -> None:
    """On a grid of whole numbers, whose products float32 holds exactly, so that ties are the same everywhere."""
    if kernels:
        pytest.importorskip("numba")
    draw = data.draw
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bits, dim = draw(st.integers(1, 8)), draw(st.sampled_from([1, 7, 64, 97]))
    rows, num = draw(st.sampled_from([1, 65, 700])), draw(st.sampled_from([1, 2, 19]))
    scale, offset = np.full((1, 1), 2, np.float32), np.full((1, 1), 1 - (1 << bits), np.float32)
    values = random.integers(0, 1 << bits, (rows // 3 + 1, dim), dtype=np.uint8)
    items = CodeTable(values[random.integers(0, len(values), rows)], scale, offset, bits)
    queries = CodeTable(random.integers(0, 1 << bits, (num, dim), dtype=np.uint8), scale, offset, bits)
    asked, kept = filters(draw, random, num, rows)
    k = draw(st.sampled_from([1, 10, 1000]))
    expected = by_hand(dot(queries, items).astype(np.float32), kept, k)
    table = PackedTable.pack(items)
    indexes: list[SearchIndex] = [Index(table), FloatIndex(items.decode()), AllLists.build(table, lists=min(rows, 9))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "_LOADED", packed._Kernels())
        patch.setattr(packed, "ENOUGH_WORK", 0.0 if kernels else np.inf)
        for index in indexes:
            for form in (queries, PackedTable.pack(queries), queries.decode()):
                found = index.search(form, k, threads=2, **asked)
                np.testing.assert_array_equal(found.ids, expected.ids, type(index).__name__)
                np.testing.assert_array_equal(found.scores, expected.scores)


def test_the_reference_method_takes_every_filter() -> None:
    items = CodeTable(np.random.default_rng(0).integers(0, 4, (300, 8), np.uint8), bits=2)
    index, queries = Index(PackedTable.pack(items)), items.take([0, 1, 2])
    asked = {
        "allow": of_lists([[5, 9, 200], [], [7]]),
        "deny": of_lists([[9], [1], []]),
        "seen": of_lists([[], [], [7]]),
    }
    for method in packed.METHODS:
        found = index.search(queries, 3, method=method, **asked)
        assert [sorted(row) for row in found.ids.tolist()] == [[-1, 5, 200], [-1] * 3, [-1] * 3]


def test_long_allow_lists_go_through_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    items = PackedTable.pack(CodeTable(random.integers(0, 4, (500, 16), np.uint8), bits=2))
    allow = of_lists([random.permutation(500)[: random.integers(0, 90)].tolist() for _ in range(60)])
    index, queries = Index(items), items.take(slice(0, 60))
    expected = index.search(queries, 20, allow=allow)
    sizes, best = [], packed.best_of_allowed

    def counted(question: Any, *rest: Any) -> Any:
        sizes.append(len(question.masks.allowed.pairs()[1]))
        return best(question, *rest)

    monkeypatch.setattr(packed, "ROWS_AT_ONCE", 200)
    monkeypatch.setattr(packed, "best_of_allowed", counted)
    found = index.search(queries, 20, allow=allow)
    assert len(sizes) > 5
    assert max(sizes) < 290
    np.testing.assert_array_equal(found.ids, expected.ids)


def test_two_numbers_are_two_items_and_a_pair_of_arrays_is_lists() -> None:
    items = PackedTable.pack(CodeTable(np.zeros((6, 8), np.uint8)))
    for index in (Index(items), FloatIndex(np.zeros((6, 8), np.float32)), InvertedLists.build(items, lists=1)):
        queries = items.take([0, 1])
        assert np.sort(index.search(queries, 2, allow=(2, 5)).ids).tolist() == [[2, 5]] * 2
        assert index.search(queries, 2, allow=([0, 1, 2], [2, 5])).ids.tolist() == [[2, -1], [5, -1]]
        assert (index.search(queries, 6, deny=np.ones(6, bool)).ids == -1).all()
        assert (index.search(queries, 6, allow=[]).ids == -1).all()


WRONG = [
    ({"seen": ([0, 1], [3])}, "seen must be .* 3 ascending indptr"),
    ({"allow": ([0, 1], [3])}, "allow must be .* 3 ascending indptr"),
    ({"deny": ([0, 1, 2], [3, 10])}, "deny names item 10, but ids are 0 to 9"),
    ({"deny": [-1]}, "deny names item -1"),
    ({"allow": np.ones(9, bool)}, "allow: a boolean mask needs an entry for each of the 10 items, got .9,"),
    ({"allow": [[1], [2]]}, "allow must be one row of integer item ids"),
    ({"k": 1 << 40}, "k must be less than 2"),
    ({"threads": 0}, "threads must be a whole number"),
    ({"queries": CodeTable(np.zeros((2, 9), np.uint8))}, "queries of 9 dims"),
    ({"queries": np.full((2, 8), 1e300)}, "1e.300 is beyond float32"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG)
def test_every_index_refuses_the_same(wrong: dict[str, Any], message: str) -> None:
    items = PackedTable.pack(CodeTable(np.zeros((10, 8), np.uint8)))
    for index in (Index(items), FloatIndex(np.zeros((10, 8), np.float32)), InvertedLists.build(items, lists=2)):
        asked: dict[str, Any] = {"queries": np.zeros((2, 8), np.float32), "k": 3, **wrong}
        with pytest.raises(UserError, match=message):
            index.search(asked.pop("queries"), asked.pop("k"), **asked)


def test_open_index_takes_codes_and_float_rows() -> None:
    assert isinstance(open_index(PackedTable.pack(CodeTable(np.zeros((3, 8), np.uint8)))), Index)
    assert isinstance(open_index(np.zeros((3, 8), np.float32)), FloatIndex)
