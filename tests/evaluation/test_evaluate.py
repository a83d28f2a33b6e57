"""Evaluation against a loop over users, and the two kinds of index against one another."""

from __future__ import annotations

import numpy as np
import pytest

from rectoolkit.data import Interactions
from rectoolkit.errors import DataError, UserError
from rectoolkit.evaluation import evaluate as module
from rectoolkit.evaluation.evaluate import evaluate, queries_per_second, rows_of
from rectoolkit.evaluation.metrics import Recall
from rectoolkit.search.codes import CodeTable, PackedTable, dot
from rectoolkit.search.float32 import FloatIndex
from rectoolkit.search.keys import mix

DRAWS = np.random.default_rng(3)


def random_interactions(users: int, items: int, number: int) -> Interactions:
    return Interactions.from_pairs(DRAWS.integers(0, users, number), DRAWS.integers(0, items, number), users, items)


def test_evaluation_equals_a_loop_over_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "USER_BLOCK", 7)  # several blocks, the last one short
    seen, held = random_interactions(30, 50, 200), random_interactions(30, 50, 60)
    users, items = (CodeTable(DRAWS.integers(0, 4, (n, 9)).astype(np.uint8), bits=2) for n in (30, 50))
    found = evaluate(PackedTable.pack(users), PackedTable.pack(items), seen, held, ["recall@5", "ndcg@10"])
    scores, recalls, asked = dot(users, items), [], []
    for user in range(30):
        if not len(held.row(user)):
            continue
        ranked = sorted(set(range(50)) - set(seen.row(user).tolist()), key=lambda i: (-scores[user, i], int(mix(i))))
        recalls.append(len(set(ranked[:5]) & set(held.row(user).tolist())) / len(held.row(user)))
        asked.append(user)
    assert found.users.tolist() == asked
    np.testing.assert_allclose(found.values["recall@5"], recalls)
    assert found.means["recall@5"] == pytest.approx(np.mean(recalls))


def test_a_metric_named_twice_is_measured_once() -> None:
    seen, held = random_interactions(20, 40, 100), random_interactions(20, 40, 50)
    users, items = (DRAWS.normal(size=(n, 8)).astype(np.float32) for n in (20, 40))
    names = ["recall@5", "coverage@5"]
    once, twice = (evaluate(users, items, seen, held, asked) for asked in (names, names * 2))
    assert {name: values.tolist() for name, values in twice.values.items()} == {
        name: values.tolist() for name, values in once.values.items()
    }
    assert twice.means == once.means


def test_codes_and_their_decoded_floats_rank_alike() -> None:
    seen, held = random_interactions(20, 40, 100), random_interactions(20, 40, 50)
    users, items = (CodeTable(DRAWS.integers(0, 2, (n, 16)).astype(np.uint8), bits=1) for n in (20, 40))
    packed = evaluate(PackedTable.pack(users), PackedTable.pack(items), seen, held, ["map@20"])
    floats = evaluate(users.decode(), items.decode(), seen, held, ["map@20"])
    np.testing.assert_array_equal(packed.values["map@20"], floats.values["map@20"])


def test_a_metric_deeper_than_the_catalogue_searches_no_deeper(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, held = random_interactions(20, 40, 100), random_interactions(20, 40, 50)
    users, items = (DRAWS.normal(size=(n, 8)).astype(np.float32) for n in (20, 40))
    depths = []
    search = FloatIndex.search
    monkeypatch.setattr(
        FloatIndex, "search", lambda self, queries, k, **how: depths.append(k) or search(self, queries, k, **how)
    )
    kinds = ("recall", "ndcg", "map", "mrr", "hit", "novelty", "gini")
    deep = evaluate(users, items, seen, held, [*(f"{name}@999999" for name in kinds), "precision@400"]).means
    whole = evaluate(users, items, seen, held, [*(f"{name}@40" for name in kinds), "precision@40"]).means
    assert depths == [40, 40]
    assert {name: deep[f"{name}@999999"] for name in kinds} == {name: whole[f"{name}@40"] for name in kinds}
    assert deep["precision@400"] == pytest.approx(whole["precision@40"] / 10)
    assert queries_per_second(users, items, seen, np.arange(20), ["recall@999999"]) > 0
    assert set(depths) == {40}


def test_nothing_held_out_is_refused() -> None:
    empty = Interactions.from_pairs([], [], 4, 4)
    with pytest.raises(DataError, match="no user has a held-out item"):
        evaluate(np.ones((4, 2), np.float32), np.ones((4, 2), np.float32), empty, empty, ["recall@2"])


def test_a_metric_without_one_value_per_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recall, "values", lambda self, hits, held: hits)
    seen, rows = random_interactions(4, 9, 9), np.ones((9, 2), np.float32)
    held = Interactions.from_pairs([0, 2], [1, 3], 4, 9)
    with pytest.raises(UserError, match=r"metric 'recall@5': values\(\) must return one number per user \(2,\), got"):
        evaluate(rows[:4], rows, seen, held, ["recall@5"])


def test_rows_of_gives_the_rows_in_the_order_asked() -> None:
    interactions = Interactions.from_pairs([0, 0, 2, 3], [1, 4, 0, 2], 4, 5)
    indptr, items = rows_of(interactions, np.array([3, 1, 0]))
    assert indptr.tolist() == [0, 1, 1, 3]
    assert items.tolist() == [2, 1, 4]


def test_what_is_recommended_is_measured_as_a_loop_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "USER_BLOCK", 7)
    seen, held = random_interactions(30, 50, 200), random_interactions(30, 50, 60)
    users, items = (CodeTable(DRAWS.integers(0, 4, (n, 9)).astype(np.uint8), bits=2) for n in (30, 50))
    tables = PackedTable.pack(users), PackedTable.pack(items)
    names = ["coverage@5", "gini@5", "popularity@5", "novelty@3", "recall@5", "coverage@2"]
    means = evaluate(*tables, seen, held, names).means
    scores, lists = dot(users, items), []
    for user in np.flatnonzero(held.user_degrees).tolist():
        rest = set(range(50)) - set(seen.row(user).tolist())
        lists.append(sorted(rest, key=lambda i: (-scores[user, i], int(mix(i))))[:5])
    counts = np.zeros(50)
    for row in lists:
        counts[row] += 1
    degrees = [sum(item in seen.row(user) for user in range(30)) for item in range(50)]
    assert means["coverage@5"] == len({item for row in lists for item in row}) / 50
    assert means["coverage@2"] == len({item for row in lists for item in row[:2]}) / 50
    assert means["gini@5"] == pytest.approx(np.abs(counts[:, None] - counts).mean() / (2 * counts.mean()))
    assert means["popularity@5"] == pytest.approx(np.mean([[degrees[i] for i in row] for row in lists]))
    rarity = [[-np.log2(max(1, degrees[i]) / 30) for i in row[:3]] for row in lists]
    assert means["novelty@3"] == pytest.approx(np.mean(rarity))
    assert means["recall@5"] == evaluate(*tables, seen, held, ["recall@5"]).means["recall@5"]
