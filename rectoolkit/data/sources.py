"""Sources of an import: csv, tsv, RecBole's ``.inter``, parquet, adjacency lists and pandas frames, read in pieces.

Each source says which columns it has, yields tables of the columns asked for (``lines.PIECE`` bytes or ``ROWS`` at a
time, so memory does not grow with the file) and knows where a row stands (``place``), for messages.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rectoolkit.data.lines import Adjacency, Delimited
from rectoolkit.errors import DataError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROWS = 1 << 20  # rows of parquet or of a frame read at a time
SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".inter": "inter", ".parquet": "parquet", ".pq": "parquet"}
PACKED = (".gz", ".bz2", ".zst", ".lz4")
FORMATS = ("csv", "tsv", "inter", "parquet", "adjacency")
SEPARATORS = {"csv": ",", "tsv": "\t", "inter": "\t"}


class Source(Protocol):
    """Rows of interactions, in pieces."""

    @property
    def name(self) -> str:
        """What messages call it: a path."""

    def columns(self) -> list[str]:
        """The names of its columns."""

    def tables(self, columns: Sequence[str]) -> Iterator[Any]:
        """pyarrow tables of these columns, in the order of the rows."""

    def place(self, row: int) -> str:
        """Where row number ``row`` (from 0) stands, such as ``line 7``."""


def open_source(
    source: Any, format: str = "", separator: str = "", encoding: str = "utf-8", names: Sequence[str] = ()
) -> Source:
    """The source at a path, or of a pandas frame. Without ``format``, the suffix of the path tells it.

    ``separator``, ``encoding`` and ``names`` (the columns of a file without a header) are for csv and tsv. Raises
    DataError for a path that is not there or empty, and where the format cannot be told.
    """
    if not isinstance(source, str | os.PathLike):
        return Frame(source)
    path = Path(source)
    if not path.is_file():
        raise DataError(f"{path}: {'is a folder; name the files in it' if path.is_dir() else 'no such file'}")
    if not path.stat().st_size:
        raise DataError(f"{path}: the file is empty")
    suffixes = [suffix for suffix in path.suffixes if suffix not in PACKED]
    format = format or SUFFIXES.get(suffixes[-1] if suffixes else "", "")
    if not format:
        raise DataError(f"{path}: its name does not tell its format; give --format: {', '.join(FORMATS)}")
    if format not in FORMATS:
        raise DataError(f"unknown format '{format}'; {nearest(format, FORMATS)}")
    if format == "parquet":
        return Parquet(path)
    if format == "adjacency":
        return Adjacency(path)
    return Delimited(path, format, separator or SEPARATORS[format], encoding, tuple(names))


@dataclass(frozen=True)
class Parquet:
    """A parquet file, a row group at a time."""

    path: Path

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
                for group in range(file.num_row_groups):  # read in one go, arrow keeps the bytes of all that are done
                    for batch in file.iter_batches(ROWS, row_groups=[group], columns=list(columns)):
                        yield pyarrow.Table.from_batches([batch])
            except (pyarrow.ArrowInvalid, OSError) as error:
                raise DataError(f"{self.path}: damaged: {str(error).splitlines()[0]}") from None

    def place(self, row: int) -> str:
        return f"row {row + 1}"

    def _open(self) -> Any:
        import pyarrow
        from pyarrow import parquet

        try:
            return parquet.ParquetFile(self.path)
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise DataError(f"{self.path}: not a whole parquet file: {str(error).splitlines()[0]}") from None


@dataclass(frozen=True, eq=False)
class Frame:
    """A pandas frame."""

    frame: Any

    @property
    def name(self) -> str:
        return "the frame"

    def columns(self) -> list[str]:
        if not hasattr(self.frame, "columns"):
            raise DataError(f"a path or a pandas frame is needed, got {type(self.frame).__name__}")
        return [str(column) for column in self.frame.columns]

    def tables(self, columns: Sequence[str]) -> Iterator[Any]:
        import pyarrow

        for start in range(0, len(self.frame), ROWS):
            piece = self.frame.iloc[start : start + ROWS]
            arrays = {}
            for column in columns:
                try:
                    arrays[column] = pyarrow.array(piece[column], from_pandas=True)
                except UnicodeEncodeError as error:
                    raise DataError(
                        f"the frame: column '{column}' holds what is no whole Unicode: {error.object!r}"
                    ) from None
                except OverflowError:
                    raise DataError(
                        f"the frame: column '{column}' holds an integer beyond 64 bits; write such ids as strings"
                    ) from None
                except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
                    kinds = [type(value).__name__ for value in piece[column]]
                    other = next(index for index, kind in enumerate(kinds) if kind != kinds[0])
                    raise DataError(
                        f"the frame, {self.place(start + other)}: column '{column}' mixes types, {kinds[other]} after "
                        f"{kinds[0]}; make it one: frame['{column}'].astype(str)"
                    ) from None
            yield pyarrow.table(arrays)

    def place(self, row: int) -> str:
        return f"row {row}"
