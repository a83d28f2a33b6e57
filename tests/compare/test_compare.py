"""Many runs in one table: the plan, the table, csv and Markdown, and kill -9."""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import rectool

from rectoolkit.compare.figures import Comparison, compare_runs
from rectoolkit.compare.jobs import Job, run_jobs
from rectoolkit.compare.plan import make_plan
from rectoolkit.compare.tables import cells, fitted, table_width
from rectoolkit.errors import UserError
from rectoolkit.recipe import Recipe
from rectoolkit.runs.execute import RunOptions
from rectoolkit.runs.run import Run

# The plan


def test_a_wrong_third_recipe_is_told_before_anything_runs(place: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "third.toml"
    wrong.write_text((place / "coded.toml").read_text().replace('"ste"', '"stee"'))
    result = rectool("compare", place / "coded.toml", place / "floats.toml", wrong, "--runs", tmp_path / "runs")
    assert result.exit_code == 2
    assert "did you mean 'ste'?" in result.output
    assert "third.toml" in result.output
    assert not (tmp_path / "runs").exists()


def test_an_override_that_a_recipe_does_not_know_is_a_fault(place: Path) -> None:
    with pytest.raises(UserError, match=r"floats\.toml.*quantizer\.bits"):
        make_plan([place / "coded.toml", place / "floats.toml"], ["quantizer.bits=1"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--baseline", "codde"], "did you mean 'coded'?"),
        (["--sort", "recall@11"], "recall@10"),
        (["--seeds", "0"], "--seeds"),
        (["--out", __file__], "is a file, or lies in one; name a folder to write to"),
        (["--out", f"{__file__}/in"], "is a file, or lies in one; name a folder to write to"),
        (["--set", f"seed={2**63 - 1}", "--seeds", "2"], "seed"),
    ],
)
def test_wrong_options_end_with_code_2(place: Path, tmp_path: Path, options: list[str], told: str) -> None:
    result = rectool("compare", place / "coded.toml", *options, "--runs", tmp_path / "runs")
    assert result.exit_code == 2
    assert told in result.output
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_is_read_only_is_told_before_anything_runs(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    result = rectool("compare", place / "coded.toml", "--out", tmp_path, "--runs", tmp_path / "runs")
    assert result.exit_code == 2
    assert f"{tmp_path}: cannot be written to" in result.output
    assert not (tmp_path / "runs").exists()


def test_rows_are_recipes_that_differ_in_more_than_their_seed(place: Path, tmp_path: Path) -> None:
    text = (place / "coded.toml").read_text()
    (tmp_path / "a.toml").write_text(text.replace("seed = 5", "seed = 6"))
    (tmp_path / "b.toml").write_text(text.replace("layers = 1", "layers = 2"))
    plan = make_plan([place / "coded.toml", tmp_path / "a.toml", tmp_path / "b.toml"], seeds=2)
    assert [row.label for row in plan.rows] == ["coded encoder.layers=1", "coded encoder.layers=2"]
    assert [[recipe.seed for recipe in row.recipes] for row in plan.rows] == [[5, 6, 7], [5, 6]]


def test_metrics_are_those_that_all_measure(place: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text((place / "coded.toml").read_text().replace('"recall@10", "ndcg@10"', '"map@5", "ndcg@10"'))
    plan = make_plan([place / "floats.toml", other])
    assert plan.metrics == ("ndcg@10",)
    assert "map@5, recall@10" in plan.notes[0]
    other.write_text((place / "coded.toml").read_text().replace('"recall@10", "ndcg@10"', '"map@5"'))
    with pytest.raises(UserError, match="no metric in common"):
        make_plan([place / "floats.toml", other])


def test_recipes_on_different_data_are_refused(place: Path, small_data: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.toml"
    text = (place / "coded.toml").read_text().replace('"coded"', '"elsewhere"')
    elsewhere.write_text(text.replace(str(place / "data"), str(small_data)))
    result = rectool("compare", place / "coded.toml", elsewhere, "--runs", tmp_path / "runs")
    assert result.exit_code == 2
    assert re.search(r"digest \w{12}; 120 users, 70 items.*: coded\n.*digest \w{12}; .*: elsewhere", result.output)
    assert not (tmp_path / "runs").exists()


def test_runs_begun_on_other_data_are_refused(place: Path, tmp_path: Path) -> None:
    runs = shutil.copytree(place / "runs", tmp_path / "runs")
    environment = next(runs.glob("coded-*")) / "environment.json"
    content = json.loads(environment.read_text())
    content["data"]["digest"] = "0" * 64
    environment.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"{environment.parent.name} \(digest 000000000000; 120 users"):
        make_plan([place / "coded.toml", place / "floats.toml"], seeds=2, runs=runs)


def test_a_finished_run_whose_teacher_changed_is_not_compared(place: Path, tmp_path: Path) -> None:
    teacher, runs = tmp_path / "teacher", tmp_path / "runs"
    shutil.copytree(next((place / "runs").glob("floats-*")), teacher)
    (teacher / "environment.json").unlink()
    changes = ["loss.name=distill", f"loss.teacher={teacher}"]
    words = ["compare", place / "coded.toml", *(f"--set={one}" for one in changes), "--runs", runs]
    made = rectool(*words)
    assert made.exit_code == 0, made.output
    assert rectool(*words).exit_code == 0
    np.save(teacher / "users.npy", 2 * np.load(teacher / "users.npy"))
    again = rectool(*words)
    assert (again.exit_code, "begun with another content of" in " ".join(again.output.split())) == (2, True)


@pytest.mark.parametrize("damage", ["{", '{"epoch": 1}\n', "[]\n"])
def test_a_damaged_log_is_named(place: Path, tmp_path: Path, damage: str) -> None:
    runs = shutil.copytree(place / "runs", tmp_path / "runs")
    for folder in runs.glob("coded-*"):
        (folder / "log.jsonl").write_text(damage)
    result = rectool("compare", place / "coded.toml", place / "floats.toml", "--runs", runs, "--out", tmp_path / "out")
    assert (result.exit_code, "log.jsonl: " in result.output) == (2, True), result.output


def test_a_setting_varied_is_a_row_a_value_named_by_it(place: Path) -> None:
    plan = make_plan([place / "coded.toml"], vary=["quantizer.bits=1,2,4"], seeds=2)
    assert [row.label for row in plan.rows] == ["coded bits=1", "coded bits=2", "coded bits=4"]
    assert [[recipe["quantizer"]["bits"] for recipe in row.recipes] for row in plan.rows] == [[1, 1], [2, 2], [4, 4]]
    both = make_plan([place / "coded.toml"], vary=["quantizer.name=ste,gste", "encoder.layers=0, 2"])
    assert [row.label for row in both.rows] == [
        f"coded name={name} layers={layers}" for name in ("ste", "gste") for layers in (0, 2)
    ]
    with_others = make_plan([place / "coded.toml", place / "floats.toml"], vary=["encoder.layers=1,2"])
    assert [row.label for row in with_others.rows][2:] == ["floats layers=1", "floats layers=2"]
    assert make_plan([place / "coded.toml"], vary=["quantizer.bits=1,2"], baseline="coded bits=1").rows


@pytest.mark.parametrize(
    ("vary", "told"),
    [
        (["quantizer.bits"], "must read section.key=value,value"),
        (["quantizer.bits="], "must read section.key=value,value"),
        (["quantizer.bits=1,1"], "given twice"),
        (["quantizer.bits=1", "quantizer.bits=2"], "given twice"),
        (["quantizer.bits=2,9"], "from 1 to 8"),
        (["quantiser.bits=2"], "did you mean 'quantizer'"),
    ],
)
def test_what_cannot_be_varied_is_told(place: Path, vary: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        make_plan([place / "coded.toml"], vary=vary)


# The table and the files


def test_a_piped_table_fits_and_keeps_what_was_asked_for(place: Path, compared: Comparison) -> None:
    options = ("--seeds", 2, "--baseline", "coded", "--runs", place / "runs", "--device", "cpu")
    narrow = rectool("compare", place / "coded.toml", place / "floats.toml", *options).output
    table = [line for line in narrow.splitlines() if line[:1] in "┏┃┡│└"]
    assert max(map(len, table)) <= 100
    assert "recall@10 - coded" in narrow
    assert "left out to fit 100 columns: training (s)" in narrow
    wide = rectool("compare", place / "coded.toml", place / "floats.toml", *options, "--wide").output
    for head in cells(compared)[0]:
        assert head in wide
    for width in (70, 80, 120, 1000):
        heads, rows, left_out = fitted(compared, width)
        assert sorted([*heads, *left_out]) == sorted(cells(compared)[0])
        assert {"recipe", "recall@10"} <= set(heads)
        assert table_width(heads, rows) <= width


def test_the_table_holds_means_and_deviations_of_the_runs(place: Path, compared: Comparison) -> None:
    rows = {row["recipe"]: row for row in csv.DictReader((place / "out" / "table.csv").open())}
    assert set(rows) == {"coded", "floats"}
    for name, row in rows.items():
        runs = [Run.open(path) for path in (place / "runs").glob(f"{name}-*")]
        assert len(runs) == int(row["seeds"]) == 2
        for metric in ("recall@10", "ndcg@10"):
            one, other = (run.metrics["accuracy"][metric] for run in runs)
            assert float(row[metric]) == pytest.approx((one + other) / 2)
            assert float(row[f"{metric} deviation"]) == pytest.approx(abs(one - other) / np.sqrt(2))
    assert float(rows["floats"]["bits_per_node"]) == 32 * 8
    assert rows["coded"]["recall@10 t_p"] == ""
    d = np.mean([r.per_user().values["recall@10"] for r in compared.rows[0].runs], axis=0)
    d = d - np.mean([r.per_user().values["recall@10"] for r in compared.rows[1].runs], axis=0)
    sign = 1 if compared.rows[0].label == "floats" else -1
    assert float(rows["floats"]["recall@10 difference"]) == pytest.approx(sign * d.mean())
    assert float(rows["floats"]["recall@10 effect"]) == pytest.approx(sign * d.mean() / d.std(ddof=1))


def test_csv_of_runs_and_markdown_say_the_same(place: Path, compared: Comparison) -> None:
    runs = list(csv.DictReader((place / "out" / "runs.csv").open()))
    assert sorted((row["recipe"], row["seed"]) for row in runs) == sorted(itertools.product(("coded", "floats"), "56"))
    assert all((place / "runs" / f"{row['recipe']}-{row['digest'][:8]}").is_dir() for row in runs)
    text = (place / "out" / "table.md").read_text()
    assert "2 runs shared the machine" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads, rows = cells(compared)
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == heads
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]] == rows


def test_sorted_as_asked(place: Path) -> None:
    for sort, first in (("bytes_per_item", "coded"), ("name", "coded")):
        plan = make_plan([place / "floats.toml", place / "coded.toml"], seeds=2, sort=sort)
        assert compare_runs(plan, place / "runs").rows[0].label == first
    plan = make_plan([place / "floats.toml", place / "coded.toml"], seeds=2, sort="ndcg@10")
    values = [row.accuracy["ndcg@10"].mean for row in compare_runs(plan, place / "runs").rows]
    assert values == sorted(values, reverse=True)


# Stages, interrupts and failures


class Stages:
    """The stages and epochs that a job tells."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def began(self, job: Job) -> None: ...

    def stage(self, job: Job, what: str) -> None:
        self.told.append(what)

    def epoch(self, job: Job, row: dict[str, Any]) -> None:
        self.told.append(f"epoch {row['epoch']}")

    def ended(self, job: Job, failure: str | None) -> None: ...


def test_the_stages_of_a_job_and_the_training_of_its_teacher_are_told(place: Path, tmp_path: Path) -> None:
    teacher = place / "floats.toml"
    recipe = Recipe.load(place / "coded.toml", ["loss.name=distill", f'loss.teacher="{teacher}"', "train.epochs=1"])
    stages = Stages()
    assert run_jobs([Job("taught", recipe)], RunOptions(tmp_path / "runs", threads=1), 1, stages) == {}
    trained = stages.told.index(f"training the teacher: {teacher}")
    assert trained < stages.told.index("epoch 1") < stages.told.index("measuring the codes on the test part")


@pytest.mark.slow
def test_kill_and_the_same_command_again_give_the_same_codes(place: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    names = ["compare", str(place / "coded.toml"), str(place / "floats.toml"), "--threads", "1", "--device", "cpu"]
    command = [sys.executable, "-m", "rectoolkit", *names, "--runs", str(runs)]
    parent = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    while not list(runs.glob("*/environment.json")):
        assert parent.poll() is None
        time.sleep(0.005)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    again = rectool(*names, "--runs", runs)
    assert again.exit_code == 0, again.output
    made = sorted(path.name for path in runs.iterdir())
    assert len(made) == 2
    for name in made:
        for side in ("users", "items"):
            file = f"{side}.npy"
            assert (runs / name / file).read_bytes() == (place / "runs" / name / file).read_bytes()
    assert rectool(*names, "--runs", runs).output.count("[") == 0  # all reused: nothing is run


def test_an_interrupt_is_not_told_as_a_failure(place: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    names = ["compare", str(place / "coded.toml"), "--set", "train.epochs=5000", "--threads", "1", "--device", "cpu"]
    command = [sys.executable, "-m", "rectoolkit", *names, "--runs", str(runs)]
    parent = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    while not list(runs.glob("*/environment.json")):
        assert parent.poll() is None
        time.sleep(0.005)
    os.kill(parent.pid, signal.SIGINT)
    told, _ = parent.communicate()
    assert parent.returncode == 130, told
    assert "interrupted; the same command" in told
    assert "failed" not in told


def test_a_failed_run_is_told_while_the_others_go_on(place: Path) -> None:
    (place / "wild.toml").write_text(
        (place / "coded.toml")
        .read_text()
        .replace("0.02", "1e38")
        .replace("coded", "wild")
        .replace("seed = 5", "seed = 9")
    )
    options = ("--runs", place / "runs", "--threads", 1, "--device", "cpu", "--baseline", "coded")
    result = rectool("compare", place / "wild.toml", place / "coded.toml", *options)
    assert result.exit_code == 1
    assert re.search(r"failed: wild seed 9: epoch 1.*holds NaN or infinity", result.output)
    assert re.search(r"│ coded +│ +1 │", result.output)
