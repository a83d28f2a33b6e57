"""``rectool tune``: settings of a recipe searched for by their validation metric."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rectoolkit.cli.group import choose_device, device_option, main, recipe_argument, set_option, threads_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rectoolkit.tune.store import Trial


@main.command()
@recipe_argument
@click.option("--search", type=click.Path(path_type=Path), required=True, help="The file of ranges to try.")
@set_option
@click.option("--out", type=click.Path(path_type=Path), help="The study's folder; tuned/NAME by default.")
@device_option
@threads_option
def tune(
    recipe: Path, search: Path, overrides: Sequence[str], out: Path | None, device: str, threads: int | None
) -> None:
    """Search for better settings of RECIPE within the ranges of a file, by the validation metric.

    The same command goes on with a study that was interrupted. The best settings are written as a recipe.
    """
    from rectoolkit.recipe import Recipe
    from rectoolkit.runs.execute import RunOptions
    from rectoolkit.terminal import console, print_notes, print_trials
    from rectoolkit.tune import read_search
    from rectoolkit.tune.store import BEST
    from rectoolkit.tune.study import tune

    loaded = Recipe.load(recipe, overrides)
    wanted = read_search(search, loaded)
    chosen, why = choose_device(device)
    print_notes((*loaded.notes, *([why] if why else [])))
    folder = out or Path("tuned") / loaded.name
    trials = tune(loaded, wanted, RunOptions(folder, chosen, threads), _Lines(loaded["train"]["monitor"]))
    print_trials(trials, loaded["train"]["monitor"])
    console.print(f"the best settings as a recipe: rectool run {folder / BEST}", soft_wrap=True)


class _Lines:
    """A line a trial."""

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor

    def began(self, number: int, values: dict[str, Any]) -> None: ...

    def epoch(self, row: dict[str, Any]) -> None: ...

    def ended(self, trial: Trial) -> None:
        settings = " ".join(
            f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in trial.values.items()
        )
        how = f"{self.monitor} {trial.best:.4f} at epoch {trial.best_epoch}" if trial.best is not None else ""
        told = {"finished": how, "pruned": f"cut short: {how}", "failed": f"failed: {trial.why}"}[trial.state]
        click.echo(f"trial {trial.number}: {settings}: {told}")
