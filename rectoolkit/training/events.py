"""TensorBoard event files of a run: ``rectool run --tensorboard``, then ``tensorboard --logdir runs``.

    loss    seconds    validation/ndcg@20 ...    quantizer/users/entropy ...

Each epoch adds one point to each scalar. The files lie in ``tensorboard/`` of the run folder. A resumed run repeats
its finished epochs to the callbacks, so its event files are written anew and no epoch appears twice.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from rectoolkit.errors import needed
from rectoolkit.runs.layout import TENSORBOARD, read_log
from rectoolkit.training.callbacks import Callback

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Events(Callback):
    """A callback that writes the figures of each epoch as scalars. Use it as a context manager.

    Raises UserError with the command to install tensorboard where that is missing.
    """

    def __init__(self, run: Path) -> None:
        with needed("--tensorboard"):
            from torch.utils.tensorboard import SummaryWriter
        self.folder, self._make = run / TENSORBOARD, SummaryWriter
        self._writer: Any = None

    @property
    def written(self) -> bool:
        """Whether an epoch was written."""
        return self._writer is not None

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def epoch(self, row: dict[str, Any]) -> None:
        if self._writer is None:  # only now: a run that fails before its first epoch keeps the earlier files
            shutil.rmtree(self.folder, ignore_errors=True)
            self._writer = self._make(str(self.folder))
        for name, value in scalars(row):
            self._writer.add_scalar(name, value, row["epoch"])
        self._writer.flush()


def from_log(run: Path) -> None:
    """Write the event files of a finished run from its log. Raises UserError as ``Events`` does."""
    with Events(run) as events:
        for row in read_log(run):
            events.epoch(row)


def scalars(row: dict[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a row of the log with their paths, such as ``validation/ndcg@20``, without the epoch itself."""
    for key, value in row.items():
        if isinstance(value, dict):
            yield from scalars(value, f"{before}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and (before or key != "epoch"):
            yield f"{before}{key}", float(value)
