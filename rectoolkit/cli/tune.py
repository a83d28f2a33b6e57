"""``rectool tune``: search for better settings of a recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rectoolkit.cli.group import device_notes, device_option, main, recipe_argument, set_option, threads_option
from rectoolkit.training.callbacks import Callback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from rectoolkit.recipe import Recipe
    from rectoolkit.tune.space import Search
    from rectoolkit.tune.store import Trial

SHOWN = 10  # trials in the table


@main.command()
@recipe_argument
@click.option("--search", type=click.Path(path_type=Path), required=True, help="The file of settings to try.")
@set_option
@click.option("--out", type=click.Path(path_type=Path), help="The study's folder; tuned/NAME by default.")
@device_option
@threads_option
def tune(
    recipe: Path, search: Path, overrides: Sequence[str], out: Path | None, device: str, threads: int | None
) -> None:
    """Search for better settings of RECIPE, by the validation metric.

    A file (--search) names the settings to try and their ranges. The same command resumes an interrupted study. The
    best settings are written as a recipe.
    """
    from rectoolkit.recipe import Recipe
    from rectoolkit.runs.execute import RunOptions
    from rectoolkit.terminal import console, print_notes
    from rectoolkit.tune.space import read_search
    from rectoolkit.tune.store import BEST
    from rectoolkit.tune.study import tune

    loaded = Recipe.load(recipe, overrides)
    wanted = read_search(search, loaded)
    folder = out or Path("tuned") / loaded.name
    options = RunOptions(folder, device, threads).on_device()
    print_notes((*loaded.notes, *device_notes(options.device)))
    with StudyProgress(loaded, wanted) as progress:
        trials = tune(loaded, wanted, replace(options, callbacks=(progress,)), progress)
    _print_trials(trials, loaded["train"]["monitor"])
    console.print(f"train with the best settings: rectool run {folder / BEST}", soft_wrap=True)


class StudyProgress(Callback):
    """Progress of a study: a line per trial, and on a terminal a bar for the trial or teacher that is training.

    Without a terminal, the stages of a teacher's training are lines too.
    """

    def __init__(self, recipe: Recipe, search: Search) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

        from rectoolkit.terminal import DESCRIPTION, bars

        self.train, self.trials, self.trial = recipe["train"], search.trials, ""
        self.bar = bars(DESCRIPTION, BarColumn(), MofNCompleteColumn(), "epochs", TimeRemainingColumn())
        self.task = self.bar.add_task("")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def stage(self, what: str) -> None:
        self.bar.update(self.task, description=f"{what} ...")
        if not self.bar.console.is_terminal:
            self.bar.console.print(f"{what} ...", soft_wrap=True)

    def began(self, number: int, values: dict[str, Any]) -> None:
        epochs = values.get("train.epochs", self.train["epochs"])
        self.trial = f"trial {number} ({number + 1} of {self.trials})"
        self.bar.reset(self.task, description=self.trial, total=epochs)

    def epoch(self, row: dict[str, Any]) -> None:
        self.bar.update(self.task, description=self.trial, completed=row["epoch"])

    def ended(self, trial: Trial) -> None:
        reached = "" if trial.best is None else f"{self.train['monitor']} {trial.best:.4f} at epoch {trial.best_epoch}"
        how = {"finished": reached, "pruned": f"cut short: {reached}", "failed": f"failed: {trial.why}"}[trial.state]
        settings = " ".join(f"{key}={_shown(value)}" for key, value in trial.values.items())
        self.bar.console.print(f"trial {trial.number}: {settings}: {how}", soft_wrap=True)


def _print_trials(trials: Sequence[Trial], monitor: str) -> None:
    """Print the best of the finished trials, by their validation metric."""
    from rectoolkit.terminal import console, print_table

    finished = sorted((trial for trial in trials if trial.state == "finished"), key=lambda t: -(t.best or 0.0))
    rows = [
        [str(trial.number), *map(_shown, trial.values.values()), f"{trial.best:.4f}", str(trial.best_epoch)]
        for trial in finished[:SHOWN]
    ]
    print_table(["trial", *trials[0].values, f"validation {monitor}", "epoch"], rows)
    console.print(f"{len(finished)} trials finished, {len(trials) - len(finished)} cut short or failed")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
