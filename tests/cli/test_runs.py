"""``rectool runs``: run folders listed with their state, and removed after asking."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path

import pytest
from command_line import rectool

from rectoolkit.runs import execute
from rectoolkit.runs.run import Run


@pytest.fixture
def runs(small_run: Path, small_float_run: Path, tmp_path: Path) -> Path:
    """A folder of four finished runs, two of codes and two of float32."""
    folder = tmp_path / "runs"
    for run in (small_run, small_float_run):
        for number in (1, 2):
            shutil.copytree(run, folder / f"{run.name}{number}")
    return folder


def test_runs_are_listed_and_removed_after_asking(runs: Path) -> None:
    names = sorted(path.name for path in runs.iterdir())
    (runs / names[0] / "metrics.json").unlink()
    (runs / "notes").mkdir()  # no run folder: neither listed nor removed
    listed = rectool("runs", "--runs", runs).output
    assert [name for name in names if name in listed] == names
    assert f"{names[0]}: interrupted: 1 of 1 epochs logged" in listed
    assert listed.count("finished") == 3
    assert "notes" not in listed
    assert names[0] not in rectool("runs", "ste*", "--runs", runs).output
    for name in ("../runs", "notes", ".", names[0][:-1]):
        assert rectool("runs", "--runs", runs, "--remove", name, "--yes").exit_code == 2
    assert "removed" not in rectool("runs", "--runs", runs, "--remove", names[0], input="n\n").output
    assert (runs / names[0]).exists()
    assert rectool("runs", "--runs", runs, "--remove", names[0], input="y\n").exit_code == 0
    assert sorted(path.name for path in runs.iterdir()) == sorted([*names[1:], "notes"])


def listed(runs: Path, *arguments: str) -> dict[str, dict[str, str]]:
    result = rectool("runs", "--runs", runs, "--json", *arguments)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.output.splitlines() if line.startswith("{")]
    return {Path(row["folder"]).name: row for row in rows}


def test_a_runs_state_is_told_from_its_files_and_its_lock(runs: Path) -> None:
    three, four, one, two = sorted(runs.iterdir())
    first = listed(runs)[one.name]
    assert {key: first[key] for key in ("data", "encoder", "quantizer", "bits", "state", "detail")} == {
        "data": "mine", "encoder": "lightgcn", "quantizer": "ste", "bits": "2", "state": "finished", "detail": "",
    }  # fmt: skip
    assert first["seed"] == "2023"
    assert first["metric"] == f"recall@20 {Run.open(one).metrics['accuracy']['recall@20']:.4f}"
    (one / "items.codes").write_bytes((one / "items.codes").read_bytes()[:-9])
    for folder in (two, three, four):
        (folder / "metrics.json").unlink()
    (two / "log.jsonl").write_text('{"epoch": 1, "loss"')  # cut short: the state does not hang on it
    (three / "failure.txt").write_text("epoch 1: NaN\n")
    with open(four / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = listed(runs)
    assert [found[path.name]["state"] for path in (one, two, three, four)] == [
        "damaged", "interrupted", "failed", "running",
    ]  # fmt: skip
    assert found[three.name]["detail"] == "epoch 1: NaN"
    assert "items.codes" in found[one.name]["detail"]
    assert set(listed(runs, "--where", "state=failed")) == {three.name}
    assert set(listed(runs, "--where", "quantizer=float32", "--where", "bits=32")) == {three.name, four.name}
    for wrong, told in (("states=failed", "did you mean 'state'"), ("state=fail", "'failed'"), ("bits", "key=value")):
        assert told in rectool("runs", "--runs", runs, "--where", wrong).output
    assert rectool("runs", "--runs", runs, "--where", "state=failed", "--remove-listed", input="n\n").exit_code == 0
    assert three.exists()
    rectool("runs", "--runs", runs, "--where", "state=failed", "--remove-listed", "--yes")
    assert sorted(path.name for path in runs.iterdir()) == sorted(path.name for path in (one, two, four))


def test_a_failure_is_kept_until_the_next_attempt(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (f'dataset.path="{small_data}"', "encoder.dim=8", "encoder.layers=1", "train.epochs=1")
    command = ("run", "ste", *(f"--set={one}" for one in settings), "--runs", tmp_path, "--quiet", "--threads", "1")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(execute, "measure", full)
    assert rectool(*command).exit_code == 1
    (found,) = listed(tmp_path).values()
    assert (found["state"], "No space left" in found["detail"]) == ("failed", True)
    monkeypatch.undo()
    assert rectool(*command).exit_code == 0
    (found,) = listed(tmp_path).values()
    assert found["state"] == "finished"
    assert not list(tmp_path.glob("*/failure.txt"))
