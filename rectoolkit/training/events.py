"""TensorBoard event files of a run: ``rectool run --tensorboard``, then ``tensorboard --logdir runs``.

    loss    seconds    validation/ndcg@20 ...    quantizer/users/entropy ...

A scalar an epoch, in ``tensorboard/`` of the run folder. A run that goes on from a checkpoint is told of all its epochs
again, so the file of the session before is replaced and no epoch stands there twice. Of a run that was finished before,
``from_log`` tells what its log holds.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from rectoolkit.errors import UserError
from rectoolkit.runs.layout import read_log
from rectoolkit.training.callbacks import Silent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDER = "tensorboard"


class Events(Silent):
    """A watcher that writes an epoch's figures as scalars in the folder ``run``. Close it when training is over.

    Raises UserError, with the command to type, where tensorboard is not installed.
    """

    def __init__(self, run: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                "--tensorboard needs tensorboard, which is optional: pip install 'rectoolkit[tensorboard]'"
            ) from None
        self.folder, self._make = run / FOLDER, SummaryWriter
        self._writer: Any = None

    @property
    def told(self) -> bool:
        """Whether there was an epoch to write."""
        return self._writer is not None

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def epoch(self, row: dict[str, Any]) -> None:
        if self._writer is None:  # with the first epoch: what fails before it leaves the file that is there
            shutil.rmtree(self.folder, ignore_errors=True)
            self._writer = self._make(str(self.folder))
        for name, value in scalars(row):
            self._writer.add_scalar(name, value, row["epoch"])
        self._writer.flush()


def from_log(run: Path) -> None:
    """Write the event files of a finished run anew. Raises UserError as ``Events`` does."""
    with Events(run) as events:
        for row in read_log(run):
            events.epoch(row)


def scalars(row: dict[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a row of the log with their paths, ``validation/ndcg@20``; neither texts nor the epoch itself."""
    for key, value in row.items():
        if isinstance(value, dict):
            yield from scalars(value, f"{before}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and (before or key != "epoch"):
            yield f"{before}{key}", float(value)
