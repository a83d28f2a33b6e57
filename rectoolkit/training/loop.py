"""The training loop: the only place that takes gradients.

An epoch is one pass over the sampler. After every ``train.every`` epochs the codes are packed, the validation part is
ranked through the index, and the weights of the best epoch are kept. A checkpoint is written at the end of the first
epoch, and then at the end of an epoch whenever ten seconds have passed since the last one, or on Ctrl-C.
"""

from __future__ import annotations

import copy
import json
import math
import time
from typing import TYPE_CHECKING, Any

import torch

from rectoolkit.errors import TrainingError
from rectoolkit.files import write_text
from rectoolkit.runs.layout import CHECKPOINT, LOG
from rectoolkit.training import checkpoint, interrupts, memory
from rectoolkit.training.callbacks import Callbacks
from rectoolkit.training.checkpoint import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import Tensor

    from rectoolkit.model.losses.base import Triple, Views
    from rectoolkit.model.recommender import Parts, Recommender, Table
    from rectoolkit.model.samplers.base import Batch
    from rectoolkit.training.callbacks import Callback

    Tables = tuple[Table, Table]


def fit(
    parts: Parts,
    settings: dict[str, Any],
    folder: Path,
    validate: Callable[[Tables], dict[str, float]] | None = None,
    callback: Callback | None = None,
) -> Progress:
    """Train a model, or resume its training from a checkpoint.

    Afterwards the model holds the weights of the best epoch, and ``folder`` holds ``log.jsonl`` and ``checkpoint.pt``.

    Parameters
    ----------
    parts
        The model, loss and sampler that ``assemble`` built.
    settings
        The filled section ``[train]`` of a recipe.
    folder
        Where the log and the checkpoint are written, and where a checkpoint to resume from is looked for.
    validate
        Computes the validation metrics of the two tables of users and items. Without it the last epoch is kept.
    callback
        Receives every step and epoch.

    Returns
    -------
    Progress
        The rows of the log, the best epoch and the seconds of training.

    Raises
    ------
    TrainingError
        If a tensor becomes NaN or infinite. The message names the epoch, the batch and the first such tensor; the
        last checkpoint stays.
    FormatError
        If the checkpoint cannot be read.
    """
    callback = callback or Callbacks()
    optimizer = make_optimizer(parts, settings)
    progress = checkpoint.restore(folder / CHECKPOINT, parts, optimizer)
    if progress is None:
        progress = Progress()
        parts.model.calibrate()
    else:
        written = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime((folder / CHECKPOINT).stat().st_mtime))
        callback.resume(progress.rows)
        callback.stage(f"resuming after epoch {progress.epoch} (checkpoint of {written})")
    _write_log(folder, progress)
    saved, wait = -math.inf, checkpoint.seconds_between()  # the first epoch is always saved
    with memory.kept(), interrupts.held(callback) as interrupt:
        while progress.epoch < settings["epochs"] and not progress.stopped:
            begun = time.perf_counter()
            loss = one_epoch(parts, optimizer, settings, progress.epoch, callback)
            progress.seconds += time.perf_counter() - begun
            progress.epoch += 1
            row = {"epoch": progress.epoch, "loss": loss, "seconds": round(progress.seconds, 3)}
            if progress.epoch % settings["every"] == 0 or progress.epoch == settings["epochs"]:
                row |= _assess(parts, settings, progress, validate)
            progress.rows.append(row)
            interrupt.unsaved = True
            callback.epoch(row)
            over = progress.stopped or progress.epoch == settings["epochs"]
            if over or interrupt.asked or time.monotonic() - saved >= wait:
                checkpoint.save(folder / CHECKPOINT, parts, optimizer, progress)
                saved, interrupt.unsaved = time.monotonic(), False
            _write_log(folder, progress)
            if interrupt.asked and not interrupt.unsaved:
                raise KeyboardInterrupt
    if progress.best_weights is not None:
        parts.model.load_state_dict(progress.best_weights)
    parts.model.progress(1.0)
    return progress


def make_optimizer(parts: Parts, settings: dict[str, Any]) -> torch.optim.Optimizer:
    """The torch optimizer that ``train.optimizer`` names. Adam is fused, which is faster on CPU."""
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
    """The learning rate when ``share`` (0..1) of all steps is done."""
    factors = {"constant": 1.0, "linear": 1 - share, "cosine": (1 + math.cos(math.pi * share)) / 2}
    return float(settings["rate"] * factors[settings["schedule"]])


def one_epoch(
    parts: Parts, optimizer: torch.optim.Optimizer, settings: dict[str, Any], epoch: int, callback: Callback
) -> float:
    """Train for one epoch; return the mean loss of its batches."""
    model = parts.model.train()
    batches, total = len(parts.sampler), 0.0
    for number, batch in enumerate(parts.sampler):
        share = (epoch + number / batches) / settings["epochs"]
        model.progress(share)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, share)
        total += step(parts, optimizer, batch, (epoch, number))
        callback.step(epoch, number + 1, batches)
    model.progress((epoch + 1) / settings["epochs"])
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise TrainingError(f"epoch {epoch + 1}: '{name}' holds NaN or infinity after its last batch; {ADVICE}")
    return total / batches


def step(parts: Parts, optimizer: torch.optim.Optimizer, batch: Batch, place: tuple[int, int] = (0, 0)) -> float:
    """Take one step of gradient descent; return the loss. ``place`` is the epoch and batch for error messages."""
    model, loss = parts.model, parts.loss
    views = model(loss.prepare(batch))
    value = loss(views)
    current = float(value.detach())
    if not math.isfinite(current):
        raise TrainingError(_first_bad(model, views, *place))
    model.observe(views, loss, value)
    del views  # the backward pass holds the rows it needs, and frees them on its way
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
    """The figures of the quantizers and the validation metrics for the log; keeps the weights of a new best epoch."""
    real = parts.model.real()
    if not all(bool(torch.isfinite(rows.square().sum()) & torch.isfinite(rows).all()) for rows in real):
        raise TrainingError(f"epoch {progress.epoch}: embeddings are NaN, infinite or too large for float32; {ADVICE}")
    tables = parts.model.tables(real)  # before the diagnostics: this fits the methods that code after training
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
    """An error message that names the first tensor, in the order of computation, with NaN or infinity."""
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


def _write_log(folder: Path, progress: Progress) -> None:
    write_text(folder / LOG, "".join(json.dumps(row) + "\n" for row in progress.rows))
