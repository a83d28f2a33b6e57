"""``rectool runs``: run folders listed with their state, and removed after asking."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import rectool

from rectoolkit.recipe import Recipe
from rectoolkit.runs import execute
from rectoolkit.runs.run import Run


@pytest.fixture
def runs(small_run: Path, small_float_run: Path, tmp_path: Path) -> Path:
    """A folder of four finished runs, two of codes and two of float32."""
    folder = tmp_path / "runs"
    for run in (small_run, small_float_run):
        for seed in (1, 2):
            recipe = Recipe.load(run / "recipe.toml", {"seed": seed})
            copy = shutil.copytree(run, folder / recipe.folder_name)
            (copy / "recipe.toml").write_text(recipe.toml())
            change(copy / "environment.json", digest=recipe.digest)
    return folder


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


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
    assert first["seed"] == str(Recipe.load(one / "recipe.toml").seed)
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


DAMAGES: dict[str, Callable[[Path], object]] = {
    "an environment cut short": lambda run: os.truncate(run / "environment.json", 30),
    "no environment": lambda run: (run / "environment.json").unlink(),
    "an environment of a list": lambda run: (run / "environment.json").write_text("[]"),
    "an environment nested deep": lambda run: (run / "environment.json").write_text("[" * 99_999),
    "a folder as environment": lambda run: [
        (run / "environment.json").unlink(),
        (run / "environment.json").mkdir(),
    ],
    "data of text": lambda run: change(run / "environment.json", data="a"),
    "bits of text": lambda run: change(run / "environment.json", bits="two"),
    "a layout of text": lambda run: change(run / "environment.json", layout="two"),
    "another digest": lambda run: change(run / "environment.json", digest="0" * 64),
    "a digest of a number": lambda run: change(run / "environment.json", digest=5),
    "no recipe": lambda run: (run / "recipe.toml").unlink(),
    "a recipe of bytes": lambda run: (run / "recipe.toml").write_bytes(b"\xff\xfe"),
    "a section of a number": lambda run: (run / "recipe.toml").write_text("encoder = 3"),
    "another recipe": lambda run: (run / "recipe.toml").write_text(
        (run / "recipe.toml").read_text().replace("epochs = 1", "epochs = 2")
    ),
    "metrics of null": lambda run: change(run / "metrics.json", accuracy=None),
    "metrics of text": lambda run: change(run / "metrics.json", accuracy={"recall@20": "high"}),
    "metrics of bytes": lambda run: (run / "metrics.json").write_bytes(b"\xff{}"),
    "no codes": lambda run: (run / "items.codes").unlink(),
    "a folder as codes": lambda run: [(run / "items.codes").unlink(), (run / "items.codes").mkdir()],
    "changed interactions": lambda run: (run / "seen.bin").write_bytes((run / "seen.bin").read_bytes()[:-4] + b"abcd"),
    "changed float rows": lambda run: (run / "users.npy").write_bytes((run / "users.npy").read_bytes()[:-4] + b"abcd"),
    "nothing": lambda run: [shutil.rmtree(run), run.mkdir()],
    "a file in its place": lambda run: [shutil.rmtree(run), run.write_text("a")],
    "a link to nothing": lambda run: [shutil.rmtree(run), run.symlink_to("nowhere")],
    "a folder renamed": lambda run: run.rename(run.with_name("mine")),
    "a folder copied": lambda run: [shutil.copytree(run, run.with_name(f"copy-of-{run.name}")), shutil.rmtree(run)],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_a_row_and_can_be_removed(runs: Path, damage: str) -> None:
    before = listed(runs)
    assert {row["state"] for row in before.values()} == {"finished"}
    harmed = next(path for path in sorted(runs.iterdir()) if path.name.startswith("ste"))
    DAMAGES[damage](harmed)
    found = listed(runs)
    (name,) = [name for name, row in found.items() if row != before.get(name)]
    assert found[name]["state"] == "damaged", found[name]
    assert found[name]["detail"]
    assert len(found) == 4
    assert rectool("runs", "--runs", runs, "--remove", name, "--yes").exit_code == 0
    assert set(listed(runs)) == set(found) - {name}


def test_a_failure_that_is_not_text_is_shown_all_the_same(runs: Path) -> None:
    one = min(runs.iterdir())
    (one / "metrics.json").unlink()
    (one / "failure.txt").write_bytes(b"\xff disk full")
    found = listed(runs)[one.name]
    assert (found["state"], found["detail"].endswith("disk full")) == ("failed", True)


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
