"""The terminal: progress while a command works, and terminals that lack characters."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rectoolkit import terminal
from rectoolkit.terminal import TrainingBar, counting, downloading

ROOT = Path(__file__).parents[2]


def on_a_terminal(program: str) -> str:
    """The output of a Python program on a terminal of 60 columns, without control codes."""
    parent, child = pty.openpty()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "COLUMNS": "60",
        "TERM": "xterm",
    }
    process = subprocess.Popen([sys.executable, "-c", program], stdout=child, stderr=child, env=environment)
    os.close(child)
    told = b""
    try:
        while part := os.read(parent, 4096):
            told += part
    except OSError:  # the end of a pseudo-terminal
        pass
    assert process.wait() == 0, told.decode()
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", told.decode())


def test_the_bars_show_how_far_a_training_a_count_and_a_download_are() -> None:
    told = on_a_terminal("""
from rectoolkit.terminal import TrainingBar, counting, downloading
with TrainingBar(4, "ndcg@20") as bar:
    bar.stage("loading data: mine")
    bar.bar.refresh()
    bar.epoch({"epoch": 2, "loss": 0.5, "validation": {"ndcg@20": 0.25}})
    bar.step(2, 1, 2)
    bar.bar.refresh()
with counting("users") as count:
    count(1000, 3000)
with downloading() as fetched:
    fetched("train.txt", 500_000, 1_000_000)
    fetched("test.txt", 7, 0)
""")
    for shown in ("loading data: mine ...", "epoch 2/4 · loss 0.5000 · validation ndcg@20", "1000/3000", "0.5/1.0 MB"):
        assert shown in told
    assert max(map(len, re.split(r"[\r\n]+", told))) <= 60


def test_a_comparison_and_a_study_show_what_trains_and_what_has_ended() -> None:
    told = on_a_terminal("""
from rectoolkit.cli.compare import JobProgress
from rectoolkit.cli.tune import StudyProgress
from rectoolkit.compare.jobs import Job
from rectoolkit.recipe import Recipe
from rectoolkit.tune.space import Choice, Search
from rectoolkit.tune.store import Trial
recipe = Recipe.load("ste", ["train.epochs=4"])
one, two = Job("[a]", recipe), Job("b", recipe)
with JobProgress([one, two]) as jobs:
    jobs.began(one)
    jobs.began(two)
    jobs.stage(two, "training the teacher: t")
    jobs.epoch(one, {"epoch": 3, "seconds": 1.5})
    jobs.bars.refresh()
    jobs.ended(one, None)
    jobs.ended(two, "epoch 1: NaN")
with StudyProgress(recipe, Search({"train.epochs": Choice((2, 4))}, trials=9)) as study:
    study.stage("training the teacher: u")
    study.bar.refresh()
    study.began(3, {"train.epochs": 2})
    study.epoch({"epoch": 1})
    study.bar.refresh()
    study.ended(Trial(3, {"train.epochs": 2}, "pruned", 0.25, 1))
""")
    shown = ("[1/2] [a] seed 2023: trained 1.5 s", "[2/2] b seed 2023: failed: epoch 1: NaN", "trial 3 (4 of 9)", "1/2")
    shown += ("b seed 2023: training the teach", "training the teacher: u ...")
    for part in (*shown, "trial 3: train.epochs=2: cut short: ndcg@20 0.2500 at epoch 1", "3/4", "3/8"):
        assert part in told, part


def test_without_a_terminal_there_are_lines_and_no_bars(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingBar(40, "ndcg@20") as bar:
        bar.stage("loading data: mine")
        for epoch in range(1, 41):
            bar.step(epoch - 1, 1, 1)
            bar.epoch({"epoch": epoch, "loss": 0.5})
    with counting("users") as count, downloading() as fetched:
        count(1, 2)
        fetched("train.txt", 1, 2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "loading data: mine ..."
    assert lines[1:] == [f"epoch {epoch}/40 · loss 0.5000" for epoch in range(2, 41, 2)]
    assert not terminal.console.is_terminal


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_that_lacks_a_character_ends_no_command(small_run: Path, encoding: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONIOENCODING": encoding}
    for command in (["data", "show", "planted"], ["run", str(small_run)], ["runs", "--runs", str(small_run.parent)]):
        done = subprocess.run(
            [sys.executable, "-m", "rectoolkit", *command], env=environment, capture_output=True, check=False, cwd=ROOT
        )
        assert done.returncode == 0, done.stderr.decode()
        assert (b"?" in done.stdout) is False
        if encoding == "ascii" and command[0] != "runs":
            assert (b" ####" if command[0] == "data" else b"test users - ") in done.stdout


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-", "| true"])
def test_a_closed_stream_ends_no_command_with_a_traceback(closed: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = f"{{ {sys.executable} -m rectoolkit show hqgnn {closed}; }} 2> err.txt"
    done = subprocess.run(["bash", "-c", command], env=environment, check=False, cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "err.txt").read_text() == ""


def test_an_interrupt_at_any_time_is_one_line(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    begun = [sys.executable, "-c", "import rectoolkit.__main__ as program; print(1, flush=True); program.main()"]
    for seconds in (0.1, 0.2, 0.4, 1.5):
        with subprocess.Popen(
            [*begun, "run", "hqgnn"], env=environment, stdout=-1, stderr=-1, text=True, cwd=tmp_path
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(seconds)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
        assert (process.returncode, len(told.splitlines())) == (130, 1), told
        assert told.startswith("interrupted")
