"""Integer text: files of whitespace-separated ids, parsed by numpy in blocks of whole lines.

Every plain format of this field (adjacency lists, pairs, MovieLens) is lines of non-negative integers, so one
parser serves them all; a format says only what the integers of a line mean. A block of about a megabyte is cut
at its last line end and searched for bytes that are neither digit nor white space. What is left can be nothing
but ids: ``numpy.fromstring`` reads them at 20 ns each, and the places where a digit follows a space say how many
stand on each line. Gowalla (6 MB, 1.03 M pairs) reads in 0.1 s, half of it sorting. ``int(token)`` in a Python
loop takes three times the parsing (and takes "1_0" for ten); ``pandas.read_csv`` and ``numpy.loadtxt`` refuse
lines of unequal length. Memory is the pairs read so far (8 bytes each) and one block.

Speed leaves no room to remember lines, so a fault is found by its position in the block, and a repeated pair by
reading the file a second time: only files with faults pay. Each fault names the file, the line and what would
be right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from rectoolkit.data.interactions import MAX_ID, pair_keys, unique_keys
from rectoolkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    Int64s = npt.NDArray[np.int64]
    # the meaning of a block: users and items of its pairs, the line of each pair, and the largest user id
    Meaning = Callable[["Lines"], tuple[Int64s, Int64s, Int64s, int]]

BLOCK = 1 << 20  # bytes; from 256 kB to 4 MB the time is the same
DIGITS = 10  # of MAX_ID
TEXT = b"0123456789 \t\r\n"


@dataclass(frozen=True)
class Lines:
    """A block of whole lines: ``values`` (T,) the integers in order, ``counts`` (L,) how many on each line.

    ``first`` is the number of the block's first line, from 1; ``path`` and ``shape`` (what a line should look
    like) are for messages.
    """

    path: Path
    shape: str
    first: int
    values: Int64s
    counts: Int64s

    def refuse(self, line: int, message: str) -> NoReturn:
        """Raise DataError about the line of that index within the block."""
        raise DataError(f"{self.path}, line {self.first + line}: {message}; a line is {self.shape}")


@dataclass(frozen=True)
class PairFile:
    """What one file holds: ``keys`` int64 (N,) ascending and unique (``interactions.pair_keys``).

    ``num_users`` and ``num_items`` are the largest ids plus one; a user without items counts.
    ``repeated`` says how many pairs were given more than once and merged.
    """

    path: Path
    keys: Int64s
    num_users: int
    num_items: int
    repeated: int
    meaning: Meaning
    lines: Callable[[], Iterator[Lines]]

    def places(self) -> Int64s:
        """Where each of ``keys`` stands among the file's pairs, int64 (N,): the file is read again, on demand only."""
        keys = np.concatenate([pair_keys(*self.meaning(block)[:2]) for block in self.lines()])
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        places: Int64s = order[np.concatenate([np.ones(1, np.bool_), keys[1:] != keys[:-1]])]
        return places

    def lines_of(self, user: int, item: int) -> list[int]:
        """The line numbers at which a pair stands: the file is read again, for messages only."""
        found: list[int] = []
        for block in self.lines():
            users, items, lines, _ = self.meaning(block)
            found += (block.first + lines[(users == user) & (items == item)]).tolist()
        return found


def read_pairs(path: Path, shape: str, meaning: Meaning, *, separators: bytes = b"", merge: bool = False) -> PairFile:
    """The pairs of a text file whose lines ``meaning`` understands; ``separators`` count as spaces.

    A pair that stands twice is merged where ``merge`` is set and a fault otherwise. Raises DataError for a file
    that is missing, empty, not text, or has a line that does not fit.
    """

    def lines() -> Iterator[Lines]:
        return integer_lines(path, shape, separators)

    blocks, num_users, num_items = [], 0, 0
    for block in lines():
        users, items, _, largest = meaning(block)
        blocks.append(pair_keys(users, items))
        num_users = max(num_users, largest + 1)
        num_items = max(num_items, int(items.max(initial=-1)) + 1)
    keys = np.concatenate(blocks) if blocks else np.zeros(0, np.int64)
    blocks.clear()
    if not len(keys):
        raise DataError(f"{path}: the file holds no interactions; a line is {shape}")
    unique = unique_keys(keys)
    file = PairFile(path, unique, num_users, num_items, len(keys) - len(unique), meaning, lines)
    if file.repeated and not merge:
        _refuse_repeated(file, int(keys[np.argmax(keys[1:] == keys[:-1])]))  # unique_keys has sorted them
    return file


def integer_lines(path: Path, shape: str, separators: bytes = b"") -> Iterator[Lines]:
    """The file as blocks of parsed lines, about ``BLOCK`` bytes each. Raises DataError as ``read_pairs`` does."""
    table = bytes.maketrans(separators, b" " * len(separators))
    line, pending = 1, [b""]
    try:
        with open(path, "rb", buffering=0) as file:
            while block := file.read(BLOCK):
                block = block.translate(table)
                cut = block.rfind(b"\n") + 1
                if not cut:
                    if block.translate(None, TEXT):  # refused now: a binary file may have no line end at all
                        tail = file.read(64).translate(table)  # the rest of the word to quote
                        _refuse_bytes(path, shape, line, b"".join([*pending, block, tail]))
                    pending.append(block)
                    continue
                lines = _parse(path, shape, line, b"".join([*pending, block[:cut]]))
                line, pending = line + len(lines.counts), [block[cut:]]
                yield lines
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if rest := b"".join(pending):
        yield _parse(path, shape, line, rest + b"\n")


def _parse(path: Path, shape: str, line: int, block: bytes) -> Lines:
    if block.translate(None, TEXT) or block.count(b"\r") != block.count(b"\r\n"):
        _refuse_bytes(path, shape, line, block)
    data = np.frombuffer(block, np.uint8)
    digit = data >= ord("0")  # all else in TEXT is smaller
    edges = np.flatnonzero(digit[1:] != digit[:-1]) + 1
    if digit[0]:
        edges = np.concatenate([np.zeros(1, np.int64), edges])
    starts, ends = edges[::2], edges[1::2]  # as many, for every block ends in a line feed
    values = np.fromstring(block, np.int64, sep=" ") if len(starts) else np.zeros(0, np.int64)  # blank gives [0]
    line_ends = np.searchsorted(starts, np.flatnonzero(data == ord("\n")))
    lines = Lines(path, shape, line, values, np.diff(line_ends, prepend=0))
    wrong = np.flatnonzero((ends - starts > DIGITS) | (values > MAX_ID))
    if len(wrong):
        at = starts[wrong[0]]
        lines.refuse(
            block.count(b"\n", 0, at),
            f"id {_quote(block[at : ends[wrong[0]]])} is too large: ids run from 0 to {MAX_ID}, without gaps",
        )
    return lines


def _refuse_bytes(path: Path, shape: str, line: int, block: bytes) -> NoReturn:
    """Say what stands in ``block`` that is neither a digit nor white space."""
    found = re.search(rb"[^0-9 \t\r\n]|\r(?!\n)", block)
    at = found.start() if found else 0
    lines = Lines(path, shape, line, np.zeros(0, np.int64), np.zeros(0, np.int64))
    index = block.count(b"\n", 0, at)
    start = max(block.rfind(space, 0, at) for space in (b" ", b"\t", b"\n")) + 1
    token = re.match(rb"[^ \t\r\n]*", block[start : at + 64])
    written = token.group() if token else b""
    if block[at : at + 1] == b"\r":
        lines.refuse(index, "a carriage return without a line feed; end lines with a line feed")
    if line == 1 and block[:2] == b"\x1f\x8b":
        lines.refuse(index, "a gzip file; unpack it first")
    if line == 1 and block.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        lines.refuse(index, "the file begins with a byte order mark; save it as plain ASCII or UTF-8 without one")
    if block[at] == 0:
        lines.refuse(index, "a NUL byte; the file is damaged, binary or UTF-16, where plain text is right")
    if block[at] > 126 or block[at] < 32:
        lines.refuse(index, f"byte 0x{block[at]:02x} in {_quote(written)} is no plain text; save the file as ASCII")
    if re.fullmatch(rb"-\d+", written):
        lines.refuse(index, f"negative id {_quote(written)}; ids run from 0 to {MAX_ID}")
    lines.refuse(index, f"{_quote(written)} is not an integer id")


def _refuse_repeated(file: PairFile, key: int) -> NoReturn:
    user, item = key >> 32, key & 0xFFFFFFFF
    first, second = [*file.lines_of(user, item), 0, 0][:2]
    where = "the same line" if first == second else f"line {first}"
    raise DataError(
        f"{file.path}, line {second}: item {item} of user {user} stands a second time (first on {where}); "
        f"each pair stands once, and this file repeats {file.repeated}; remove the repetitions"
    )


def _quote(written: bytes) -> str:
    text = written[:40].decode("ascii", "backslashreplace")
    return f"'{text}{'...' if len(written) > 40 else ''}'"
