"""Training progress callbacks. Imports nothing heavy."""

from __future__ import annotations

from typing import Any


class Callback:
    """Receives the progress of a run. Subclass it and override the methods you need; by default each does nothing.

    The methods are called in the process and thread that trains, so a slow one slows training down. An exception
    raised by one ends the run, which can be resumed from its last checkpoint.
    """

    def stage(self, what: str) -> None:
        """Called when a stage begins that is not an epoch.

        Parameters
        ----------
        what
            The stage in a few words, such as ``"loading data: gowalla"``.
        """

    def step(self, epoch: int, batch: int, batches: int) -> None:
        """Called after each step of gradient descent.

        Parameters
        ----------
        epoch
            The number of finished epochs, from 0.
        batch
            The number of the batch in its epoch, from 1.
        batches
            The number of batches in an epoch.
        """

    def epoch(self, row: dict[str, Any]) -> None:
        """Called after each epoch.

        Parameters
        ----------
        row
            The epoch's row of ``log.jsonl``: ``epoch`` (from 1), ``loss``, ``seconds`` of training so far and, after
            a validation, ``validation`` (metric -> value) and ``quantizer`` (side -> figures).
        """

    def resume(self, rows: list[dict[str, Any]]) -> None:
        """Called once if training resumes from a checkpoint. By default ``epoch`` is called for each finished epoch.

        Parameters
        ----------
        rows
            The rows of the finished epochs.
        """
        for row in rows:
            self.epoch(row)


class Callbacks(Callback):
    """Several callbacks as one."""

    def __init__(self, *callbacks: Callback) -> None:
        self.callbacks = callbacks

    def stage(self, what: str) -> None:
        for callback in self.callbacks:
            callback.stage(what)

    def step(self, epoch: int, batch: int, batches: int) -> None:
        for callback in self.callbacks:
            callback.step(epoch, batch, batches)

    def epoch(self, row: dict[str, Any]) -> None:
        for callback in self.callbacks:
            callback.epoch(row)

    def resume(self, rows: list[dict[str, Any]]) -> None:
        for callback in self.callbacks:
            callback.resume(rows)
