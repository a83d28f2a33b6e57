"""Random splits by user: disjoint, complete, of the given share, and the same for the same generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectoolkit.data import Dataset, Interactions, hold_out, splits, with_validation
from rectoolkit.data.catalog import load_dataset
from rectoolkit.data.splits import user_blocks
from rectoolkit.errors import DataError
from rectoolkit.recipe import Recipe
from rectoolkit.runs.split import split_of


def random_interactions(seed: int, users: int = 300, items: int = 200, pairs: int = 6000) -> Interactions:
    generator = np.random.default_rng(seed)
    heavy = (generator.pareto(1.0, pairs) * 3).astype(int) % users
    return Interactions.from_pairs(heavy, generator.integers(items, size=pairs), users, items)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 0.99), st.integers(0, 400))
def test_a_split_is_disjoint_complete_and_leaves_everyone_an_item(seed, share, pairs):
    whole = random_interactions(seed, users=40, items=30, pairs=pairs)
    rest, held = hold_out(whole, share, np.random.default_rng(seed))
    assert not rest.contains(*held.pairs()).any()
    assert sorted([*rest.keys(), *held.keys()]) == whole.keys().tolist()
    assert ((rest.user_degrees > 0) == (whole.user_degrees > 0)).all()
    wanted = share * whole.user_degrees
    assert (np.abs(held.user_degrees - wanted)[whole.user_degrees > 1] <= 1 + 1e-9).all()
    assert (np.diff(rest.keys()) > 0).all()


def test_light_users_give_their_share_too():
    whole = Interactions.from_pairs(np.repeat(np.arange(5000), 4), np.tile(np.arange(4), 5000))
    _, held = hold_out(whole, 0.1, np.random.default_rng(0))
    assert held.num_interactions == pytest.approx(2000, abs=150)
    assert held.item_degrees == pytest.approx(500, abs=100)  # no place in a row is favoured


def test_a_share_of_nothing_holds_nothing():
    whole = random_interactions(0)
    rest, held = hold_out(whole, 0.0, np.random.default_rng(0))
    assert (rest.num_interactions, held.num_interactions) == (whole.num_interactions, 0)


def test_the_split_depends_on_the_generator_and_not_on_the_blocks(monkeypatch):
    whole = random_interactions(3)
    expected = hold_out(whole, 0.3, np.random.default_rng(5))[1]
    assert not np.array_equal(hold_out(whole, 0.3, np.random.default_rng(6))[1].items, expected.items)
    for block in (1, 7, 1000):
        monkeypatch.setattr(splits, "BLOCK", block)
        assert np.array_equal(hold_out(whole, 0.3, np.random.default_rng(5))[1].items, expected.items)


@pytest.mark.parametrize("share", [-0.1, 1.0, 2.0, float("nan")])
def test_an_impossible_share_is_refused(share):
    with pytest.raises(DataError, match="at least 0 and below 1"):
        hold_out(random_interactions(0), share, np.random.default_rng(0))


def test_validation_comes_out_of_train_alone():
    data = Dataset("a", random_interactions(1), Interactions.from_pairs([], [], 300, 200))
    made = with_validation(data, 0.2, np.random.default_rng(0))
    assert made.validation is not None
    assert made.train.num_interactions + made.validation.num_interactions == data.train.num_interactions
    assert made.test is data.test
    assert made.digest != data.digest


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 12))
def test_blocks_cover_every_user_once(degrees, size):
    indptr = np.concatenate([[0], np.cumsum(degrees, dtype=np.int64)])
    blocks = list(user_blocks(indptr, size))
    assert [user for first, last in blocks for user in range(first, last)] == list(range(len(degrees)))
    assert all(last == first + 1 or indptr[last] - indptr[first] <= size for first, last in blocks)


def test_the_last_items_of_each_line_validate(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("0 9 2 7 4 1\n1 5 3\n2 8\n3 0 6 2 9\n")
    (tmp_path / "test.txt").write_text("0 3\n")
    dataset = load_dataset(path=str(tmp_path))
    assert dataset.places is not None
    rest, held = hold_out(dataset.train, 0.4, np.random.default_rng(0), dataset.places().astype(np.float64))
    assert set(zip(*held.pairs(), strict=True)) >= {(0, 4), (0, 1), (3, 9)}
    assert (0, 9) in set(zip(*rest.pairs(), strict=True))
    for user, last in ((1, 3), (3, 2)):
        assert held.user_degrees[user] < 2 or (user, last) in set(zip(*held.pairs(), strict=True))
    assert held.user_degrees[2] == 0


def test_last_needs_a_train_file(tiny: Interactions) -> None:
    recipe = Recipe.load("recipes/hqgnn.toml", ["train.held=last"])
    with pytest.raises(DataError, match="needs a train file whose lines keep their order"):
        split_of(recipe, Dataset("tiny", tiny, tiny))
