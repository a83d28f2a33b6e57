"""Recommendations of a run: by codes, by float rows, similar items, and the lists of all users as a file."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from rectoolkit.cli import main
from rectoolkit.data import Interactions
from rectoolkit.errors import UserError
from rectoolkit.recipe import Recipe
from rectoolkit.recipe.registry import quantizers
from rectoolkit.runs import lists
from rectoolkit.runs import run as module
from rectoolkit.runs.execute import RunOptions, execute
from rectoolkit.runs.run import Run
from rectoolkit.search import codes, open_index
from rectoolkit.search.codes import CodeTable, PackedTable
from rectoolkit.search.keys import mix


def rectool_recommend(run: Path, *arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["recommend", str(run), "--user", "3", "--json", *map(str, arguments)])
    assert "Traceback" not in result.output
    return result.exit_code, result.output


def test_a_float_query_is_ranked_against_the_items_codes(small_run: Path) -> None:
    run = Run.open(small_run)
    hits = run.recommend([3, 5], 12, float_query=True)
    users, (_, items) = run.float_rows()[0], run.tables()
    scores = codes.dot(np.array(users[[3, 5]]), items.unpack()).astype(np.float32)
    for row, user in enumerate((3, 5)):
        assert not set(hits.ids[row].tolist()) & set(run.seen.row(user).tolist())
        scores[row, run.seen.row(user)] = -np.inf
    np.testing.assert_array_equal(hits.scores, -np.sort(-scores, axis=1)[:, :12])
    assert not np.array_equal(hits.scores, run.recommend([3, 5], 12).scores)
    assert run.recommend(3, 90, float_query=True, include_seen=True).ids.min() == 0


def test_rescoring_ranks_the_best_by_codes_again_by_floats(small_run: Path) -> None:
    run = Run.open(small_run)
    candidates = run.recommend(3, 20).ids[0]
    hits = run.recommend(3, 6, rescore=20)
    users, items = run.float_rows()
    exact = items[candidates].astype(np.float64) @ users[3].astype(np.float64)
    assert hits.ids[0].tolist() == candidates[np.argsort(-exact)[:6]].tolist()
    both = run.recommend(3, 6, rescore=90, float_query=True, include_seen=True)
    assert both.ids[0].tolist() == np.argsort(-(items @ users[3]))[:6].tolist()


def test_a_request_reads_the_rows_of_its_users_alone_and_the_index_is_kept(
    small_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, made = Run.open(small_run), []
    expected = Run.open(small_run).recommend([3, 5], 10)
    monkeypatch.setattr(Interactions, "user_degrees", property(lambda self: pytest.fail("all users were read")))
    monkeypatch.setattr(module, "open_index", lambda items: made.append(items) or open_index(items))
    for settings in ({}, {}, {"float_query": True}, {"rescore": 20}):
        assert run.recommend([3, 5], 10, **settings).ids.shape == (2, 10)
    assert np.array_equal(run.recommend([3, 5], 10).ids, expected.ids)
    run.recommend(items=[1, 2])
    assert len(made) == 1


def test_the_command_asks_the_same(small_run: Path) -> None:
    run = Run.open(small_run)
    for arguments, settings in (
        (["--float-query"], {"float_query": True}),
        (["--rescore", 30], {"rescore": 30}),
        (
            ["--float-query", "--rescore", 30, "--include-seen"],
            {"float_query": True, "rescore": 30, "include_seen": True},
        ),
    ):
        code, output = rectool_recommend(small_run, *arguments)
        assert code == 0, output
        assert json.loads(output)["items"] == run.recommend(3, 10, **settings).ids[0].tolist()


def test_what_has_no_answer_is_refused(small_run: Path, small_float_run: Path) -> None:
    for run, arguments, told in (
        (small_float_run, ["--float-query"], "no codes"),
        (small_float_run, ["--rescore", 20], "no codes"),
        (small_run, ["--rescore", 5], "at least k (10)"),
        (small_run, ["--rescore", 0], "--rescore"),
    ):
        code, output = rectool_recommend(run, *arguments)
        assert (code, told in output) == (2, True), output


@pytest.mark.parametrize("name", quantizers.names())
def test_codes_that_mix_dims_take_no_float_query(small_data: Path, tmp_path: Path, name: str) -> None:
    """A quantizer declares correctly whether its codes correlate with the float rows dim by dim."""
    encoder = ["encoder.combine=concat"] if name in ("bigear", "bgch") else []
    sizes = ["encoder.dim=16", "encoder.layers=2", "sampler.batch=256", "train.epochs=1", *encoder]
    recipe = Recipe.load("ste", [f'dataset.path="{small_data}"', f"quantizer.name={name}", *sizes])
    run = execute(recipe, RunOptions(tmp_path, threads=1))
    if name == "float32":
        return
    mixes = quantizers.settings(recipe["quantizer"]).mixes_dims()
    assert run.environment["mixes_dims"] == mixes
    decoded, rows = run.items.unpack().decode(), run.float_rows()[1]
    aligned = decoded.shape == rows.shape and np.corrcoef(decoded.ravel(), rows.ravel())[0, 1] > 0.4
    assert aligned == (not mixes)
    if mixes:
        with pytest.raises(UserError, match="rotates or projects"):
            run.recommend(3, float_query=True)
    else:
        assert run.recommend(3, float_query=True).ids.shape == (1, 10)
    assert run.recommend(3, rescore=20).ids.shape == (1, 10)


def test_items_alike_are_those_of_the_largest_cosine(small_run: Path, small_float_run: Path) -> None:
    for path in (small_run, small_float_run):
        run = Run.open(path)
        values = run.items.unpack().decode() if isinstance(run.items, PackedTable) else np.array(run.items)
        unit = values / np.linalg.norm(values, axis=1, keepdims=True)
        hits = run.similar_items([7, 0, 7], 5)
        for row, item in enumerate((7, 0, 7)):
            cosines = unit @ unit[item]
            cosines[item] = -np.inf
            np.testing.assert_allclose(hits.scores[row], -np.sort(-cosines)[:5], atol=1e-6)
            np.testing.assert_allclose(cosines[hits.ids[row]], hits.scores[row], atol=1e-6)
        assert np.array_equal(hits.ids[0], hits.ids[2])
        assert run.similar_items(7, 500).ids[0, -2:].min() == -1  # all others, and then nothing
        assert sorted(run.similar_items(7, 500).ids[0, :-1].tolist()) == [i for i in range(90) if i != 7]
        for wrong, told in ((90, "item 90 is unknown"), ("a", "integer ids")):
            with pytest.raises(UserError, match=told):
                run.similar_items(wrong)  # type: ignore[arg-type]


def test_items_alike_do_not_depend_on_how_the_table_is_cut(monkeypatch: pytest.MonkeyPatch, small_run: Path) -> None:
    from rectoolkit.search import neighbours

    whole = Run.open(small_run).similar_items(list(range(90)), 8)
    monkeypatch.setattr(neighbours, "BLOCK", 7)
    monkeypatch.setattr(neighbours, "AT_ONCE", 11)
    cut = Run.open(small_run).similar_items(list(range(90)), 8)
    np.testing.assert_allclose(cut.scores, whole.scores, atol=1e-6)
    assert (cut.ids == whole.ids).mean() > 0.95


def test_items_alike_are_found_in_one_pass_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes of 64 bits with many equal cosines, all of them exact: the k best by key, a row decoded a few times."""
    from rectoolkit.search import neighbours as module

    codes = np.random.default_rng(0).integers(0, 2, (40, 64), np.uint8)
    signs = {"bits": 1, "scale": np.full((1, 1), 2, np.float32), "offset": np.full((1, 1), -1, np.float32)}
    table = PackedTable.pack(CodeTable(codes[np.random.default_rng(1).integers(0, 40, 9000)], **signs))
    decoded, units = [], module._units
    monkeypatch.setattr(module, "_units", lambda table, rows: decoded.append(len(rows)) or units(table, rows))
    asked = np.arange(0, 9000, 9)
    hits = module.neighbours(table, asked, 300)
    assert sum(decoded) <= 9000 + len(asked)
    values = table.unpack().decode()
    for row in (0, 500, 999):
        cosines = values @ values[asked[row]] / 64
        order = np.lexsort((mix(np.arange(9000)), -cosines))
        right = order[order != asked[row]][:300]
        assert hits.ids[row].tolist() == right.tolist()
        assert hits.scores[row].tolist() == cosines[right].tolist()


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_lists_of_all_users_are_those_of_each(
    small_run: Path, tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "BLOCK_HITS", 100)  # 16 blocks, the last one short
    run, path = Run.open(small_run), tmp_path / f"lists.{ending}"
    result = CliRunner().invoke(main, ["recommend", str(small_run), "--all", "-k", "10", "--to", str(path)])
    assert result.exit_code == 0, result.output
    assert "150 users" in result.output
    expected = run.recommend(list(range(150)), 10)
    if ending == "jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        users, items = [row["user"] for row in rows], [row["items"] for row in rows]
        scores = [row["scores"] for row in rows]
    else:
        frame = pd.read_csv(path) if ending == "csv" else pd.read_parquet(path)
        assert frame["rank"].tolist() == list(range(1, 11)) * 150
        grouped = frame.groupby("user", sort=False)
        users, items = list(grouped.groups), grouped["item"].apply(list).tolist()
        scores = grouped["score"].apply(list).tolist()
    assert users == list(range(150))
    assert items == expected.ids.tolist()
    assert np.array_equal(np.float32(scores), expected.scores)


def test_a_list_ends_where_nothing_is_left_to_rank(small_run: Path, tmp_path: Path) -> None:
    run, path = Run.open(small_run), tmp_path / "lists.csv"
    assert lists.write_lists(run, path, 90) == 150
    counts = pd.read_csv(path)["user"].value_counts()
    assert {user: 90 - len(run.seen.row(user)) for user in range(150)} == counts.to_dict()


def test_lists_cut_short_leave_no_file(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, rows: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lists.Csv, "write", full)
    result = CliRunner().invoke(main, ["recommend", str(small_run), "--all", "--to", str(tmp_path / "a.csv")])
    assert (result.exit_code, "No space left" in result.output) == (1, True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--all"], "--to names"),
        (["--user", "1", "--to", "a.csv"], "--to names"),
        (["--all", "--to", "a.xlsx"], "unknown suffix '.xlsx'"),
        (["--all", "--to", "none/a.csv"], "none: no such folder"),
        (["--similar-to", "3", "--include-seen"], "--include-seen is for users"),
    ],
)
def test_wrong_ways_to_ask_are_told(small_run: Path, arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(main, ["recommend", str(small_run), *arguments])
    assert (result.exit_code, told in result.output) == (2, True), result.output


def test_without_pyarrow_the_command_to_type_is_told(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = CliRunner().invoke(main, ["recommend", str(small_run), "--all", "--to", str(tmp_path / "a.parquet")])
    assert (result.exit_code, "pip install 'rectoolkit[export]'" in result.output) == (2, True), result.output


def test_a_terminal_shows_a_table_and_a_pipe_plain_lines(small_run: Path) -> None:
    command = [sys.executable, "-m", "rectoolkit", "recommend", str(small_run), "--similar-to", "3", "-k", "2"]
    piped = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert piped.startswith("similar to 3: ")
    assert len(piped.split()) == 5
    leader, follower = pty.openpty()
    shown = subprocess.run(command, stdout=follower, check=True)
    os.close(follower)
    text = os.read(leader, 10_000).decode()
    os.close(leader)
    assert shown.returncode == 0
    assert "similar to 3" in text
    assert "rank" in text
    assert "┏" in text
