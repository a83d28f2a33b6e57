"""What the command line prints: the bar of a training, and the tables."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import tomli_w
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rectoolkit.recipe.schema import settings_of
from rectoolkit.training.callbacks import Callback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt
    from typing_extensions import Self

    from rectoolkit.data import Card, Dataset
    from rectoolkit.recipe.registry import Registry
    from rectoolkit.recipe.schema import Setting
    from rectoolkit.runs.lists import Ranked
    from rectoolkit.runs.run import Run
    from rectoolkit.tune.store import Trial

console = Console(highlight=False, markup=False)
REFRESH_SECONDS = 0.2


class Redrawn:
    """One line that is redrawn in place while the block runs, and gone at its end; nothing on no terminal."""

    def __init__(self) -> None:
        self.drawn = 0.0
        self.live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if console.is_terminal:
            self.live.stop()

    def due(self) -> bool:
        """Whether the line is to be drawn now: not more often than it can be read."""
        now = time.monotonic()
        if not console.is_terminal or now - self.drawn < REFRESH_SECONDS:
            return False
        self.drawn = now
        return True


class TrainingBar(Redrawn, Callback):
    """Epoch, loss, validation, time left; on no terminal, a line an epoch."""

    def __init__(self, epochs: int, monitor: str) -> None:
        super().__init__()
        self.epochs, self.monitor = epochs, monitor
        self.row: dict[str, Any] = {}
        self.begun: float | None = None
        self.first = 0.0

    def stage(self, what: str) -> None:
        """What is done now that is no epoch: loading, building, measuring."""
        if console.is_terminal:
            self.live.update(Text(f"{what} ..."), refresh=True)
        else:
            console.print(f"{what} ...")

    def step(self, epoch: int, batch: int, batches: int) -> None:
        now, done = time.monotonic(), epoch + batch / batches
        if self.begun is None:
            self.begun, self.first = now, done
        if self.due():
            left = (now - self.begun) / max(done - self.first, 1e-9) * (self.epochs - done)
            self.live.update(Text(f"{self._bar(done)} {self._text()} · {_duration(left)} left"), refresh=True)

    def epoch(self, row: dict[str, Any]) -> None:
        self.row = row
        if not console.is_terminal and (row["epoch"] % max(1, self.epochs // 20) == 0 or row["epoch"] == self.epochs):
            console.print(self._text())

    def _bar(self, done: float) -> str:
        filled = int(24 * done / self.epochs)
        return "━" * filled + "╌" * (24 - filled)

    def _text(self) -> str:
        row = self.row
        if not row:
            return f"epoch 1/{self.epochs}"
        text = f"epoch {row['epoch']}/{self.epochs} · loss {row['loss']:.4f}"
        if "validation" in row:
            text += f" · validation {self.monitor} {row['validation'][self.monitor]:.4f}"
        return text


class ProgressLine(Redrawn):
    """What an import or a download is doing; ``begun`` tells whether it did anything."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = False

    def rows(self, doing: str, rows: int) -> None:
        """What an import is doing, after so many rows."""
        self._draw(f"{doing} · {rows:,} rows", now=True)

    def bytes(self, file: str, done: int, total: int) -> None:
        """How much of a download is there; ``total`` is 0 where the server does not say."""
        filled = int(24 * done / total) if total else 0
        bar = f"{'━' * filled}{'╌' * (24 - filled)} " if total else ""
        self._draw(f"{bar}{file} · {done / 1e6:,.1f} MB")

    def _draw(self, text: str, now: bool = False) -> None:
        self.begun = True
        if self.due() or (now and console.is_terminal):
            self.live.update(Text(text), refresh=True)


def print_notes(notes: Iterable[str]) -> None:
    """A line each: what loading a recipe or choosing a device has to say."""
    for note in notes:
        console.print(f"note: {note}", style="yellow", markup=False)


@contextmanager
def telling() -> Iterator[Callable[[str], None]]:
    """Something to tell what is being measured: a line on the terminal that follows it, and nothing elsewhere."""
    with Console(stderr=True).status("") as status:
        yield status.update


def print_rows(card: Card) -> None:
    """What became of the rows of an import, and how it was split."""
    rows, made = card.rows, card.imported
    assert made is not None
    console.print(Text(f"rows of {', '.join(made.sources)}", style="italic"), soft_wrap=True)
    table = Table(show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    threshold = "" if made.min_rating is None else f"{made.min_rating:g}"
    shown = {
        "read": rows.read,
        "without a value": rows.missing,
        f"rated below {threshold}": rows.below_rating,
        "repeated, merged": rows.repeated,
        "in an earlier part too": rows.in_an_earlier_part,
        f"outside the {made.k_core}-core": rows.outside_core,
        "kept": rows.kept,
    }
    for name, count in shown.items():
        if count or name in ("read", "kept"):
            table.add_row(name, f"{count:,}")
    console.print(table)
    columns = ", ".join(
        f"{role} '{name}'" for role in ("user", "item", "rating", "time") if (name := getattr(made, role))
    )
    share = f", test share {made.test_share:g}" if made.split in ("random", "time", "user-time") else ""
    console.print(f"columns: {columns}; split: {made.split}{share}, seed {made.seed}", soft_wrap=True)


def print_data(dataset: Dataset) -> None:
    """A data set's counts, and how the train items of a user and the train users of an item are spread."""
    table = Table("", dataset.name)
    table.columns[1].justify = "right"
    for key, value in dataset.summary().items():
        table.add_row(key, f"{value:,}" if isinstance(value, int) else f"{value:.3g}")
    console.print(table)
    for title, degrees in (
        ("train items of a user", dataset.train.user_degrees),
        ("train users of an item", dataset.train.item_degrees),
    ):
        console.print(f"{title}: mean {degrees.mean():.1f}, median {np.median(degrees):.0f}, most {degrees.max():,}")
        for line in degree_plot(degrees):
            console.print(line)


def degree_plot(degrees: npt.NDArray[np.int64], width: int = 40) -> list[str]:
    """How many have 0, 1, 2 to 3, 4 to 7, ... interactions: a line and a bar each, the longest ``width`` wide."""
    octaves = np.bincount(np.frexp(degrees.astype(np.float64))[1])  # 0 -> 0, 1 -> 1, 2..3 -> 2, 4..7 -> 3
    lines = []
    for octave, count in enumerate(octaves):
        low, high = (0, 0) if octave == 0 else (1 << (octave - 1), (1 << octave) - 1)
        if count or (octave and octaves[:octave].any()):
            range_of = f"{low:,}" if low == high else f"{low:,}-{high:,}"
            bar = "█" * int(np.ceil(width * count / octaves.max()))
            lines.append(f"{range_of:>15} {bar} {count:,}".rstrip())
    return lines


def print_run(run: Run, expect: Mapping[str, float] | None = None) -> None:
    """The table of a finished run: its codes against the same model in float32, and what its recipe promises."""
    figures = run.metrics
    real = figures["float32"]
    console.print(Text(f"{figures['name']}: {run.path}", style="italic"), soft_wrap=True)  # as a title it would break
    table = Table()
    table.add_column("")
    table.add_column(f"{figures['bits']}-bit codes" if figures["bits"] <= 8 else "float32", justify="right")
    rows = [(metric, f"{value:.4f}") for metric, value in figures["accuracy"].items()]
    rows += [(f"bytes per {side}", f"{figures[f'bytes_per_{side}']:.1f}") for side in ("user", "item")]
    rows += [("queries per second", f"{figures['queries_per_second']:,.0f}")]
    if figures["bits"] <= 8:
        table.add_column("same model, float32", justify="right")
        table.add_column("ratio", justify="right")
        values = [*figures["accuracy"].values(), figures["bytes_per_user"], figures["bytes_per_item"]]
        others = [*real["accuracy"].values(), real["bytes_per_user"], real["bytes_per_item"]]
        values.append(figures["queries_per_second"])
        others.append(real["queries_per_second"])
        shown = [*(f"{v:.4f}" for v in real["accuracy"].values()), *(f"{v:.1f}" for v in others[-3:-1])]
        shown.append(f"{others[-1]:,.0f}")
        ratios = [f"{value / other:.3g}" if other else "-" for value, other in zip(values, others, strict=True)]
        rows = [(*row, float_value, ratio) for row, float_value, ratio in zip(rows, shown, ratios, strict=True)]  # type: ignore[misc]
    if expect:
        table.add_column("the recipe's", justify="right")
        rows = [(*row, f"{expect[row[0]]:.4f}" if row[0] in expect else "") for row in rows]  # type: ignore[misc]
    for row in rows:
        table.add_row(*row)
    console.print(table)
    best, epochs = figures["best_epoch"], figures["epochs"]
    trained = f"best epoch {best} of {epochs}" if best else f"{epochs} epochs"
    console.print(
        f"{figures['test_users']:,} test users · {trained}\n"
        f"trained {_duration(figures['train_seconds'])} ({figures['seconds_per_epoch']:.2f} s an epoch) · "
        f"peak memory {figures['peak_memory_mb']:,.0f} MB"
    )


@contextmanager
def counting(of: str) -> Iterator[Callable[[int, int], None] | None]:
    """What to tell how many ``of`` something are done, and how many there are; None where nobody looks."""
    if not console.is_terminal:
        yield None
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield lambda done, total: live.update(Text(f"{done:,} of {total:,} {of}"), refresh=True)


def print_ranked(kind: str, answers: Sequence[Ranked]) -> None:
    """A table of ranks for each answer."""
    for answer in answers:
        table = Table(title=Text(f"{kind} {answer.name}"), title_justify="left")
        for column in ("rank", "item", "score"):
            table.add_column(column, justify="right")
        for rank, (item, score) in enumerate(zip(answer.items, answer.scores, strict=True), 1):
            table.add_row(str(rank), str(item), f"{score:.4g}")
        console.print(table)


def print_trials(trials: Sequence[Trial], monitor: str) -> None:
    """A study's trials, the best first: those that finished, by their validation metric."""
    finished = sorted((trial for trial in trials if trial.state == "finished"), key=lambda t: -(t.best or 0.0))
    others = len(trials) - len(finished)
    settings = list(trials[0].values)
    table = Table("trial", *settings, f"validation {monitor}", "epoch")
    for trial in finished[:10]:
        shown = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in trial.values.values()]
        table.add_row(str(trial.number), *shown, f"{trial.best:.4f}", str(trial.best_epoch))
    console.print(table)
    console.print(f"{len(finished)} trials finished, {others} cut short or failed")


def print_settings(title: str, settings: list[Setting], values: dict[str, Any]) -> None:
    """A section of a recipe: every key with its value, type, bounds and meaning."""
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    for column in ("key", "value", "type", "meaning"):
        table.add_column(column, overflow="fold")
    for setting in settings:
        kind = f"{setting.type} {setting.bounds}".strip()
        table.add_row(setting.name, toml_value(values[setting.name]), kind, setting.meaning)
    console.print(table)


def components_markdown(registries: Sequence[Registry[Any]]) -> str:
    """The page of components: every name with the first line of its class and a table of its settings."""
    lines = ["# Components", "", "Made by `rectool list --markdown`. A name's file is its textbook page.", ""]
    for registry in registries:
        lines += [f"## {registry.kind}", ""]
        for name in registry.names():
            file = registry.module(name).replace(".", "/") + ".py"
            lines += [f"### {name}", "", f"{registry.about(name)} (`{file}`)", ""]
            settings = settings_of(registry.schema(name))
            if settings:
                lines += ["| key | default | type | meaning |", "|---|---|---|---|"]
            for s in settings:
                kind_of = f"{s.type} {s.bounds}".strip().replace("|", "\\|")
                lines.append(f"| `{s.name}` | `{toml_value(s.default)}` | {kind_of} | {s.meaning} |")
            lines += [""] if settings else []
    return "\n".join(lines)


def toml_value(value: Any) -> str:
    """``value`` as a recipe writes it."""
    return tomli_w.dumps({"v": value}).partition("=")[2].strip()


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{seconds:.1f} s"
