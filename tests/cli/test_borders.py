"""Wrong types at the borders of the Python API end in one clear UserError, never in a traceback from the depths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rectoolkit.cli.recommend import _id
from rectoolkit.data import Ids, Interactions
from rectoolkit.errors import UserError
from rectoolkit.evaluation.evaluate import rows_of, take
from rectoolkit.recipe import Recipe
from rectoolkit.runs.estimator import Estimator
from rectoolkit.runs.execute import RunOptions
from rectoolkit.runs.export import export
from rectoolkit.runs.run import Run
from rectoolkit.search.codes import CodeTable, PackedTable
from rectoolkit.search.float32 import FloatIndex
from rectoolkit.search.index import Rescore
from rectoolkit.search.inverted_lists import InvertedLists
from rectoolkit.search.neighbours import neighbours
from rectoolkit.search.packed import Index

ITEMS = PackedTable.pack(CodeTable(np.random.default_rng(0).integers(0, 4, (50, 8), np.uint8), bits=2))
ROWS = np.random.default_rng(1).standard_normal((50, 8)).astype(np.float32)
WRONG_COUNTS: list[Any] = ["a", None, 2.0, 0, -1, True, [3], float("nan"), np.float32(3)]
WRONG_QUERIES: list[Any] = [
    "a",
    None,
    5,
    [],
    [[1, 2]],
    [["a"] * 8],
    {},
    ROWS[0],
    ROWS[:, 1:],
    ROWS.astype(int),
    object(),
]
WRONG_SEEN: list[Any] = ["ab", 5, (1,), ([0, 1], [2]), ([0, 1, 1, 1], ["a"]), ([0, 1, 1, 1], [50]), (None, None)]
WRONG_IDS: list[Any] = ["a", 5, [[1]], [1.5], [50], [-1], [None], {1: 2}]


@pytest.mark.parametrize("k", WRONG_COUNTS)
def test_k_is_a_count_everywhere(small_run: Path, k: Any) -> None:
    run, queries = Run.open(small_run), ITEMS.take([0, 1, 2])
    for call in (
        lambda: run.recommend(1, k),
        lambda: run.recommend(1, 3, rescore=k) if k is not None else run.recommend(1, k),
        lambda: Index(ITEMS).search(queries, k),
        lambda: Index(ITEMS).search(queries, 3, rescore=Rescore(ROWS[:3], ROWS, k)),
        lambda: FloatIndex(ROWS).search(ROWS[:3], k),
        lambda: InvertedLists.build(ITEMS, lists=4).search(queries, k),
        lambda: InvertedLists.build(ITEMS, lists=4).search(queries, 3, probe=k),
    ):
        with pytest.raises(UserError, match=r"whole number|rescore"):
            call()


@pytest.mark.parametrize("threads", [value for value in WRONG_COUNTS if value is not None])
def test_threads_are_a_count_everywhere(threads: Any) -> None:
    for index, queries in ((Index(ITEMS), ITEMS), (FloatIndex(ROWS), ROWS)):
        with pytest.raises(UserError, match="threads must be a whole number"):
            index.search(queries, 3, threads=threads)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="threads must be a whole number"):
        RunOptions(threads=threads)


def test_run_options_take_what_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(RunOptions(threads=np.int64(2)).threads) is int  # type: ignore[arg-type]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert RunOptions(device="cuda:0").on_device().device == "cuda:0"
    with pytest.raises(UserError, match="torch sees 1 GPUs"):
        RunOptions(device="cuda:1").on_device()


def test_only_data_is_fitted_and_only_to_a_folder_saved(small_run: Path) -> None:
    for data in (None, 5, "clicks.csv", [(1, 2)]):
        with pytest.raises(UserError, match="must be a frame, a dictionary of two columns or Interactions"):
            Estimator("mf").fit(data)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="saved to a folder"):
        Run.open(small_run).save(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "", 0, None, "CPU"])
def test_devices_are_named_as_torch_has_them(device: Any) -> None:
    with pytest.raises(UserError, match="device must be 'auto', 'cpu', 'cuda' or 'cuda:N'"):
        RunOptions(device=device)


def test_settings_may_be_numbers_of_numpy_and_nothing_that_toml_lacks() -> None:
    recipe = Recipe.load(Path(__file__).parents[2] / "recipes" / "hqgnn.toml")
    changed = recipe.with_settings({"quantizer.bits": np.int64(2), "train.rate": np.float64(0.5)})
    assert (changed["quantizer"]["bits"], changed["train"]["rate"]) == (2, 0.5)
    for value in (None, object(), np.zeros(2), {1: 2}, lambda: 1):
        with pytest.raises(UserError, match=r"quantizer\.bits"):
            recipe.with_settings({"quantizer.bits": value})


@pytest.mark.parametrize("queries", WRONG_QUERIES, ids=lambda value: repr(value)[:12])
def test_queries_are_tables_or_float_rows(queries: Any) -> None:
    for index in (Index(ITEMS), FloatIndex(ROWS), InvertedLists.build(ITEMS, lists=4)):
        with pytest.raises(UserError, match="queries"):
            index.search(queries, 3)  # type: ignore[attr-defined]


@pytest.mark.parametrize("seen", WRONG_SEEN, ids=repr)
def test_seen_is_a_csr_pair(seen: Any) -> None:
    for index, queries in ((Index(ITEMS), ITEMS.take([0, 1, 2])), (FloatIndex(ROWS), ROWS[:3])):
        with pytest.raises(UserError, match="seen"):
            index.search(queries, 3, seen=seen)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "items", [ROWS, None, 5, "items.codes", ITEMS.unpack()], ids=lambda value: type(value).__name__
)
def test_an_index_is_made_of_packed_codes(items: Any) -> None:
    with pytest.raises(UserError, match="an index is made of a PackedTable"):
        Index(items)
    with pytest.raises(UserError, match="an index is made of a PackedTable"):
        InvertedLists.build(items)


@pytest.mark.parametrize("rescore", [5, (1,), (ROWS[:3], ROWS, 9), "a", {}], ids=lambda value: repr(value)[:8])
def test_rescore_is_a_rescore(rescore: Any) -> None:
    with pytest.raises(UserError, match="rescore must be a Rescore"):
        Index(ITEMS).search(ITEMS.take([0, 1, 2]), 3, rescore=rescore)


@pytest.mark.parametrize("ids", WRONG_IDS, ids=repr)
def test_allow_and_deny_are_item_ids(ids: Any) -> None:
    for name in ("allow", "deny"):
        with pytest.raises(UserError, match=name):
            Index(ITEMS).search(ITEMS.take([0]), 3, **{name: ids})


WRONG_ROWS: list[Any] = [
    [-1],
    [-2, 3],
    [1.5],
    [2.0],
    [np.nan],
    [[1]],
    1,
    [True],
    np.ones(50, bool),
    [9999],
    ["a"],
    [None],
]
WRONG_ROWS += [[2**64], np.array([2**63], np.uint64), [[1], [2, 3]]]


@pytest.mark.parametrize("rows", WRONG_ROWS, ids=lambda value: repr(value)[:12])
def test_row_numbers_never_count_from_the_end(small_run: Path, rows: Any) -> None:
    run = Run.open(small_run)
    for call in (
        lambda: ITEMS.take(rows),
        lambda: ITEMS.unpack().take(rows),
        lambda: neighbours(ITEMS, rows, 3),
        lambda: neighbours(ROWS, rows, 3),
        lambda: run.rank(rows),
        lambda: run.rank(rows, include_seen=True),
        lambda: run.rank(rows, float_query=True),
        lambda: run.rank(rows, 3, rescore=5),
        lambda: rows_of(run.seen, rows),
        lambda: take(run.float_rows()[0], rows),
    ):
        with pytest.raises(UserError, match=r"rows|users"):
            call()


@pytest.mark.parametrize(
    "codes",
    [
        [[1, 2]],
        None,
        np.array([[1.5]]),
        np.array([[-1]]),
        np.array([[4]], np.uint8),
        np.zeros(3, np.uint8),
        np.ones((2, 2), bool),
    ],
    ids=repr,
)
def test_codes_are_small_integers_of_numpy(codes: Any) -> None:
    with pytest.raises(UserError, match="codes"):
        CodeTable(codes, bits=2)
    with pytest.raises(UserError, match="planes"):
        PackedTable(codes, 2)
    with pytest.raises(UserError, match="items must be a float32 array"):
        FloatIndex(codes)
    with pytest.raises(UserError, match="scale must be a numpy array"):
        CodeTable(np.zeros((1, 2), np.uint8), 1.0)  # type: ignore[arg-type]


def test_ids_on_the_command_line_have_64_bits() -> None:
    for number in (1780000000000000001, 2**63 - 1, 2**64 - 1, -(2**63)):
        assert _id("user", str(number), None) == number
    assert _id("user", "9" * 40, Ids.of(["9" * 40])) == "9" * 40
    for written in ("9" * 21, "1.0", "x", ""):
        with pytest.raises(UserError, match=r"user '.*': this run's users are integers of 64 bits"):
            _id("user", written, None)
    snowflakes = Ids.of([1780000000000000000 + row for row in range(6)])
    assert snowflakes.rows(np.array([1780000000000000005])).tolist() == [5]
    assert snowflakes.rows(np.array([1780000000000000005], np.uint64)).tolist() == [5]
    with pytest.raises(UserError, match="is unknown"):
        snowflakes.rows(np.array([2**64 - 1], np.uint64))


def test_users_out_of_range_have_no_pairs() -> None:
    pairs = Interactions.from_pairs([0, 1, 1], [2, 0, 1])
    for user in (-1, 2, 1.0, True):
        with pytest.raises(UserError, match="users"):
            pairs.contains([[user]], [0])
    with pytest.raises(UserError, match="rows names row -1, but ids are 0 to 2"):
        Ids.of([5, 6, 7]).take([-1])


def test_hits_far_beyond_the_catalogue_take_no_gigabytes() -> None:
    queries = ITEMS.take([0, 1, 2])
    for index, asked in ((Index(ITEMS), queries), (FloatIndex(ROWS), ROWS[:3])):
        assert (index.search(asked, 1000).ids[:, 50:] == -1).all()  # type: ignore[arg-type]
        with pytest.raises(UserError, match="k must be at most 50, the number of items"):
            index.search(asked, (1 << 32) - 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("users", [None, "a", {}, [[1]], 1.0, [1, None], [10**30], -1, np.array([1.0])], ids=repr)
def test_users_are_ids(small_run: Path, users: Any) -> None:
    with pytest.raises(UserError, match="user"):
        Run.open(small_run).recommend(users)


def test_the_rest(small_run: Path, tmp_path: Path) -> None:
    calls: list[tuple[Any, str]] = [
        (lambda: Run.open(5), "path"),  # type: ignore[arg-type]
        (lambda: Recipe.load(5), "path"),  # type: ignore[arg-type]
        (lambda: Recipe.check("name"), "sections"),  # type: ignore[arg-type]
        (lambda: Recipe.load("recipes/ste.toml", "quantizer.bits=2"), "list"),
        (lambda: Recipe.load("recipes/ste.toml", [3]), "list"),  # type: ignore[list-item]
        (lambda: export(ITEMS, ITEMS, tmp_path, "codes"), "list"),
        (lambda: export(ITEMS, ITEMS, tmp_path, [3]), "unknown export format"),  # type: ignore[list-item]
        (lambda: Index(ITEMS).search(ITEMS, 3, method="slow"), "method"),  # type: ignore[arg-type]
        (lambda: InvertedLists.build(ITEMS, lists="a"), "lists"),  # type: ignore[arg-type]
    ]  # fmt: skip
    for call, told in calls:
        with pytest.raises(UserError, match=told):
            call()
