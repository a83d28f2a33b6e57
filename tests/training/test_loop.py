"""The training loop: it learns, repeats itself, goes on where it was killed, and stops on NaN."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rectoolkit.data import Interactions
from rectoolkit.errors import FormatError, TrainingError
from rectoolkit.model.recommender import Parts, Recommender, assemble
from rectoolkit.recipe import Recipe
from rectoolkit.recipe.registry import encoders, losses, quantizers, samplers
from rectoolkit.runs.layout import CHECKPOINT, LOG
from rectoolkit.training import checkpoint
from rectoolkit.training.callbacks import Callback
from rectoolkit.training.loop import fit, learning_rate

ROOT = Path(__file__).parents[2]
HQGNN = ROOT / "recipes" / "hqgnn.toml"
SMALL = ["encoder.dim=8", "encoder.layers=2", "sampler.batch=64", "train.epochs=6", "train.validation=0"]


def parts_of(train: Interactions, *overrides: str) -> tuple[Parts, dict[str, Any]]:
    small = [setting for setting in SMALL if "encoder.name=mf" not in overrides or setting != "encoder.layers=2"]
    recipe = Recipe.load(HQGNN, [*small, *overrides])
    return assemble(recipe, train), recipe["train"]


def tables_of(model: Recommender) -> list[np.ndarray]:
    return [getattr(table, "codes", table) for table in model.tables(model.real())]


class StopsAt(Callback):
    """Ends the training as a kill would, after so many epochs."""

    def __init__(self, epoch: int, batch: int) -> None:
        self.at = (epoch, batch)

    def step(self, epoch: int, batch: int, batches: int) -> None:
        if (epoch, batch) == self.at:
            raise KeyboardInterrupt


# every component, and those settings under which one draws on its way
RESUMED = [
    *(f"quantizer.name={name} encoder.combine=concat" for name in quantizers.names()),
    *(f"quantizer.name=ste encoder.name={name}" for name in encoders.names()),
    "quantizer.name=ste encoder.name=ngcf encoder.dropout=0.5",
    "quantizer.name=ste encoder.name=graphsage encoder.fan_out=2",
    *(f"quantizer.name=ste loss.name={name}" for name in losses.names() if name != "softmax_distill"),
    "quantizer.name=ste sampler.name=shared loss.name=softmax_distill",
    "quantizer.clip=inward sampler.name=shared loss.name=softmax_distill loss.own=0.5 loss.soft=0.5",
    *(f"quantizer.name=ste sampler.name={name}" for name in samplers.names()),
    "quantizer.name=ste sampler.name=shared sampler.power=0.5 loss.name=softmax",
    "quantizer.hash_layer=true quantizer.guidance=0.8 encoder.normalize=true",
    "quantizer.scale=row quantizer.bits=2 encoder.precision=bfloat16 sampler.name=shared loss.name=softmax",
    "quantizer.curvature=hutchinson encoder.name=graphsage encoder.fan_out=2 sampler.name=hard",
]


@pytest.mark.parametrize("changes", RESUMED)
@pytest.mark.parametrize("at", [(0, 1), (3, 2)])
def test_a_resumed_training_ends_in_the_bytes_of_an_undisturbed_one(
    tiny: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: str, at: tuple[int, int]
) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    overrides = changes.split()
    if "distill" in changes:
        overrides.append(f"loss.teacher={tmp_path}")
        for side, rows in (("users", tiny.num_users), ("items", tiny.num_items)):
            np.save(tmp_path / f"{side}.npy", np.random.default_rng(rows).standard_normal((rows, 4), np.float32))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    parts, settings = parts_of(tiny, *overrides)
    fit(parts, settings, whole)
    interrupted, _ = parts_of(tiny, *overrides)
    with pytest.raises(KeyboardInterrupt):
        fit(interrupted, settings, broken, callback=StopsAt(*at))
    torch.rand(7)  # another process: torch's own stream stands elsewhere
    again, _ = parts_of(tiny, *overrides)
    fit(again, settings, broken)
    for ours, theirs in zip(tables_of(again.model), tables_of(parts.model), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for key, value in parts.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[key], value), key
    losses = [[json.loads(line)["loss"] for line in (f / LOG).read_text().splitlines()] for f in (whole, broken)]
    assert losses[0] == losses[1]


class Interrupted(Callback):
    """Ctrl-C at a step, and what is told of the training."""

    def __init__(self, epoch: int = -1, times: int = 1) -> None:
        self.at, self.times = epoch, times
        self.stages: list[str] = []
        self.epochs: list[int] = []

    def step(self, epoch: int, batch: int, batches: int) -> None:
        if (epoch, batch) == (self.at, 1):
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)

    def stage(self, what: str) -> None:
        self.stages.append(what)

    def epoch(self, row: dict[str, Any]) -> None:
        self.epochs.append(row["epoch"])

    def resume(self, rows: list[dict[str, Any]]) -> None:
        assert [row["epoch"] for row in rows] == [*range(1, len(rows) + 1)]


def test_ctrl_c_saves_the_finished_epochs_and_resuming_says_so(
    tiny: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 3600.0)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    parts, settings = parts_of(tiny)
    fit(parts, settings, whole)
    for told, finished in ((Interrupted(1), [1]), (Interrupted(3, times=2), [2, 3]), (Interrupted(4), [3, 4, 5])):
        with pytest.raises(KeyboardInterrupt):  # nothing unsaved; a second Ctrl-C; the end of the epoch
            fit(parts_of(tiny)[0], settings, broken, callback=told)
        assert told.epochs == finished
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert told.stages[0].startswith("resuming after epoch 2 (checkpoint of ")
    assert told.stages[1].startswith("interrupted: saving at the end of this epoch")
    again, told = parts_of(tiny)[0], Interrupted()
    fit(again, settings, broken, callback=told)
    assert told.epochs == [6]
    assert told.stages[0].startswith("resuming after epoch 5 ")
    for ours, theirs in zip(tables_of(again.model), tables_of(parts.model), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_best_epoch_is_kept_and_patience_ends_the_training(tiny: Interactions, tmp_path: Path) -> None:
    parts, settings = parts_of(tiny, "train.epochs=9", "train.patience=2")
    scores = iter([0.1, 0.5, 0.2, 0.3])
    seen: list[torch.Tensor] = []

    def validate(tables: object) -> dict[str, float]:
        seen.append(parts.model.encoder.embedding.detach().clone())
        return {"ndcg@20": next(scores)}

    progress = fit(parts, settings, tmp_path, validate)
    assert (progress.best_epoch, progress.epoch, progress.best) == (2, 4, 0.5)
    assert torch.equal(parts.model.encoder.embedding, seen[1])


def test_without_validation_the_last_epoch_is_kept(tiny: Interactions, tmp_path: Path) -> None:
    parts, settings = parts_of(tiny)
    progress = fit(parts, settings, tmp_path)
    assert (progress.epoch, progress.best_epoch, progress.best_weights) == (6, 0, None)


def test_the_loss_falls(checkerboard: Interactions, tmp_path: Path) -> None:
    parts, settings = parts_of(checkerboard, "quantizer.name=float32", "train.epochs=30")
    progress = fit(parts, settings, tmp_path)
    assert progress.rows[-1]["loss"] < 0.5 * progress.rows[0]["loss"]


def test_nan_stops_with_epoch_batch_and_tensor_and_keeps_the_checkpoint(
    tiny: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    parts, settings = parts_of(tiny, "train.epochs=2")
    fit(parts, settings, tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    parts, settings = parts_of(tiny, "train.epochs=4")

    class Poisons(Callback):
        def step(self, epoch: int, batch: int, batches: int) -> None:
            if (epoch, batch) == (2, 1):
                with torch.no_grad():
                    parts.model.encoder.embedding[0, 0] = math.nan

    with pytest.raises(TrainingError, match=r"epoch 3, batch 2: 'encoder.embedding' holds NaN"):
        fit(parts, settings, tmp_path, callback=Poisons())
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_the_first_epoch_is_always_saved(tiny: Interactions, tmp_path: Path) -> None:
    parts, settings = parts_of(tiny)
    with pytest.raises(KeyboardInterrupt):
        fit(parts, settings, tmp_path, callback=StopsAt(1, 1))
    assert (tmp_path / CHECKPOINT).exists()


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_checkpoint_is_refused(tiny: Interactions, tmp_path: Path, damage: bytes | None) -> None:
    parts, settings = parts_of(tiny)
    fit(parts, settings, tmp_path)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-100] if damage is None else damage)
    with pytest.raises(FormatError, match="cannot resume from this checkpoint"):
        fit(parts_of(tiny)[0], settings, tmp_path)


def test_schedules_begin_at_the_rate_and_end_where_they_should() -> None:
    for schedule, end in (("constant", 0.1), ("linear", 0.0), ("cosine", 0.0)):
        settings = {"rate": 0.1, "schedule": schedule}
        assert learning_rate(settings, 0.0) == pytest.approx(0.1)
        assert learning_rate(settings, 1.0) == pytest.approx(end, abs=1e-12)
    assert learning_rate({"rate": 0.1, "schedule": "cosine"}, 0.5) == pytest.approx(0.05)


def test_seeds_differ_and_repeat(tiny: Interactions, tmp_path: Path) -> None:
    codes = []
    for number, seed in enumerate((1, 1, 2)):
        parts, settings = parts_of(tiny, f"seed={seed}")
        folder = tmp_path / str(number)
        folder.mkdir()
        fit(parts, settings, folder)
        codes.append(tables_of(parts.model)[0])
    assert np.array_equal(codes[0], codes[1])
    assert not np.array_equal(codes[0], codes[2])
