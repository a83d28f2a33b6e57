"""The file formats, by the name that a card or a recipe gives them: a reader each, path -> PairFile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rectoolkit.data import adjacency, pairs
from rectoolkit.errors import DataError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rectoolkit.data.text import PairFile

READERS: dict[str, Callable[[Path], PairFile]] = {
    "adjacency": adjacency.read,
    "pairs": pairs.read,
    "ratings": pairs.read_ratings,
}


def reader(name: str) -> Callable[[Path], PairFile]:
    """The reader of that format. Raises DataError with the nearest name for an unknown one."""
    if name not in READERS:
        raise DataError(f"unknown format '{name}'; {nearest(name, READERS)}")
    return READERS[name]
