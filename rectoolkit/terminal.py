"""The terminal: the console that commands print to, notes, and progress bars."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import tomli_w
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table
from rich.text import Text

from rectoolkit.recipe.schema import allowed
from rectoolkit.training.callbacks import Callback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from typing_extensions import Self

    from rectoolkit.recipe.schema import Settings

console = Console(highlight=False, markup=False)
DESCRIPTION = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))


def bars(*columns: ProgressColumn | str) -> Progress:
    """Progress bars that disappear at the end; nothing if the output is not a terminal."""
    return Progress(*columns, console=console, transient=True, refresh_per_second=4, disable=not console.is_terminal)


class TrainingBar(Callback):
    """Progress of a training: a bar with epoch, loss, validation and time left, or lines if there is no terminal."""

    def __init__(self, epochs: int, monitor: str) -> None:
        self.epochs, self.monitor = epochs, monitor
        self.row: dict[str, Any] = {}
        self.bar = bars(BarColumn(24), DESCRIPTION, TimeRemainingColumn())
        self.task = self.bar.add_task("", total=epochs)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def stage(self, what: str) -> None:
        self.bar.update(self.task, description=f"{what} ...")
        if self.row or not console.is_terminal:  # during the epochs the next step replaces it in the bar
            console.print(f"{what} ...")

    def step(self, epoch: int, batch: int, batches: int) -> None:
        self.bar.update(self.task, description=self._text(), completed=epoch + batch / batches)

    def epoch(self, row: dict[str, Any]) -> None:
        self.row = row
        if not console.is_terminal and (row["epoch"] % max(1, self.epochs // 20) == 0 or row["epoch"] == self.epochs):
            console.print(self._text())

    def resume(self, rows: list[dict[str, Any]]) -> None:
        self.row = rows[-1]  # the earlier epochs were shown when they were trained

    def _text(self) -> str:
        row = self.row
        if not row:
            return f"epoch 1/{self.epochs}"
        text = f"epoch {row['epoch']}/{self.epochs} · loss {row['loss']:.4f}"
        if "validation" in row:
            text += f" · validation {self.monitor} {row['validation'][self.monitor]:.4f}"
        return text


@contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """Show a status line on standard error. Yields the function that changes its text."""
    with Console(stderr=True, highlight=False, markup=False).status("") as line:
        yield line.update


@contextmanager
def counting(things: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar that counts ``things``. Yields a function of the number done and the total."""
    with bars(DESCRIPTION, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(things, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def downloading() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar per file. Yields a function of the file, the bytes so far, and the total (0 if unknown)."""
    with bars(DESCRIPTION, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()) as bar:
        tasks: dict[str, Any] = {}

        def show(file: str, done: int, total: int) -> None:
            if file not in tasks:
                tasks[file] = bar.add_task(file)
            bar.update(tasks[file], completed=done, total=total or None)

        yield show


def print_notes(notes: Iterable[str]) -> None:
    """Print each note, such as what loading a recipe or choosing a device changed, on a line of its own."""
    for note in notes:
        console.print(f"note: {note}", style="yellow", soft_wrap=True)


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", width: int | None = None) -> None:
    """Print a table whose first column is text and whose others are numbers; ``width`` of the terminal by default."""
    table = Table(title=title or None, title_justify="left")
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left", overflow="fold", no_wrap=not place)
    for row in rows:
        table.add_row(*row)
    (Console(highlight=False, markup=False, width=width) if width else console).print(table)


def print_settings(title: str, schema: type[Settings], values: dict[str, Any]) -> None:
    """Print a section of a recipe: each key with its value, the allowed values and its meaning."""
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    for column in ("key", "value", "allowed", "meaning"):
        table.add_column(column, overflow="fold")
    for key, info in schema.model_fields.items():
        table.add_row(key, toml_value(values[key]), allowed(info), info.description)
    console.print(table)


def toml_value(value: Any) -> str:
    """``value`` as a recipe writes it."""
    return tomli_w.dumps({"v": value}).partition("=")[2].strip()
