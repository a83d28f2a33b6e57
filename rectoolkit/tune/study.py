"""A study: trials one after another, each a training with settings proposed by Optuna.

Settings come from Optuna's tree-structured Parzen estimator (Bergstra et al., NIPS 2011), after ten random trials. From
the sixth trial on, a trial is cut short at an epoch where its best validation metric so far is below the median of the
earlier trials. Settings that were tried before are not trained again.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rectoolkit.data.catalog import load_data
from rectoolkit.errors import TrainingError, UserError, needed
from rectoolkit.files import remove_parts, write_text
from rectoolkit.runs.execute import RunOptions, train, with_teacher
from rectoolkit.runs.identity import Identity, digest_of, files_read
from rectoolkit.runs.split import split_of
from rectoolkit.runs.store import locked
from rectoolkit.training.callbacks import Callback
from rectoolkit.tune.space import Choice, Range, Search, probed
from rectoolkit.tune.store import BEST, Store, Trial

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rectoolkit.data import Dataset
    from rectoolkit.recipe import Recipe
    from rectoolkit.runs.split import Split

AT_RANDOM, UNCUT = 10, 5  # trials drawn at random, and finished trials before any is pruned


class Watcher(Protocol):
    """Receives the progress of a study."""

    def began(self, number: int, values: dict[str, Any]) -> None: ...

    def epoch(self, row: dict[str, Any]) -> None: ...

    def ended(self, trial: Trial) -> None: ...


def tune(
    recipe: Recipe,
    search: Search,
    options: RunOptions,
    watcher: Watcher | None = None,
) -> list[Trial]:
    """Run the remaining trials of the study in ``options.runs`` and write the best one's recipe there as ``best.toml``.

    Returns all trials. The same call after a kill continues and ends with the same trials, given the same ``threads``.
    The callbacks of ``options`` receive the training of a teacher, and ``watcher`` that of the trials.
    Raises UserError if optuna is missing, if the folder holds another study, or if every trial failed.
    """
    optuna, folder = load_optuna(), options.runs
    dataset = load_data(recipe["dataset"])
    split = split_of(recipe, dataset)
    probes = [with_teacher(recipe.with_settings(values), dataset, options) for values in probed(search.space)]
    store = Store(folder, identity_of(recipe, search, dataset, probes))
    trials = store.load()
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        trials = store.load()  # as the process that held the lock left them
        remove_parts(folder)
        _clear(folder, f"trial-{len(trials)}-")  # an interrupted trial resumes; other leftovers go
        while len(trials) < search.trials and sum(t.seconds for t in trials) < (search.timeout or np.inf):
            asked = _ask(optuna, search, trials)
            values = {key: asked.params[key] for key in search.space}
            if watcher:
                watcher.began(len(trials), values)
            trial = _again(trials, values) or _try(
                recipe.with_settings(values), values, asked, dataset, split, options, watcher
            )
            trials.append(trial)
            store.save(trials)
            _clear(folder)
            if trial == best_of(trials):
                write_text(folder / BEST, winner(recipe, trials).toml())
            if watcher:
                watcher.ended(trial)
        if best_of(trials) is None:
            reasons = "".join(f"\n  trial {trial.number}: {trial.why}" for trial in trials)
            raise UserError(f"{folder}: every trial failed, so there is no best one{reasons}")
        write_text(folder / BEST, winner(recipe, trials).toml())
    return trials


def _clear(folder: Path, kept: str = "kept") -> None:
    """Remove the folders of trials, except one whose name begins with ``kept``."""
    for left in folder.glob("trial-*"):
        if not left.name.startswith(kept):
            shutil.rmtree(left)


def load_optuna() -> Any:
    """The optuna module. Raises UserError with the command to type if it is not installed."""
    with needed("tuning"):
        import optuna
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def identity_of(
    recipe: Recipe, search: Search, dataset: Dataset, probes: Sequence[Recipe]
) -> dict[str, dict[str, Any]]:
    """The facts that identify a study. A folder with another study is refused.

    Like the digest, they hold what the recipe states beyond the defaults, so that a new setting refuses no study.
    ``probes`` are recipes that name every file a trial may read.
    """
    sections = {f"{section}.{key}": value for section, keys in recipe.changed.items() for key, value in keys.items()}
    idle = ("evaluate.metrics", *search.space)  # searched settings are overwritten, and reported metrics do not matter
    facts = {"name": recipe.name, "seed": recipe.seed, "plugins": recipe.plugins, **sections}
    own, files = Identity.of(recipe, dataset), sorted({path for tried in probes for path in files_read(tried).values()})
    return {
        "recipe": {key: value for key, value in facts.items() if key not in idle},
        "search": search.facts(),
        "data": {"name": dataset.name, "digest": dataset.digest, **({"order": own.order} if own.order else {})},
        "plugin": dict(own.plugins),
        "outside": {str(path): digest_of(path) for path in files},
    }


def best_of(trials: list[Trial]) -> Trial | None:
    """The finished trial with the largest validation metric, the first among equals; None if none finished."""
    return max((t for t in trials if t.state == "finished"), key=lambda t: (t.best or 0.0, -t.number), default=None)


def winner(recipe: Recipe, trials: list[Trial]) -> Recipe:
    """The complete recipe of the best trial."""
    best = best_of(trials)
    assert best is not None
    monitor = recipe["train"]["monitor"]
    told = f"{recipe.name} tuned: {monitor} {best.best:.4f} on the validation part, trial {best.number}"
    name = recipe.name if recipe.name.endswith("-tuned") else f"{recipe.name[:58]}-tuned"
    return replace(recipe.with_settings(best.values), name=name, description=told)


def distributions(optuna: Any, search: Search) -> dict[str, Any]:
    """The search space as Optuna's distributions."""
    made = optuna.distributions
    found: dict[str, Any] = {}
    for key, values in search.space.items():
        match values:
            case Choice():
                found[key] = made.CategoricalDistribution(values.values)
            case Range(whole=True):
                found[key] = made.IntDistribution(int(values.low), int(values.high), values.log, values.step)
            case _:
                found[key] = made.FloatDistribution(values.low, values.high, values.log)
    return found


def _ask(optuna: Any, search: Search, trials: list[Trial]) -> Any:
    """Optuna's next trial. It depends only on the search and the earlier trials."""
    seed = int(np.random.SeedSequence([search.seed, len(trials)]).generate_state(1)[0])
    pruner = optuna.pruners.MedianPruner(n_startup_trials=UNCUT) if search.prune else optuna.pruners.NopPruner()
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=AT_RANDOM)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    space, states = distributions(optuna, search), optuna.trial.TrialState
    names = {"finished": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}
    for trial in trials:
        study.add_trial(
            optuna.trial.create_trial(
                state=names[trial.state],
                value=trial.best if trial.state == "finished" else None,
                params=trial.values,
                distributions=space,
                intermediate_values=trial.validation,
            )
        )
    return study.ask(space)


def _again(trials: list[Trial], values: dict[str, Any]) -> Trial | None:
    """A copy of the earlier trial with the same values, if there is one."""
    same = next((trial for trial in trials if trial.values == values), None)
    return same and replace(same, number=len(trials), seconds=0.0)


class _Cut(Exception):
    """A trial that the pruner ends."""


class _Report(Callback):
    """Reports every epoch to Optuna and the watcher, and raises _Cut if Optuna prunes the trial."""

    def __init__(self, asked: Any, monitor: str, watcher: Watcher | None) -> None:
        self.asked, self.monitor, self.watcher = asked, monitor, watcher
        self.validation: dict[int, float] = {}
        self.seconds = 0.0

    def epoch(self, row: dict[str, Any]) -> None:
        self.seconds = row["seconds"]
        if self.watcher:
            self.watcher.epoch(row)
        if "validation" not in row:
            return
        value = self.validation[row["epoch"]] = row["validation"][self.monitor]
        self.asked.report(value, row["epoch"])
        if self.asked.should_prune():
            raise _Cut


def _try(
    tried: Recipe,
    values: dict[str, Any],
    asked: Any,
    dataset: Dataset,
    split: Split,
    options: RunOptions,
    watcher: Watcher | None,
) -> Trial:
    """Train as ``tried`` says, with ``values`` in it, or go on with a trial that was cut short by a kill."""
    built = with_teacher(tried, dataset, options)
    report = _Report(asked, tried["train"]["monitor"], watcher)
    place = options.runs / f"trial-{asked.number}-{tried.digest[:8]}"
    place.mkdir(exist_ok=True)
    remove_parts(place)
    state, why = "finished", ""
    try:
        train(place, built, split, replace(options, callbacks=(report,)))
    except _Cut:
        state = "pruned"
    except TrainingError as error:
        state, why = "failed", str(error)
    best = max(report.validation.values(), default=None)
    epoch = next((epoch for epoch, value in report.validation.items() if value == best), 0)
    return Trial(asked.number, values, state, best, epoch, report.validation, report.seconds, why)  # type: ignore[arg-type]
