"""The figures of a comparison: means and deviations over seeds, and differences from a baseline."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from rectoolkit.errors import UserError
from rectoolkit.evaluation.significance import Paired, holm, paired
from rectoolkit.runs.layout import METRICS as FINISHED
from rectoolkit.runs.layout import read_environment
from rectoolkit.runs.run import Run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from rectoolkit.compare.plan import Plan, Row

    Values = dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Spread:
    """A mean over seeds and its sample standard deviation, which is NaN for one seed."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"))


@dataclass(frozen=True)
class Figures:
    """A row of the table: its runs, and their accuracy and costs averaged over seeds.

    ``planned`` is the number of runs that the row should have. ``bits_per_node`` counts everything stored for a user or
    item, scales and offsets included. ``against`` maps a metric to the paired tests against the baseline, with p-values
    corrected over the rows. It is empty for the baseline itself.
    """

    label: str
    runs: tuple[Run, ...]
    planned: int
    accuracy: dict[str, Spread]
    bits: int
    bytes_per_user: float
    bytes_per_item: float
    bits_per_node: float
    queries_per_second: float
    train_seconds: float
    against: dict[str, Paired] = field(default_factory=dict)

    @property
    def seeds(self) -> str:
        """The number of runs, and if some are missing, of how many."""
        return str(self.planned) if len(self.runs) == self.planned else f"{len(self.runs)} of {self.planned}"


@dataclass(frozen=True)
class Comparison:
    """The sorted rows of a plan that have finished runs. ``failures`` maps a missing run to the reason."""

    plan: Plan
    rows: tuple[Figures, ...]
    failures: dict[str, str]
    at_once: int = 1

    @property
    def has_baseline(self) -> bool:
        return any(row.label == self.plan.baseline for row in self.rows)


def compare_runs(plan: Plan, runs: Path, failures: dict[str, str] | None = None, at_once: int = 1) -> Comparison:
    """The figures of the runs of ``plan`` that are finished in the folder ``runs``.

    Raises UserError if there are none, or if they use different data or rank different users.
    """
    opened = {row.label: _finished(row, runs) for row in plan.rows}
    _check_same_data([run for found in opened.values() for run in found])
    users = _per_user(plan, opened)
    rows = [_figures(row, opened[row.label], plan) for row in plan.rows if opened[row.label]]
    if not rows:
        raise UserError("no run was finished, so there is nothing to compare" + _listed(failures or {}))
    if plan.baseline in users:
        rows = _tested(rows, users, plan.baseline, plan.metrics)
    return Comparison(plan, tuple(sorted(rows, key=lambda row: _place(row, plan.sort))), failures or {}, at_once)


def _finished(row: Row, runs: Path) -> tuple[Run, ...]:
    folders = [runs / recipe.folder_name for recipe in row.recipes]
    return tuple(Run.open(folder) for folder in folders if (folder / FINISHED).exists())


def _check_same_data(runs: Sequence[Run]) -> None:
    """Raise UserError with the digests unless all runs use the same interactions."""
    by_digest: dict[str, list[Run]] = {}
    for run in runs:
        data = read_environment(run.path).get("data", {})
        by_digest.setdefault(f"{data.get('name')} (digest {str(data.get('digest'))[:12]})", []).append(run)
    if len(by_digest) > 1:
        lines = [f"  {data}: {', '.join(str(run.path) for run in of)}" for data, of in by_digest.items()]
        raise UserError("runs on different data cannot be compared:\n" + "\n".join(lines))


def _per_user(plan: Plan, opened: dict[str, tuple[Run, ...]]) -> dict[str, Values]:
    """Label -> metric -> the value of each user, averaged over the row's runs, (U,)."""
    averaged, asked = {}, None
    for label, runs in opened.items():
        evaluations = [run.per_user() for run in runs]
        for evaluation, run in zip(evaluations, runs, strict=True):
            asked = evaluation.users if asked is None else asked
            if not np.array_equal(asked, evaluation.users):
                raise UserError(f"{run.path}: ranked other users than the other runs; train it again")
        if runs:
            averaged[label] = {
                metric: np.mean([e.values[metric] for e in evaluations], axis=0) for metric in plan.metrics
            }
    return averaged


def _figures(row: Row, runs: tuple[Run, ...], plan: Plan) -> Figures:
    def mean(key: str) -> float:
        return float(np.mean([run.metrics[key] for run in runs]))

    num_users, num_items = plan.dataset.num_users, plan.dataset.num_items
    user, item = mean("bytes_per_user"), mean("bytes_per_item")
    return Figures(
        row.label,
        runs,
        len(row.recipes),
        {metric: Spread.of([run.metrics["accuracy"][metric] for run in runs]) for metric in plan.metrics},
        int(runs[0].metrics["bits"]),
        user,
        item,
        8 * (num_users * user + num_items * item) / (num_users + num_items),
        mean("queries_per_second"),
        mean("train_seconds"),
    )


def _tested(rows: Sequence[Figures], users: dict[str, Values], baseline: str, metrics: Sequence[str]) -> list[Figures]:
    """The rows with their tests against ``baseline``. p-values are corrected over the rows, for each metric."""
    others = [row.label for row in rows if row.label != baseline]
    found: dict[str, dict[str, Paired]] = {label: {} for label in others}
    for metric in metrics:
        tests = [paired(users[label][metric], users[baseline][metric]) for label in others]
        t_ps, wilcoxon_ps = holm([test.t_p for test in tests]), holm([test.wilcoxon_p for test in tests])
        for label, test, t_p, wilcoxon_p in zip(others, tests, t_ps, wilcoxon_ps, strict=True):
            found[label][metric] = replace(test, t_p=t_p, wilcoxon_p=wilcoxon_p)
    return [replace(row, against=found.get(row.label, {})) for row in rows]


def _place(row: Figures, sort: str) -> tuple[float | str, str]:
    """The sort key of a row: accuracy and speed from high to low, other columns from low to high."""
    if sort == "name":
        return row.label, ""
    if sort in row.accuracy:
        return -row.accuracy[sort].mean, row.label
    value = float(getattr(row, sort))
    return (-value if sort == "queries_per_second" else value), row.label


def _listed(failures: dict[str, str]) -> str:
    return "".join(f"\n  {job}: {why}" for job, why in failures.items())
