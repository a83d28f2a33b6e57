"""Spool: sort rows by user on disk, so that an import may be larger than memory.

Pass 1, one chunk of rows at a time: number each side's ids within the chunk, and write down the numbers and the
chunk's distinct ids. Only the set of all distinct ids stays in memory.
Pass 2: sort that set once, which numbers it; translate each chunk's numbers, and deal its rows into buckets of about
``BUCKET`` rows, each for a range of users.
Pass 3, one bucket at a time: sort, merge repeated pairs, append. Because buckets are ranges of users, the result is
sorted as a whole.

Memory: the distinct ids, one chunk, one bucket, and the result (4 bytes an interaction, 8 more with times). Sorting
all pairs at once would take 16 bytes a row, three times that with times; a Python dictionary from ids to numbers
about 150 bytes an id. Temporary disk space: up to 32 bytes a row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.data.ids import Ids
from rectoolkit.data.interactions import MAX_ID, pair_keys
from rectoolkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    import numpy.typing as npt

    from rectoolkit.data.readers.rows import Rows

    Int32s = npt.NDArray[np.int32]
    Int64s = npt.NDArray[np.int64]

BUCKET = 4 << 20  # rows sorted at a time: about 200 MB
MERGE = 1 << 20  # distinct ids that wait before they join the set
PLAIN_NUMBER = r"^(0|[1-9][0-9]{0,17})$"


@dataclass(frozen=True)
class Merged:
    """All pairs by user, then by item, each once: ``indptr`` int64 (U+1,) and ``items`` int32 (N,).

    ``extra`` (N,) is the earliest time or the first part of each pair, or None. ``repeated`` rows repeated a pair of
    their own part, ``crossing`` rows a pair of an earlier part.
    """

    user_ids: Ids
    item_ids: Ids
    indptr: Int64s
    items: Int32s
    extra: npt.NDArray[Any] | None
    repeated: int
    crossing: int


@dataclass
class Spool:
    """Rows spooled to files in ``folder``. ``extra`` is the type of the number kept with each row: a time or a part."""

    folder: Path
    extra: type[np.float64] | type[np.uint8] | None
    lengths: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.users, self.items = (_Side(self.folder / f"{side}.arrow") for side in ("users", "items"))

    def add(self, rows: Rows, part: int) -> None:
        """Pass 1 over a chunk. ``part`` is the number of its part in a given split."""
        if not len(rows.users):
            return
        self._append("users", self.users.add(rows.users))
        self._append("items", self.items.add(rows.items))
        if self.extra is np.uint8:
            self._append("extra", np.full(len(rows.users), part, np.uint8))
        elif rows.times is not None:
            self._append("extra", rows.times)
        self.lengths.append(len(rows.users))

    def merge(self, texts: Collection[str] = ()) -> Merged:
        """Passes 2 and 3. ``texts``: the roles (user, item) whose ids stay text even if all are plain numbers."""
        user_ids, item_ids = self.users.number("user" in texts), self.items.number("item" in texts)
        for side, ids in (("users", user_ids), ("items", item_ids)):
            if len(ids) > MAX_ID:
                raise DataError(f"{len(ids)} {side}: at most {MAX_ID} can be numbered")
        count = max(1, -(-sum(self.lengths) // BUCKET))
        width = -(-len(user_ids) // count)
        self._deal(width)
        degrees = np.zeros(len(user_ids), np.int64)
        repeated = crossing = 0
        with open(self.folder / "merged", "wb") as items, open(self.folder / "merged.extra", "wb") as extras:
            for bucket in range(count):
                keys, extra, again, across = self._bucket(bucket)
                repeated, crossing = repeated + again, crossing + across
                found = np.bincount((keys >> 32) - bucket * width)
                degrees[bucket * width : bucket * width + len(found)] = found
                (keys & 0xFFFFFFFF).astype(np.int32).tofile(items)
                if extra is not None:
                    extra.tofile(extras)
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(degrees)])
        extra = np.fromfile(self.folder / "merged.extra", self.extra) if self.extra else None
        rows = np.fromfile(self.folder / "merged", np.int32)
        return Merged(user_ids, item_ids, indptr, rows, extra, repeated, crossing)

    def _deal(self, width: int) -> None:
        """Pass 2: append each chunk's rows to the buckets of their users."""
        done = 0
        for length, user_map, item_map in zip(self.lengths, self.users.maps(), self.items.maps(), strict=True):
            users = user_map[np.fromfile(self.folder / "users", np.int32, length, offset=4 * done)]
            items = item_map[np.fromfile(self.folder / "items", np.int32, length, offset=4 * done)]
            keys, extra = pair_keys(users, items), None
            if self.extra:
                size = np.dtype(self.extra).itemsize
                extra = np.fromfile(self.folder / "extra", self.extra, length, offset=size * done)
            done += length
            bucket = (users // width).astype(np.uint16)
            order = np.argsort(bucket, kind="stable")  # of 16 bits: linear
            ends = np.cumsum(np.bincount(bucket))
            for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
                if end > start:
                    self._append(f"bucket-{number}", keys[order[start:end]])
                    if extra is not None:
                        self._append(f"bucket-{number}.extra", extra[order[start:end]])
        for name in ("users", "items", "extra"):
            (self.folder / name).unlink(missing_ok=True)

    def _append(self, name: str, array: npt.NDArray[Any]) -> None:
        with open(self.folder / name, "ab") as file:
            array.tofile(file)

    def _bucket(self, number: int) -> tuple[Int64s, npt.NDArray[Any] | None, int, int]:
        """Pass 3 over a bucket: unique ascending keys, their extra, and the numbers of repeated and crossing rows."""
        path = self.folder / f"bucket-{number}"
        if not path.exists():
            return np.zeros(0, np.int64), np.zeros(0, self.extra) if self.extra else None, 0, 0
        keys, extra = np.fromfile(path, np.int64), None
        path.unlink()
        if not self.extra:
            keys.sort()
        else:
            path = self.folder / f"bucket-{number}.extra"
            extra = np.fromfile(path, self.extra)
            path.unlink()
            order = np.lexsort((extra, keys))
            keys, extra = keys[order], extra[order]
        first = np.concatenate([np.ones(1, np.bool_), keys[1:] != keys[:-1]])
        across = 0
        if extra is not None and self.extra is np.uint8:
            across = int((~first[1:] & (extra[1:] != extra[:-1])).sum())
        again = len(keys) - int(first.sum()) - across
        return keys[first], None if extra is None else extra[first], again, across


class _Side:
    """The ids of users or items: each chunk's distinct ids on disk, the set of all in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer: Any = None
        self.known: Any = None
        self.waiting: list[Any] = []

    def add(self, encoded: Any) -> Int32s:
        """Number the chunk's ids, an arrow dictionary array, within the chunk."""
        import pyarrow

        distinct = encoded.dictionary
        if self.writer is None:
            schema = pyarrow.schema([("id", distinct.type)])
            self.writer = pyarrow.ipc.new_stream(str(self.path), schema)
        self.writer.write_batch(pyarrow.record_batch([distinct], ["id"]))
        self.waiting.append(distinct)
        if sum(map(len, self.waiting)) > max(MERGE, 0 if self.known is None else len(self.known)):
            self._join()
        return np.asarray(encoded.indices.to_numpy(zero_copy_only=False), np.int32)

    def number(self, texts: bool = False) -> Ids:
        """Sort the set; the position of an id is its row. Plain numbers become integers unless ``texts`` is set."""
        import pyarrow
        from pyarrow import compute, types

        if self.writer is None:
            return Ids.of([])
        self.writer.close()
        self._join()
        known = self.known
        if types.is_integer(known.type):
            self.known = known.take(compute.sort_indices(known))
            return Ids(values=self.known.to_numpy())
        odd = known.filter(compute.invert(compute.match_substring_regex(known, PLAIN_NUMBER)))
        if not len(odd) and not texts:
            self.known = known.take(compute.sort_indices(known.cast(pyarrow.int64())))
            return Ids(values=self.known.cast(pyarrow.int64()).to_numpy())
        if len(odd) and compute.all(compute.match_substring_regex(odd, r"^-[0-9]+$")).as_py():
            raise DataError(
                f"the {self.path.stem}' ids are integers, and {len(odd)} of them negative, such as {odd[0].as_py()}; "
                "ids are integers from 0, or text"
            )
        self._refuse_padded(known)
        self.known = known.take(compute.sort_indices(known))
        _, ends, text = self.known.buffers()
        offsets = np.frombuffer(ends, np.int64, len(self.known) + 1)
        return Ids(text=np.frombuffer(text, np.uint8, int(offsets[-1])), ends=offsets[1:])

    def maps(self) -> Iterator[Int32s]:
        """For each chunk, in order, the row of each of its numbers."""
        import pyarrow
        from pyarrow import compute

        with pyarrow.OSFile(str(self.path)) as file, pyarrow.ipc.open_stream(file) as reader:
            for batch in reader:
                yield np.asarray(compute.index_in(batch.column(0), self.known).to_numpy(), np.int32)

    def _refuse_padded(self, known: Any) -> None:
        """Raise DataError if two ids differ only in spaces around them, and so would be two users or items."""
        from pyarrow import compute

        if not compute.any(compute.match_substring_regex(known, r"^\s|\s$")).as_py():
            return
        counts = compute.value_counts(compute.utf8_trim_whitespace(known))
        twice = counts.filter(compute.greater(counts.field("counts"), 1))
        if len(twice):
            raise DataError(
                f"the {self.path.stem}' ids hold {twice[0]['values'].as_py()!r} with and without spaces around it; "
                "remove the spaces"
            )

    def _join(self) -> None:
        import pyarrow
        from pyarrow import compute

        arrays = [*([] if self.known is None else [self.known]), *self.waiting]
        self.known = compute.unique(pyarrow.chunked_array(arrays)) if arrays else self.known
        self.waiting = []
        pyarrow.default_memory_pool().release_unused()  # of the hash table, which is several times as large
