"""Data with its own ids: every request to a run takes and returns these ids, with the same result as row numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from rectoolkit import Estimator
from rectoolkit.cli import main
from rectoolkit.compare.charts import by_popularity, groups_of
from rectoolkit.data import Dataset, Ids
from rectoolkit.data.planted import Planted, generate
from rectoolkit.errors import UserError
from rectoolkit.recipe import Recipe
from rectoolkit.runs import lists
from rectoolkit.runs.execute import RunOptions, execute
from rectoolkit.runs.run import Run

STE = Path(__file__).parents[2] / "recipes" / "ste.toml"
SIZES = ["quantizer.bits=2", "encoder.dim=16", "encoder.layers=2", "sampler.batch=256", "train.epochs=1"]
USERS, ITEMS = 150, 90
NAMES = {
    "texts": ([f"Zoë {n:03d}" for n in range(USERS)], [f'The "{n:02d}", a film' for n in range(ITEMS)]),
    "numbers": ([7 * n + 10**12 for n in range(USERS)], [5 * n + 3 for n in range(ITEMS)]),
    "both": ([f"{n:03d}" for n in range(USERS)], [5 * n + 3 for n in range(ITEMS)]),
}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return generate(Planted(users=USERS, items=ITEMS, interactions=3000, communities=10, communities_per_user=2))


def trained(data: Dataset, runs: Path, **ids: Ids) -> Run:
    dataset = Dataset("mine", data.train, data.test, **ids)
    return execute(Recipe.load(STE, SIZES), RunOptions(runs, threads=1), dataset)


@pytest.fixture(scope="module")
def plain(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run whose users and items are row numbers."""
    return trained(data, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module", params=sorted(NAMES))
def named(data: Dataset, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same run, with ids that stand in the order of the rows."""
    users, items = (Ids.of(one) for one in NAMES[request.param])
    return trained(data, tmp_path_factory.mktemp("named"), user_ids=users, item_ids=items)


def names_of(run: Run) -> tuple[list[Any], list[Any]]:
    assert run.user_ids is not None
    assert run.item_ids is not None
    return run.user_ids.take(range(USERS)), run.item_ids.take(range(ITEMS))


def called(items: list[Any], ids: np.ndarray) -> list[list[Any]]:
    """Rows of items as the data calls them, without the -1 at their ends."""
    return [[items[item] for item in row if item >= 0] for row in ids.tolist()]


def without_end(ids: np.ndarray) -> list[list[Any]]:
    return [[item for item in row if item not in (-1, None)] for row in ids.tolist()]


def test_users_items_and_new_users_by_the_ids_of_the_data(plain: Run, named: Run) -> None:
    users, items = names_of(named)
    assert plain.items.planes.tobytes() == named.items.planes.tobytes()  # type: ignore[union-attr]
    for settings in ({}, {"float_query": True}, {"rescore": 90}, {"include_seen": True}):
        given, expected = named.recommend([users[5], users[3]], 90, **settings), plain.recommend([5, 3], 90, **settings)
        assert without_end(given.ids) == called(items, expected.ids)
        assert np.array_equal(given.scores, expected.scores)
    assert named.recommend(users[5], 4).ids.tolist() == called(items, plain.recommend(5, 4).ids)
    new, expected = (
        named.recommend(k=9, items=[[items[3], items[17]], [items[4]]]),
        plain.recommend(k=9, items=[[3, 17], [4]]),
    )
    assert without_end(new.ids) == called(items, expected.ids)
    assert without_end(named.recommend(k=9, items=[items[3], items[17]]).ids) == called(items, expected.ids[:1])
    alike, expected = named.similar_items([items[7], items[0]], 90), plain.similar_items([7, 0], 90)
    assert without_end(alike.ids) == called(items, expected.ids)
    codes, by_rows = (run.embed([one]) for run, one in ((named, [items[3], items[17]]), (plain, [3, 17])))
    assert codes.codes.tolist() == by_rows.codes.tolist()  # type: ignore[union-attr]
    rows = named.rank(np.array([5, 3]), 7)
    assert rows.ids.tolist() == plain.recommend([5, 3], 7).ids.tolist()


def recommended(run: Run, *arguments: object) -> list[dict[str, Any]]:
    result = CliRunner().invoke(main, ["recommend", str(run.path), *map(str, arguments), "-k", "6", "--json"])
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.output.splitlines()]


def test_the_command_takes_and_gives_the_ids_of_the_data(plain: Run, named: Run) -> None:
    users, items = names_of(named)
    three, seventeen = ('"' + str(items[n]).replace('"', '""') + '"' for n in (3, 17))
    for of, arguments, by_rows in (
        (users[5], ["--user", users[5]], ["--user", 5]),
        ([items[3], items[17]], ["--items", f"{three}, {seventeen}"], ["--items", "3,17"]),
        (items[7], ["--similar-to", items[7]], ["--similar-to", 7]),
    ):
        (answer,), (expected,) = recommended(named, *arguments), recommended(plain, *by_rows)
        kind = next(iter(expected))
        assert answer[kind] == of
        assert answer["items"] == [items[item] for item in expected["items"]]
        assert answer["scores"] == expected["scores"]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_lists_of_all_users_hold_the_ids_of_the_data(
    plain: Run, named: Run, tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "BLOCK_HITS", 2000)
    (users, items), path = names_of(named), tmp_path / f"lists.{ending}"
    arguments = ["recommend", str(named.path), "--all", "-k", "90", "--to", str(path)]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    expected = called(items, plain.recommend(list(range(USERS)), 90).ids)
    if ending == "jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert [row["user"] for row in rows] == users
        assert [row["items"] for row in rows] == expected
        return
    kinds = {name: str if isinstance(one, str) else np.int64 for name, one in (("user", users[0]), ("item", items[0]))}
    frame = pd.read_csv(path, dtype=kinds) if ending == "csv" else pd.read_parquet(path)
    grouped = frame.groupby("user", sort=False)["item"].apply(list)
    assert grouped.index.tolist() == users
    assert grouped.tolist() == expected


def test_lists_without_an_item_are_still_a_file(named: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "named", lambda run, hits: type(hits)(np.full_like(hits.ids, -1), hits.scores))
    lists.write_lists(named, tmp_path / "a.parquet", 3)
    assert pd.read_parquet(tmp_path / "a.parquet").columns.tolist() == ["user", "rank", "item", "score"]


def test_unknown_ids_are_told_with_known_ones(named: Run) -> None:
    users, items = names_of(named)
    unknown = "Zoé" if isinstance(users[0], str) else 10**12 + 1
    for call, told in (
        (lambda: named.recommend(unknown), f"user '{unknown}' is unknown: there are 150 users"),
        (
            lambda: named.recommend(items=[items[0], 10**15]),
            "item '1000000000000000' is unknown: there are 90, such as ",
        ),
        (lambda: named.similar_items(10**15), "item '1000000000000000' is unknown"),
        (lambda: named.recommend([1.5]), "users must be one or more ids, as the data has them"),
        (lambda: named.recommend([[users[0]], [users[1], users[2]]]), "users must be one or more ids"),
        (lambda: named.recommend(items=[[items[0]], []]), "items must be one or more ids"),
    ):
        with pytest.raises(UserError) as raised:
            call()
        assert told in str(raised.value)
    undecodable = CliRunner().invoke(main, ["recommend", str(named.path), "--user", "\udcff"])
    assert (undecodable.exit_code, "Traceback" in undecodable.output) == (2, False)


def test_what_popularity_takes_from_a_run_is_by_rows(plain: Run, named: Run, data: Dataset) -> None:
    groups = groups_of(data.train.item_degrees, data.test.item_degrees)
    assert by_popularity(named, data, 20, groups) == by_popularity(plain, data, 20, groups)


def test_an_estimator_keeps_the_ids_of_its_frame_wherever_it_goes(plain: Run, data: Dataset, tmp_path: Path) -> None:
    users, items = NAMES["texts"]
    rows, columns = data.train.pairs()
    frame = {"who": [users[n] for n in rows.tolist()], "what": [items[n] for n in columns.tolist()]}
    model = Estimator("ste", {"encoder.dim": 16, "train.epochs": 1}, threads=1).fit(frame, user="who", item="what")
    path = model.save(tmp_path / "a")
    moved = shutil.move(path, tmp_path / "b")
    run, model = Run.open(moved), Estimator.open(moved)
    known = frame["who"][0]
    assert run.recommend(known, 5).ids.tolist() == model.recommend(known, 5).ids.tolist()
    assert recommended(run, "--user", known)[0]["items"][:5] == model.recommend(known, 5).ids[0].tolist()
    run.export(tmp_path / "out", ["npy"])
    assert np.load(tmp_path / "out" / "users.ids.npy").tolist() == sorted(set(frame["who"]))


def test_a_damaged_fold_in_or_ids_make_a_run_unfinished(data: Dataset, tmp_path: Path) -> None:
    ids = {"user_ids": Ids.of(NAMES["texts"][0])}
    run = trained(data, tmp_path, **ids)
    for name in ("fold_in.bin", "users.ids"):
        whole = (run.path / name).read_bytes()
        (run.path / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        trained(data, tmp_path, **ids)
        assert (run.path / name).read_bytes() == whole
