"""Ranking metrics at a cut-off k, user by user, from which ranked items are relevant.

``hits`` (Q, K) bool says whether the item at each rank is in the user's held-out part, ``relevant`` (Q,) how many
held-out items the user has (at least one). With h_r the hit at rank r = 1..k and n the relevant items:

    recall      sum h_r / n                         precision   sum h_r / k
    hit         1 if any h_r                        mrr         1 / r of the first hit, 0 without one
    ndcg        sum h_r / log2(r + 1) over the same sum for min(k, n) hits at the top
    map         sum over hits of precision at their rank, over min(k, n)

The ideal of ndcg is over min(k, n) and not over the hits found: that other form, seen in published code, is larger.
A user's value is averaged over users with n >= 1 by ``evaluate``; the values themselves are kept.

Others look at what is recommended, whether it is relevant or not. With d_i the train users of item i, U users and c_i
how many of the lists hold item i among their first k:

    popularity  mean d_i of a list's items          coverage    share of all items with c_i > 0
    novelty     mean -log2(d_i / U) of them         gini        inequality of c_i over all items, 0 (all alike) to 1

Popularity and novelty have a value a user, coverage and gini one for all lists together. An item without train users
counts as one with a single one in novelty. Ranks that hold nothing (id -1) are left out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from rectoolkit.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy.typing as npt

    Hits = npt.NDArray[np.bool_]
    Counts = npt.NDArray[np.int64]
    Ids = npt.NDArray[np.int64]
    Values = npt.NDArray[np.float64]


def recall(hits: Hits, relevant: Counts) -> Values:
    """Share of the relevant items that were found, (Q,)."""
    return np.asarray(hits.sum(1) / relevant)


def precision(hits: Hits, relevant: Counts) -> Values:
    """Share of the k ranks that hold a relevant item, (Q,)."""
    return np.asarray(hits.sum(1) / hits.shape[1])


def hit(hits: Hits, relevant: Counts) -> Values:
    """1 where any of the k ranks holds a relevant item, (Q,)."""
    return np.asarray(hits.any(1), np.float64)


def mrr(hits: Hits, relevant: Counts) -> Values:
    """One over the rank of the first relevant item, 0 where there is none among k, (Q,)."""
    return np.asarray(np.where(hits.any(1), 1 / (hits.argmax(1) + 1), 0.0))


def ndcg(hits: Hits, relevant: Counts) -> Values:
    """Discounted gain over that of an ideal ranking, (Q,)."""
    discounts = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.cumsum(discounts)[np.minimum(relevant, hits.shape[1]) - 1]
    return np.asarray((hits * discounts).sum(1) / ideal)


def average_precision(hits: Hits, relevant: Counts) -> Values:
    """Mean over min(k, n) of the precision at each hit's rank, (Q,)."""
    at_rank = np.cumsum(hits, 1) / np.arange(1, hits.shape[1] + 1)
    return np.asarray((hits * at_rank).sum(1) / np.minimum(relevant, hits.shape[1]))


METRICS: dict[str, Callable[[Hits, Counts], Values]] = {
    "recall": recall,
    "ndcg": ndcg,
    "precision": precision,
    "hit": hit,
    "mrr": mrr,
    "map": average_precision,
}


def popularity(ids: Ids, degrees: Counts, num_users: int) -> Values:
    """The mean number of train users of a list's items, (Q,)."""
    return _mean_over_ranks(degrees.astype(np.float64), ids)


def novelty(ids: Ids, degrees: Counts, num_users: int) -> Values:
    """The mean of -log2 of the share of users who have a list's items, in bits, (Q,)."""
    return _mean_over_ranks(-np.log2(np.maximum(degrees, 1) / num_users), ids)


def _mean_over_ranks(of_item: Values, ids: Ids) -> Values:
    there = ids >= 0
    return np.asarray(np.where(there, of_item[ids], 0.0).sum(1) / np.maximum(there.sum(1), 1))


def coverage(counts: Counts) -> float:
    """The share of items that stand in any list."""
    return float((counts > 0).mean())


def gini(counts: Counts) -> float:
    """Gini's coefficient of how often items are recommended: 0 all alike, 1 - 1/I one item alone."""
    total, number = int(counts.sum()), len(counts)
    if not total:
        return 0.0
    ranks = np.arange(1, number + 1)
    return float((2 * ranks - number - 1) @ np.sort(counts) / (number * total))


OF_LISTS: dict[str, Callable[[Ids, Counts, int], Values]] = {"popularity": popularity, "novelty": novelty}
OF_CATALOGUE: dict[str, Callable[[Counts], float]] = {"coverage": coverage, "gini": gini}


def parse_any(metric: str) -> tuple[str, int]:
    """As ``parse``, for metrics of what is recommended too."""
    return parse(metric, (*METRICS, *OF_LISTS, *OF_CATALOGUE))


def parse(metric: str, allowed: Iterable[str] = METRICS) -> tuple[str, int]:
    """``recall@20`` -> ("recall", 20). Raises UserError where the name or the cut-off is not one."""
    match = re.fullmatch(r"([a-z]+)@([1-9][0-9]{0,5})", metric)
    if match is None:
        raise UserError(f"metric '{metric}' must read name@k with k from 1 to 999999, such as recall@20")
    if match[1] not in allowed:
        if match[1] in (*OF_LISTS, *OF_CATALOGUE):
            raise UserError(f"metric '{metric}' is not of accuracy: 'rectool evaluate RUN --metrics {metric}' has it")
        raise UserError(f"unknown metric '{match[1]}'; {nearest(match[1], allowed)}")
    return match[1], int(match[2])


def measure(metric: str, hits: Hits, relevant: Counts) -> Values:
    """``metric`` (name@k) for each user, (Q,), from ``hits`` of at least k ranks."""
    name, k = parse(metric)
    if hits.shape[1] < k:
        raise ValueError(f"{metric} needs {k} ranks, got {hits.shape[1]}")
    return METRICS[name](hits[:, :k], relevant)
