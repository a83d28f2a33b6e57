"""``rectool tune``: the search file, pruned trials, kill -9, and that a study never reads the test set."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from command_line import Answer, rectool

from rectoolkit.cli import main
from rectoolkit.data.catalog import load_data
from rectoolkit.errors import UserError
from rectoolkit.recipe import Recipe
from rectoolkit.runs.execute import RunOptions, execute
from rectoolkit.runs.layout import read_json
from rectoolkit.tune.space import Choice, Search
from rectoolkit.tune.store import Store, Trial
from rectoolkit.tune.study import identity_of

pytest.importorskip("optuna")
RECIPE = Path(__file__).parents[2] / "recipes" / "ste.toml"
SMALL = ["encoder.dim=8", "encoder.layers=1", "sampler.batch=256", "train.epochs=3", "quantizer.bits=2"]
SEARCH = """
[search]
trials = 9
seed = 3
"encoder.layers" = [0, 1, 2]
"train.rate" = { low = 1e-4, high = 1e-1, log = true }
encoder.dim = { low = 8, high = 16, step = 8 }
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> Path:
    """``search.toml``, and an undisturbed study of it in ``study``."""
    place = tmp_path_factory.mktemp("tune")
    (place / "search.toml").write_text(SEARCH)
    result = CliRunner().invoke(main, command(place, small_data, place / "study"))
    assert result.exit_code == 0, result.output
    return place


def command(place: Path, data: Path, out: Path, *settings: str, search: Path | None = None) -> list[str]:
    overrides = [part for s in (f'dataset.path="{data}"', *SMALL, *settings) for part in ("--set", s)]
    found = search or place / "search.toml"
    return ["tune", str(RECIPE), "--search", str(found), *overrides, "--out", str(out), "--threads", "1"]


def trials(folder: Path) -> list[dict[str, Any]]:
    content = read_json(folder / "study.json")["trials"] if (folder / "study.json").exists() else []
    return [{key: value for key, value in trial.items() if key != "seconds"} for trial in content]


def test_a_study_tries_what_it_was_told_and_writes_the_best_as_a_recipe(place: Path, tmp_path: Path) -> None:
    found = trials(place / "study")
    assert [trial["number"] for trial in found] == list(range(9))
    assert {trial["values"]["encoder.layers"] for trial in found} <= {0, 1, 2}
    assert {trial["values"]["encoder.dim"] for trial in found} <= {8, 16}
    assert all(1e-4 <= trial["values"]["train.rate"] <= 1e-1 for trial in found)
    assert {"finished", "pruned"} == {trial["state"] for trial in found}
    best = max((trial for trial in found if trial["state"] == "finished"), key=lambda trial: trial["best"])
    recipe = Recipe.load(place / "study" / "best.toml")
    assert (recipe["encoder"]["dim"], recipe["train"]["rate"]) == tuple(
        best["values"][key] for key in ("encoder.dim", "train.rate")
    )
    run = execute(recipe, RunOptions(tmp_path, threads=1))
    rows = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    assert max(row["validation"]["ndcg@20"] for row in rows) == best["best"]
    assert not list((place / "study").glob("trial-*"))


def test_a_trial_cut_short_was_below_the_median(place: Path) -> None:
    for trial in trials(place / "study"):
        if trial["state"] == "pruned":
            last = max(map(int, trial["validation"]))
            before = [t for t in trials(place / "study")[: trial["number"]] if t["state"] == "finished"]
            bests = sorted(max(v for e, v in t["validation"].items() if int(e) <= last) for t in before)
            assert trial["best"] <= bests[len(bests) // 2]
            assert len(before) >= 5


@pytest.mark.slow
def test_kill_and_the_same_command_end_in_the_same_study(place: Path, small_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    program = [sys.executable, "-m", "rectoolkit", *command(place, small_data, out)]
    environment = {**os.environ, "RECTOOL_CHECKPOINT_SECONDS": "0"}
    killed = 0
    for done in (0, 2, 5, 6):
        process = subprocess.Popen(program, env=environment, stdout=subprocess.DEVNULL)
        while process.poll() is None and not (len(trials(out)) >= done and list(out.glob("trial-*/checkpoint.pt"))):
            time.sleep(0.002)
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert killed == 4
    assert len(trials(out)) < 9
    (out / "trial-0-left").mkdir()  # what a kill between the file and the clearing leaves
    subprocess.run(program, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert trials(out) == trials(place / "study")
    assert (out / "best.toml").read_bytes() == (place / "study" / "best.toml").read_bytes()
    assert not list(out.glob("trial-*"))


def test_more_trials_go_on_and_the_first_ones_stay(place: Path, small_data: Path, tmp_path: Path) -> None:
    (tmp_path / "fewer.toml").write_text(SEARCH.replace("trials = 9", "trials = 4"))
    fewer = rectool(*command(place, small_data, tmp_path / "study", search=tmp_path / "fewer.toml"))
    assert fewer.exit_code == 0, fewer.output
    assert trials(tmp_path / "study") == trials(place / "study")[:4]
    assert rectool(*command(place, small_data, tmp_path / "study")).exit_code == 0
    assert trials(tmp_path / "study") == trials(place / "study")


def test_the_test_part_plays_no_part(place: Path, small_data: Path, tmp_path: Path) -> None:
    data = shutil.copytree(small_data, tmp_path / "data")
    rows = [line.split() for line in (data / "test.txt").read_text().splitlines()]
    (data / "test.txt").write_text("\n".join(" ".join(row[:2]) for row in rows) + "\n")
    result = rectool(*command(place, data, tmp_path / "study"))
    assert result.exit_code == 0, result.output
    assert trials(tmp_path / "study") == trials(place / "study")


def test_a_study_of_something_else_is_refused_with_the_difference(
    place: Path, small_data: Path, tmp_path: Path
) -> None:
    before = (place / "study" / "study.json").read_bytes()
    other = tmp_path / "other.toml"
    other.write_text(SEARCH.replace("high = 1e-1", "high = 1e-2"))
    data = shutil.copytree(small_data, tmp_path / "data")
    (data / "test.txt").write_text("".join((data / "test.txt").read_text().splitlines(keepends=True)[:-1]))
    for arguments, told in (
        (command(place, small_data, place / "study", "loss.l2=0.5"), "recipe: loss.l2 was 0.01, is 0.5"),
        (command(place, small_data, place / "study", search=other), '"high": 0.1, "log": true}, is {"low"'),
        (command(place, data, place / "study"), "data: digest was"),
    ):
        result = rectool(*arguments)
        assert (result.exit_code, told in result.output) == (2, True), result.output
    assert (place / "study" / "study.json").read_bytes() == before


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('"encoder.layer" = [1]', "did you mean 'layers'"),
        ('"encoder.layers" = [1, 99]', "encoder.layers: must be a whole number from 0 to 16, got 99"),
        ('"encoder.layers" = { low = 3, high = 1 }', "low (3) must be below high (1)"),
        (
            '"encoder.layers" = { low = 1.5, high = 2.5 }',
            "encoder.layers: must be a whole number from 0 to 16, got 1.5",
        ),
        ('"train.rate" = { low = 0.0, high = 1.0, log = true }', "needs low above 0"),
        ('"train.rate" = { low = 0.1, high = 1.0, logg = true }', "did you mean 'log'"),
        ('"train.rate" = 0.1', "must be a list"),
        ('"train.rate" = []', "nothing to try"),
        ('"train.monitor" = ["recall@20"]', "cannot be searched"),
        ('"train.held" = ["random", "last"]', "cannot be searched"),
        ('"dataset.name" = ["planted"]', "cannot be searched"),
        ('"quantiser.bits" = [1]', "did you mean 'quantizer'"),
        ('"quantizer.name" = ["ste", "gtse"]', "did you mean 'gste'"),
        ('"quantizer.name" = ["ste", "itq"]\n"quantizer.bits" = [1, 2]', "quantizer.bits"),
        ("trails = 3", "did you mean 'trials'"),
        ("trials = 0", "search.trials: must be a whole number from 1"),
        ("trials = 10001", "search.trials: must be a whole number from 1 to 10000, got 10001"),
        ("trials = 3", "names no setting"),
    ],
)
def test_what_cannot_be_searched_is_told_before_anything_runs(
    place: Path, small_data: Path, tmp_path: Path, lines: str, told: str
) -> None:
    (tmp_path / "search.toml").write_text("[search]\n" + lines + "\n")
    result = rectool(*command(place, small_data, tmp_path / "study", search=tmp_path / "search.toml"))
    assert (result.exit_code, told in result.output) == (2, True), result.output
    assert not (tmp_path / "study").exists()


def test_what_a_trial_reads_belongs_to_the_study(
    place: Path, small_data: Path, small_float_run: Path, tmp_path: Path
) -> None:
    """A searched teacher is checked before anything runs, and one trained again is another study."""
    for name in ("one", "two", "strange"):
        shutil.copytree(small_float_run, tmp_path / name)
    environment = read_json(tmp_path / "strange" / "environment.json")
    environment["data"]["digest"] = "0" * 64
    (tmp_path / "strange" / "environment.json").write_text(json.dumps(environment))

    def tuned(out: str, *teachers: str) -> Answer:
        values = [str(tmp_path / name) for name in teachers]
        (tmp_path / "search.toml").write_text(f'[search]\ntrials = 1\n"loss.teacher" = {json.dumps(values)}\n')
        own = ["loss.name=distill", f'loss.teacher="{tmp_path / "one"}"', "train.epochs=1"]
        return rectool(*command(place, small_data, tmp_path / out, *own, search=tmp_path / "search.toml"))

    refused = tuned("refused", "one", "strange")
    assert (refused.exit_code, "another split" in refused.output) == (2, True), refused.output
    assert not (tmp_path / "refused").exists()
    for _ in range(2):
        assert tuned("study", "one", "two").exit_code == 0
    np.save(tmp_path / "two" / "items.npy", np.load(tmp_path / "two" / "items.npy")[::-1])
    (tmp_path / "two" / "metrics.json").write_text('{"crc32": {}}')  # as if trained again
    refused = tuned("study", "one", "two")
    assert (refused.exit_code, "two/items.npy was" in refused.output) == (2, True), refused.output


def test_a_plugin_edited_and_the_order_of_lines_belong_to_the_study(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path / "edited_plugin.py"
    plugin.write_text("")
    monkeypatch.chdir(tmp_path)
    recipe = Recipe.load(RECIPE, [f'dataset.path="{small_data}"', *SMALL, 'plugins=["edited_plugin"]'])
    search = Search({"encoder.layers": Choice((0, 1))}, trials=1)
    dataset = load_data(recipe["dataset"])
    first = identity_of(recipe, search, dataset, [recipe])
    plugin.write_text("# edited\n")
    again = identity_of(recipe, search, dataset, [recipe])
    assert {part for part in first if first[part] != again[part]} == {"plugin"}
    last = recipe.with_settings({"train.held": "last"})
    assert "order" not in again["data"]
    assert identity_of(last, search, dataset, [last])["data"]["order"]


def test_a_new_setting_with_a_default_refuses_no_study(small_data: Path) -> None:
    recipe = Recipe.load(RECIPE, [f'dataset.path="{small_data}"', *SMALL])
    search, dataset = Search({"encoder.layers": Choice((0, 1))}, trials=1), load_data(recipe["dataset"])
    newer = replace(recipe, sections={**recipe.sections, "train": {**recipe["train"], "warmup": 0}})
    facts = identity_of(recipe, search, dataset, [recipe])
    assert identity_of(newer, search, dataset, [newer]) == facts
    assert facts["recipe"]["encoder.name"] == "lightgcn"
    for other in ({"train.patience": 3}, {"quantizer.name": "lsq"}, {"seed": 1}):
        assert identity_of(recipe.with_settings(other), search, dataset, [recipe]) != facts, other


def test_the_training_of_a_teacher_is_told(place: Path, small_data: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher.toml"
    teacher.write_text(Recipe.load("lightgcn", [*SMALL[:3], "train.epochs=1"]).toml())
    (tmp_path / "search.toml").write_text('[search]\ntrials = 1\n"train.rate" = [0.01]\n')
    own = ["loss.name=distill", f'loss.teacher="{teacher}"', "train.epochs=1"]
    result = rectool(*command(place, small_data, tmp_path / "study", *own, search=tmp_path / "search.toml"))
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    begun = lines.index(f"training the teacher: {teacher} ...")
    assert begun < lines.index(next(line for line in lines if line.startswith("trial 0: ")))


def test_a_recipe_without_validation_has_nothing_to_search_by(place: Path, small_data: Path, tmp_path: Path) -> None:
    result = rectool(*command(place, small_data, tmp_path / "study", "train.validation=0"))
    assert (result.exit_code, "nothing to select by" in result.output) == (2, True), result.output


def test_a_trial_that_diverges_leaves_the_others_going(place: Path, small_data: Path, tmp_path: Path) -> None:
    (tmp_path / "search.toml").write_text('[search]\ntrials = 4\n"train.rate" = [0.01, 1e38]\n')
    result = rectool(*command(place, small_data, tmp_path / "study", search=tmp_path / "search.toml"))
    assert result.exit_code == 0, result.output
    states = {trial["values"]["train.rate"]: trial["state"] for trial in trials(tmp_path / "study")}
    assert states == {0.01: "finished", 1e38: "failed"}
    assert Recipe.load(tmp_path / "study" / "best.toml")["train"]["rate"] == 0.01


def test_a_study_is_stored_and_read_again(tmp_path: Path) -> None:
    for trials in ([], [Trial(n, {"encoder.layers": n}, "pruned", 0.5, 1, {1: 0.5, 3: 0.25}, 2.0) for n in range(3)]):
        Store(tmp_path, {"recipe": {"name": "a"}}).save(trials)
        assert Store(tmp_path, {"recipe": {"name": "a"}}).load() == trials
    with pytest.raises(UserError, match='recipe: name was "a", is "b"'):
        Store(tmp_path, {"recipe": {"name": "b"}}).load()


def test_without_optuna_the_command_to_type_is_told(
    place: Path, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = rectool(*command(place, small_data, tmp_path / "study"))
    assert (result.exit_code, "pip install 'rectoolkit[tune]'" in result.output) == (2, True), result.output
