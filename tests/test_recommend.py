"""Recommending from a run: by codes of both sides, by a float row against codes, and by floats among the best."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from rectoolkit import codes
from rectoolkit.cli import main
from rectoolkit.codes import CodeTable, PackedTable
from rectoolkit.errors import UserError
from rectoolkit.run import Run


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


def test_codes_of_rotated_rows_take_no_float_query(small_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    turned = [PackedTable.pack(CodeTable(random.integers(0, 4, (n, 16), np.uint8), bits=2)) for n in (150, 90)]
    monkeypatch.setattr(Run, "tables", lambda run: (turned[0], turned[1]))
    with pytest.raises(UserError, match="rotates or projects"):
        Run.open(small_run).recommend(3, float_query=True)
    assert Run.open(small_run).recommend(3, rescore=20).ids.shape == (1, 10)
