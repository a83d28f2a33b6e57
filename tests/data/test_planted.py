"""The planted generator: deterministic, linear, heavy-tailed, unbiased ids, and a structure that can be learned."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectoolkit.data import Interactions, find_card, load_dataset, planted
from rectoolkit.data.planted import CHUNK, Planted, generate, preferences

SMALL = Planted(users=600, items=400, interactions=15_000, communities=30)


@pytest.fixture(scope="module")
def default():
    return load_dataset("planted")


def recall(scores: np.ndarray, train: Interactions, test: Interactions, k: int = 20) -> float:
    scores = scores.astype(float)
    scores[train.pairs()] = -np.inf
    top = np.argsort(-scores, axis=1)[:, :k]
    hits = test.contains(np.arange(len(top))[:, None], top).sum(axis=1)
    tested = test.user_degrees > 0
    return float((hits[tested] / test.user_degrees[tested]).mean())


def test_the_default_card_has_the_announced_size(default):
    counts, asked = default.summary(), find_card("planted").planted
    made = counts["train"] + counts["test"]
    assert (counts["users"], counts["items"]) == (asked.users, asked.items)
    assert 0.85 * asked.interactions <= made <= 1.01 * asked.interactions
    assert counts["test"] / made == pytest.approx(0.2, abs=0.01)
    assert counts["users without train items"] == 0
    assert not default.train.contains(*default.test.pairs()).any()


def test_the_same_settings_give_the_same_bytes_in_another_process(default):
    code = "from rectoolkit.data import load_dataset; print(load_dataset('planted').digest)"
    environment = {**os.environ, "PYTHONHASHSEED": "3"}
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert made.stdout.strip() == default.digest


def test_another_seed_gives_other_data():
    digests = {generate(SMALL.model_copy(update={"seed": seed})).digest for seed in range(3)}
    assert len(digests) == 3


def test_a_users_clicks_do_not_depend_on_who_comes_after():
    base = {"items": 500, "communities": 20}
    few = generate(Planted(users=CHUNK, interactions=10 * CHUNK, **base))
    more = generate(Planted(users=CHUNK + 100, interactions=10 * (CHUNK + 100), **base))
    assert np.array_equal(few.train.items, more.train.items[: few.train.num_interactions])
    twice = generate(Planted(users=2 * CHUNK, interactions=20 * CHUNK, **base)).train.user_degrees
    assert not np.array_equal(twice[:CHUNK], twice[CHUNK:])  # a chunk's stream is its own


@pytest.mark.parametrize("side", ["user_degrees", "item_degrees"])
def test_degrees_are_heavy_tailed(default, side):
    """A power law of density d^-a has slope 1/(1-a) of log degree against log rank: -0.67 for a = 2.5.

    Poisson degrees of the same mean, what uniform clicks give, have a Gini coefficient near 0.1.
    """
    degrees = np.sort(getattr(default.train, side))[::-1].astype(float)
    top = slice(5, len(degrees) // 5)
    slope = np.polyfit(np.log(np.arange(1, len(degrees) + 1))[top], np.log(degrees)[top], 1)[0]
    assert -1.0 < slope < -0.35
    ranks = np.arange(1, len(degrees) + 1)
    gini = ((len(degrees) + 1 - 2 * ranks) * degrees).sum() / (len(degrees) * degrees.sum())
    assert gini > 0.3
    assert degrees[0] > 8 * np.median(degrees)


def test_ids_say_nothing_of_degree(default):
    for degrees in (default.train.user_degrees, default.train.item_degrees):
        ranks = np.argsort(np.argsort(degrees))
        correlation = np.corrcoef(ranks, np.arange(len(degrees)))[0, 1]
        assert abs(correlation) < 4 / np.sqrt(len(degrees))  # four standard errors


def test_test_items_are_drawn_evenly_from_a_users_items(default):
    share = default.test.item_degrees.sum() / (default.test.num_interactions + default.train.num_interactions)
    popular = np.argsort(-default.train.item_degrees)[:100]
    taken, kept = default.test.item_degrees[popular].sum(), default.train.item_degrees[popular].sum()
    assert taken / (taken + kept) == pytest.approx(share, abs=0.02)


def test_popularity_is_far_below_the_truth_and_chance_below_popularity(default):
    """The gain open to a model: from ranking by popularity to ranking by the true preference."""
    asked, users = find_card("planted").planted, np.arange(1000)
    train, test = (first_users(part, 1000) for part in (default.train, default.test))
    popularity = np.tile(default.train.item_degrees, (1000, 1))
    chance = np.random.default_rng(0).random((1000, asked.items))
    scores = [recall(s, train, test) for s in (chance, popularity, preferences(asked, users))]
    assert scores[0] < 0.03
    assert scores[0] * 3 < scores[1] < 0.2
    assert scores[2] > 2.5 * scores[1]


def test_preferences_are_probabilities_and_explain_the_clicks():
    data, rows = generate(SMALL), preferences(SMALL, np.arange(SMALL.users))
    assert rows.sum(axis=1) == pytest.approx(np.ones(SMALL.users))
    users, items = data.train.pairs()
    assert rows[users, items].mean() > 5 / SMALL.items
    without_noise = SMALL.model_copy(update={"noise": 0.0})
    data = generate(without_noise)
    assert (preferences(without_noise, np.arange(SMALL.users))[data.train.pairs()] > 0).all()


def first_users(part: Interactions, count: int) -> Interactions:
    return Interactions(part.indptr[: count + 1], part.items[: part.indptr[count]], count, part.num_items)


def test_the_work_is_linear():
    """Four times the users and clicks take about four times as long; quadratic work would take sixteen."""

    def seconds(factor: int) -> float:
        spec = Planted(users=CHUNK * factor, items=4000, interactions=80_000 * factor, communities=100)
        times = []
        for _ in range(3):
            start = time.process_time()
            generate(spec)
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(4) < 8 * seconds(1)


@settings(max_examples=40, deadline=None)
@given(
    users=st.integers(1, 60),
    items=st.integers(1, 60),
    mean=st.integers(1, 80),
    communities=st.integers(1, 90),
    per_user=st.integers(1, 9),
    noise=st.sampled_from([0.0, 0.3, 0.99]),
    overlap=st.sampled_from([0.0, 1.0]),
    share=st.sampled_from([0.0, 0.2, 0.9]),
)
def test_any_allowed_settings_give_valid_data(users, items, mean, communities, per_user, noise, overlap, share):
    data = generate(
        Planted(
            users=users,
            items=items,
            interactions=users * mean,
            communities=communities,
            communities_per_user=per_user,
            noise=noise,
            overlap=overlap,
            test_share=share,
        )
    )
    assert (data.num_users, data.num_items) == (users, items)
    for part in data.parts().values():
        assert (np.diff(part.keys()) > 0).all()
        assert part.items.min(initial=0) >= 0
        assert part.items.max(initial=0) < items
    assert not data.train.contains(*data.test.pairs()).any()
    assert ((data.train.user_degrees > 0) | (data.test.user_degrees == 0)).all()


def test_memory_is_the_result_and_one_chunk(monkeypatch):
    """The largest thing made on the way is a chunk's, whatever the number of users."""
    largest = 0
    clicks = planted._clicks

    def watched(*arguments):
        nonlocal largest
        train, test = clicks(*arguments)
        largest = max(largest, train.num_users)
        return train, test

    monkeypatch.setattr(planted, "_clicks", watched)
    data = generate(Planted(users=3 * CHUNK + 5, items=300, interactions=60_000, communities=10))
    assert largest == CHUNK
    assert data.num_users == 3 * CHUNK + 5
