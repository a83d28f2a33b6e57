"""Sources of an import: files of any format and pandas frames, read in pieces.

Memory does not grow with a file, because a source yields tables of ``PIECE`` bytes of text or ``ROWS`` rows at a time.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rectoolkit.data.readers.tables import SEPARATORS, Delimited, Frame, Parquet
from rectoolkit.data.readers.text import TextFile
from rectoolkit.data.readers.words import SHAPES, WordFile
from rectoolkit.errors import DataError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rectoolkit.data.card import Imported

SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".inter": "inter", ".parquet": "parquet", ".pq": "parquet"}
PACKED = (".gz", ".bz2", ".zst", ".lz4")
FORMATS = (*SEPARATORS, "parquet", *SHAPES)


class Source(Protocol):
    """Rows of interactions, in pieces."""

    @property
    def name(self) -> str:
        """The name of the source in messages: a path or "the frame"."""

    @property
    def options(self) -> frozenset[str]:
        """The options ``separator``, ``encoding`` and ``columns`` that have an effect on it."""

    def columns(self) -> list[str]:
        """The names of its columns."""

    def tables(self, columns: Sequence[str]) -> Iterator[Any]:
        """Arrow tables of these columns, in the order of the rows."""

    def place(self, row: int) -> str:
        """The place of a row, from 0, such as ``line 7``."""


def open_source(source: Any, asked: Imported) -> Source:
    """The source at a path, or of a pandas frame. Without ``asked.format`` a file's suffix states its format.

    Raises DataError if the path is missing or empty, and if its format is unknown.
    """
    if not isinstance(source, str | os.PathLike):
        return Frame(source)
    path = Path(source)
    if not path.is_file():
        raise DataError(f"{path}: {'is a folder; name the files in it' if path.is_dir() else 'no such file'}")
    if not path.stat().st_size:
        raise DataError(f"{path}: the file is empty")
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in PACKED]
    format = asked.format or SUFFIXES.get(suffixes[-1] if suffixes else "", "")
    if not format:
        raise DataError(f"{path}: its name does not tell its format; give --format: {', '.join(FORMATS)}")
    if format not in FORMATS:
        raise DataError(f"unknown format '{format}'; {nearest(format, FORMATS)}")
    if format == "parquet":
        return Parquet(path)
    text = TextFile(path, asked.encoding)
    if format in SHAPES:
        return WordFile(text, format)
    return Delimited(text, format, asked.separator or SEPARATORS[format], tuple(asked.columns))


def open_sources(given: Mapping[str, Sequence[Any]], asked: Imported) -> list[tuple[str, Source]]:
    """The sources of an import, each with its part. Raises DataError as ``open_source``, and for an unused option."""
    sources = [(part, open_source(one, asked)) for part, several in given.items() for one in several]
    default = type(asked)()
    for option in ("separator", "encoding", "columns"):
        unused = not any(option in source.options for _, source in sources)
        if unused and getattr(asked, option) != getattr(default, option):
            raise DataError(f"{sources[0][1].name}: --{option} has no effect on this format; leave it out")
    return sources
