"""Ranking metrics: a registry of classes, written ``name@k`` in a recipe and on the command line.

Notation. A user's list holds the first k items of a full ranking. h_r is 1 if the item at rank r = 1..k is in the
user's test items, else 0, and n >= 1 is the number of those items. d_i is the number of training users of item i, U
the number of users, I the number of items, and c_i the number of lists that hold item i.

There are three kinds, told apart by their base class:

- ``AccuracyMetric``: one value per user, from the hits. Higher is better. Recipes report and monitor these.
- ``ListMetric``: one value per user, from the recommended items alone.
- ``CatalogueMetric``: one value for all lists together, from the counts c_i.

A plugin (``plugins = ["my_metrics"]`` in a recipe, or ``--plugin my_metrics``) adds a metric the same way::

    @metrics.register("f1")
    class F1(AccuracyMetric):
        \"\"\"Harmonic mean of precision and recall: 2 sum h_r / (k + n).\"\"\"

        def values(self, hits, relevant):
            return 2 * hits.sum(1) / (self.k + relevant)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rectoolkit.recipe.registry import metrics as metrics
from rectoolkit.recipe.registry import parse_metric

if TYPE_CHECKING:
    import numpy.typing as npt

    Hits = npt.NDArray[np.bool_]
    Counts = npt.NDArray[np.int64]
    Ids = npt.NDArray[np.int64]
    Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A metric cut off at rank ``k``."""

    accuracy: ClassVar[bool] = False
    k: int


class AccuracyMetric(Metric):
    """Base class of the metrics that compare a list with the user's test items. Higher is better."""

    accuracy: ClassVar[bool] = True

    def values(self, hits: Hits, relevant: Counts) -> Values:
        """Value of each user.

        Parameters
        ----------
        hits
            (Q, K) bool, whether the item at each rank is a test item. K is ``k``, or the number of items if that is
            smaller.
        relevant
            (Q,) int64, the number of test items of each user, at least one.

        Returns
        -------
        (Q,) float64
        """
        raise NotImplementedError


class ListMetric(Metric):
    """Base class of the metrics that describe the items of a user's list."""

    def values(self, ids: Ids, degrees: Counts, num_users: int) -> Values:
        """Value of each list.

        Parameters
        ----------
        ids
            (Q, K) int64, the recommended items; -1 at ranks that hold nothing.
        degrees
            (I,) int64, the number of training users of each item.
        num_users
            The number of users U.

        Returns
        -------
        (Q,) float64
        """
        raise NotImplementedError


class CatalogueMetric(Metric):
    """Base class of the metrics that describe all lists together."""

    def value(self, counts: Counts) -> float:
        """Value for ``counts`` (I,) int64, the number of lists that hold each item."""
        raise NotImplementedError


metrics.bases = (AccuracyMetric, ListMetric, CatalogueMetric)


@metrics.register("recall")
class Recall(AccuracyMetric):
    """Share of the user's test items that are found: sum h_r / n (Manning et al., 2008, section 8.3)."""

    def values(self, hits: Hits, relevant: Counts) -> Values:
        return np.asarray(hits.sum(1) / relevant)


@metrics.register("precision")
class Precision(AccuracyMetric):
    """Share of the k ranks that hold a test item: sum h_r / k (Manning et al., 2008, section 8.3)."""

    def values(self, hits: Hits, relevant: Counts) -> Values:
        return np.asarray(hits.sum(1) / self.k)


@metrics.register("hit")
class Hit(AccuracyMetric):
    """Hit rate: 1 if any of the k ranks holds a test item, else 0 (Deshpande and Karypis, TOIS 2004)."""

    def values(self, hits: Hits, relevant: Counts) -> Values:
        return np.asarray(hits.any(1), np.float64)


@metrics.register("mrr")
class ReciprocalRank(AccuracyMetric):
    """Reciprocal rank: 1 / r of the first hit, 0 without one (Voorhees, TREC 1999)."""

    def values(self, hits: Hits, relevant: Counts) -> Values:
        return np.asarray(np.where(hits.any(1), 1 / (hits.argmax(1) + 1), 0.0))


@metrics.register("ndcg")
class NDCG(AccuracyMetric):
    """Discounted gain, sum h_r / log2(r + 1), over that of an ideal list (Järvelin and Kekäläinen, TOIS 2002).

    The ideal list has min(k, n) hits at the top. Some published code takes the ideal over the hits that were found,
    which gives larger values.
    """

    def values(self, hits: Hits, relevant: Counts) -> Values:
        discounts = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
        ideal = np.cumsum(discounts)[np.minimum(relevant, hits.shape[1]) - 1]
        return np.asarray((hits * discounts).sum(1) / ideal)


@metrics.register("map")
class AveragePrecision(AccuracyMetric):
    """Average precision: sum of h_r times the precision at r, over min(k, n) (Manning et al., 2008, section 8.4)."""

    def values(self, hits: Hits, relevant: Counts) -> Values:
        at_rank = np.cumsum(hits, 1) / np.arange(1, hits.shape[1] + 1)
        return np.asarray((hits * at_rank).sum(1) / np.minimum(relevant, hits.shape[1]))


@metrics.register("popularity")
class Popularity(ListMetric):
    """Average number of training users of the recommended items: mean d_i (Yin et al., VLDB 2012)."""

    def values(self, ids: Ids, degrees: Counts, num_users: int) -> Values:
        return _mean_over_ranks(degrees.astype(np.float64), ids)


@metrics.register("novelty")
class Novelty(ListMetric):
    """Self-information of the recommended items, in bits: mean -log2(d_i / U) (Zhou et al., PNAS 2010).

    An item without training users counts as one with a single user.
    """

    def values(self, ids: Ids, degrees: Counts, num_users: int) -> Values:
        return _mean_over_ranks(-np.log2(np.maximum(degrees, 1) / num_users), ids)


@metrics.register("coverage")
class Coverage(CatalogueMetric):
    """Share of all items that any list recommends: |{i: c_i > 0}| / I (Ge et al., RecSys 2010)."""

    def value(self, counts: Counts) -> float:
        return float((counts > 0).mean())


@metrics.register("gini")
class Gini(CatalogueMetric):
    """Gini coefficient of c_i: 0 if all items are recommended equally often, 1 - 1/I for one item alone.

    sum over j of (2 j - I - 1) c_(j) / (I sum c_i), with c_(1) <= ... <= c_(I) (Fleder and Hosanagar, 2009).
    """

    def value(self, counts: Counts) -> float:
        total, number = int(counts.sum()), len(counts)
        if not total:
            return 0.0
        ranks = np.arange(1, number + 1)
        return float((2 * ranks - number - 1) @ np.sort(counts) / (number * total))


def _mean_over_ranks(of_item: Values, ids: Ids) -> Values:
    there = ids >= 0
    return np.asarray(np.where(there, of_item[ids], 0.0).sum(1) / np.maximum(there.sum(1), 1))


def parse(metric: str) -> Any:
    """The metric written as ``name@k``: ``parse("recall@20")`` is ``Recall(20)``.

    Raises UserError if the name is unknown, or the cut-off is not a number from 1 to 999999.
    """
    cls, k = parse_metric(metric)
    return cls(k)
