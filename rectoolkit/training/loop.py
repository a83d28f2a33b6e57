"""The training loop: the one place where gradients are taken.

An epoch is one pass of the sampler. After every ``every`` epochs the codes are packed, the held-out share of train
is ranked through the index, and the best epoch's weights are kept. A checkpoint is one file, replaced whole: weights,
optimizer, the state of every random stream, the best weights so far and the log. It is written at the end of the
first epoch, then at the end of an epoch at most every ten seconds. A killed run goes on from its last one and ends in
the same bytes as an undisturbed run with as many threads on a CPU: between two checkpoints nothing is drawn that
their states do not determine.
"""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from rectoolkit.errors import FormatError, TrainingError, UserError
from rectoolkit.files import atomic_write, write_text
from rectoolkit.runs.layout import CHECKPOINT, LOG
from rectoolkit.training import memory as heap
from rectoolkit.training.callbacks import Silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import Tensor

    from rectoolkit.model.losses import Triple, Views
    from rectoolkit.model.recommender import Parts, Recommender, Table
    from rectoolkit.model.samplers.base import Batch
    from rectoolkit.training.callbacks import Watcher

    Tables = tuple[Table, Table]

CHECKPOINT_SECONDS = 10.0  # RECTOOL_CHECKPOINT_SECONDS overrides it


@dataclass
class Progress:
    """Where training stands: epochs done, seconds spent, the log's rows, and the best epoch with its weights."""

    epoch: int = 0
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    best: float = -math.inf
    best_epoch: int = 0
    best_weights: dict[str, Any] | None = None
    stale: int = 0  # validations since the best one
    stopped: bool = False


def fit(
    parts: Parts,
    settings: dict[str, Any],
    folder: Path,
    validate: Callable[[Tables], dict[str, float]] | None = None,
    watcher: Watcher | None = None,
) -> Progress:
    """Train ``parts.model`` as the recipe's section ``[train]`` (``settings``) says, or go on from a checkpoint.

    ``validate`` gives the held-out metrics of the two code tables as they stand; without it the last epoch is kept.
    Leaves the best epoch's weights in the model, and ``log.jsonl`` and ``checkpoint.pt`` in ``folder``. Raises
    TrainingError on NaN or infinity, with the epoch, the batch and the first tensor that held it; the last good
    checkpoint stays.
    """
    watcher = watcher or Silent()
    optimizer = make_optimizer(parts, settings)
    progress = _restore(folder / CHECKPOINT, parts, optimizer)
    if progress is None:
        progress = Progress()
        parts.model.calibrate()
    _write_log(folder, progress)
    for row in progress.rows:
        watcher.epoch(row)
    saved, wait = -math.inf, _checkpoint_seconds()  # the first epoch is always saved
    with heap.kept():
        while progress.epoch < settings["epochs"] and not progress.stopped:
            begun = time.perf_counter()
            loss = one_epoch(parts, optimizer, settings, progress.epoch, watcher)
            progress.seconds += time.perf_counter() - begun
            progress.epoch += 1
            row = {"epoch": progress.epoch, "loss": loss, "seconds": round(progress.seconds, 3)}
            if progress.epoch % settings["every"] == 0 or progress.epoch == settings["epochs"]:
                row |= _assess(parts, settings, progress, validate)
            progress.rows.append(row)
            watcher.epoch(row)
            over = progress.stopped or progress.epoch == settings["epochs"]
            if over or time.monotonic() - saved >= wait:
                _save(folder / CHECKPOINT, parts, optimizer, progress)
                saved = time.monotonic()
            _write_log(folder, progress)
    if progress.best_weights is not None:
        parts.model.load_state_dict(progress.best_weights)
    parts.model.progress(1.0)
    return progress


def _checkpoint_seconds() -> float:
    text = os.environ.get("RECTOOL_CHECKPOINT_SECONDS", str(CHECKPOINT_SECONDS))
    with suppress(ValueError):
        if (seconds := float(text)) >= 0:  # NaN is not
            return seconds
    raise UserError(f"RECTOOL_CHECKPOINT_SECONDS is '{text}'; it must be a number of seconds, 0 or more")


def make_optimizer(parts: Parts, settings: dict[str, Any]) -> torch.optim.Optimizer:
    """torch's optimizer of that name; Adam fused: 2.0 ms a step for 4.5 M weights on CPU, the default 6.5."""
    weights = [weight for part in (parts.model, parts.loss) for weight in part.parameters() if weight.requires_grad]
    rate = settings["rate"]
    match settings["optimizer"]:
        case "adam":
            return torch.optim.Adam(weights, lr=rate, fused=True)
        case "adagrad":
            return torch.optim.Adagrad(weights, lr=rate)
        case _:
            return torch.optim.SGD(weights, lr=rate)


def learning_rate(settings: dict[str, Any], share: float) -> float:
    """The rate when ``share`` (0..1) of all steps is done."""
    factors = {"constant": 1.0, "linear": 1 - share, "cosine": (1 + math.cos(math.pi * share)) / 2}
    return float(settings["rate"] * factors[settings["schedule"]])


def one_epoch(
    parts: Parts, optimizer: torch.optim.Optimizer, settings: dict[str, Any], epoch: int, watcher: Watcher
) -> float:
    """One pass over train; the mean loss of its batches."""
    model = parts.model.train()
    batches, total = len(parts.sampler), 0.0
    for number, batch in enumerate(parts.sampler):
        share = (epoch + number / batches) / settings["epochs"]
        model.progress(share)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, share)
        total += step(parts, optimizer, batch, (epoch, number))
        watcher.step(epoch, number + 1, batches)
    model.progress((epoch + 1) / settings["epochs"])
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise TrainingError(f"epoch {epoch + 1}: '{name}' holds NaN or infinity after its last batch; {ADVICE}")
    return total / batches


def step(parts: Parts, optimizer: torch.optim.Optimizer, batch: Batch, place: tuple[int, int] = (0, 0)) -> float:
    """One batch's step of gradient descent; its loss. ``place`` is the epoch and the batch that a fault names."""
    model, loss = parts.model, parts.loss
    views = model(loss.prepare(batch))
    value = loss(views)
    current = float(value.detach())
    if not math.isfinite(current):
        raise TrainingError(_first_bad(model, views, *place))
    model.observe(views, loss, value)
    del views  # what the backward needs of the rows it holds itself, and lets go on its way
    optimizer.zero_grad(set_to_none=True)
    value.backward()
    optimizer.step()
    return current


def _assess(
    parts: Parts,
    settings: dict[str, Any],
    progress: Progress,
    validate: Callable[[Tables], dict[str, float]] | None,
) -> dict[str, Any]:
    """What the log says of the model after an epoch: what its quantizers do, and the held-out metrics."""
    real = parts.model.real()
    if not all(bool(torch.isfinite(rows.square().sum()) & torch.isfinite(rows).all()) for rows in real):
        raise TrainingError(f"epoch {progress.epoch}: embeddings are NaN, infinite or too large for float32; {ADVICE}")
    tables = parts.model.tables(real)  # before the diagnostics: methods that code after training are fitted here
    row: dict[str, Any] = {"quantizer": parts.model.diagnostics(real)}
    if validate is None:
        return row
    row["validation"] = validate(tables)
    value = row["validation"][settings["monitor"]]
    if value > progress.best:
        progress.best, progress.best_epoch, progress.stale = value, progress.epoch, 0
        progress.best_weights = copy.deepcopy(parts.model.state_dict())
    else:
        progress.stale += 1
        progress.stopped = 0 < settings["patience"] <= progress.stale
    return row


ADVICE = "a lower train.rate or a larger loss.l2 usually helps"


def _first_bad(model: Recommender, views: Views, epoch: int, number: int) -> str:
    """The message that names the first tensor, in the order of computation, that holds NaN or infinity."""
    where = f"epoch {epoch + 1}, batch {number + 1}"
    for name, tensor in _in_order(model, views):
        if not bool(torch.isfinite(tensor).all()):
            return f"{where}: '{name}' holds NaN or infinity; {ADVICE}"
    return f"{where}: the loss is NaN or infinite though its inputs are not; {ADVICE}"


def _in_order(model: Recommender, views: Views) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    triples: dict[str, Triple] = {"ego rows": views.ego, "real rows": views.real, "coded rows": views.coded}
    for name, triple in triples.items():
        yield from ((f"{name} of {part}", tensor) for part, tensor in vars(triple).items())


def _save(path: Path, parts: Parts, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    with atomic_write(path) as file:
        state = {
            "model": parts.model.state_dict(),
            "loss": parts.loss.state_dict(),
            "optimizer": optimizer.state_dict(),
            "sampler": json.dumps(parts.sampler.generator.bit_generator.state),
            "progress": vars(progress),
        }
        torch.save(state, file)


def _restore(path: Path, parts: Parts, optimizer: torch.optim.Optimizer) -> Progress | None:
    """Put everything back as the checkpoint has it; None where there is none yet."""
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
        raise FormatError(f"{path}: cannot go on from it ({reason}); remove the run folder to begin anew") from None


def _write_log(folder: Path, progress: Progress) -> None:
    write_text(folder / LOG, "".join(json.dumps(row) + "\n" for row in progress.rows))
