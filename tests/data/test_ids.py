"""Ids are found and given back, from memory and from disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rectoolkit.data import Ids
from rectoolkit.errors import DataError


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(st.sets(st.integers(0, 2**62)), st.sets(st.text(st.characters(codec="utf-8"), min_size=1, max_size=9)))
)
def test_ids_are_found_and_given_back(tmp_path: Path, wanted: set[int | str]) -> None:
    ordered = sorted(wanted, key=lambda one: one if isinstance(one, int) else one.encode())
    Ids.of(ordered).save(tmp_path / "ids")
    ids = Ids.load(tmp_path / "ids")
    assert ids.take(range(len(ids))) == ordered
    assert [ids.row(one) for one in ordered] == list(range(len(ordered)))
    for other in (-1, "no such id at all"):
        with pytest.raises(DataError, match="is unknown"):
            ids.row(other)
    mask = np.arange(len(ids)) % 2 == 0
    assert ids.kept(mask).take(range(int(mask.sum()))) == ordered[::2]
