"""Callbacks: nothing happens by default, and several callbacks receive the same calls."""

from __future__ import annotations

from typing import Any

from rectoolkit.training.callbacks import Callback, Callbacks


class Keeps(Callback):
    """Keeps all that it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def stage(self, what: str) -> None:
        self.heard.append(what)

    def step(self, epoch: int, batch: int, batches: int) -> None:
        self.heard.append((epoch, batch, batches))

    def epoch(self, row: dict[str, Any]) -> None:
        self.heard.append(row)


def test_several_callbacks_hear_the_same_in_order() -> None:
    first, second = Keeps(), Keeps()
    together = Callbacks(first, Callback(), second)
    together.stage("loading data")
    together.step(0, 1, 2)
    together.epoch({"epoch": 1})
    assert first.heard == second.heard == ["loading data", (0, 1, 2), {"epoch": 1}]
