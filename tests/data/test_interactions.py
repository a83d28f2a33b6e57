"""Interactions: rows and look-ups agree with a plain Python set of pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectoolkit.data import Interactions
from rectoolkit.data.interactions import FREE_IDS, MAX_ID
from rectoolkit.errors import DataError

PAIRS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 30)), max_size=120)


def build(pairs: list[tuple[int, int]], users: int = 13, items: int = 31) -> Interactions:
    table = np.array(pairs, np.int64).reshape(-1, 2)
    return Interactions.from_pairs(table[:, 0], table[:, 1], users, items)


@settings(max_examples=100, deadline=None)
@given(PAIRS)
def test_interactions_are_the_set_of_pairs(pairs):
    made = build(pairs)
    expected = sorted(set(pairs))
    users, items = made.pairs()
    assert list(zip(users.tolist(), items.tolist(), strict=True)) == expected
    assert made.num_interactions == len(expected)
    assert (users.dtype, items.dtype, made.indptr.dtype) == (np.int32, np.int32, np.int64)
    assert made.user_degrees.tolist() == [sum(u == k for u, _ in expected) for k in range(13)]
    assert made.item_degrees.tolist() == [sum(i == k for _, i in expected) for k in range(31)]
    for user in range(13):
        assert made.row(user).tolist() == [i for u, i in expected if u == user]


@settings(max_examples=100, deadline=None)
@given(PAIRS)
def test_contains_agrees_with_a_set_on_every_cell(pairs):
    made = build(pairs)
    users, items = np.meshgrid(np.arange(13), np.arange(31), indexing="ij")
    expected = [[(u, i) in set(pairs) for i in range(31)] for u in range(13)]
    assert made.contains(users, items).tolist() == expected
    assert made.contains(np.arange(13)[:, None], np.arange(31)[None]).tolist() == expected
    assert not made.contains(np.arange(13), np.full(13, 31)).any()
    assert not made.contains(np.arange(13), np.full(13, -1)).any()


@settings(max_examples=50, deadline=None)
@given(PAIRS, st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(pairs, random):
    shuffled = pairs + pairs[: len(pairs) // 2]
    random.shuffle(shuffled)
    first, second = build(pairs), build(shuffled)
    assert np.array_equal(first.items, second.items)
    assert np.array_equal(first.indptr, second.indptr)


@pytest.mark.parametrize("degree", [1, 2, 3, 7, 8, 9, 1000])
def test_contains_finds_the_ends_of_rows_of_any_length(degree):
    items = np.arange(degree) * 2
    made = Interactions.from_pairs(np.ones(degree, int), items, 3, 2 * degree)
    assert made.contains(np.ones(degree, int), items).all()
    assert not made.contains(np.ones(degree, int), items + 1).any()
    assert not made.contains(np.array([0, 2]), np.array([0, 0])).any()


def test_without_counts_the_id_space_ends_at_the_largest_id():
    made = Interactions.from_pairs([5, 0], [2, 7])
    assert (made.num_users, made.num_items) == (6, 8)
    empty = Interactions.from_pairs([], [])
    assert (empty.num_users, empty.num_items, empty.num_interactions) == (0, 0, 0)
    assert empty.pairs()[0].tolist() == []


@pytest.mark.parametrize(
    ("users", "items", "message"),
    [
        ([-1], [0], "user id -1: user ids run from 0"),
        ([0], [3], "item id 3: item ids run from 0 to 2"),
        ([0.5], [0], "user ids must be integers"),
        ([0, 1], [0], "2 user ids against 1 item ids"),
        ([[0]], [[0]], "in one dimension"),
    ],
)
def test_wrong_pairs_are_refused(users, items, message):
    with pytest.raises(DataError, match=message):
        Interactions.from_pairs(users, items, 3, 3)


def test_ids_beyond_int32_and_almost_empty_id_spaces_are_refused_before_memory_is_taken():
    with pytest.raises(DataError, match=f"from 0 to {MAX_ID}"):
        Interactions.from_pairs([0], [MAX_ID + 1])
    with pytest.raises(DataError, match="ids must count from 0 without large gaps"):
        Interactions.from_pairs([0, MAX_ID], [0, 1])
    assert Interactions.from_pairs([0], [FREE_IDS - 1]).num_items == FREE_IDS


def test_the_constructor_refuses_arrays_that_are_no_rows():
    with pytest.raises(ValueError, match="indptr must be int64"):
        Interactions(np.zeros(2, np.int32), np.zeros(0, np.int32), 1, 1)
    with pytest.raises(ValueError, match="items must be int32"):
        Interactions(np.array([0, 1]), np.zeros(1, np.int64), 1, 1)
    with pytest.raises(ValueError, match="from 0 to 1"):
        Interactions(np.array([0, 2]), np.zeros(1, np.int32), 1, 1)
    with pytest.raises(IndexError, match="users are 0 to 12"):
        build([(0, 0)]).row(-1)
