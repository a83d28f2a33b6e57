"""Paired significance tests over users: is one ranking better than another for the same users?

Each user has a value under both methods (averaged over seeds). The tests look at their differences d (U,):

    t-test      mean(d) over deviation(d) / sqrt(U), against Student's distribution with U - 1 degrees of freedom
    Wilcoxon    the ranks of |d| summed by sign, without users whose difference is 0; needs no normality
    Cohen's d   mean(d) / deviation(d), the size of the difference, which does not depend on U
    Holm        of m tests the k-th smallest p is multiplied by m - k + 1, and is never below the one before it

With thousands of users, differences too small to matter become significant, so read the effect size beside p. The tests
describe these users under these trained models. The deviation over seeds describes the effect of training again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

DECIMALS = 12  # means over seeds differ by 1e-17 with the order of the seeds, which must not count as a difference


@dataclass(frozen=True)
class Paired:
    """A method against a baseline in one metric: the mean difference, two p-values, and Cohen's d."""

    difference: float
    t_p: float
    wilcoxon_p: float
    effect: float


def paired(values: npt.NDArray[np.float64], baseline: npt.NDArray[np.float64]) -> Paired:
    """Two-sided tests of ``values`` (U,) against ``baseline`` (U,), with uncorrected p-values.

    If no user has a difference, both p-values are 1 and the effect is 0. Raises ValueError for unequal lengths.
    """
    if values.shape != baseline.shape or values.ndim != 1:
        raise ValueError(f"paired values must be (U,) and (U,), got {values.shape} and {baseline.shape}")
    from scipy.stats import ttest_1samp, wilcoxon

    differences = np.round(values - baseline, DECIMALS)
    mean = float(differences.mean())
    if len(differences) < 2 or not differences.any():
        return Paired(mean, 1.0, 1.0, 0.0)
    wilcoxon_p = float(wilcoxon(differences).pvalue)
    deviation = float(differences.std(ddof=1))
    if np.ptp(differences) == 0:  # the same difference for all users: no deviation to divide by
        return Paired(mean, 0.0, wilcoxon_p, float(np.copysign(np.inf, mean)))
    return Paired(mean, float(ttest_1samp(differences, 0.0).pvalue), wilcoxon_p, mean / deviation)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for a family of m tests (Holm, 1979), in the given order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order.tolist()):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = least
    return corrected
