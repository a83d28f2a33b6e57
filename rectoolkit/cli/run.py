"""``rectool run``: train a recipe."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from rectoolkit.cli.group import (
    device_option,
    main,
    recipe_argument,
    runs_option,
    set_option,
    threads_option,
)
from rectoolkit.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rectoolkit.runs.run import Run


@main.command()
@recipe_argument
@set_option
@runs_option
@device_option
@threads_option
@click.option("--tensorboard", is_flag=True, help="Write event files for TensorBoard into the run folder.")
@click.option("--quiet", is_flag=True, help="Print only the run folder.")
def run(
    recipe: Path,
    overrides: Sequence[str],
    runs: Path,
    device: str,
    threads: int | None,
    tensorboard: bool,
    quiet: bool,
) -> None:
    """Train RECIPE, pack its codes, evaluate them, and print the figures.

    RECIPE is a .toml file, the name of a shipped recipe (such as hqgnn), or a run folder, whose recipe is used. A
    finished run of the same recipe is reused, and an unfinished one resumes from its last checkpoint.
    """
    from rectoolkit.recipe import Recipe
    from rectoolkit.runs.execute import RunOptions, execute
    from rectoolkit.runs.layout import ENVIRONMENT, RECIPE, check_layout
    from rectoolkit.terminal import TrainingBar, console, print_notes
    from rectoolkit.training.events import Events, from_log

    folder = recipe if (recipe / ENVIRONMENT).is_file() else None
    if folder is not None:
        check_layout(folder)
        chosen_runs = click.get_current_context().get_parameter_source("runs") != ParameterSource.DEFAULT
        recipe, runs = folder / RECIPE, runs if chosen_runs else Path(os.path.normpath(folder / ".."))
    loaded = Recipe.load(recipe, overrides)
    if folder is not None and not overrides and loaded.folder_name != folder.resolve().name:
        raise UserError(
            f"{folder}: its recipe now names the run {loaded.folder_name}, so the folder was renamed, or is from "
            f"another release; rename it back, or run its recipe again: rectool run {recipe} --runs {runs}"
        )
    callbacks: list[Any] = []
    with ExitStack() as stack:
        if tensorboard:
            events = stack.enter_context(Events(runs / loaded.folder_name))
            callbacks.append(events)
        if not quiet:
            print_notes(loaded.notes)
            bar = stack.enter_context(TrainingBar(loaded["train"]["epochs"], loaded["train"]["monitor"]))
            callbacks.append(bar)
        finished = execute(loaded, RunOptions(runs, device, threads, tuple(callbacks)))
    if tensorboard and not events.written:
        from_log(finished.path)
    if quiet:
        click.echo(finished.path)
        return
    if not bar.row:
        console.print("this run was finished before; its figures:")
    _print_run(finished, loaded.expect)
    if tensorboard:
        console.print(f"tensorboard --logdir {finished.path}", soft_wrap=True)


def _print_run(run: Run, expect: Mapping[str, float] | None) -> None:
    """Print the figures of a run beside those of the same model before quantization and the recipe's targets."""
    from rich.table import Table

    from rectoolkit.terminal import console

    figures = run.metrics
    before, is_coded = figures["float32"], figures["bits"] <= 8
    rows = [(metric, value, before["accuracy"].get(metric), ".4f") for metric, value in figures["accuracy"].items()]
    rows += [(f"bytes per {s}", figures[f"bytes_per_{s}"], before[f"bytes_per_{s}"], ".1f") for s in ("user", "item")]
    rows += [("queries per second", figures["queries_per_second"], before["queries_per_second"], ",.0f")]
    heads = [f"{figures['bits']}-bit codes", "before quantization", "ratio"] if is_coded else ["float32"]
    table = Table("")
    for head in (*heads, *(["target"] if expect else [])):
        table.add_column(head, justify="right")
    for name, value, other, style in rows:
        cells = [name, format(value, style)]
        cells += [format(other, style), f"{value / other:.3g}" if other else "-"] if is_coded else []
        cells += [f"{expect[name]:.4f}" if name in expect else ""] if expect else []
        table.add_row(*cells)
    console.print(f"{figures['name']}: {run.path}", style="italic", soft_wrap=True)
    console.print(table)
    best, epochs = figures["best_epoch"], figures["epochs"]
    console.print(
        f"{figures['test_users']:,} test users · {f'best epoch {best} of {epochs}' if best else f'{epochs} epochs'}\n"
        f"trained {_duration(figures['train_seconds'])} ({figures['seconds_per_epoch']:.2f} s per epoch) · "
        f"peak memory {figures['peak_memory_mb']:,.0f} MB"
    )


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{seconds:.1f} s"
