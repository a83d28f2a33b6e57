"""Search: every method gives the hits of the reference, masks and ties included, and bad input is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectoolkit.errors import UserError
from rectoolkit.search import codes
from rectoolkit.search import packed as index
from rectoolkit.search.codes import CodeTable, PackedTable
from rectoolkit.search.index import Hits, Masks, Rescore
from rectoolkit.search.kernels.numpy_search import Question
from rectoolkit.search.keys import mix, unmix
from rectoolkit.search.packed import METHODS, Index, compiled_kernels

pytest.importorskip("numba")
DIMS = (1, 7, 64, 97, 256)


@pytest.fixture(autouse=True)
def compiled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "ENOUGH_WORK", 0.0)


def halved(scale: np.ndarray) -> np.ndarray:
    """The upper halves of float32 numbers, the lower ones zero."""
    return (scale.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def table(
    random: np.random.Generator, rows: int, dim: int, bits: int, segments: tuple[int, ...], grid: str, copies: bool
) -> CodeTable:
    """``copies``: equal rows. ``grid``: symmetric, one for all; rows, scales by row; halves, such as pack in two bytes;
    or anything, of any size and sign.
    """
    values = random.integers(0, 1 << bits, (rows, dim), dtype=np.uint8)
    if copies and rows:
        values = values[random.integers(0, max(1, rows // 9), rows)]
    if grid == "symmetric":
        scale = np.full((1, len(segments)), 2, np.float32)
    elif grid == "rows":
        scale = random.random((rows, len(segments)), np.float32)
    elif grid == "halves":
        scale = halved(random.standard_normal((rows, len(segments))).astype(np.float32))
    else:
        scale = (random.standard_normal((rows, len(segments))) * 10.0 ** random.integers(-3, 4)).astype(np.float32)
    offset = -scale * np.float32(((1 << bits) - 1) / 2)
    if grid == "anything":
        offset = (random.standard_normal((1, len(segments))) * 10.0 ** random.integers(-3, 4)).astype(np.float32)
    return CodeTable(values, scale, offset, bits, segments)


def by_hand(queries: CodeTable | np.ndarray, items: CodeTable, k: int, excluded: np.ndarray) -> Hits:
    """The definition: round the products, sort by score and mixed id. ``excluded`` bool (Q, N)."""
    scores = codes.dot(queries, items).astype(np.float32) + np.float32(0)
    ids, best = np.full((len(scores), k), -1), np.full((len(scores), k), -np.inf, np.float32)
    for row, out in enumerate(excluded):
        order = np.lexsort((mix(np.arange(items.num_rows)), -scores[row]))
        order = order[~out[order]][:k]
        ids[row, : len(order)], best[row, : len(order)] = order, scores[row, order]
    return Hits(ids, best)


def assert_same(found: Hits, expected: Hits) -> None:
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert found.ids.dtype == np.int64
    assert found.scores.dtype == np.float32


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dim = draw(st.sampled_from(DIMS))
    parts = draw(st.sampled_from([1, 1, 2, 4]))
    cuts = sorted(random.choice(np.arange(1, dim), min(parts, dim) - 1, replace=False)) if dim > 1 else []
    segments = tuple(int(width) for width in np.diff([0, *cuts, dim]))
    rows = draw(st.sampled_from([1, 63, 64, 65, 1000, 5000]))
    num = draw(st.sampled_from([1, 2, 7, 70]))
    grids, bits = st.sampled_from(["symmetric", "rows", "halves", "anything"]), st.integers(1, 8)
    items = table(random, rows, dim, draw(bits), segments, draw(grids), draw(st.booleans()))
    queries: Any = (random.standard_normal((num, dim)) * 10.0 ** random.integers(-3, 4)).astype(np.float32)
    if draw(st.booleans()):
        queries = table(random, num, dim, draw(bits), segments, draw(grids), draw(st.booleans()))
    masks: dict[str, Any] = {}
    if draw(st.booleans()):
        counts = random.integers(0, 30, num)
        masks["seen"] = (np.concatenate([[0], np.cumsum(counts)]), random.integers(0, rows, counts.sum()))
    if draw(st.booleans()):
        masks["allow"] = random.integers(0, rows, draw(st.sampled_from([0, 1, rows // 20 + 1, rows])))
    if draw(st.booleans()):
        masks["deny"] = random.integers(0, rows, rows // 3)
    return {"items": items, "queries": queries, "k": draw(st.sampled_from([1, 3, 50, 300])), "masks": masks}


def excluded_of(masks: dict[str, Any], num: int, rows: int) -> np.ndarray:
    out = np.zeros((num, rows), bool)
    if "allow" in masks:
        out[:] = True
        out[:, masks["allow"]] = False
    if "deny" in masks:
        out[:, masks["deny"]] = True
    if "seen" in masks:
        indptr, items = masks["seen"]
        out[np.repeat(np.arange(num), np.diff(indptr)), items] = True
    return out


@given(cases())
@settings(max_examples=120, deadline=None)
def test_every_method_gives_the_hits_of_the_definition(case: dict[str, Any]) -> None:
    items, queries = case["items"], case["queries"]
    searched = Index(PackedTable.pack(items))
    num = len(queries) if isinstance(queries, np.ndarray) else queries.num_rows
    expected = by_hand(queries, items, case["k"], excluded_of(case["masks"], num, items.num_rows))
    for method in METHODS:
        assert_same(searched.search(queries, case["k"], method=method, **case["masks"]), expected)


@pytest.mark.parametrize("item_bits", range(1, 9))
@pytest.mark.parametrize("query_bits", [1, 2, 4, 7, 8])
def test_all_widths_of_both_sides(item_bits: int, query_bits: int) -> None:
    random = np.random.default_rng(item_bits)
    items = table(random, 700, 64, item_bits, (64,), "symmetric", False)
    queries = table(random, 9, 64, query_bits, (64,), "symmetric", False)
    searched = Index(PackedTable.pack(items))
    for asked in (queries, queries.take([0]), PackedTable.pack(queries)):
        assert_same(searched.search(asked, 20), searched.search(asked, 20, method="reference"))


@pytest.mark.parametrize("bits", [1, 2, 8])
@pytest.mark.parametrize("num", [1, 40])
def test_a_hundred_thousand_items_on_several_threads(bits: int, num: int) -> None:
    random = np.random.default_rng(bits)
    items = table(random, 100_000, 64, bits, (64,), "symmetric", True)
    queries = table(random, num, 64, bits, (64,), "symmetric", False)
    searched = Index(PackedTable.pack(items))
    expected = searched.search(queries, 100, method="reference")
    for threads in (1, 2, 5):
        assert_same(searched.search(queries, 100, threads=threads), expected)


@pytest.mark.parametrize("bits", [1, 2])
@pytest.mark.parametrize("num", [1, 20])
def test_a_catalogue_whose_best_items_stand_where_the_sample_looks(bits: int, num: int) -> None:
    random = np.random.default_rng(0)
    values = random.integers(0, 1 << bits, (50_000, 64), dtype=np.uint8)
    sampled = np.arange(50_000) // 64 % 64 == 0
    values[~sampled, :60] = 0
    top = np.float32(((1 << bits) - 1) / 2)
    items = CodeTable(values, np.ones((1, 1), np.float32), np.full((1, 1), -top), bits)
    queries = CodeTable(np.full((num, 64), (1 << bits) - 1, np.uint8), items.scale, items.offset, bits)
    searched = Index(PackedTable.pack(items))
    for k in (50, 1000):
        assert_same(searched.search(queries, k), searched.search(queries, k, method="reference"))


def test_many_queries_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    items, queries = (table(random, rows, 64, 1, (64,), "symmetric", False) for rows in (300, 5000))
    searched = Index(PackedTable.pack(items))
    monkeypatch.setattr(index, "QUERIES_AT_ONCE", 2000)
    seen = (np.arange(5001) * 3, random.integers(0, 300, 15000))
    expected = searched.search(queries, 20, seen=seen, method="reference")
    assert_same(searched.search(queries, 20, seen=seen), expected)


@pytest.mark.parametrize("method", METHODS)
def test_more_asked_than_there_is(method: index.Method) -> None:
    items = table(np.random.default_rng(0), 5, 7, 2, (7,), "rows", False)
    hits = Index(PackedTable.pack(items)).search(items, 9, deny=[3], method=method)
    assert (np.sort(hits.ids[:, :4]) == [0, 1, 2, 4]).all()
    assert (hits.ids[:, 4:] == -1).all()
    assert np.isneginf(hits.scores[:, 4:]).all()
    empty = Index(PackedTable.pack(items.take(np.zeros(0, int))))
    assert (empty.search(items, 3, method=method).ids == -1).all()
    assert empty.search(items.take(np.zeros(0, int)), 3, method=method).ids.shape == (0, 3)


@pytest.mark.parametrize("method", METHODS)
def test_ties_go_by_the_mixed_id_and_not_by_the_id(method: index.Method) -> None:
    items = CodeTable(np.ones((1000, 64), np.uint8), bits=1)
    hits = Index(PackedTable.pack(items)).search(items.take([0]), 10, method=method)
    assert hits.ids[0].tolist() == np.argsort(mix(np.arange(1000)))[:10].tolist()
    assert hits.ids[0].mean() > 100


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1))
def test_unmix_undoes_mix(ids: list[int]) -> None:
    assert unmix(mix(ids)).tolist() == ids


def test_mix_is_the_published_finaliser() -> None:
    def fmix32(h: int) -> int:
        h = (h ^ h >> 16) * 0x85EBCA6B & 0xFFFFFFFF
        h = (h ^ h >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
        return h ^ h >> 16

    assert mix(np.arange(500)).tolist() == [fmix32(n) for n in range(500)]


@pytest.mark.parametrize("method", METHODS)
def test_huge_and_tiny_scales(method: index.Method) -> None:
    random = np.random.default_rng(0)
    for size in (3e38, 1e-38, 0.0):
        scale, offset = np.full((1, 1), size, np.float32), np.full((1, 1), -size, np.float32)
        items, queries = (CodeTable(random.integers(0, 4, (n, 64), dtype=np.uint8), scale, offset, 2) for n in (200, 9))
        with np.errstate(over="ignore"):
            expected = by_hand(queries, items, 300, np.zeros((9, 200), bool))
            assert_same(Index(PackedTable.pack(items)).search(queries, 300, method=method), expected)


@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("bits", [1, 3, 8])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_estimate_and_its_margin_never_fall_short(planes: bool, bits: int, sign: int) -> None:
    from rectoolkit.search.kernels.queries import Bounds, ask, layout_of

    random = np.random.default_rng(bits)
    queries = random.standard_normal((20, 64)).astype(np.float32)
    integers = codes.Integers.of_floats(queries, (64,))
    layout = layout_of((64,))
    scale, offset = np.full((1, 1), sign * 0.3, np.float32), np.full((1, 1), -0.1, np.float32)

    def asked_of(items: CodeTable) -> Any:
        packed = PackedTable.pack(items)
        question = Question(integers, packed, None, 1, Masks(None, None, None), 1)
        return ask(question, layout, Bounds(packed), "planes" if planes else "bytes")

    asked = asked_of(CodeTable(np.zeros((1, 64), np.uint8), scale, offset, bits))
    small = asked.signed[:20].astype(np.float64)
    if planes:
        words = asked.planes.transpose(0, 2, 1).copy().view(np.uint8)
        small = (
            (np.unpackbits(words, axis=2, bitorder="little") << np.arange(8)[:, None]).sum(axis=1).astype(np.float64)
        )
    fitted = np.stack([np.polyval(np.polyfit(q, v, 1), q) for q, v in zip(small, integers.values, strict=True)])
    worst = (((integers.values - fitted) * sign > 0) * ((1 << bits) - 1)).astype(np.uint8)  # all errors add up
    items = CodeTable(worst, scale, offset, bits)
    asked, exact = asked_of(items), np.diag(codes.dot(queries, items))
    a, b, c = asked.coefficients[0, :20].T.astype(np.float64)
    products, sums = (small * worst).sum(axis=1), worst.sum(axis=1, dtype=np.float64)
    estimate = float(scale[0, 0]) * (a * products + b * sums) + c * float(offset[0, 0])
    assert (estimate + asked.margin >= exact).all()


def test_whatever_stands_in_unused_bits_counts_for_nothing() -> None:
    items = table(np.random.default_rng(0), 500, 97, 3, (97,), "symmetric", False)
    packed = PackedTable.pack(items)
    dirty = packed.planes.copy()
    dirty[:, :, -1] |= 0xFE
    for method in METHODS:
        clean = Index(packed).search(items.take([1]), 20, method=method)
        assert_same(
            Index(PackedTable(dirty, 97, packed.scale, packed.offset)).search(items.take([1]), 20, method=method), clean
        )


def test_rescoring_ranks_the_candidates_by_floats() -> None:
    random = np.random.default_rng(0)
    vectors, asked = (random.standard_normal((n, 64)).astype(np.float32) for n in (2000, 6))
    items, queries = (CodeTable((v > 0).astype(np.uint8), bits=1) for v in (vectors, asked))
    searched = Index(PackedTable.pack(items))
    found = searched.search(queries, 10, rescore=Rescore(asked, vectors, 200))
    candidates = searched.search(queries, 200).ids
    for row in range(6):
        exact = vectors[candidates[row]].astype(np.float64) @ asked[row]
        assert found.ids[row].tolist() == candidates[row][np.argsort(-exact)[:10]].tolist()
        np.testing.assert_allclose(found.scores[row], np.sort(exact)[::-1][:10], rtol=1e-6)
    everything = searched.search(queries, 10, rescore=Rescore(asked, vectors, 2000))
    assert everything.ids.tolist() == np.argsort(-(asked @ vectors.T), axis=1)[:, :10].tolist()


def test_more_candidates_than_items_are_all_of_them() -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((30, 8)).astype(np.float32)
    searched = Index(PackedTable.pack(CodeTable((vectors > 0).astype(np.uint8), bits=1)))
    found = searched.search(vectors[:2], 40, rescore=Rescore(vectors[:2], vectors, 1 << 31))
    assert found.ids.shape == (2, 40)
    assert (np.sort(found.ids[:, :30]) == np.arange(30)).all()
    assert (found.ids[:, 30:] == -1).all()


REFUSED = [
    ({"k": 0}, "k must be a whole number of at least 1, got 0"),
    ({"k": 2.5}, "k must be a whole number"),
    ({"threads": 0}, "threads must be"),
    ({"method": "quick"}, "fast, numpy, reference"),
    ({"queries": np.zeros((2, 9), np.float32)}, r"shape \(Q, 8\), the items' dims, got float32 \(2, 9\)"),
    ({"queries": np.zeros((2, 8), np.int64)}, "coded queries come as a CodeTable"),
    ({"queries": np.full((2, 8), np.nan, np.float32)}, "row 0 holds NaN or infinity"),
    ({"queries": CodeTable(np.zeros((2, 9), np.uint8))}, "queries of 9 dims"),
    ({"allow": [10]}, "allow names item 10, but ids are 0 to 9"),
    ({"deny": [-1]}, "deny names item -1"),
    ({"deny": [0.5]}, "deny must be one row of integer item ids"),
    ({"seen": ([0, 1, 2], [3, 12])}, "seen names item 12"),
    ({"seen": ([0, 1], [3])}, "3 ascending indptr"),
    ({"seen": ([0, 2, 1], [3])}, "3 ascending indptr"),
    ({"seen": (np.array([0, 2, 1], np.uint64), [3])}, "3 ascending indptr"),
    ({"seen": 5}, "seen must be a pair"),
    ({"allow": [[1], [2, 3]]}, "allow must be one row of integer item ids"),
    ({"k": 1 << 40}, "k must be less than 2"),
    ({"queries": np.full((2, 8), 1e300)}, "1e.300 is beyond float32"),
    ({"rescore": Rescore(np.zeros((2, 4)), np.zeros((10, 4)), 2)}, "must be at least k"),
    ({"rescore": Rescore(np.zeros((2, 4)), np.zeros((9, 4)), 5)}, r"items \(10, D\)"),
]


@pytest.mark.parametrize(("wrong", "message"), REFUSED)
def test_what_cannot_be_asked_is_refused(wrong: dict[str, Any], message: str) -> None:
    asked: dict[str, Any] = {"queries": np.zeros((2, 8), np.float32), "k": 3, **wrong}
    searched = Index(PackedTable.pack(CodeTable(np.zeros((10, 8), np.uint8))))
    with pytest.raises(UserError, match=message):
        searched.search(asked.pop("queries"), asked.pop("k"), **asked)


def test_a_single_query_is_answered_without_numba(tmp_path: Any) -> None:
    PackedTable(np.zeros((1000, 1, 8), np.uint8), 64).save(tmp_path / "items.codes")
    program = (
        "import sys, numpy as np; from rectoolkit.search.packed import Index\n"
        f"Index.open({str(tmp_path / 'items.codes')!r}).search(np.ones((1, 64), np.float32), 5)\n"
        "print([name for name in ('numba', 'torch', 'dgl') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_missing_numba_falls_back_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_LOADED", index._Kernels())
    monkeypatch.setitem(sys.modules, "rectoolkit.search.kernels.compiled_search", None)
    monkeypatch.delattr("rectoolkit.search.kernels.compiled_search", raising=False)
    searched = Index(PackedTable.pack(table(np.random.default_rng(0), 50, 8, 2, (8,), "rows", False)))
    queries = np.ones((2, 8), np.float32)
    with pytest.warns(UserWarning, match="pip install numba"):
        first = searched.search(queries, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(searched.search(queries, 5), first)


def test_a_forked_process_and_several_threads_can_search() -> None:
    program = """
import os, numpy as np
from concurrent.futures import ThreadPoolExecutor
from rectoolkit.search import packed as index
from rectoolkit.search.codes import PackedTable
index.ENOUGH_WORK = 0
searched = index.Index(PackedTable(np.random.default_rng(0).integers(0, 256, (50_000, 2, 8), np.uint8), 64))
queries = np.random.default_rng(1).standard_normal((8, 10, 64)).astype(np.float32)
with ThreadPoolExecutor(4) as pool:
    found = list(pool.map(lambda rows: searched.search(rows, 20, threads=2).ids.tolist(), queries))
assert found == [searched.search(rows, 20, method="reference").ids.tolist() for rows in queries]
child = os.fork()
if child == 0:
    os._exit(searched.search(queries[0], 20, threads=2).ids.tolist() != found[0])
assert os.waitpid(child, 0)[1] == 0
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("home", ["writable", "read-only"])
def test_an_installation_that_cannot_be_written_still_searches(tmp_path: Any, home: str) -> None:
    package = tmp_path / "rectoolkit"
    shutil.copytree(Path(index.__file__).parents[1], package, ignore=shutil.ignore_patterns("__pycache__", "data"))
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); import numba.core.caching as caching\n"
        "locators = caching.CacheImpl._locator_classes\n"
        f"kept = ['_UserWideCacheLocator'] if {home == 'writable'} else []\n"
        "caching.CacheImpl._locator_classes = [c for c in locators if c.__name__ in kept]\n"
        "import numpy as np; from rectoolkit.search import packed as index\n"
        "from rectoolkit.search.codes import PackedTable\n"
        "assert index.__file__.startswith(sys.argv[1]); index.ENOUGH_WORK = 0\n"
        "items = PackedTable(np.zeros((100, 1, 8), np.uint8), 64)\n"
        "assert index.Index(items).search(items.take([0]), 3).ids.shape == (1, 3)\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    run = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment, check=False)
    assert run.returncode == 0


@pytest.mark.parametrize("bits", [1, 4])
def test_terms_of_the_reference_that_cancel_keep_their_ties(bits: int) -> None:
    """A user whose code sum meets the middle of its grid: item offsets cancel, but not their rounding."""
    draws, top = np.random.default_rng(5), (1 << bits) - 1
    user = CodeTable(np.array([[0, top] * 32], np.uint8), bits=bits, offset=np.full((1, 1), -top / 2, np.float32))
    codes = draws.integers(0, top + 1, (5000, 64)).astype(np.uint8)
    items = PackedTable.pack(CodeTable(codes, bits=bits, offset=np.full((1, 1), 1.2345e16, np.float32)))
    index = Index(items)
    compiled_kernels(float("inf"))
    fast, reference = (index.search(user, 50, method=method) for method in ("fast", "reference"))
    np.testing.assert_array_equal(fast.ids, reference.ids)


@pytest.mark.parametrize("exponent", [-120, -60, 60, 100])
def test_magnitudes_outside_the_filters_are_ranked_all_the_same(exponent: int) -> None:
    draws = np.random.default_rng(6)
    scale = np.ldexp(draws.uniform(1, 2, (3000, 1)), exponent).astype(np.float32)
    codes = draws.integers(0, 16, (3000, 32)).astype(np.uint8)
    items = PackedTable.pack(CodeTable(codes, bits=4, scale=scale, offset=np.zeros((3000, 1), np.float32)))
    index = Index(items)
    compiled_kernels(float("inf"))
    queries = draws.normal(size=(3, 32)).astype(np.float32)
    fast, reference = (index.search(queries, 5, method=method) for method in ("fast", "reference"))
    np.testing.assert_array_equal(fast.ids, reference.ids)
    np.testing.assert_array_equal(fast.scores, reference.scores)


def test_the_widest_rows_of_the_largest_codes_do_not_overflow() -> None:
    codes = np.random.default_rng(7).integers(200, 256, (130, 32768)).astype(np.uint8)
    index = Index(PackedTable.pack(CodeTable(codes)))
    compiled_kernels(float("inf"))
    query = CodeTable(np.full((1, 32768), 255, np.uint8))
    fast, reference = (index.search(query, 3, method=method) for method in ("fast", "reference"))
    np.testing.assert_array_equal(fast.ids, reference.ids)
