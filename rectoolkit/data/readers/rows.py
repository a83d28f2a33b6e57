"""Row checks: choose the columns, and check ids, ratings and times.

Columns are found by the names that logs usually give them, unless the user names them. Rows are checked about two
million at a time, and ids once for each distinct id. A row without a user, an item, or a rating or time that is needed
stops the import by default; with ``drop_missing`` it is left out and counted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.errors import DataError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from rectoolkit.data.readers.sources import Source

    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]

CHUNK = 2 << 20  # rows: 100 MB at most while they are checked and encoded
MISSING = (  # what pandas, R, Excel, Hive, MySQL and others write for a missing value
    *("", "nan", "NaN", "null", "NULL", "None", "<NA>"),
    *("NA", "N/A", "n/a", "#N/A", "none", "(null)", "\\N"),
)
USUAL = {
    "user": "user userid uid useridx customer customerid visitor visitorid member memberid account accountid client "
    "clientid reviewer reviewerid sessionid session listener listenerid reader readerid u",
    "item": "item itemid iid itemidx product productid sku movie movieid film filmid asin parentasin article articleid "
    "book bookid isbn track trackid song songid artist artistid business businessid venue venueid poi poiid location "
    "locationid news newsid video videoid game gameid recipe recipeid ad adid i",
    "rating": "rating ratings score stars overall value preference weight",
    "time": "time timestamp unixtime unixreviewtime datetime date eventtime ratingtimestamp createdat ts",
}


@dataclass(frozen=True)
class Columns:
    """The names of the columns to read. ``rating`` and ``time`` are empty if they are not needed."""

    user: str = ""
    item: str = ""
    rating: str = ""
    time: str = ""

    def named(self) -> dict[str, str]:
        """The names that are not empty, by role."""
        return {role: name for role in USUAL if (name := getattr(self, role))}


def choose(source: str, there: Sequence[str], given: Columns, needed: Sequence[str], wished: Sequence[str]) -> Columns:
    """The columns to read of a source that has the columns ``there``.

    Names in ``given`` are taken. Of the other roles, those in ``needed`` must have a usual name and those in
    ``wished`` may have one. Raises DataError if a given column does not exist, or a needed one is missing or ambiguous.
    """
    chosen: dict[str, str] = {}
    for role in USUAL:
        name = getattr(given, role)
        if name:
            if name not in there:
                raise DataError(f"{source}: there is no column '{name}' for the {role}; {nearest(name, there)}")
            chosen[role] = name
        elif role in needed or role in wished:
            found = usual(role, there)
            if len(found) == 1:
                chosen[role] = found[0]
            elif role in needed:
                raise DataError(_which(source, role, there, found))
    names = list(chosen.values())
    twice = [name for name in names if names.count(name) > 1 or there.count(name) > 1]
    if twice:
        raise DataError(f"{source}: column '{twice[0]}' is used for two roles, or its name is twice in the header")
    return Columns(**chosen)


def usual(role: str, there: Sequence[str]) -> list[str]:
    """The columns whose names are usual for the role, without regard to case and punctuation."""
    return [column for column in there if re.sub(r"[^a-z0-9]", "", column.lower()) in USUAL[role].split()]


def _which(source: str, role: str, there: Sequence[str], found: Sequence[str]) -> str:
    article = "an" if role == "item" else "a"
    if found:
        several = ", ".join(f"'{column}'" for column in found)
        return f"{source}: several columns could be the {role}: {several}; name one with --{role}-column"
    columns = ", ".join(f"'{column}'" for column in there)
    return f"{source}: no column has {article} {role}'s usual name; name it with --{role}-column; there are {columns}"


@dataclass(frozen=True)
class Rows:
    """Checked rows: ``users`` and ``items`` as arrow dictionary arrays (int64 or large_string), ``times`` float64."""

    users: Any
    items: Any
    times: Floats | None


@dataclass
class Cleaner:
    """The checks of an import's rows, and the numbers of rows read and left out."""

    columns: Columns
    min_rating: float | None
    drop_missing: bool
    read: int = 0
    missing: int = 0
    below_rating: int = 0
    kinds: dict[str, Any] = field(default_factory=dict)  # the type of each column, decided by its first rows
    texts: set[str] = field(default_factory=set)  # the roles whose ids came as text

    def rows(self, source: Source) -> Iterator[Rows]:
        """The checked rows of a source, in chunks. Raises DataError with the place of a faulty row."""
        import pyarrow

        waiting: list[Any] = []
        first = 0
        for table in source.tables(list(self.columns.named().values())):
            waiting.append(table)
            if sum(map(len, waiting)) >= CHUNK:
                chunk = pyarrow.concat_tables(waiting)
                waiting = []
                yield self._check(chunk, source, first)
                first += len(chunk)
        if waiting:
            yield self._check(pyarrow.concat_tables(waiting), source, first)

    def _check(self, table: Any, source: Source, first: int) -> Rows:
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
        if not keep.all():  # encoded again, so that ids without rows are not counted
            users, items = (ids.filter(keep).dictionary_decode().dictionary_encode() for ids in (users, items))
            times = None if times is None else times[keep]
        return Rows(users, items, times)

    def _ids(self, table: Any, role: str, at: _At) -> Any:
        """A column of ids as one arrow dictionary array, of int64 or large_string."""
        import pyarrow
        from pyarrow import types

        values = at.column(table, role)
        kind = values.type
        if types.is_null(kind):
            values, kind = values.cast(pyarrow.large_string()), pyarrow.large_string()
        if types.is_integer(kind) and not types.is_uint64(kind):
            wanted = pyarrow.int64()
        elif types.is_uint64(kind) or _is_text(kind):
            wanted = pyarrow.large_string()
            if _is_text(kind):
                self.texts.add(role)
        else:
            self._refuse_kind(values, role, at)
        before = self.kinds.setdefault(role, wanted)
        if before != wanted:
            raise DataError(
                f"{at.source.name}: its column '{at.name(role)}' holds {kind}, an earlier source's {before}; "
                "ids must be of one kind in all sources, integers or text"
            )
        encoded = values.dictionary_encode()
        ids = pyarrow.DictionaryArray.from_arrays(encoded.indices, encoded.dictionary.cast(wanted))
        if wanted == pyarrow.large_string():
            at.refuse_controls(ids, role)
        return ids

    def _refuse_kind(self, values: Any, role: str, at: _At) -> None:
        from pyarrow import types

        name, kind = at.name(role), values.type
        if types.is_floating(kind):
            lost = np.isnan(values.to_numpy(zero_copy_only=False).astype(np.float64))
            if lost.any():
                raise DataError(
                    f"{at.place(int(lost.argmax()))}: column '{name}' has no {role} (NaN), and a missing value makes a "
                    "column of integers a column of floats; fill or drop such rows and write the column as integers"
                )
        raise DataError(f"{at.source.name}: column '{name}' holds {kind}; ids are integers or text")

    def _numbers(self, table: Any, role: str, at: _At) -> Floats:
        """A column as float64, NaN where it is missing. Times may be dates, which become seconds since 1970."""
        import pyarrow
        from pyarrow import compute, types

        values = at.column(table, role)
        kind = values.type
        if types.is_date(kind):
            values, kind = values.cast(pyarrow.timestamp("us")), pyarrow.timestamp("us")
        if types.is_timestamp(kind):
            return _seconds(values)
        if not _is_text(kind):
            if not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
                raise DataError(f"{at.source.name}: column '{at.name(role)}' holds {kind}; a {role} is a number")
            return _floats(values)
        values = compute.utf8_trim_whitespace(values.cast(pyarrow.large_string()))
        values = compute.if_else(compute.is_in(values, pyarrow.array(MISSING, values.type)), None, values)
        allowed = [pyarrow.float64()]
        if role == "time":
            allowed += [pyarrow.timestamp(unit, zone) for unit in ("us", "ns") for zone in (None, "UTC")]
        if role in self.kinds:
            allowed = [self.kinds[role]]
        for wanted in allowed:
            try:
                cast = _parsed(values, wanted)
            except pyarrow.ArrowInvalid:
                continue
            if len(values) > values.null_count:
                self.kinds[role] = wanted
            return cast
        raise at.wrong_number(values, role, max(allowed, key=lambda wanted: _reads(values, wanted)))


@dataclass(frozen=True)
class _At:
    """The place of a chunk within its source, for messages."""

    source: Source
    first: int
    columns: Columns

    def name(self, role: str) -> str:
        return str(getattr(self.columns, role))

    def column(self, table: Any, role: str) -> Any:
        """A column as one arrow array, without the dictionary that may encode it."""
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
            f"{self.place(row)}: the {kind} (column '{self.name(kind)}') {what}; correct the row, or leave out all "
            "such rows: --drop-missing"
        )

    def refuse_controls(self, ids: Any, role: str) -> None:
        """Raise DataError if an id holds a control character, such as a line break."""
        from pyarrow import compute

        data = ids.dictionary.buffers()[2]
        raw = np.frombuffer(data or b"", np.uint8)
        if not ((raw < ord(" ")) | (raw == 127)).any():
            return
        odd = compute.fill_null(compute.match_substring_regex(ids.dictionary, r"[\x00-\x1f\x7f]"), False)
        found = np.isin(compute.fill_null(ids.indices, -1).to_numpy(), np.flatnonzero(odd))
        if not found.any():
            return
        row = int(found.argmax())
        raise DataError(
            f"{self.place(row)}: the {role} (column '{self.name(role)}') is {ids[row].as_py()!r}, which holds a "
            "control character; correct the row"
        )

    def wrong_number(self, values: Any, role: str, wanted: Any) -> DataError:
        row = _reads(values, wanted)
        date = "" if role == "rating" else " or a date such as 2024-05-31T12:00:00, as those before it"
        return DataError(
            f"{self.place(row)}: the {role} (column '{self.name(role)}') is {values[row].as_py()!r}; it must be a "
            f"number{date}"
        )


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _parsed(values: Any, wanted: Any) -> Floats:
    """Texts as numbers or as seconds since 1970. Raises ArrowInvalid if one is not of the ``wanted`` type."""
    import pyarrow
    from pyarrow import compute

    if wanted == pyarrow.float64():
        return _floats(values.cast(wanted))
    return _seconds(compute.replace_substring_regex(values, r"(\d) ?UTC$", r"\1Z").cast(wanted))  # as BigQuery writes


def _reads(values: Any, wanted: Any) -> int:
    """The number of values before the first one that is not of the ``wanted`` type, by bisection."""
    import pyarrow

    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        try:
            _parsed(values.slice(low, middle - low + 1), wanted)
            low = middle + 1
        except pyarrow.ArrowInvalid:
            high = middle
    return low


def _lost_ids(ids: Any) -> Bools:
    """Where an id is missing: null, a word for null, -1 as text, or negative among integers."""
    import pyarrow
    from pyarrow import compute, types

    known = ids.dictionary
    numbers = types.is_integer(known.type)
    lost = compute.less(known, 0) if numbers else compute.is_in(known, pyarrow.array([*MISSING, "-1"], known.type))
    last = np.ones(1, np.bool_)  # of a null, which has no number
    of_known: Bools = np.concatenate([np.asarray(compute.fill_null(lost, True), np.bool_), last])
    rows: Bools = of_known[compute.fill_null(ids.indices, len(known)).to_numpy(zero_copy_only=False)]
    return rows


def _seconds(values: Any) -> Floats:
    import pyarrow

    return _floats(values.cast(pyarrow.timestamp("us", values.type.tz), safe=False).cast(pyarrow.int64())) / 1e6


def _floats(values: Any) -> Floats:
    import pyarrow
    from pyarrow import compute

    return np.asarray(
        compute.fill_null(values.cast(pyarrow.float64(), safe=False), np.nan).to_numpy(zero_copy_only=False), np.float64
    )
