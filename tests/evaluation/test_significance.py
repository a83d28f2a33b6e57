"""Paired tests against their formulas, and Holm's correction by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import t as student

from rectoolkit.evaluation.significance import holm, paired


def test_t_and_effect_against_their_formulas() -> None:
    draws = np.random.default_rng(3)
    one, other = draws.random(37), draws.random(37)
    found, d = paired(one, other), one - other
    statistic = d.mean() / (d.std(ddof=1) / np.sqrt(37))
    assert found.difference == pytest.approx(d.mean())
    assert found.effect == pytest.approx(d.mean() / d.std(ddof=1))
    assert found.t_p == pytest.approx(2 * student.sf(abs(statistic), 36))


def test_wilcoxon_against_all_signs() -> None:
    d = np.array([0.3, -0.1, 0.45, 0.8, 0.22, -0.05, 0.61, 0.37, 0.9])
    ranks = np.argsort(np.argsort(abs(d))) + 1
    sums = [
        sum(r for r, s in zip(ranks, signs, strict=True) if s) for signs in itertools.product((0, 1), repeat=len(d))
    ]
    least = min(ranks[d > 0].sum(), ranks[d < 0].sum())
    assert paired(d, np.zeros(9)).wilcoxon_p == pytest.approx(2 * np.mean([s <= least for s in sums]))


def test_the_same_rankings_are_no_difference() -> None:
    one, other, third = np.random.default_rng(0).random((3, 50))
    same = paired((one + other + third) / 3, (third + other + one) / 3)  # unequal by 1e-17 for some users
    assert (same.difference, same.t_p, same.wilcoxon_p, same.effect) == (0, 1, 1, 0)
    constant = paired(np.full(9, 0.5), np.zeros(9))
    assert constant.t_p == 0
    assert constant.effect == np.inf
    with pytest.raises(ValueError, match="paired"):
        paired(np.zeros(3), np.zeros(4))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.001, 0.6, 0.02]) == pytest.approx([1.0, 0.004, 1.0, 0.06])
    assert holm([0.7]) == [0.7]
    assert holm([]) == []
