"""Sources that are lines of text: csv, tsv, RecBole's ``.inter``, and adjacency lists.

pyarrow parses columns at about 0.1 microseconds a line, where Python's csv module takes 1. Everything comes as
text, for a guess at types would turn ``007`` into 7. Arrow does not say where a broken line stands, so a faulty
file, and only that, is read a second time line by line.
"""

from __future__ import annotations

import csv
import itertools
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from rectoolkit.data.columns import usual
from rectoolkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PIECE = 16 << 20  # bytes of text parsed at a time
LINES = 1 << 14  # lines of an adjacency list at a time


@dataclass(frozen=True)
class Delimited:
    """Lines of columns parted by one character, the first line their names unless ``names`` gives them."""

    path: Path
    format: str
    separator: str
    encoding: str
    names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return str(self.path)

    def columns(self) -> list[str]:
        first = next(self._lines(), (1, ""))[1]
        there = self._split(first)
        if self.names:
            if len(self.names) != len(there):
                raise DataError(f"{self.path}, line 1: {len(there)} columns, but {len(self.names)} names were given")
            if usual("user", there) or usual("item", there):
                raise DataError(
                    f"{self.path}, line 1: '{_short(first)}' is a header itself; leave --columns out, and name what is "
                    "not found with --user-column, --item-column, ..."
                )
            return list(self.names)
        if len(there) == 1:
            other = next((mark for mark in ("\t", ";", ",", "|") if mark in first and mark != self.separator), "")
            if other:
                raise DataError(
                    f"{self.path}, line 1: one column, '{_short(first)}', where {self.separator!r} parts them; "
                    f"give --separator {'tab' if other == chr(9) else repr(other)}"
                )
        if all(_is_number(field) for field in there):
            raise DataError(
                f"{self.path}, line 1: '{_short(first)}' holds numbers where the columns' names are right; if the "
                "file has no header, name its columns: --columns user,item,..."
            )
        return [name.partition(":")[0] for name in there] if self.format == "inter" else there

    def tables(self, columns: Sequence[str]) -> Iterator[Any]:
        import pyarrow
        from pyarrow import csv as arrow_csv

        names = self.columns()
        try:
            with arrow_csv.open_csv(
                self.path,
                arrow_csv.ReadOptions(
                    block_size=PIECE, column_names=names, skip_rows=0 if self.names else 1, encoding=self.encoding
                ),
                arrow_csv.ParseOptions(delimiter=self.separator, quote_char=self._quote),
                arrow_csv.ConvertOptions(
                    include_columns=list(columns), column_types=dict.fromkeys(columns, pyarrow.string())
                ),
            ) as reader:
                for batch in reader:
                    yield pyarrow.table(batch)
        except (pyarrow.ArrowInvalid, UnicodeDecodeError) as error:
            self._refuse(len(names), str(error).splitlines()[0])
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror or error}") from None

    def place(self, row: int) -> str:
        written = (number for number, line in self._lines() if line)
        return f"line {next(itertools.islice(written, row + (not self.names), None), 0)}"

    @property
    def _quote(self) -> Any:
        return '"' if self.format == "csv" else False

    def _split(self, line: str) -> list[str]:
        if self.format != "csv":
            return line.split(self.separator)
        return next(csv.reader([line], delimiter=self.separator), [""])

    def _lines(self) -> Iterator[tuple[int, str]]:
        """The lines, numbered from 1, without their ends; the first that is not text in the encoding is refused."""
        import pyarrow

        wide = self.encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32"))
        with _reading(self.path), pyarrow.input_stream(str(self.path), compression="detect") as stream:
            if wide:
                text = stream.read().decode(self.encoding)
                yield from enumerate(text.lstrip("\ufeff").splitlines(), 1)
                return
            for number, line in enumerate(_byte_lines(stream), 1):
                if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise DataError(
                        f"{self.path}: begins with the mark of UTF-16; save it as UTF-8, or give --encoding utf-16"
                    )
                try:
                    decoded = line.rstrip(b"\r\n").decode(self.encoding)
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{self.path}, line {number}: byte 0x{line[error.start]:02x} is not {self.encoding}; save the "
                        "file as UTF-8, or give --encoding (latin-1, cp1252, ...)"
                    ) from None
                except LookupError:
                    raise DataError(f"unknown encoding '{self.encoding}'; usual ones: utf-8, latin-1, utf-16") from None
                if "\0" in decoded:
                    raise DataError(f"{self.path}, line {number}: a NUL byte; the file is damaged, binary or UTF-16")
                yield number, decoded.lstrip("\ufeff") if number == 1 else decoded

    def _refuse(self, width: int, reason: str) -> NoReturn:
        """Name the line that Arrow could not read."""
        for number, line in self._lines():
            try:
                fields = self._split(line)
            except csv.Error as error:
                raise DataError(f"{self.path}, line {number}: '{_short(line)}': {error}") from None
            if line and len(fields) != width:
                hint = "" if self.format == "csv" else "; for quoted fields give --format csv with --separator"
                raise DataError(
                    f"{self.path}, line {number}: '{_short(line)}' has {len(fields)} columns where {width} are right"
                    f"{hint}"
                )
            if self.format == "csv" and line.count('"') % 2:
                raise DataError(
                    f"{self.path}, line {number}: '{_short(line)}' opens a quote that its line does not close"
                )
        raise DataError(f"{self.path}: not readable as {self.format}: {reason}")


@dataclass(frozen=True)
class Adjacency:
    """Lines ``user item item ...`` parted by white space; ids may be any text without it."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def columns(self) -> list[str]:
        return ["user", "item"]

    def tables(self, columns: Sequence[str]) -> Iterator[Any]:
        import pyarrow

        with _reading(self.path), pyarrow.input_stream(str(self.path), compression="detect") as stream:
            number = 0
            while lines := list(itertools.islice(_byte_lines(stream), LINES)):
                users: list[bytes] = []
                items: list[bytes] = []
                for line in lines:
                    number += 1
                    first, *rest = line.split() or [b""]
                    users += [first] * len(rest)
                    items += rest
                    if not line.isascii():
                        self._check_text(number, line)
                yield pyarrow.table(
                    {
                        "user": pyarrow.array(users, pyarrow.binary()).cast(pyarrow.string()),
                        "item": pyarrow.array(items, pyarrow.binary()).cast(pyarrow.string()),
                    }
                )

    def place(self, row: int) -> str:
        import pyarrow

        with pyarrow.input_stream(str(self.path), compression="detect") as stream:
            for number, line in enumerate(_byte_lines(stream), 1):
                row -= max(0, len(line.split()) - 1)
                if row < 0:
                    return f"line {number}"
        return "its end"

    def _check_text(self, number: int, line: bytes) -> None:
        try:
            line.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.path}, line {number}: byte 0x{line[error.start]:02x} is not UTF-8; save the file as UTF-8"
            ) from None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _byte_lines(stream: Any) -> Iterator[bytes]:
    """The lines of an arrow stream, whose own iterator reads a byte at a time."""
    pending = b""
    while block := stream.read(1 << 20):
        *lines, pending = (pending + block).split(b"\n")
        yield from lines
    if pending:
        yield pending


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _short(line: str) -> str:
    return line if len(line) <= 60 else f"{line[:57]}..."
