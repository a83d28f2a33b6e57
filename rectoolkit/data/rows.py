"""Rows of a source made clean: ids that are ids, ratings and times that are numbers; the rest refused by its place.

A chunk of about two million rows at a time. What stops an import by default (a row without a user, an item, a
rating or a time that are asked for) is left out and counted where ``drop_missing`` is set.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from rectoolkit.data.columns import Columns
    from rectoolkit.data.sources import Source

    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]

CHUNK = 2 << 20  # rows: 100 MB at most while they are cleaned and encoded
MISSING = ("", "nan", "NaN", "null", "NULL", "None", "<NA>")  # what other tools write for a value that is not there


@dataclass(frozen=True)
class Rows:
    """Clean rows: arrow arrays of ``users`` and ``items`` (int64 or large_string), ``times`` float64 or None."""

    users: Any
    items: Any
    times: Floats | None


@dataclass
class Cleaner:
    """What a row must be, and how many were left out for which reason."""

    columns: Columns
    min_rating: float | None
    drop_missing: bool
    read: int = 0
    missing: int = 0
    below_rating: int = 0
    kinds: dict[str, Any] = field(default_factory=dict)  # how each column is read, once its first rows have told
    texts: set[str] = field(default_factory=set)  # the roles whose ids came as texts

    def rows(self, source: Source) -> Iterator[Rows]:
        """The clean rows of a source, a chunk at a time. Raises DataError naming the place of a row that is not."""
        import pyarrow

        waiting: list[Any] = []
        first = 0
        for table in source.tables(list(self.columns.named().values())):
            waiting.append(table)
            if sum(map(len, waiting)) >= CHUNK:
                chunk = pyarrow.concat_tables(waiting)
                waiting = []
                yield self._clean(chunk, source, first)
                first += len(chunk)
        if waiting:
            yield self._clean(pyarrow.concat_tables(waiting), source, first)

    def _clean(self, table: Any, source: Source, first: int) -> Rows:
        at = _At(source, first, self.columns)
        users, items = (self._ids(table, role, at) for role in ("user", "item"))
        lost = _lost_ids(users) | _lost_ids(items)
        ratings = self._numbers(table, "rating", at) if self.columns.rating else None
        times = self._numbers(table, "time", at) if self.columns.time else None
        for values in (ratings, times):
            if values is not None:
                lost |= np.isnan(values)
        if lost.any() and not self.drop_missing:
            at.refuse_missing(int(lost.argmax()), users, items, ratings, times)
        keep = ~lost
        self.read += len(table)
        self.missing += int(lost.sum())
        if ratings is not None:
            low = keep & (ratings < np.float64(self.min_rating or 0))
            self.below_rating += int(low.sum())
            keep &= ~low
        if not keep.all():
            users, items = users.filter(keep), items.filter(keep)
            times = None if times is None else times[keep]
        return Rows(users, items, times)

    def _ids(self, table: Any, role: str, at: _At) -> Any:
        """A column of ids as one arrow array, int64 or large_string."""
        import pyarrow
        from pyarrow import types

        values = at.column(table, role)
        kind = values.type
        if types.is_null(kind):
            values, kind = values.cast(pyarrow.large_string()), pyarrow.large_string()
        if types.is_integer(kind) and not types.is_uint64(kind):
            wanted = pyarrow.int64()
        elif (
            types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
        ):
            wanted = pyarrow.large_string()
            if not types.is_integer(kind):
                self.texts.add(role)
        else:
            hint = "a missing value makes a column of integers a column of floats: " if types.is_floating(kind) else ""
            self._refuse_kind(values, role, at, hint)
        before = self.kinds.setdefault(role, wanted)
        if before != wanted:
            raise DataError(
                f"{at.source.name}: its column '{at.name(role)}' holds {kind}, an earlier source's {before}; "
                "all sources write ids alike, as integers or as text"
            )
        return values.cast(wanted)

    def _refuse_kind(self, values: Any, role: str, at: _At, hint: str) -> None:
        name, kind = at.name(role), values.type
        if hint:
            lost = np.isnan(values.to_numpy(zero_copy_only=False).astype(np.float64))
            if lost.any():
                raise DataError(
                    f"{at.place(int(lost.argmax()))}: column '{name}' has no {role} (NaN), and "
                    f"{hint}fill or drop such rows and write the column as integers"
                )
        raise DataError(f"{at.source.name}: column '{name}' holds {kind}; ids are integers or text")

    def _numbers(self, table: Any, role: str, at: _At) -> Floats:
        """A column as float64, NaN where it is missing; times may be dates, which become seconds since 1970."""
        import pyarrow
        from pyarrow import compute, types

        values = at.column(table, role)
        kind = values.type
        if types.is_date(kind):
            values, kind = values.cast(pyarrow.timestamp("us")), pyarrow.timestamp("us")
        if types.is_timestamp(kind):
            return _floats(values.cast(pyarrow.timestamp("us", kind.tz), safe=False).cast(pyarrow.int64())) / 1e6
        if not (types.is_string(kind) or types.is_large_string(kind)):
            if not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
                raise DataError(f"{at.source.name}: column '{at.name(role)}' holds {kind}; a {role} is a number")
            return _floats(values.cast(pyarrow.float64(), safe=False))
        values = compute.utf8_trim_whitespace(values)
        values = compute.if_else(compute.is_in(values, pyarrow.array(MISSING, values.type)), None, values)
        dates = [pyarrow.timestamp("us"), pyarrow.timestamp("us", "UTC")] if role == "time" else []
        allowed = [self.kinds[role]] if role in self.kinds else [pyarrow.float64(), *dates]
        for wanted in allowed:
            try:
                cast = values.cast(wanted)
            except pyarrow.ArrowInvalid:
                continue
            if len(values) > values.null_count:
                self.kinds[role] = wanted
            return _floats(cast) if wanted == pyarrow.float64() else _floats(cast.cast(pyarrow.int64())) / 1e6
        raise at.wrong_number(values, role, max(allowed, key=lambda wanted: _reads(values, wanted)))


@dataclass(frozen=True)
class _At:
    """A chunk's place within its source, for messages."""

    source: Source
    first: int
    columns: Columns

    def name(self, role: str) -> str:
        return str(getattr(self.columns, role))

    def column(self, table: Any, role: str) -> Any:
        """A column as one arrow array, of what it stands for where it is coded by a dictionary."""
        from pyarrow import types

        values = table[self.name(role)].combine_chunks()
        return values.cast(values.type.value_type) if types.is_dictionary(values.type) else values

    def place(self, row: int) -> str:
        return f"{self.source.name}, {self.source.place(self.first + row)}"

    def refuse_missing(self, row: int, users: Any, items: Any, ratings: Floats | None, times: Floats | None) -> None:
        kind = "rating" if ratings is not None and np.isnan(ratings[row]) else "time"
        what = "is missing"
        for role, ids in (("item", items), ("user", users)):
            if _lost_ids(ids.slice(row, 1)).any():
                kind, value = role, ids[row].as_py()
                what = "is empty" if value in (None, "") else f"is {value!r}, which stands for a missing one"
        raise DataError(
            f"{self.place(row)}: the {kind} (column '{self.name(kind)}') {what}; mend the row, or leave out all such "
            "rows: --drop-missing"
        )

    def wrong_number(self, values: Any, role: str, wanted: Any) -> DataError:
        row = _reads(values, wanted)
        date = "" if role == "rating" else " or a date such as 2024-05-31T12:00:00, as those before it"
        return DataError(
            f"{self.place(row)}: the {role} (column '{self.name(role)}') is {values[row].as_py()!r}; it must be a "
            f"number{date}"
        )


def _reads(values: Any, wanted: Any) -> int:
    """How many of the first values can be cast: the row of the first that cannot, by bisection."""
    import pyarrow

    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        try:
            values.slice(low, middle - low + 1).cast(wanted)
            low = middle + 1
        except pyarrow.ArrowInvalid:
            high = middle
    return low


def _lost_ids(ids: Any) -> Bools:
    """Where an id is missing: null, a word for null, -1 in a text, or below 0 among integers."""
    import pyarrow
    from pyarrow import compute, types

    numbers = types.is_integer(ids.type)
    lost = compute.less(ids, 0) if numbers else compute.is_in(ids, pyarrow.array([*MISSING, "-1"], ids.type))
    return np.asarray(compute.or_(compute.is_null(ids), compute.fill_null(lost, True)), np.bool_)


def _floats(values: Any) -> Floats:
    import pyarrow
    from pyarrow import compute

    return np.asarray(
        compute.fill_null(values.cast(pyarrow.float64(), safe=False), np.nan).to_numpy(zero_copy_only=False), np.float64
    )
