"""``rectool run``: train a recipe."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from rectoolkit.cli.group import (
    choose_device,
    device_option,
    main,
    recipe_argument,
    runs_option,
    set_option,
    threads_option,
)
from rectoolkit.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence


@main.command()
@recipe_argument
@set_option
@runs_option
@device_option
@threads_option
@click.option("--tensorboard", is_flag=True, help="Write event files for TensorBoard into the run folder.")
@click.option("--quiet", is_flag=True, help="Print the run's folder and nothing else.")
def run(
    recipe: Path,
    overrides: Sequence[str],
    runs: Path,
    device: str,
    threads: int | None,
    tensorboard: bool,
    quiet: bool,
) -> None:
    """Train RECIPE (a .toml file, or the name of a shipped recipe), pack its codes, evaluate them, and print the table.

    The same recipe again reuses its finished run; an unfinished one goes on from its checkpoint. A run folder stands
    for its own recipe.
    """
    from rectoolkit.recipe import Recipe
    from rectoolkit.runs.execute import RunOptions, execute
    from rectoolkit.runs.identity import finished_before, remember, words
    from rectoolkit.runs.layout import ENVIRONMENT, RECIPE
    from rectoolkit.terminal import TrainingBar, console, print_notes, print_run
    from rectoolkit.training.events import Events, from_log

    folder = recipe if (recipe / ENVIRONMENT).is_file() else None
    if folder is not None:
        chosen_runs = click.get_current_context().get_parameter_source("runs") != ParameterSource.DEFAULT
        recipe, runs = folder / RECIPE, runs if chosen_runs else Path(os.path.normpath(folder / ".."))
    before = finished_before(recipe, overrides, runs)
    if before is not None:
        finished, notes = before
        if not quiet:
            print_notes(notes)
        reused = True
    else:
        loaded = Recipe.load(recipe, overrides)
        if folder is not None and not overrides and loaded.folder_name != folder.resolve().name:
            raise UserError(
                f"{folder}: its recipe now names the run {loaded.folder_name}, so the folder was renamed, or is of "
                f"another release; rename it back, or make the run anew: rectool run {recipe} --runs {runs}"
            )
        chosen, why = choose_device(device)
        callbacks: list[Any] = []
        with ExitStack() as stack:
            if tensorboard:
                events = stack.enter_context(Events(runs / loaded.folder_name))
                callbacks.append(events)
            if not quiet:
                print_notes([*loaded.notes, *([why] if why else [])])
                bar = stack.enter_context(TrainingBar(loaded["train"]["epochs"], loaded["train"]["monitor"]))
                callbacks.append(bar)
            finished = execute(loaded, RunOptions(runs, chosen, threads, tuple(callbacks)))
        with suppress(OSError):  # a folder that may only be read is reused all the same
            remember(finished.path, words(recipe, overrides), loaded.notes)
        reused = not quiet and not bar.row
    if tensorboard and (before is not None or not events.written):
        from_log(finished.path)
    if quiet:
        click.echo(finished.path)
        return
    if reused:
        console.print("this run was finished before; its figures:")
    print_run(finished, Recipe.load(recipe, overrides).expect)
    if tensorboard:
        console.print(f"tensorboard --logdir {finished.path}", soft_wrap=True)
