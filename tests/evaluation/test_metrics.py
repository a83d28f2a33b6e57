"""Metrics against loops that follow their definitions word by word."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rectoolkit.errors import UserError
from rectoolkit.evaluation.metrics import METRICS, gini, measure, novelty, parse, parse_any, popularity


def naive(name: str, hits: list[bool], relevant: int, k: int) -> float:
    found = [rank for rank in range(1, k + 1) if hits[rank - 1]]
    ideal = min(k, relevant)
    return {
        "recall": len(found) / relevant,
        "precision": len(found) / k,
        "hit": float(bool(found)),
        "mrr": 1 / found[0] if found else 0.0,
        "ndcg": sum(1 / math.log2(r + 1) for r in found) / sum(1 / math.log2(r + 1) for r in range(1, ideal + 1)),
        "map": sum(sum(hits[:r]) / r for r in found) / ideal,
    }[name]


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(0, 40), st.integers(1, 30))
def test_every_metric_equals_its_definition(hits: list[bool], more: int, k: int) -> None:
    k = min(k, len(hits))
    relevant = max(1, sum(hits) + more)
    for name in METRICS:
        value = measure(f"{name}@{k}", np.array([hits]), np.array([relevant]))
        assert value[0] == pytest.approx(naive(name, hits, relevant, k)), name


def test_a_perfect_ranking_has_ndcg_and_map_of_one_even_with_fewer_items_than_ranks() -> None:
    hits = np.array([[True, True, False, False]])
    assert measure("ndcg@4", hits, np.array([2]))[0] == 1
    assert measure("map@4", hits, np.array([2]))[0] == 1


@pytest.mark.parametrize("wrong", ["recall", "recall@", "recall@0", "recall@-1", "recall@x", "Recall@5", "auc@5", "@5"])
def test_what_is_no_metric_is_refused(wrong: str) -> None:
    with pytest.raises(UserError, match="metric"):
        parse(wrong)


def test_too_few_ranks_are_an_error() -> None:
    with pytest.raises(ValueError, match="needs 5 ranks"):
        measure("recall@5", np.zeros((1, 4), bool), np.array([1]))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_gini_is_the_mean_difference_of_all_pairs_over_twice_the_mean(counts: list[int]) -> None:
    pairs = [abs(one - other) for one in counts for other in counts]
    expected = sum(pairs) / len(counts) ** 2 / (2 * sum(counts) / len(counts)) if sum(counts) else 0.0
    assert gini(np.array(counts)) == pytest.approx(expected)


def test_gini_by_hand() -> None:
    assert gini(np.array([5, 5, 5])) == 0
    assert gini(np.array([0, 0, 0, 8])) == pytest.approx(3 / 4)


def test_popularity_and_novelty_against_loops_over_the_ranks() -> None:
    ids, degrees = np.array([[2, 0, -1], [1, 2, 3], [-1, -1, -1]]), np.array([8, 0, 2, 1])
    assert popularity(ids, degrees, 16).tolist() == [5, 1, 0]
    expected = [(math.log2(8) + math.log2(2)) / 2, (math.log2(16) + math.log2(8) + math.log2(16)) / 3, 0]
    assert novelty(ids, degrees, 16) == pytest.approx(expected)


def test_what_is_no_accuracy_is_refused_where_accuracy_is_asked_for() -> None:
    assert parse_any("coverage@20") == ("coverage", 20)
    with pytest.raises(UserError, match="rectool evaluate RUN --metrics gini@20"):
        parse("gini@20")
    with pytest.raises(UserError, match="did you mean 'coverage'"):
        parse_any("coverag@5")
