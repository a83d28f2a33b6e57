"""Full-rank evaluation: metrics of the lists that an index returns for every user with held-out items.

All items are ranked, except those that the user has in the training set. The index is the one that serves, so the
metrics include every effect of quantization. Users are ranked in blocks, so memory does not grow with the number of
users times items. Values are kept per user for paired tests between runs.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.checks import row_numbers
from rectoolkit.errors import DataError, UserError
from rectoolkit.evaluation.metrics import AccuracyMetric, CatalogueMetric, ListMetric, parse
from rectoolkit.search import open_index
from rectoolkit.search.codes import PackedTable
from rectoolkit.search.packed import compiled_kernels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from rectoolkit.data import Interactions

    Table = PackedTable | npt.NDArray[np.float32]

USER_BLOCK = 4096
PASSES, TIMED_SECONDS = 6, 0.3  # the least of both: a search of a small catalogue takes microseconds
BLOCK_HITS = 1 << 22  # ids of a block, 32 MB, however deep the lists are


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one index: ``users`` int64 (Q,), and per metric a value for each of them, float64 (Q,).

    ``together`` holds the metrics of all lists together, such as coverage.
    """

    users: npt.NDArray[np.int64]
    values: dict[str, npt.NDArray[np.float64]]
    together: dict[str, float] = field(default_factory=dict)

    @property
    def means(self) -> dict[str, float]:
        """Each metric averaged over the users, and the metrics of all lists together."""
        return {metric: float(values.mean()) for metric, values in self.values.items()} | self.together


def evaluate(
    users: Table,
    items: Table,
    seen: Interactions,
    held_out: Interactions,
    metrics: Sequence[str],
    threads: int | None = None,
) -> Evaluation:
    """Rank all items for every user of ``held_out`` by inner products, and measure ``metrics``.

    ``users`` and ``items`` are both packed codes, or both float32 rows. A user's items in ``seen`` are left out of the
    list, and an item's users there are its popularity. Raises DataError if nothing is held out.
    """
    asked = np.flatnonzero(held_out.user_degrees)
    if not len(asked):
        raise DataError("no user has a held-out item, so there is nothing to evaluate")
    measures = {metric: parse(metric) for metric in metrics}
    k = min(max(measure.k for measure in measures.values()), seen.num_items)  # no list is longer than the catalogue
    index, size = open_index(items), max(1, min(USER_BLOCK, BLOCK_HITS // k))
    counts = {
        metric: np.zeros(seen.num_items, np.int64)
        for metric, measure in measures.items()
        if isinstance(measure, CatalogueMetric)
    }
    values: dict[str, list[npt.NDArray[np.float64]]] = {metric: [] for metric in measures if metric not in counts}
    for start in range(0, len(asked), size):
        block = asked[start : start + size]
        queries, mask = take(users, block), rows_of(seen, block)
        found = index.search(queries, k, seen=mask, threads=threads)
        hits = held_out.contains(block[:, None], found.ids)
        for metric, measure in measures.items():
            ids = found.ids[:, : measure.k]
            if isinstance(measure, AccuracyMetric):
                measured = measure.values(hits[:, : measure.k], held_out.user_degrees[block])
                values[metric].append(_per_user(metric, measured, len(block)))
            elif isinstance(measure, ListMetric):
                measured = measure.values(ids, seen.item_degrees, seen.num_users)
                values[metric].append(_per_user(metric, measured, len(block)))
            else:
                counts[metric] += np.bincount(ids[ids >= 0], minlength=seen.num_items)
    together = {
        metric: measure.value(counts[metric])
        for metric, measure in measures.items()
        if isinstance(measure, CatalogueMetric)
    }
    return Evaluation(asked, {metric: np.concatenate(parts) for metric, parts in values.items()}, together)


def _per_user(metric: str, values: Any, users: int) -> npt.NDArray[np.float64]:
    """The values of a metric, float64 (users,). Raises UserError if a plugin's metric has not one for each user."""
    if np.shape(values) != (users,):
        raise UserError(
            f"metric '{metric}': values() must return one number per user ({users},), got {np.shape(values)}"
        )
    return np.asarray(values, np.float64)


def queries_per_second(
    users: Table,
    items: Table,
    seen: Interactions,
    asked: npt.NDArray[np.int64],
    metrics: Sequence[str],
    threads: int | None = None,
) -> float:
    """The number of the users ``asked`` ranked per second, with lists as deep as ``metrics`` need.

    The median of several passes over at most one block of users, after an untimed pass with the compiled kernels.
    """
    k, block = min(max(parse(metric).k for metric in metrics), seen.num_items), asked[:USER_BLOCK]
    index, queries, mask = open_index(items), take(users, block), rows_of(seen, block)
    compiled_kernels(math.inf)
    times: list[float] = []
    while len(times) < PASSES or sum(times) < TIMED_SECONDS:
        begun = time.perf_counter()
        index.search(queries, k, seen=mask, threads=threads)
        times.append(time.perf_counter() - begun)
    return len(block) / float(np.median(times[1:]))


def take(table: Table, rows: npt.NDArray[np.int64]) -> Table:
    """These rows of a table of either kind. Raises UserError for rows that it does not have."""
    return table.take(rows) if isinstance(table, PackedTable) else table[row_numbers(rows, len(table), "rows")]


def rows_of(interactions: Interactions, users: npt.NDArray[np.int64]) -> tuple[Any, Any]:
    """The items of ``users`` as CSR (indptr (n + 1), items), one row per user. Raises UserError for unknown users."""
    users = row_numbers(users, interactions.num_users, "users", "user")
    starts = interactions.indptr[users]
    degrees = interactions.indptr[users + 1] - starts
    indptr = np.concatenate([[0], np.cumsum(degrees)])
    places = np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], degrees)
    return indptr, interactions.items[places]
