"""Samplers: what every one must do (by registry), exact draws, odds, collisions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rectoolkit.data import Interactions
from rectoolkit.errors import TrainingError
from rectoolkit.model.samplers.base import Batch, Sampler, Unseen, log_odds, popularity_tickets
from rectoolkit.recipe.registry import samplers

NAMES = samplers.names()


def make(name: str, train: Interactions, seed: int = 0, **written: Any) -> Sampler:
    filled, faults = samplers.check(name, written, "sampler")
    assert not faults
    return samplers.build(name, filled, {"train": train, "generator": np.random.default_rng(seed)})


def pairs(batches: list[Batch]) -> np.ndarray[Any, Any]:
    return np.concatenate([torch.stack([b.users, b.positives], 1).numpy() for b in batches])


@pytest.mark.parametrize("name", NAMES)
class TestEverySampler:
    def test_an_epoch_has_each_interaction_once(self, name: str, tiny: Interactions) -> None:
        sampler = make(name, tiny, batch=32)
        for _ in range(2):
            batches = list(sampler)
            assert len(batches) == len(sampler) == -(-tiny.num_interactions // 32)
            found = pairs(batches)
            np.testing.assert_array_equal(found[np.lexsort(found.T[::-1])], np.stack(tiny.pairs(), 1))

    def test_negatives_are_unseen_or_named_as_collisions(self, name: str, tiny: Interactions) -> None:
        for batch in make(name, tiny, batch=32):
            users, negatives = batch.users.numpy(), batch.negatives.numpy()
            seen = tiny.contains(users[:, None], negatives if negatives.ndim == 2 else negatives[None])
            named = np.zeros_like(seen)
            if batch.collisions is not None:
                named[tuple(batch.collisions.numpy())] = True
                assert len(set(map(tuple, batch.collisions.T.tolist()))) == batch.collisions.shape[1]
            np.testing.assert_array_equal(seen, named)

    def test_shapes_and_types(self, name: str, tiny: Interactions) -> None:
        batch = next(iter(make(name, tiny, batch=32)))
        assert batch.users.shape == batch.positives.shape == (32,)
        assert batch.users.dtype == batch.positives.dtype == batch.negatives.dtype == torch.int64
        assert batch.negatives.dim() == (1 if batch.collisions is not None else 2)
        assert batch.negatives.min() >= 0
        assert batch.negatives.max() < tiny.num_items
        if batch.log_odds is not None:
            assert batch.log_odds.shape == batch.negatives.shape
            assert batch.log_odds.isfinite().all()

    def test_the_seed_determines_everything(self, name: str, tiny: Interactions) -> None:
        first, same, other = (list(make(name, tiny, seed, batch=32)) for seed in (3, 3, 4))
        for a, b in zip(first, same, strict=True):
            assert torch.equal(a.positives, b.positives)
            assert torch.equal(a.negatives, b.negatives)
        assert not torch.equal(first[0].positives, other[0].positives)

    def test_a_restored_generator_draws_on(self, name: str, tiny: Interactions) -> None:
        sampler, resumed = make(name, tiny, batch=32), make(name, tiny, 9, batch=32)
        list(sampler)
        resumed.generator.bit_generator.state = sampler.generator.bit_generator.state
        for a, b in zip(sampler, resumed, strict=True):
            assert torch.equal(a.users, b.users)
            assert torch.equal(a.negatives, b.negatives)

    def test_epochs_differ(self, name: str, tiny: Interactions) -> None:
        sampler = make(name, tiny)
        first, second = next(iter(sampler)), next(iter(sampler))
        assert not torch.equal(first.users, second.users)

    def test_users_who_have_everything_are_left_out(self, name: str) -> None:
        train = Interactions.from_pairs([0, 0, 0, 1, 1], [0, 1, 2, 0, 2])
        found = pairs(list(make(name, train)))
        assert sorted(map(tuple, found)) == [(1, 0), (1, 2)]
        with pytest.raises(TrainingError, match="every user has all 3 items"):
            make(name, Interactions.from_pairs([0, 0, 0], [0, 1, 2]))

    def test_values_beyond_the_bounds_are_faults(self, name: str) -> None:
        for key, bad in {"batch": 0, "negatives": 0, "power": -1.0, "candidates": 1}.items():
            if key in samplers.schema(name).model_fields:
                _, faults = samplers.check(name, {key: bad}, "sampler")
                assert [fault.where for fault in faults] == [f"sampler.{key}"]


boards = st.integers(1, 6).flatmap(
    lambda items: st.tuples(st.just(items), st.lists(st.sets(st.integers(0, items - 1)), min_size=1, max_size=5))
)


@given(boards, st.data())
@settings(max_examples=150, deadline=None)
def test_pick_against_a_plain_list(board: tuple[int, list[set[int]]], data: st.DataObject) -> None:
    num_items, rows = board
    train = Interactions.from_pairs(
        [user for user, row in enumerate(rows) for _ in row],
        [item for row in rows for item in row],
        len(rows),
        num_items,
    )
    tickets = np.array(data.draw(st.lists(st.integers(1, 4), min_size=num_items, max_size=num_items)))
    for each, unseen in ((np.ones(num_items, int), Unseen(train)), (tickets, Unseen(train, tickets))):
        for user, row in enumerate(rows):
            expected = [item for item in range(num_items) if item not in row for _ in range(each[item])]
            assert unseen.counts[user] == len(expected)
            if expected:
                assert unseen.pick(np.array([user]), np.arange(len(expected))[None])[0].tolist() == expected


def chi_square(counts: np.ndarray[Any, Any], odds: np.ndarray[Any, Any]) -> float:
    expected = counts.sum() * odds / odds.sum()
    return float(((counts - expected) ** 2 / expected).sum() / (len(odds) - 1))


def test_even_draws_are_even(tiny: Interactions) -> None:
    user = int(tiny.user_degrees.argmax())
    draws = Unseen(tiny).draw(np.array([user]), 40000, np.random.default_rng(0))[0]
    left = np.setdiff1d(np.arange(25), tiny.row(user))
    counts = np.bincount(draws, minlength=25)
    assert counts.sum() == counts[left].sum()
    assert chi_square(counts[left], np.ones(len(left))) < 2.5  # 1 on average, beyond 2.5 once in ten thousand


@pytest.mark.parametrize("power", [0.0, 0.75, 1.0])
def test_popular_draws_follow_the_power(tiny: Interactions, power: float) -> None:
    user = int(tiny.user_degrees.argmax())
    tickets = popularity_tickets(tiny, power)
    draws = Unseen(tiny, tickets).draw(np.array([user]), 40000, np.random.default_rng(0))[0]
    left = np.setdiff1d(np.flatnonzero(tiny.item_degrees), tiny.row(user))
    assert chi_square(np.bincount(draws, minlength=25)[left], tiny.item_degrees[left] ** power) < 2.5


def test_users_of_every_popular_item_find_the_others() -> None:
    train = Interactions.from_pairs([0, 0, 1], [0, 1, 0], 2, 4)
    draws = Unseen(train, popularity_tickets(train, 1.0)).draw(np.array([0]), 1000, np.random.default_rng(0))
    assert set(draws[0]) == {2, 3}


def test_tickets_of_many_users_fit_64_bits() -> None:
    users = 2**22
    indptr = np.ones(users + 1, np.int64)
    indptr[0], indptr[-1] = 0, 2
    train = Interactions(indptr, np.array([0, 1], np.int32), users, 3)
    unseen = Unseen(train, popularity_tickets(train, 1.0))
    assert (np.diff(unseen._below) > 0).all()
    assert unseen.draw(np.array([users - 1]), 50, np.random.default_rng(0)).min() == 0


def test_log_odds_are_relative_to_even_draws() -> None:
    np.testing.assert_allclose(np.exp(log_odds(np.array([2, 2, 4, 8]))), [0.5, 0.5, 1, 2], rtol=1e-6)


def test_shared_negatives_follow_their_odds(tiny: Interactions) -> None:
    sampler = make("shared", tiny, negatives=40000, power=0.75)
    batch = next(iter(sampler))
    held = tiny.item_degrees > 0
    counts = np.bincount(batch.negatives.numpy(), minlength=25)
    assert chi_square(counts[held], tiny.item_degrees[held] ** 0.75) < 2.5
    share = torch.exp(batch.log_odds[:1]) / 25
    assert abs(float(share) - counts[batch.negatives[0]] / 40000) < 0.01
    assert next(iter(make("shared", tiny))).log_odds is None


def test_in_batch_negatives_are_the_positives(tiny: Interactions) -> None:
    batch = next(iter(make("in_batch", tiny, batch=50)))
    assert torch.equal(batch.negatives, batch.positives)
    own = set(map(tuple, batch.collisions.T.tolist()))
    assert all((row, row) in own for row in range(50))


def test_hard_draws_candidates_for_each_negative(tiny: Interactions) -> None:
    batch = next(iter(make("hard", tiny, batch=16, negatives=3, candidates=5)))
    assert batch.negatives.shape == (16, 15)
    assert batch.best_of == 5
