"""For whom, and on what, a method is good: accuracy by how active users are and by how popular items are.

Both are parted by their train interactions into groups of about equal test interactions, so that no group is
too small to say something. By users it is the recall of the group's users averaged; by items the share of the group's
test interactions that stand among their user's best k. The latter ranks once more, from the packed codes of one run
of each row (its first seed).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rectoolkit.evaluation.evaluate import USER_BLOCK

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from rectoolkit.data import Dataset
    from rectoolkit.runs.run import Run

GROUPS = 5


@dataclass(frozen=True)
class Groups:
    """Users or items parted by train interactions: ``group`` int64 (N,) of each, and the groups' ``names``."""

    group: npt.NDArray[np.int64]
    names: tuple[str, ...]


def groups_of(train_degrees: npt.NDArray[np.int64], test_degrees: npt.NDArray[np.int64]) -> Groups:
    """At most ``GROUPS`` ranges of the train degree with about equal shares of the test interactions."""
    weight = np.bincount(train_degrees, weights=test_degrees)
    shares = np.cumsum(weight) / weight.sum()
    ends = np.unique(np.searchsorted(shares, np.arange(1, GROUPS) / GROUPS))
    group = np.searchsorted(ends, train_degrees)
    kept, group = np.unique(group, return_inverse=True)
    spans = [train_degrees[group == number] for number in range(len(kept))]
    names = (f"{span.min()}-{span.max()}" if span.min() < span.max() else f"{span.min()}" for span in spans)
    return Groups(group.astype(np.int64), tuple(names))


def by_activity(runs: Sequence[Run], metric: str, groups: Groups) -> list[float]:
    """The mean of ``metric`` over each group's users, averaged over the runs; NaN for a group without test users."""
    evaluations = [run.per_user() for run in runs]
    values = np.mean([evaluation.values[metric] for evaluation in evaluations], axis=0)
    return _means(groups.group[evaluations[0].users], values, len(groups.names))


def by_popularity(run: Run, dataset: Dataset, k: int, groups: Groups) -> list[float]:
    """The share of each item group's test interactions that are found among the user's best ``k``."""
    asked = np.flatnonzero(dataset.test.user_degrees)
    _, wanted = dataset.test.pairs()
    found = np.zeros(dataset.num_items)
    for start in range(0, len(asked), USER_BLOCK):
        block = asked[start : start + USER_BLOCK]
        ids = run.rank(block, k).ids
        hits = dataset.test.contains(block[:, None], ids)
        found += np.bincount(ids[hits], minlength=dataset.num_items)
    total = np.bincount(groups.group[wanted], minlength=len(groups.names))
    hit = np.bincount(groups.group, weights=found, minlength=len(groups.names))
    return [float(h / t) if t else float("nan") for h, t in zip(hit, total, strict=True)]


def _means(group: npt.NDArray[np.int64], values: npt.NDArray[np.float64], count: int) -> list[float]:
    sums = np.bincount(group, weights=values, minlength=count)
    sizes = np.bincount(group, minlength=count)
    return [float(s / n) if n else float("nan") for s, n in zip(sums, sizes, strict=True)]
