"""Inverted lists: with all of them opened the hits are the exact ones; with few, only good items can be missed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rectoolkit.errors import FormatError, UserError
from rectoolkit.search import inverted_lists as approximate
from rectoolkit.search import packed as index
from rectoolkit.search.codes import CodeTable, PackedTable
from rectoolkit.search.inverted_lists import InvertedLists
from rectoolkit.search.packed import Index


@pytest.fixture(params=["kernels", "numpy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to score what a list holds."""
    if request.param == "kernels":
        pytest.importorskip("numba")
    monkeypatch.setattr(index, "_LOADED", index._Kernels())
    monkeypatch.setattr(index, "ENOUGH_WORK", 0.0 if request.param == "kernels" else np.inf)
    return str(request.param)


def clustered(
    rows: int, bits: int, grid: str = "symmetric", segments: tuple[int, ...] = (64,), seed: int = 0, centres: int = 40
) -> PackedTable:
    """Codes of vectors drawn around ``centres`` centres, the same for every seed."""
    dim, random = sum(segments), np.random.default_rng(seed)
    middle = np.random.default_rng(99).standard_normal((centres, dim))
    values = middle[random.integers(0, centres, rows)] + 0.5 * random.standard_normal((rows, dim))
    top = (1 << bits) - 1
    codes = np.clip(np.rint(values * top / 4 + top / 2), 0, top).astype(np.uint8)
    scale = np.full((rows if grid == "rows" else 1, len(segments)), 0.5, np.float32)
    if grid == "rows":
        scale += random.random(scale.shape, np.float32)
    if grid == "halves":
        scale = np.float32(2.0) ** random.integers(-3, 4, (rows, len(segments))).astype(np.float32)
    return PackedTable.pack(CodeTable(codes, scale, -scale * np.float32(top / 2), bits, segments))


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
@pytest.mark.parametrize(
    ("grid", "segments"), [("symmetric", (64,)), ("rows", (30, 67)), ("halves", (30, 67)), ("symmetric", (7,))]
)
@pytest.mark.parametrize("coded", [True, False])
def test_all_lists_give_the_hits_of_the_exact_index(
    way: str, bits: int, grid: str, segments: tuple[int, ...], coded: bool
) -> None:
    items, users = clustered(700, bits, grid, segments), clustered(9, bits, grid, segments, seed=1)
    queries: Any = users if coded else users.unpack().decode() + np.float32(0.01)
    lists, exact = InvertedLists.build(items, lists=13), Index(items)
    random = np.random.default_rng(0)
    masks: list[dict[str, Any]] = [
        {},
        {"seen": (np.arange(10) * 30, random.integers(0, 700, 270))},
        {"deny": random.integers(0, 700, 200)},
        {"allow": random.integers(0, 700, 20)},
    ]
    for mask in masks:
        for k, threads in ((20, 2), (700, 1)):
            found = lists.search(queries, k, probe=13, threads=threads, **mask)
            expected = exact.search(queries, k, method="reference", **mask)
            np.testing.assert_array_equal(found.ids, expected.ids)
            np.testing.assert_array_equal(found.scores, expected.scores)


def test_recall_rises_with_the_lists_opened_and_scores_are_exact() -> None:
    items, users = clustered(5000, 4), clustered(50, 4, seed=1)
    lists = InvertedLists.build(items)
    assert 71 < lists.lists <= 141
    assert InvertedLists.build(items.take([0])).lists == 1
    recalls = [lists.recall(users, 20, probe=probe) for probe in (1, 4, 16, 10**9)]
    assert recalls == sorted(recalls)
    assert recalls[1] > 0.6 > 20 / 5000
    assert recalls[0] < recalls[-1] == 1
    found, exact = lists.search(users, 20, probe=2), Index(items).search(users, 5000)
    score_of = [dict(zip(i, s, strict=True)) for i, s in zip(exact.ids.tolist(), exact.scores.tolist(), strict=True)]
    for ids, scores, known in zip(found.ids.tolist(), found.scores.tolist(), score_of, strict=True):
        assert [known[item] for item in ids if item >= 0] == [score for score in scores if np.isfinite(score)]


def test_seen_items_stay_out_of_few_lists(way: str) -> None:
    items, users = clustered(2000, 2), clustered(20, 2, seed=1)
    lists = InvertedLists.build(items, lists=20)
    first = lists.search(users, 30, probe=3).ids
    again = lists.search(users, 30, probe=3, seen=(np.arange(21) * 30, first.ravel())).ids
    assert all(not set(a) & set(b) - {-1} for a, b in zip(first.tolist(), again.tolist(), strict=True))


def test_a_saved_index_opens_with_the_same_hits(tmp_path: Path) -> None:
    items, users = clustered(3000, 3, "rows", (20, 44)), clustered(7, 3, "rows", (20, 44), seed=1)
    lists = InvertedLists.build(items, lists=50, generator=np.random.default_rng(5))
    lists.save(tmp_path / "items.lists")
    again = InvertedLists.open(tmp_path / "items.lists")
    assert (len(again), again.lists, again.nbytes) == (3000, lists.lists, lists.nbytes)
    for probe in (2, 50):
        found, expected = (one.search(users, 10, probe=probe) for one in (again, lists))
        np.testing.assert_array_equal(found.ids, expected.ids)
        np.testing.assert_array_equal(found.scores, expected.scores)
    InvertedLists.build(items, lists=50, generator=np.random.default_rng(5)).save(tmp_path / "twin.lists")
    assert (tmp_path / "twin.lists").read_bytes() == (tmp_path / "items.lists").read_bytes()


def test_many_queries_go_through_in_blocks(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Memory is that of a block: scores of lists are never more than ``BLOCK_PROMISES``, and the hits are the same."""
    items, users = clustered(3000, 2), clustered(100, 2, seed=1)
    lists = InvertedLists.build(items, lists=50)
    seen = (np.arange(101), np.arange(100) * 7)
    expected = lists.search(users, 10, probe=5, seen=seen, deny=[3])
    sizes, opened = [], InvertedLists._opened
    monkeypatch.setattr(approximate, "BLOCK_PROMISES", 7 * lists.lists)
    monkeypatch.setattr(
        InvertedLists, "_opened", lambda index, asked, p: sizes.append(len(asked.values)) or opened(index, asked, p)
    )
    found = lists.search(users, 10, probe=5, seen=seen, deny=[3])
    assert sizes == [7] * 14 + [2]
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_files_that_are_no_lists_are_refused(tmp_path: Path) -> None:
    items = clustered(100, 2)
    items.save(tmp_path / "items.codes")
    with pytest.raises(FormatError, match="holds codes, not lists"):
        InvertedLists.open(tmp_path / "items.codes")
    lists = InvertedLists.build(items, lists=5)
    InvertedLists(items, lists.ids, lists.starts + 1, lists.centroids).save(tmp_path / "wrong.lists")
    with pytest.raises(FormatError, match="field 'starts'"):
        InvertedLists.open(tmp_path / "wrong.lists")
    lists.save(tmp_path / "items.lists")
    (tmp_path / "cut.lists").write_bytes((tmp_path / "items.lists").read_bytes()[:-1])
    with pytest.raises(FormatError, match="its header says"):
        InvertedLists.open(tmp_path / "cut.lists")
    with pytest.raises(FormatError, match="holds lists, not codes"):
        Index.open(tmp_path / "items.lists")


def test_few_different_items_leave_no_empty_list(way: str) -> None:
    items = PackedTable.pack(CodeTable(np.repeat(np.eye(2, 8, dtype=np.uint8), 50, axis=0), bits=1))
    lists = InvertedLists.build(items, lists=10)
    assert lists.lists == 2
    assert np.diff(lists.starts).tolist() == [50, 50]
    found = lists.search(items.take([0]), 70, probe=1)
    assert sorted(found.ids[0, :50].tolist()) == list(range(50))
    assert (found.ids[0, 50:] == -1).all()
    assert np.isneginf(found.scores[0, 50:]).all()
    assert lists.search(items.take(slice(0, 0)), 3).ids.shape == (0, 3)


@pytest.mark.parametrize(
    ("lists", "told"), [(0, "at least 1"), (-3, "at least 1"), (2.0, "whole number"), (101, "number of items, 100")]
)
def test_lists_that_cannot_be_are_refused(lists: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        InvertedLists.build(clustered(100, 1), lists=lists)


def test_building_without_scikit_learn_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(UserError, match=r"building inverted lists needs sklearn.*pip install 'rectoolkit\[train\]'"):
        InvertedLists.build(clustered(100, 1), lists=5)


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(UserError, match="empty catalogue"):
        InvertedLists.build(clustered(0, 1))
    lists = InvertedLists.build(clustered(100, 1), lists=5)
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (clustered(2, 1), {"k": 0}, "k must be"),
        (clustered(2, 1), {"k": 3, "probe": 0}, "probe must be"),
        (clustered(2, 1, segments=(63,)), {"k": 3}, "queries of 63 dims"),
        (np.full((2, 64), np.nan, np.float32), {"k": 3}, "NaN"),
        (clustered(2, 1), {"k": 3, "deny": [100]}, "deny names item 100"),
    ]
    for queries, asked, told in wrong:
        with pytest.raises(UserError, match=told):
            lists.search(queries, **asked)
    with pytest.raises(UserError, match="at least one query"):
        lists.recall(clustered(0, 1), 3)
