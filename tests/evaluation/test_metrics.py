"""Metrics against loops that follow their definitions word by word."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rectoolkit.errors import RecipeError, UserError
from rectoolkit.evaluation.metrics import (
    AccuracyMetric,
    CatalogueMetric,
    Gini,
    ListMetric,
    Metric,
    Novelty,
    Popularity,
    Recall,
    metrics,
    parse,
)
from rectoolkit.recipe import Recipe
from rectoolkit.recipe.registry import parse_metric


def of_kind(kind: type[Metric]) -> list[str]:
    return [name for name in metrics.names() if issubclass(metrics[name], kind)]


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
    for name in of_kind(AccuracyMetric):
        value = parse(f"{name}@{k}").values(np.array([hits[:k]]), np.array([relevant]))
        assert value[0] == pytest.approx(naive(name, hits, relevant, k)), name


def test_a_perfect_ranking_has_ndcg_and_map_of_one_even_with_fewer_items_than_ranks() -> None:
    hits = np.array([[True, True, False, False]])
    assert parse("ndcg@4").values(hits, np.array([2]))[0] == 1
    assert parse("map@4").values(hits, np.array([2]))[0] == 1


@pytest.mark.parametrize("wrong", ["recall", "recall@", "recall@0", "recall@-1", "recall@x", "Recall@5", "auc@5", "@5"])
def test_what_is_no_metric_is_refused(wrong: str) -> None:
    with pytest.raises(UserError, match="metric"):
        parse(wrong)


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(1, 500))
def test_ranks_beyond_the_catalogue_change_no_value(hits: list[bool], more: int) -> None:
    relevant = np.array([max(1, sum(hits))])
    for name in of_kind(AccuracyMetric):
        deep = parse(f"{name}@{len(hits) + more}")
        padded = np.array([hits + [False] * more])
        assert deep.values(np.array([hits]), relevant) == pytest.approx(deep.values(padded, relevant)), name


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_gini_is_the_mean_difference_of_all_pairs_over_twice_the_mean(counts: list[int]) -> None:
    pairs = [abs(one - other) for one in counts for other in counts]
    expected = sum(pairs) / len(counts) ** 2 / (2 * sum(counts) / len(counts)) if sum(counts) else 0.0
    assert Gini(20).value(np.array(counts)) == pytest.approx(expected)


def test_gini_by_hand() -> None:
    assert Gini(20).value(np.array([5, 5, 5])) == 0
    assert Gini(20).value(np.array([0, 0, 0, 8])) == pytest.approx(3 / 4)


def test_popularity_and_novelty_against_loops_over_the_ranks() -> None:
    ids, degrees = np.array([[2, 0, -1], [1, 2, 3], [-1, -1, -1]]), np.array([8, 0, 2, 1])
    assert Popularity(3).values(ids, degrees, 16).tolist() == [5, 1, 0]
    expected = [(math.log2(8) + math.log2(2)) / 2, (math.log2(16) + math.log2(8) + math.log2(16)) / 3, 0]
    assert Novelty(3).values(ids, degrees, 16) == pytest.approx(expected)


def test_kinds_are_told_apart() -> None:
    assert parse("recall@20") == Recall(20)
    assert of_kind(ListMetric) == ["novelty", "popularity"]
    assert of_kind(CatalogueMetric) == ["coverage", "gini"]
    with pytest.raises(UserError, match="rectool evaluate RUN --metrics gini@20"):
        parse_metric("gini@20", accuracy=True)
    with pytest.raises(UserError, match="did you mean 'coverage'"):
        parse("coverag@5")


def test_every_metric_has_a_docstring_and_a_kind() -> None:
    for name in metrics.names():
        assert metrics[name].__doc__, f"{name}: 'rectool list metric' prints the first line of the docstring"
        assert issubclass(metrics[name], AccuracyMetric | ListMetric | CatalogueMetric), name


PLUGIN = '''
from rectoolkit.evaluation.metrics import AccuracyMetric, metrics

@metrics.register("f1")
class F1(AccuracyMetric):
    """Harmonic mean of precision and recall."""

    def values(self, hits, relevant):
        return 2 * hits.sum(1) / (self.k + relevant)
'''
USE = """
import sys
from rectoolkit.cli import main
from rectoolkit.recipe import Recipe

recipe = Recipe.load(sys.argv[1], ['plugins=["my_metrics"]', 'evaluate.metrics=["f1@5"]', 'train.monitor="f1@5"'])
assert recipe["evaluate"]["metrics"] == ["f1@5"]
main(["evaluate", sys.argv[2], "--plugin", "my_metrics", "--metrics", "f1@500,f1@5,recall@5,precision@5", "--json"])
"""


def test_a_plugin_adds_a_metric_to_recipes_and_to_evaluate(small_run: Path, tmp_path: Path) -> None:
    (tmp_path / "my_metrics.py").write_text(PLUGIN)
    recipe = Path(__file__).parents[2] / "recipes" / "ste.toml"
    command = [sys.executable, "-c", USE, str(recipe), str(small_run)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert min(found["recall@5"], found["precision@5"]) <= found["f1@5"] <= max(found["recall@5"], found["precision@5"])
    assert 0 < found["f1@500"] < found["f1@5"]


def test_a_class_of_no_kind_is_refused_when_it_is_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = metrics.names()
    for base in (Metric, object):
        with pytest.raises(TypeError, match=r"'zz': .* derive from AccuracyMetric, ListMetric or CatalogueMetric"):
            metrics.register("zz")(type("Kindless", (base,), {}))
    assert metrics.names() == known
    plugin = "from rectoolkit.evaluation.metrics import metrics\n\n\n@metrics.register('zz')\nclass Kindless: ...\n"
    (tmp_path / "kindless_metric.py").write_text(plugin)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=r"cannot import 'kindless_metric': .* derive from AccuracyMetric"):
        Recipe.load("ste", ['plugins=["kindless_metric"]', 'evaluate.metrics=["zz@5"]'])


def test_an_unknown_metric_names_those_there_are() -> None:
    with pytest.raises(UserError, match=", ".join(metrics.names())):
        parse("auc@5")
