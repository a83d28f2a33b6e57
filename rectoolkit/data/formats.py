"""The file formats, by the name that a card or a recipe gives them: a reader each, path -> PairFile."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

from rectoolkit.data import adjacency, pairs
from rectoolkit.errors import DataError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rectoolkit.data.text import PairFile

LOOK = 200  # lines that tell a file's format

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


def refuse_mistaken(path: Path, format: str) -> None:
    """Raise DataError where a single file is given as an adjacency list, the default, and plainly is none.

    Its first lines tell: all of two columns are pairs, all of four whose third is small are ratings, and names or
    commas are what an import is for. Taken as an adjacency list, ratings and times would become items.
    """
    if format != "adjacency":
        return
    with open(path, "rb") as file:
        lines = [line.decode("ascii", "replace").strip() for line in islice(file, LOOK)]
    rows = [re.split(r"[\s,;:]+", line) for line in lines if line]
    widths = {len(row) for row in rows}
    numbers = all(field.isdigit() for row in rows for field in row)
    if len(rows) < 2 or len(widths) > 1:
        return
    if numbers and widths == {2}:
        found = 'pairs of user and item: --set dataset.format="pairs"'
    elif numbers and widths == {4} and all(int(row[2]) <= 10 < int(row[3]) for row in rows):
        found = 'ratings: --set dataset.format="ratings"'
    elif any(mark in lines[0] for mark in ",;") or not numbers:
        found = f"a table: rectool data import {path} --name {path.stem}, then dataset.name"
    else:
        return
    raise DataError(f"{path}: the format is said to be adjacency (the default), but the lines look like {found}")
