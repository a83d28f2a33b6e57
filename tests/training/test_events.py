"""TensorBoard event files: their contents, a resumed run, and the message if tensorboard is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from rectoolkit.cli import main
from rectoolkit.runs.run import Run
from rectoolkit.training.events import scalars

pytest.importorskip("tensorboard")
RECIPE = str(Path(__file__).parents[2] / "recipes" / "ste.toml")


def command(data: Path, runs: Path, *more: str) -> list[str]:
    small = ["encoder.dim=8", "encoder.layers=1", "sampler.batch=256", "train.epochs=3", f'dataset.path="{data}"']
    sets = [part for setting in small for part in ("--set", setting)]
    return ["run", RECIPE, *sets, "--runs", str(runs), "--threads", "1", "--quiet", *more]


def written(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder / "tensorboard"))
    read.Reload()
    return {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def test_event_files_hold_what_the_log_holds(small_data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, command(small_data, tmp_path, "--tensorboard"))
    assert result.exit_code == 0, result.output
    run = Run.open(result.output.strip())
    rows = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    found = written(run.path)
    assert {"loss", "seconds", "validation/ndcg@20", "quantizer/users/entropy"} <= set(found)
    assert "epoch" not in found
    for tag, points in found.items():
        assert [step for step, _ in points] == [1, 2, 3], tag
    assert [value for _, value in found["validation/ndcg@20"]] == pytest.approx(
        [row["validation"]["ndcg@20"] for row in rows]
    )
    again = CliRunner().invoke(main, command(small_data, tmp_path, "--tensorboard"))
    assert again.exit_code == 0
    assert written(run.path) == found


def test_a_run_that_was_finished_before_is_written_from_its_log(small_data: Path, tmp_path: Path) -> None:
    made = CliRunner().invoke(main, command(small_data, tmp_path))
    assert made.exit_code == 0, made.output
    folder = Path(made.output.strip())
    assert CliRunner().invoke(main, command(small_data, tmp_path, "--tensorboard")).exit_code == 0
    assert [step for step, _ in written(folder)["validation/ndcg@20"]] == [1, 2, 3]


def test_an_epoch_stands_there_once_after_a_run_was_resumed(small_data: Path, tmp_path: Path) -> None:
    from rectoolkit.runs import execute

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execute, "save", killed)
        assert CliRunner().invoke(main, command(small_data, tmp_path, "--tensorboard")).exit_code == 130
    (folder,) = tmp_path.iterdir()
    assert [step for step, _ in written(folder)["loss"]] == [1, 2, 3]
    assert CliRunner().invoke(main, command(small_data, tmp_path, "--tensorboard")).exit_code == 0
    assert [step for step, _ in written(folder)["loss"]] == [1, 2, 3]


def test_without_tensorboard_the_command_to_type_is_told_before_training(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    result = CliRunner().invoke(main, command(small_data, tmp_path, "--tensorboard"))
    assert (result.exit_code, "pip install 'rectoolkit[tensorboard]'" in result.output) == (2, True), result.output
    assert not list(tmp_path.iterdir())


def test_scalars_are_the_numbers_of_a_row() -> None:
    row = {"epoch": 2, "loss": 1, "validation": {"recall@20": 0.5}, "quantizer": {"items": {"dead": 0.0, "kind": "a"}}}
    assert dict(scalars(row)) == {"loss": 1.0, "validation/recall@20": 0.5, "quantizer/items/dead": 0.0}
