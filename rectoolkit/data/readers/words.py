"""Lines of words: adjacency lists, pairs and ratings.

    adjacency   ``user item item ...``          what LightGCN and its successors publish
    pairs       ``user item``                   separated by white space or a comma
    ratings     ``user item rating timestamp``  as MovieLens-100K and 1M, also separated by commas or ::

A block of whole lines is cut into words with numpy: where a word byte follows a space, a word begins. A file given by
path has integer ids from 0, which stay as they are (``read_pairs``). An import takes words of any kind and numbers
them. In adjacency lists, users may have several lines or no items, and blank lines are skipped.

Speed leaves no room to remember lines, so a fault is located by its position in the block, and a repeated pair by
reading the file again. Only files with faults pay for that. Memory is one block, and for ``read_pairs`` the pairs.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from rectoolkit.data.interactions import MAX_ID, pair_keys, unique_keys
from rectoolkit.data.readers.rows import usual
from rectoolkit.data.readers.text import TextFile
from rectoolkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rectoolkit.data.interactions import Int64s

BLOCK = 1 << 20  # bytes; from 256 kB to 4 MB the time is the same
DIGITS = 10  # of MAX_ID
SPACES = b" \t\n"
CONTROLS = bytes(byte for byte in (*range(32), 127) if byte not in SPACES)
LOOK = 200  # lines that tell a file's format


class Shape(NamedTuple):
    """The lines of a format: its columns, and the characters that separate words beside white space."""

    line: str
    columns: tuple[str, ...]
    separators: bytes = b""
    repeats: bool = True  # a log repeats itself; in an adjacency list a repeated pair is a fault


SHAPES = {
    "adjacency": Shape("`user item item ...`, separated by spaces", ("user", "item"), repeats=False),
    "pairs": Shape("`user item`, separated by a tab, spaces or a comma", ("user", "item"), b","),
    "ratings": Shape(
        "`user item rating timestamp`, separated by tabs, spaces, commas or ::",
        ("user", "item", "rating", "time"),
        b":,",
    ),
}


@dataclass(frozen=True)
class Block:
    """A block of whole lines, cut into W words.

    Word w is ``text[starts[w]:ends[w]]``. ``counts`` (L,) holds the number of words on each line, and ``first`` the
    number of the first line, from 1.
    """

    file: WordFile
    first: int
    text: bytes
    starts: Int64s
    ends: Int64s
    counts: Int64s

    def columns(self) -> tuple[dict[str, Int64s], Int64s]:
        """The words of each column, by their number, and the line of each row, from 0.

        Raises DataError about a line with a wrong number of words.
        """
        written = np.flatnonzero(self.counts)
        counts = self.counts[written]
        if self.file.format == "adjacency":
            heads = np.cumsum(counts) - counts
            is_item = np.ones(len(self.starts), np.bool_)
            is_item[heads] = False
            columns = {"user": np.repeat(heads, counts - 1), "item": np.flatnonzero(is_item)}
            return columns, np.repeat(written, counts - 1)
        names = self.file.shape.columns
        if len(wrong := np.flatnonzero(counts != len(names))):
            found = counts[wrong[0]]
            self.refuse(int(written[wrong[0]]), f"{found} column{'s' if found > 1 else ''} instead of {len(names)}")
        table = np.arange(len(self.starts)).reshape(-1, len(names))
        return dict(zip(names, table.T, strict=True)), written

    def integers(self) -> Int64s:
        """All words as integer ids, (W,). Raises DataError about a word that is not one."""
        if self.text.translate(None, b"0123456789" + SPACES):
            self._refuse_word()
        values = np.fromstring(self.text, np.int64, sep=" ") if len(self.starts) else np.zeros(0, np.int64)
        if len(wrong := np.flatnonzero((self.ends - self.starts > DIGITS) | (values > MAX_ID))):
            word = int(wrong[0])
            self.refuse(
                self.line(word), f"id {_quoted(self.word(word))} is too large: ids run from 0 to {MAX_ID}, without gaps"
            )
        return values

    def strings(self) -> Any:
        """All words as an arrow array of strings, (W,)."""
        import pyarrow

        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.ends - self.starts)])
        buffers = pyarrow.py_buffer(ends), pyarrow.py_buffer(self.text.translate(None, SPACES))
        return pyarrow.LargeStringArray.from_buffers(len(self.starts), *buffers)

    def word(self, number: int) -> bytes:
        """The bytes of a word."""
        return self.text[self.starts[number] : self.ends[number]]

    def line(self, number: int) -> int:
        """The line of that word, from 0."""
        return int(np.searchsorted(np.cumsum(self.counts), number, side="right"))

    def refuse(self, line: int, message: str) -> NoReturn:
        """Raise DataError about a line of the block, from 0."""
        self.file.text.refuse(self.first + line, f"{message}; a line is {self.file.shape.line}")

    def _refuse_word(self) -> NoReturn:
        number = next(n for n in range(len(self.starts)) if not re.fullmatch(rb"[0-9]+", self.word(n)))
        word = self.word(number)
        if re.fullmatch(rb"-[0-9]+", word):
            self.refuse(self.line(number), f"negative id {_quoted(word)}; ids run from 0 to {MAX_ID}")
        self.refuse(
            self.line(number),
            f"{_quoted(word)} is not an integer id; import files with other ids (rectool data import)",
        )


@dataclass(frozen=True)
class WordFile:
    """A text file of words in one of the formats ``SHAPES``, and a source of an import."""

    text: TextFile
    format: str
    options = frozenset({"encoding"})

    @property
    def name(self) -> str:
        return str(self.text.path)

    @property
    def shape(self) -> Shape:
        return SHAPES[self.format]

    def blocks(self) -> Iterator[Block]:
        """The file in blocks of words. Raises DataError about a character that neither is text nor separates words."""
        separators = bytes.maketrans(self.shape.separators, b" " * len(self.shape.separators))
        for first, text in self.text.lines(BLOCK):
            text = text.translate(separators)
            if odd := _odd(text):
                at, name = odd
                block = Block(self, first, text, *(np.zeros(0, np.int64),) * 3)
                block.refuse(text.count(b"\n", 0, at), f"{name}, where words are separated by spaces")
            data = np.frombuffer(text, np.uint8)
            is_word = data > ord(" ")
            edges = np.flatnonzero(is_word[1:] != is_word[:-1]) + 1
            if is_word[0]:
                edges = np.concatenate([np.zeros(1, np.int64), edges])
            starts, ends = edges[::2], edges[1::2]  # as many, because every block ends in a line feed
            counts = np.diff(np.searchsorted(starts, np.flatnonzero(data == ord("\n"))), prepend=0)
            yield Block(self, first, text, starts, ends, counts)

    def mistaken(self) -> str:
        """The kind of lines that an adjacency list begins with if it is not one, else an empty string.

        ``pairs``, ``ratings``, ``a table`` (commas or semicolons separate fields), or ``names`` (as many words on each
        line, and not integers). Read as an adjacency list, ratings and times would become items.
        """
        if self.format != "adjacency" or (block := next(self.blocks(), None)) is None:
            return ""
        lines = [line for line in block.text.decode().split("\n")[:LOOK] if line.strip()]
        rows = [re.split(r"[\s,;:]+", line.strip()) for line in lines]
        widths = {len(row) for row in rows}
        if len(rows) < 2 or len(widths) > 1:
            return ""
        numbers = all(field.isdecimal() for row in rows for field in row)
        if numbers and widths == {2}:
            return "pairs"
        if numbers and widths == {4} and all(int(row[2]) <= 10 < int(row[3]) for row in rows):
            return "ratings"
        if re.search("[,;]", lines[0]):
            return "a table"
        return "" if numbers else "names"

    def columns(self) -> list[str]:
        """The format's columns. Raises DataError if the file begins with a header or comment, or has another format."""
        self._check_first_lines()
        if (other := self.mistaken()) in ("ratings", "a table"):
            raise DataError(f"{self.name}: its lines look like {other}, not an adjacency list; give --format")
        return list(self.shape.columns)

    def tables(self, columns: Sequence[str]) -> Iterator[Any]:
        """Arrow tables of these columns, as strings."""
        import pyarrow

        for block in self.blocks():
            words, (numbers, _) = block.strings(), block.columns()
            yield pyarrow.table({column: words.take(pyarrow.array(numbers[column])) for column in columns})

    def place(self, row: int) -> str:
        """The line of a row, from 0."""
        for block in self.blocks():
            _, lines = block.columns()
            if row < len(lines):
                return f"line {block.first + lines[row]}"
            row -= len(lines)
        return "its end"

    def _check_first_lines(self) -> None:
        """Raise DataError if the first line is a header or a comment, whose words would become ids."""
        if (block := next(self.blocks(), None)) is None:
            return
        lines = enumerate(block.text.decode().split("\n"))
        written = [*itertools.islice(((n, line.split()) for n, line in lines if line.strip()), 2), (0, []), (0, [])]
        place, first, second = *written[0], written[1][1]
        if first and first[0].startswith(("#", "%", "//")):
            block.refuse(place, f"'{first[0]}' begins a comment; remove the line")
        named = usual("user", first[:1]) and usual("item", first[1:2])
        numbers = second and all(word.isdecimal() for word in second) and not any(word.isdecimal() for word in first)
        if named or numbers:
            block.refuse(place, f"'{' '.join(first)[:60]}' is a header; remove the line")


@dataclass(frozen=True)
class PairFile:
    """The pairs of a file with integer ids.

    ``keys`` int64 (N,) are ascending and unique (``interactions.pair_keys``). ``num_users`` and ``num_items`` are the
    largest ids plus one; in an adjacency list a user without items counts. ``repeated`` pairs were merged.
    """

    file: WordFile
    keys: Int64s
    num_users: int
    num_items: int
    repeated: int

    @property
    def path(self) -> Path:
        return self.file.text.path

    def places(self) -> Int64s:
        """The position of each key among the file's pairs, int64 (N,). The file is read again."""
        keys = np.concatenate([pair_keys(users, items) for users, items, _ in self._pairs()])
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        places: Int64s = order[np.concatenate([np.ones(1, np.bool_), keys[1:] != keys[:-1]])]
        return places

    def lines_of(self, user: int, item: int) -> list[int]:
        """The lines on which a pair stands, from 1. The file is read again."""
        found: list[int] = []
        for users, items, lines in self._pairs():
            found += lines[(users == user) & (items == item)].tolist()
        return found

    def _pairs(self) -> Iterator[tuple[Int64s, Int64s, Int64s]]:
        for block in self.file.blocks():
            values, (columns, lines) = block.integers(), block.columns()
            yield values[columns["user"]], values[columns["item"]], block.first + lines


def read_pairs(path: Path, format: str) -> PairFile:
    """Read a file of integer ids. Raises DataError with the file, the line and the remedy for every fault."""
    file = WordFile(TextFile(path), format)
    blocks, num_users, num_items = [np.zeros(0, np.int64)], 0, 0
    for block in file.blocks():
        values, (columns, _) = block.integers(), block.columns()
        blocks.append(pair_keys(values[columns["user"]], values[columns["item"]]))
        heads = (np.cumsum(block.counts) - block.counts)[block.counts > 0]
        num_users = max(num_users, int(values[heads].max(initial=-1)) + 1)
        num_items = max(num_items, int(values[columns["item"]].max(initial=-1)) + 1)
    keys = np.concatenate(blocks)
    blocks.clear()
    if not len(keys):
        raise DataError(f"{path}: the file holds no interactions; a line is {file.shape.line}")
    unique = unique_keys(keys)
    pairs = PairFile(file, unique, num_users, num_items, len(keys) - len(unique))
    if pairs.repeated and not file.shape.repeats:
        _refuse_repeated(pairs, int(keys[np.argmax(keys[1:] == keys[:-1])]))  # unique_keys has sorted them
    return pairs


def _odd(text: bytes) -> tuple[int, str] | None:
    """The place and name of a character that is neither text nor a space, tab or line feed."""
    if len(text.translate(None, CONTROLS)) != len(text) and (found := re.search(b"[" + CONTROLS + b"]", text)):
        return found.start(), f"a control character (0x{text[found.start()]:02x})"
    if not text.isascii() and (odd := re.search("[^\\S \t\n]|[\u200b\ufeff]", string := text.decode())):
        name = unicodedata.name(odd.group(), "space").lower()
        return len(string[: odd.start()].encode()), f"a {name} (U+{ord(odd.group()):04X})"
    return None


def _refuse_repeated(pairs: PairFile, key: int) -> NoReturn:
    user, item = key >> 32, key & 0xFFFFFFFF
    first, second = [*pairs.lines_of(user, item), 0, 0][:2]
    where = "the same line" if first == second else f"line {first}"
    pairs.file.text.refuse(
        second,
        f"item {item} of user {user} is repeated (first on {where}); an adjacency list has each pair once, "
        f"and this file repeats {pairs.repeated}; remove the repetitions",
    )


def _quoted(word: bytes) -> str:
    return f"'{word[:40].decode(errors='replace')}{'...' if len(word) > 40 else ''}'"
