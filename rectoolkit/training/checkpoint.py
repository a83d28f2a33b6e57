"""Checkpoints: training saved in one file, and resumed from it.

A checkpoint holds the weights, the optimizer, the state of every random stream, the best weights so far and the log.
The file is replaced as a whole. A resumed run ends in the same bytes as an undisturbed one with as many threads on a
CPU, because everything drawn after a checkpoint follows from the states in it.
"""

from __future__ import annotations

import json
import math
import os
import pickle
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from rectoolkit.errors import FormatError, UserError
from rectoolkit.files import atomic_write

if TYPE_CHECKING:
    from pathlib import Path

    from rectoolkit.model.recommender import Parts

SECONDS = 10.0  # between two checkpoints; RECTOOL_CHECKPOINT_SECONDS overrides it


@dataclass
class Progress:
    """The state of training: finished epochs, seconds, rows of the log, and the best epoch with its weights."""

    epoch: int = 0
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    best: float = -math.inf
    best_epoch: int = 0
    best_weights: dict[str, Any] | None = None
    stale: int = 0  # validations since the best one
    stopped: bool = False


def seconds_between() -> float:
    """The seconds between two checkpoints. Raises UserError where RECTOOL_CHECKPOINT_SECONDS is not a number >= 0."""
    text = os.environ.get("RECTOOL_CHECKPOINT_SECONDS", str(SECONDS))
    with suppress(ValueError):
        if (seconds := float(text)) >= 0:  # false for NaN
            return seconds
    raise UserError(f"RECTOOL_CHECKPOINT_SECONDS is '{text}'; it must be a number of seconds, 0 or more")


def save(path: Path, parts: Parts, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Write a checkpoint, replacing the one before."""
    state = {
        "model": parts.model.state_dict(),
        "loss": parts.loss.state_dict(),
        "optimizer": optimizer.state_dict(),
        "sampler": json.dumps(parts.sampler.generator.bit_generator.state),
        "progress": vars(progress),
    }
    with atomic_write(path) as file:
        torch.save(state, file)


def restore(path: Path, parts: Parts, optimizer: torch.optim.Optimizer) -> Progress | None:
    """Put the states of the checkpoint ``path`` back; None where there is no such file.

    Raises FormatError where the file is damaged or belongs to another model.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        parts.model.load_state_dict(state["model"])
        parts.loss.load_state_dict(state["loss"])
        optimizer.load_state_dict(state["optimizer"])
        parts.sampler.generator.bit_generator.state = json.loads(state["sampler"])
        return Progress(**state["progress"])
    except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError, ValueError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(
            f"{path}: cannot resume from this checkpoint ({reason}); remove the run folder to start over"
        ) from None
