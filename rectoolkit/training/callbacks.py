"""Who is told how a training goes: nobody, one watcher, or several. Imports nothing heavy."""

from __future__ import annotations

from typing import Any, Protocol


class Watcher(Protocol):
    """Who is told of the progress: the command line's bar, or nobody."""

    def stage(self, what: str) -> None: ...

    def step(self, epoch: int, batch: int, batches: int) -> None: ...

    def epoch(self, row: dict[str, Any]) -> None: ...


class Silent:
    """Tells nobody; what wants to hear of one thing only inherits the rest."""

    def stage(self, what: str) -> None: ...

    def step(self, epoch: int, batch: int, batches: int) -> None: ...

    def epoch(self, row: dict[str, Any]) -> None: ...


class Together:
    """Several watchers as one."""

    def __init__(self, *watchers: Watcher) -> None:
        self.watchers = watchers

    def stage(self, what: str) -> None:
        for watcher in self.watchers:
            watcher.stage(what)

    def step(self, epoch: int, batch: int, batches: int) -> None:
        for watcher in self.watchers:
            watcher.step(epoch, batch, batches)

    def epoch(self, row: dict[str, Any]) -> None:
        for watcher in self.watchers:
            watcher.epoch(row)
