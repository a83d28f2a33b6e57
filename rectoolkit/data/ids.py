"""Ids: the source's own ids of users or items, one per row, looked up in both directions.

Rows are numbered in the order of the ids: numbers by size, texts by their UTF-8 bytes. The numbering therefore does
not depend on the order of the source's lines, and an id is found by bisection, without a hash table. A file of ids is
memory-mapped, and one look-up touches a few pages.

    numbers   values int64 (N,), ascending
    texts     text uint8 (all texts in UTF-8, concatenated), ends int64 (N,): row n is text[ends[n-1]:ends[n]]

A number takes 8 bytes and a text 8 bytes more than its length; in a Python dict a text takes about 150 bytes. Texts
that are all plain numbers (``0`` or ``17``, but not ``007``) are stored as numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.checks import row_numbers
from rectoolkit.errors import DataError, FormatError
from rectoolkit.files import open_arrays, save_arrays

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Int64s = npt.NDArray[np.int64]
    Id = int | str

NEIGHBOURS = 500  # ids on either side of an unknown one that are searched for similar ids, for the message


@dataclass(frozen=True, eq=False)
class Ids:
    """N ids in ascending order, either numbers or texts. ``ids[row]`` is the id of a row.

    Parameters
    ----------
    values : ndarray of int64, shape (N,), optional
        The ids, if they are numbers.
    text : ndarray of uint8, shape (M,), optional
        The UTF-8 bytes of all ids, concatenated, if they are texts.
    ends : ndarray of int64, shape (N,), optional
        The end of each id in ``text``.
    """

    values: Int64s | None = field(default=None, repr=False)
    text: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    ends: Int64s | None = field(default=None, repr=False)

    @classmethod
    def of(cls, ids: Sequence[Id] | npt.NDArray[Any]) -> Ids:
        """Build from ids that are unique, ascending and of one type, int or str."""
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
        """The ids of these rows. Raises UserError for a row that does not exist."""
        return [self[row] for row in row_numbers([*rows], len(self), "rows").tolist()]

    def array(self) -> npt.NDArray[Any]:
        """All ids: int64 (N,), or unicode (N,) of the width of the longest."""
        return np.asarray(self.values) if self.values is not None else np.array(self.take(range(len(self))), np.str_)

    def row(self, wanted: Id, kind: str = "id") -> int:
        """The row of an id; a number may be given as text.

        Raises DataError for an unknown id, with similar ids unless they are those of other users.
        """
        found = self._bisect(wanted)
        if found < len(self) and str(self[found]) == str(wanted):
            return found
        if kind == "user":
            raise DataError(f"user '{wanted}' is unknown: there are {len(self):,} users, none with this id")
        first, last = max(0, found - NEIGHBOURS), min(len(self), found + NEIGHBOURS)
        around = [str(one) for one in self.take(range(first, last))]
        near = get_close_matches(str(wanted), around, n=3, cutoff=0.6) or around[:3]
        raise DataError(f"{kind} '{wanted}' is unknown: there are {len(self):,}, such as {', '.join(near)}")

    def rows(self, wanted: npt.NDArray[Any], kind: str = "id") -> Int64s:
        """The rows of an array of ids (N,), integers or texts. Raises DataError for an unknown id."""
        if self.values is not None and len(self) and wanted.dtype.kind in "iu":
            found = np.minimum(np.searchsorted(self.values, wanted), len(self) - 1)
            if (self.values[found] == wanted).all():
                return found
        return np.array([self.row(one, kind) for one in wanted.tolist()], np.int64)

    def named(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """The ids of row numbers of any shape: int64, or str objects. Row -1 gives -1, or None among texts."""
        if self.values is not None:
            return np.where(rows >= 0, np.asarray(self.values)[np.maximum(rows, 0)], -1)
        named = np.empty(rows.shape, object)
        named.ravel()[:] = [self[row] if row >= 0 else None for row in rows.ravel().tolist()]
        return named

    def kept(self, mask: npt.NDArray[np.bool_]) -> Ids:
        """The ids at which ``mask``, bool (N,), is set."""
        if self.values is not None:
            return Ids(values=self.values[mask])
        assert self.text is not None
        assert self.ends is not None
        lengths = np.diff(self.ends, prepend=0)
        return Ids(text=self.text[np.repeat(mask, lengths)], ends=np.cumsum(lengths[mask], dtype=np.int64))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays that a file of ids holds, by name."""
        named = {"values": self.values, "text": self.text, "ends": self.ends}
        return {name: array for name, array in named.items() if array is not None}

    def save(self, path: Path) -> None:
        """Write the ids to one file, atomically."""
        save_arrays(path, "ids", self.arrays(), {})

    @classmethod
    def load(cls, path: Path) -> Ids:
        """Open a file written by ``save``, memory-mapped. Raises FormatError if it is missing, damaged or another."""
        file = open_arrays(path, "ids")
        if set(file.arrays) == {"values"}:
            return cls(values=file.array("values", "<i8", 1))
        if set(file.arrays) != {"text", "ends"}:
            found = ", ".join(file.arrays) or "nothing"
            raise FormatError(f"{path}: holds {found} instead of values, or of text and ends")
        text, ends = file.array("text", "|u1", 1), file.array("ends", "<i8", 1)
        if (end := int(ends[-1]) if len(ends) else 0) != len(text):
            raise FormatError(f"{path}: the last id ends at byte {end} of {len(text)}; make the file again")
        return cls(text=text, ends=ends)

    def _bisect(self, wanted: Id) -> int:
        """The position of the id, or the position where it would be."""
        if self.values is not None:
            try:
                return int(np.searchsorted(self.values, np.int64(wanted)))
            except (ValueError, OverflowError):  # not a number, or beyond int64
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
