"""Tables: csv, tsv, RecBole's ``.inter``, parquet files and pandas frames.

Arrow parses text columns about ten times as fast as Python's csv module. All fields are read as text, because a guess
at types would turn ``007`` into 7. Arrow does not tell where a faulty line stands, so a faulty file, and only that, is
read a second time line by line.
"""

from __future__ import annotations

import csv
import itertools
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from rectoolkit.data.readers.rows import usual
from rectoolkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from rectoolkit.data.readers.text import TextFile

PIECE = 16 << 20  # bytes of text parsed at a time; a quoted field may not be longer
LINES = 1 << 20  # bytes of text searched for a line at a time
ROWS = 1 << 20  # rows of parquet or of a frame read at a time
SEPARATORS = {"csv": ",", "tsv": "\t", "inter": "\t"}
OTHERS = {"\t": "tab", ";": "';'", ",": "','", "|": "'|'", " ": "space"}  # separators to suggest


class Record(NamedTuple):
    """A line of fields. A quoted line break makes it span several lines of the file."""

    first: int  # line of the file, from 1
    last: int
    line: str  # the first line as it is written
    fields: list[str]


@dataclass(frozen=True)
class Delimited:
    """Lines of fields, separated by one character. The first line names the columns, unless ``names`` does.

    A field may be quoted, and a quoted field may hold separators and line breaks. Blank lines are skipped.
    """

    text: TextFile
    format: str
    separator: str
    names: tuple[str, ...] = ()
    options = frozenset({"separator", "encoding", "columns"})

    @property
    def name(self) -> str:
        return str(self.text.path)

    def columns(self) -> list[str]:
        return self._header[0]

    def tables(self, columns: Sequence[str]) -> Iterator[Any]:
        import pyarrow
        from pyarrow import csv as arrow_csv

        names, skipped = self._header
        pieces = _after(self.text.pieces(PIECE), skipped)
        if (begin := next(pieces, None)) is None:
            return
        try:
            with arrow_csv.open_csv(
                _Stream(itertools.chain([begin], pieces)),
                arrow_csv.ReadOptions(block_size=PIECE, column_names=names),
                arrow_csv.ParseOptions(delimiter=self.separator, newlines_in_values=True),
                arrow_csv.ConvertOptions(
                    include_columns=list(columns), column_types=dict.fromkeys(columns, pyarrow.string())
                ),
            ) as reader:
                for batch in reader:
                    yield pyarrow.table(batch)
        except pyarrow.ArrowException as error:
            self._refuse([names.index(column) for column in columns], str(error).splitlines()[0])

    def place(self, row: int) -> str:
        record = next(itertools.islice(self._rows(), row, None), None)
        return f"line {record.first}" if record else "its end"

    @cached_property
    def _header(self) -> tuple[list[str], int]:
        """The names of the columns, and the number of lines before the first row."""
        if len(self.separator) != 1 or not self.separator.isascii() or self.separator in '"\r\n\0':
            hint = "; for :: give --format ratings" if self.separator == "::" else ""
            raise DataError(f"--separator {self.separator!r}: must be one ASCII character, or tab{hint}")
        records = self._records()
        first = next(records, None)
        if first and (said := re.fullmatch(r"sep=(.)", first.line, re.IGNORECASE)):  # Excel's hint to itself
            if said[1] != self.separator:
                raise DataError(
                    f"{self.name}: its first line says that {said[1]!r} separates columns; give --separator"
                )
            first = next(records, None)
        if first is None:
            raise DataError(f"{self.name}: the file is empty")
        self._check_bytes(first, range(len(first.fields)))
        there, line = first.fields, f"{self.name}, line {first.first}: '{_short(first.line)}'"
        if len(there) == 1 and (other := self._other_separator(first.line)):
            raise DataError(f"{line} is one column, where {self.separator!r} separates them; give {other}")
        if self.names:
            if len(self.names) != len(there):
                raise DataError(f"{line} has {len(there)} columns, but {len(self.names)} names were given")
            if usual("user", there) or usual("item", there):
                raise DataError(
                    f"{line} is a header; leave --columns out, and name columns that are not found with --user-column, "
                    "--item-column, ..."
                )
            return list(self.names), first.first - 1
        if all(_is_number(field) for field in there):
            raise DataError(
                f"{line} holds numbers instead of column names; if the file has no header, name its columns: "
                "--columns user,item,..."
            )
        return [name.partition(":")[0] for name in there] if self.format == "inter" else there, first.last

    def _other_separator(self, line: str) -> str:
        """The option that separates the columns of a line which ``separator`` does not separate."""
        if "::" in line:
            return "--format ratings"
        found = next((mark for mark in OTHERS if mark in line and mark != self.separator), "")
        return f"--separator {OTHERS[found]}" if found else ""

    def _rows(self) -> Iterator[Record]:
        return (record for record in self._records() if record.first > self._header[1])

    def _records(self) -> Iterator[Record]:
        """The lines of the file as Python's csv module reads them, without blank ones."""
        taken: list[str] = []

        def lines() -> Iterator[str]:
            for _, block in self.text.lines(LINES, check=False):
                for line in block[:-1].split(b"\n"):
                    taken.append(line.decode(errors="surrogateescape"))
                    yield taken[-1] + "\n"

        reader = csv.reader(lines(), delimiter=self.separator)
        limit = csv.field_size_limit(PIECE)
        try:
            while True:
                first = reader.line_num + 1
                taken.clear()
                fields = next(reader, None)
                if fields is None:
                    return
                if fields:
                    yield Record(first, reader.line_num, taken[0], fields)
        except csv.Error as error:
            self.text.refuse(first, f"'{_short(taken[0])}': {error}; does the line open a quote that is never closed?")
        finally:
            csv.field_size_limit(limit)

    def _check_bytes(self, record: Record, columns: Iterable[int]) -> None:
        """Raise DataError if one of these fields holds a byte that is not text in the file's encoding."""
        for column in columns:
            if wrong := re.search("[\udc80-\udcff]", record.fields[column]):
                self.text.refuse_byte(record.first, ord(wrong.group()) & 0xFF)

    def _refuse(self, wanted: Sequence[int], reason: str) -> NoReturn:
        """Name the line that Arrow could not read; ``wanted`` are the columns that it was asked for."""
        width = len(self._header[0])
        for record in self._rows():
            if len(record.fields) != width:
                opened = f"; it opens a quote that closes on line {record.last}" if record.last > record.first else ""
                found = f"has {len(record.fields)} columns instead of {width}{opened}"
                self.text.refuse(record.first, f"'{_short(record.line)}' {found}")
            self._check_bytes(record, wanted)
        raise DataError(f"{self.name}: not readable as {self.format}: {reason}")


@dataclass(frozen=True)
class Parquet:
    """A parquet file, read a row group at a time."""

    path: Path
    options = frozenset[str]()

    @property
    def name(self) -> str:
        return str(self.path)

    def columns(self) -> list[str]:
        with self._open() as file:
            return list(file.schema_arrow.names)

    def tables(self, columns: Sequence[str]) -> Iterator[Any]:
        import pyarrow

        with self._open() as file:
            try:
                for group in range(file.num_row_groups):  # in one go, arrow would keep the bytes of all groups read
                    for batch in file.iter_batches(ROWS, row_groups=[group], columns=list(columns)):
                        yield pyarrow.Table.from_batches([batch])
            except (pyarrow.ArrowException, OSError) as error:
                raise DataError(f"{self.path}: damaged: {str(error).splitlines()[0]}") from None

    def place(self, row: int) -> str:
        return f"row {row + 1}"

    def _open(self) -> Any:
        import pyarrow
        from pyarrow import parquet

        try:
            return parquet.ParquetFile(self.path)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{self.path}: not a complete parquet file: {str(error).splitlines()[0]}") from None


@dataclass(frozen=True, eq=False)
class Frame:
    """A pandas frame."""

    frame: Any
    options = frozenset[str]()

    @property
    def name(self) -> str:
        return "the frame"

    def columns(self) -> list[str]:
        if not hasattr(self.frame, "iloc") or not hasattr(self.frame, "columns"):
            raise DataError(f"a path or a pandas frame is needed, got {type(self.frame).__name__}")
        return [str(column) for column in self.frame.columns]

    def tables(self, columns: Sequence[str]) -> Iterator[Any]:
        import pyarrow

        for start in range(0, len(self.frame), ROWS):
            piece = self.frame.iloc[start : start + ROWS]
            yield pyarrow.table({column: self._array(piece[column], column, start) for column in columns})

    def place(self, row: int) -> str:
        return f"row {row}"

    def _array(self, values: Any, column: str, start: int) -> Any:
        import pyarrow

        try:
            return pyarrow.array(values, from_pandas=True)
        except UnicodeEncodeError as error:
            raise DataError(f"the frame: column '{column}' holds text that is not Unicode: {error.object!r}") from None
        except OverflowError:
            raise DataError(
                f"the frame: column '{column}' holds an integer beyond 64 bits; write such ids as strings"
            ) from None
        except (pyarrow.ArrowException, NotImplementedError, TypeError):
            kinds = [type(value).__name__ for value in values]
            other = next((index for index, kind in enumerate(kinds) if kind != kinds[0]), None)
            what = f"the frame: column '{column}' holds {kinds[0]}"
            if other is not None:
                place = self.place(start + other)
                what = f"the frame, {place}: column '{column}' mixes types, {kinds[other]} after {kinds[0]}"
            raise DataError(f"{what}; make it text: frame['{column}'].astype(str)") from None


class _Stream:
    """Pieces of bytes as a file that arrow reads."""

    closed = False

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = iter(pieces)
        self.left = b""

    def read(self, size: int) -> bytes:
        piece = self.left or next(self.pieces, b"")
        self.left = piece[size:]
        return piece[:size]

    def close(self) -> None:
        self.closed = True


def _after(pieces: Iterator[bytes], lines: int) -> Iterator[bytes]:
    """The text after that many lines and the blank lines that follow them."""
    for piece in pieces:
        start = 0
        while lines and (end := piece.find(b"\n", start) + 1):
            start, lines = end, lines - 1
        if not lines and (rest := piece[start:].lstrip(b"\n")):
            yield rest
            yield from pieces


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _short(line: str) -> str:
    return line if len(line) <= 60 else f"{line[:57]}..."
