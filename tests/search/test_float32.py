"""The float index against a full sort, and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rectoolkit.errors import FormatError, UserError
from rectoolkit.search.float32 import FloatIndex
from rectoolkit.search.keys import mix

DRAWS = np.random.default_rng(3)


@pytest.mark.parametrize(("num_items", "k"), [(0, 3), (1, 3), (5, 3), (300, 20), (300, 400)])
def test_the_float_index_equals_a_full_sort(num_items: int, k: int) -> None:
    queries, items = DRAWS.normal(size=(6, 8)).astype(np.float32), DRAWS.normal(size=(num_items, 8)).astype(np.float32)
    hits = FloatIndex(items).search(queries, k)
    scores = queries @ items.T
    for row in range(6):
        order = np.lexsort((mix(np.arange(num_items)), -scores[row]))[:k]
        assert hits.ids[row, : len(order)].tolist() == order.tolist()
        assert (hits.ids[row, len(order) :] == -1).all()
        assert np.isneginf(hits.scores[row, len(order) :]).all()


def test_the_float_index_leaves_out_what_was_seen() -> None:
    items = np.arange(6, dtype=np.float32)[:, None]
    hits = FloatIndex(items).search(np.ones((2, 1), np.float32), 6, seen=(np.array([0, 2, 2]), np.array([5, 0])))
    assert hits.ids.tolist() == [[4, 3, 2, 1, -1, -1], [5, 4, 3, 2, 1, 0]]


@pytest.mark.parametrize("wrong", [[[1.0, 2.0]], np.ones((3, 4)), np.ones(3, np.float32)])
def test_items_that_are_no_float32_rows_are_refused(wrong: Any) -> None:
    with pytest.raises(UserError, match=r"items must be a float32 array \(N, D\), got"):
        FloatIndex(wrong)


def test_float_files_that_are_damaged_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "items.npy"
    with pytest.raises(FormatError, match="no such file"):
        FloatIndex.open(path)
    np.save(path, np.ones((100, 4), np.float32))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FormatError, match="not a whole"):
        FloatIndex.open(path)
    np.save(path, np.ones((3, 4)))
    with pytest.raises(FormatError, match="float64"):
        FloatIndex.open(path)
    with pytest.raises(UserError, match=r"\(Q, 4\)"):
        FloatIndex(np.ones((3, 4), np.float32)).search(np.ones((1, 5), np.float32), 2)
