"""Text files decoded: UTF-8 with line feeds, whatever a file's compression, encoding or line ends.

Every text format is read through ``TextFile``, so a file gives the same text and the same messages whether a recipe
names its path or a command imports it:

- gzip, bzip2, zstd and lz4 are recognized by their first bytes and unpacked; other archives are refused
- other encodings are converted to UTF-8, and a byte order mark is dropped
- carriage returns, with or without a line feed, become line feeds
- a NUL byte is refused, because the file is damaged, binary, or UTF-16 without a mark
"""

from __future__ import annotations

import codecs
import io
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from rectoolkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKED = {rb"\x1f\x8b": "gzip", rb"BZh[1-9]1AY&": "bz2", rb"\x28\xb5\x2f\xfd": "zstd", rb"\x04\x22\x4d\x18": "lz4"}
REFUSED = {
    rb"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save the sheet as csv",
    rb"\xd0\xcf\x11\xe0": "an Excel workbook; save the sheet as csv",
    rb"\xfd7zXZ": "an xz file; unpack it",
    rb"PAR1[\x00-\x1f]": "a parquet file; import it with --format parquet",
}
MARKS = {  # in this order, because the mark of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True)
class TextFile:
    """A text file of that encoding. Reading it raises DataError with the file, the line and the remedy."""

    path: Path
    encoding: str = "utf-8"

    def pieces(self, size: int, *, check: bool = False) -> Iterator[bytes]:
        """The text as UTF-8 in pieces of about ``size`` bytes, cut anywhere.

        Bytes that are not UTF-8 pass unless ``check`` is set, so that they do no harm in a column that nobody reads.
        """
        codec = self._codec()
        plain = codec in ("utf-8", "utf-8-sig")
        decoder = codecs.getincrementaldecoder("utf-8" if plain else self.encoding)()
        lines, held = 0, b""
        with self._opened() as stream:
            raw = self._without_mark(stream.read(max(size, 4)), codec)
            text = raw if plain and not check else self._decode(decoder, raw, lines).removeprefix(codecs.BOM_UTF8)
            while True:
                piece, held = held + text, b""
                if raw and piece.endswith(b"\r"):  # perhaps half of a line end
                    piece, held = piece[:-1], b"\r"
                piece = _with_line_feeds(piece)
                if b"\0" in piece:
                    line = lines + piece.count(b"\n", 0, piece.index(b"\0")) + 1
                    self.refuse(line, "a NUL byte; the file is damaged, binary, or UTF-16 without a byte order mark")
                if piece:
                    yield piece
                lines += piece.count(b"\n")
                if not raw:
                    return
                raw = stream.read(size)
                text = raw if plain and not check else self._decode(decoder, raw, lines, held)

    def lines(self, size: int, *, check: bool = True) -> Iterator[tuple[int, bytes]]:
        """The text in blocks of whole lines, about ``size`` bytes each, with the number of the first line, from 1."""
        number, pending = 1, [b""]
        for piece in self.pieces(size, check=check):
            cut = piece.rfind(b"\n") + 1
            if not cut:
                pending.append(piece)
                continue
            block = b"".join([*pending, piece[:cut]])
            yield number, block
            number, pending = number + block.count(b"\n"), [piece[cut:]]
        if rest := b"".join(pending):
            yield number, rest + b"\n"

    def refuse(self, line: int, message: str) -> NoReturn:
        """Raise DataError about that line."""
        raise DataError(f"{self.path}, line {line}: {message}")

    def refuse_byte(self, line: int, byte: int) -> NoReturn:
        """Raise DataError about a byte that is not text in the file's encoding."""
        self.refuse(
            line,
            f"byte 0x{byte:02x} is not {self.encoding}; save the file as UTF-8, or import it with its --encoding "
            "(latin-1, cp1252, ...)",
        )

    def _decode(self, decoder: codecs.IncrementalDecoder, raw: bytes, lines: int, held: bytes = b"") -> bytes:
        """``raw`` as UTF-8. ``lines`` and the carriage return ``held`` before it give the line for messages."""
        state = decoder.getstate()
        try:
            return decoder.decode(raw, final=not raw).encode()
        except UnicodeDecodeError as error:
            decoder.setstate(state)
            before = decoder.decode(raw[: max(0, error.start - (len(error.object) - len(raw)))])
            line = lines + _with_line_feeds(held + before.encode()).count(b"\n") + 1
            if error.start >= len(error.object):
                self.refuse(line, f"the file ends within a character of {self.encoding}; it is cut short")
            self.refuse_byte(line, error.object[error.start])
        except UnicodeError as error:
            raise DataError(f"{self.path}: not text in the encoding {self.encoding}: {error}") from None

    def _codec(self) -> str:
        try:
            io.TextIOWrapper(io.BytesIO(), self.encoding)  # refuses codecs that do not give text, such as hex
            return codecs.lookup(self.encoding).name
        except (LookupError, ValueError):
            raise DataError(
                f"unknown encoding '{self.encoding}'; common ones are utf-8, latin-1, cp1252 and utf-16"
            ) from None

    def _without_mark(self, start: bytes, codec: str) -> bytes:
        """The file's first bytes without the mark of UTF-8. The mark of another encoding is refused."""
        mark = next((mark for mark in MARKS if start.startswith(mark)), b"")
        if mark and not codec.startswith(MARKS[mark]):
            raise DataError(
                f"{self.path}: begins with the byte order mark of {MARKS[mark].upper()}; save the file as UTF-8, or "
                f"import it with --encoding {MARKS[mark]}"
            )
        if not mark and codec in ("utf-16", "utf-32"):
            raise DataError(f"{self.path}: has no byte order mark; give --encoding {codec}-le or {codec}-be")
        return start.removeprefix(codecs.BOM_UTF8) if mark == codecs.BOM_UTF8 else start

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """The file's bytes as a stream, unpacked."""
        try:
            with open(self.path, "rb", buffering=0) as file:
                start = file.read(8)
                if kind := next((kind for magic, kind in REFUSED.items() if re.match(magic, start)), ""):
                    raise DataError(f"{self.path}: this is {kind}")
                packed = next((name for magic, name in PACKED.items() if re.match(magic, start)), "")
                if not packed:
                    file.seek(0)
                    yield file
                    return
            import pyarrow

            try:
                with pyarrow.input_stream(str(self.path), compression=packed) as stream:
                    yield stream
            except (pyarrow.ArrowException, OSError) as error:
                raise DataError(f"{self.path}: damaged {packed} file: {str(error).splitlines()[0]}") from None
        except FileNotFoundError:
            raise DataError(f"{self.path}: no such file") from None
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror or error}") from None


def _with_line_feeds(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in text else text
