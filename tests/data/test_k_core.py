"""The k-core agrees with leaving out users and items one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectoolkit.data import Interactions
from rectoolkit.data.k_core import k_core
from rectoolkit.errors import DataError


@settings(max_examples=40, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1), st.integers(2, 4))
def test_the_core_is_the_largest_part_with_k_of_each(given_pairs: set[tuple[int, int]], k: int) -> None:
    left = set(given_pairs)
    while True:
        few = {p for p in left if any(sum(q[side] == p[side] for q in left) < k for side in (0, 1))}
        if not few:
            break
        left -= few
    users, items = zip(*given_pairs, strict=True)
    whole = Interactions.from_pairs(users, items, 10, 10)
    if not left:
        with pytest.raises(DataError, match=r"the largest possible k is \d"):
            k_core(whole.indptr, whole.items, 10, k)
        return
    core = k_core(whole.indptr, whole.items, 10, k)
    kept = {
        p for p, keep in zip(zip(*(x.tolist() for x in whole.pairs()), strict=True), core.pairs, strict=True) if keep
    }
    assert kept == left
    assert np.flatnonzero(core.users).tolist() == sorted({user for user, _ in left})
    assert np.flatnonzero(core.items).tolist() == sorted({item for _, item in left})
