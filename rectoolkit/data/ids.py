"""Ids: what the source calls its users or items, a row each, looked up both ways.

Rows are numbered in the order of the ids (numbers by size, texts by their UTF-8 bytes), so the numbering depends
neither on the order of the source's lines nor on how it was cut into chunks, and an id is found by bisection: no
hash table has to be built or stored. A file of ids is read by memory map; one look-up touches a few pages.

    numbers   values int64 (N,), ascending
    texts     text uint8 (all of them, UTF-8, one after another), ends int64 (N,): row n is text[ends[n-1]:ends[n]]

That is 8 bytes a number, or 8 and its own length a text. A Python dict of the same texts takes about 150 bytes each.
Texts that are all plain numbers (``0``, ``17``; not ``007``) are kept as numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.errors import DataError, FormatError
from rectoolkit.files import open_arrays, save_arrays

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Int64s = npt.NDArray[np.int64]
    Id = int | str

NEIGHBOURS = 500  # ids on either side of where an unknown one would stand, to find the nearest for the message


@dataclass(frozen=True, eq=False)
class Ids:
    """N ids in ascending order: ``values`` int64 (N,) of numbers, or ``text`` uint8 (M,) and ``ends`` int64 (N,)."""

    values: Int64s | None = field(default=None, repr=False)
    text: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    ends: Int64s | None = field(default=None, repr=False)

    @classmethod
    def of(cls, ids: Sequence[Id] | npt.NDArray[Any]) -> Ids:
        """The ids given, which must be unique, ascending and of one kind (ints or strings)."""
        if all(isinstance(one, int | np.integer) for one in ids):
            return cls(values=np.asarray(ids, np.int64))
        encoded = [str(one).encode() for one in ids]
        text = np.frombuffer(b"".join(encoded), np.uint8)
        return cls(text=text, ends=np.cumsum([len(one) for one in encoded], dtype=np.int64))

    def __len__(self) -> int:
        rows = self.values if self.values is not None else self.ends
        return 0 if rows is None else len(rows)

    def __getitem__(self, row: int) -> Id:
        if self.values is not None:
            return int(self.values[row])
        return self._bytes(row).decode()

    def take(self, rows: Iterable[int]) -> list[Id]:
        """The ids of these rows."""
        return [self[int(row)] for row in rows]

    def array(self) -> npt.NDArray[Any]:
        """All ids: int64 (N,), or unicode (N,) as wide as the longest."""
        return np.asarray(self.values) if self.values is not None else np.array(self.take(range(len(self))), np.str_)

    def row(self, wanted: Id, kind: str = "id") -> int:
        """The row of that id; a number may be given as text. Raises DataError with ids like it where there is none."""
        found = self._bisect(wanted)
        if found < len(self) and str(self[found]) == str(wanted):
            return found
        first, last = max(0, found - NEIGHBOURS), min(len(self), found + NEIGHBOURS)
        around = [str(one) for one in self.take(range(first, last))]
        near = get_close_matches(str(wanted), around, n=3, cutoff=0.6) or around[:3]
        raise DataError(f"{kind} '{wanted}' is unknown: there are {len(self):,}, such as {', '.join(near)}")

    def rows(self, wanted: npt.NDArray[Any], kind: str = "id") -> Int64s:
        """The rows of these ids (N,), integers or texts. Raises DataError as ``row`` does."""
        if self.values is not None and len(self) and wanted.dtype.kind in "iu":
            found = np.minimum(np.searchsorted(self.values, wanted), len(self) - 1)
            if (self.values[found] == wanted).all():
                return found
        return np.array([self.row(one, kind) for one in wanted.tolist()], np.int64)

    def named(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Row numbers of any shape as ids, -1 where there is none: int64, or objects (None for -1) of texts."""
        if self.values is not None:
            return np.where(rows >= 0, np.asarray(self.values)[np.maximum(rows, 0)], -1)
        named = np.empty(rows.shape, object)
        named.ravel()[:] = [self[row] if row >= 0 else None for row in rows.ravel().tolist()]
        return named

    def kept(self, mask: npt.NDArray[np.bool_]) -> Ids:
        """The ids where ``mask`` bool (N,) is set."""
        if self.values is not None:
            return Ids(values=self.values[mask])
        assert self.text is not None
        assert self.ends is not None
        lengths = np.diff(self.ends, prepend=0)
        return Ids(text=self.text[np.repeat(mask, lengths)], ends=np.cumsum(lengths[mask], dtype=np.int64))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What a file of them holds."""
        named = {"values": self.values, "text": self.text, "ends": self.ends}
        return {name: array for name, array in named.items() if array is not None}

    def save(self, path: Path) -> None:
        """Write them as one file, whole or not at all."""
        save_arrays(path, "ids", self.arrays(), {})

    @classmethod
    def load(cls, path: Path) -> Ids:
        """The ids of a file, memory-mapped. Raises FormatError where it is missing, cut short or something else."""
        file = open_arrays(path, "ids")
        if set(file.arrays) == {"values"}:
            return cls(values=file.array("values", "<i8", 1))
        if set(file.arrays) != {"text", "ends"}:
            found = ", ".join(file.arrays) or "nothing"
            raise FormatError(f"{path}: holds {found} where values, or text and ends, are right")
        text, ends = file.array("text", "|u1", 1), file.array("ends", "<i8", 1)
        if (end := int(ends[-1]) if len(ends) else 0) != len(text):
            raise FormatError(f"{path}: the last id ends at byte {end} of {len(text)}; make the file again")
        return cls(text=text, ends=ends)

    def _bisect(self, wanted: Id) -> int:
        """Where the id stands, or would stand."""
        if self.values is not None:
            try:
                return int(np.searchsorted(self.values, np.int64(wanted)))
            except (ValueError, OverflowError):  # no number, or one beyond int64
                return 0
        low, high, key = 0, len(self), str(wanted).encode(errors="surrogatepass")
        while low < high:
            middle = (low + high) // 2
            if self._bytes(middle) < key:
                low = middle + 1
            else:
                high = middle
        return low

    def _bytes(self, row: int) -> bytes:
        assert self.text is not None
        assert self.ends is not None
        start = int(self.ends[row - 1]) if row else 0
        return self.text[start : int(self.ends[row])].tobytes()
