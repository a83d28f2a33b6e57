"""Data sets: one id space, a digest of the content, counts of what is unusual."""

from __future__ import annotations

import numpy as np
import pytest

from rectoolkit.data import Dataset, Interactions
from rectoolkit.errors import DataError


def build(pairs: list[tuple[int, int]], users: int = 13, items: int = 31) -> Interactions:
    table = np.array(pairs, np.int64).reshape(-1, 2)
    return Interactions.from_pairs(table[:, 0], table[:, 1], users, items)


def test_the_digest_tells_content_apart():
    train, test = build([(0, 1), (1, 2)]), build([(0, 2)])
    digest = Dataset("a", train, test).digest
    assert digest == Dataset("another name", build([(1, 2), (0, 1)]), build([(0, 2)])).digest
    others = [
        Dataset("a", build([(0, 1), (1, 3)]), test),
        Dataset("a", test, train),
        Dataset("a", build([(0, 1), (2, 2)]), test),
        Dataset("a", train, test, validation=build([])),
        Dataset("a", train, test, validation=build([(3, 3)])),
        Dataset("a", build([(0, 1), (1, 2)], items=32), build([(0, 2)], items=32)),
    ]
    assert len({digest, *(other.digest for other in others)}) == 7


def test_a_data_set_has_one_id_space():
    with pytest.raises(DataError, match="test has 14 users and 31 items, train 13 and 31"):
        Dataset("a", build([(0, 1)]), build([(0, 2)], users=14))
    with pytest.raises(DataError, match="2 item_ids for 31 rows"):
        Dataset("a", build([(0, 1)]), build([(0, 2)]), item_ids=np.arange(2))


def test_the_summary_counts_what_is_odd():
    data = Dataset("a", build([(0, 1), (1, 2)], 4, 5), build([(0, 2), (2, 3)], 4, 5))
    assert data.summary() == {
        "users": 4,
        "items": 5,
        "train": 2,
        "test": 2,
        "density": 0.1,
        "users without train items": 2,
        "users without test items": 2,
        "users with test items only": 1,
        "items never in train": 3,
        "test items never in train": 1,
    }
