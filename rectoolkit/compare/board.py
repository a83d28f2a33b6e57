"""What the terminal shows while runs are made: a line for each that ended, and one that is redrawn for the rest."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

    from rectoolkit.compare.jobs import Job


class Board:
    """Told of ``total`` jobs by several threads; prints to ``console``."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total, self.ended_count = console, total, 0
        self.begun = time.monotonic()
        self.rows: dict[Job, dict[str, Any]] = {}
        self.lock = threading.Lock()
        self.live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Board:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def began(self, job: Job) -> None:
        with self.lock:
            self.rows[job] = {"epoch": 0}
            self._draw()

    def epoch(self, job: Job, row: dict[str, Any]) -> None:
        with self.lock:
            self.rows[job] = row
            self._draw()

    def ended(self, job: Job, failure: str | None) -> None:
        with self.lock:
            row = self.rows.pop(job)
            self.ended_count += 1
            how = f"failed: {failure}" if failure else f"trained {row.get('seconds', 0.0):.1f} s"
            line = Text(f"[{self.ended_count}/{self.total}] {job}: {how}", style="red" if failure else "")
            self.console.print(line, soft_wrap=True)
            self._draw()

    def _draw(self) -> None:
        if not self.console.is_terminal:
            return
        now = [f"{job} epoch {row['epoch']}/{job.recipe['train']['epochs']}" for job, row in self.rows.items()]
        text = f"{self.ended_count} of {self.total} done · {' · '.join(now)}{self._left()}"
        self.live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)

    def _left(self) -> str:
        """The time left, from the share of the work that is done, as if all runs were as long."""
        part = sum(row["epoch"] / job.recipe["train"]["epochs"] for job, row in self.rows.items())
        done = (self.ended_count + part) / self.total
        if done < 0.02:
            return ""
        seconds = (time.monotonic() - self.begun) * (1 - done) / done
        return f" · about {seconds / 60:.0f} min left" if seconds >= 90 else f" · about {seconds:.0f} s left"
