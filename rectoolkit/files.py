"""Files: atomic writes, locks, checksums, and named arrays that open by memory map.

In this order: ``atomic_write``, ``new_folder`` and ``write_text`` write a file or folder whole or not at all. ``alone``
lets one process at a time work in a place. ``checksum`` and ``check_whole`` find damage. ``save_arrays`` and
``open_arrays`` keep arrays in one self-describing file, whose layout is docs/reference/file-format.md.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import mmap
import os
import shutil
import struct
import tempfile
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import numpy as np

from rectoolkit.errors import FormatError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt


BUSY = (errno.EACCES, errno.EAGAIN)  # errors of a lock that another process holds
_UMASK = os.umask(0o022)  # read once, at import: reading it means setting it, which other threads would see
os.umask(_UMASK)

CHECKED_BYTES = 1 << 28  # 256 MB, a million float32 rows of 64 dims
BLOCK = 1 << 22  # bytes read at a time for a checksum

MAGIC = b"RECTOOLC"
VERSION = 1
ALIGNMENT = 64
DTYPES = ("|u1", "<u2", "<i4", "<u4", "<i8", "<f4", "<f8")
MAX_DIMS = 3
MAX_ELEMENTS = 1 << 48  # of a shape, zeros counted as ones, so that numpy's own arithmetic cannot overflow


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Open a binary file to write, which gets the name ``path`` only when the block ends without an error.

    A crash, a full disk or a kill leaves at most a ``.part`` file beside it, which no reader looks at.
    """
    path = Path(path)
    handle, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o666 & ~_UMASK)
        os.replace(part, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(part)
        raise


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Make a folder to fill, which gets the name ``path`` only when the block ends without an error.

    Raises UserError if something exists there by then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        yield part
        os.chmod(part, 0o777 & ~_UMASK)
        try:
            os.rename(part, path)
        except OSError as error:
            if not path.exists():
                raise
            raise UserError(f"{path}: exists already ({error.strerror}); name a new folder") from None
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as a UTF-8 file, atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


@contextmanager
def alone(path: str | Path, busy: str, wait: bool = False) -> Iterator[None]:
    """Let only one process at a time into this block for ``path``, a folder or a file (made if it does not exist).

    The lock ends with the process, however that ends. If another process holds it, raises UserError with the message
    ``busy``, or waits.
    """
    import fcntl

    path = Path(path)
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno in BUSY:
                raise UserError(busy) from None
            raise  # for example a file system without locks
        yield
    finally:
        os.close(handle)


def is_taken(path: str | Path) -> bool:
    """Whether a process is inside ``alone`` for the file ``path`` now."""
    import fcntl

    try:
        lock = open(path, "rb")  # noqa: SIM115, closed below
    except OSError:  # not there, or not ours to read
        return False
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in BUSY
    return False


def remove_parts(folder: str | Path) -> None:
    """Remove what killed writers left in ``folder``. Call it only while nobody else writes there."""
    for part in Path(folder).glob(".*.part"):
        part.unlink(missing_ok=True)


def checksum(path: str | Path) -> int:
    """The CRC-32 of a whole file. Raises OSError if it cannot be read."""
    value = 0
    with open(path, "rb", buffering=0) as file:
        while block := file.read(BLOCK):
            value = zlib.crc32(block, value)
    return value


def file_digest(path: str | Path, algorithm: str = "sha256") -> str:
    """The digest of a file's content, in hex. Raises UserError if the file cannot be read."""
    hasher = hashlib.new(algorithm, usedforsecurity=False)
    try:
        with open(path, "rb", buffering=0) as file:
            while block := file.read(BLOCK):
                hasher.update(block)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    return hasher.hexdigest()


def check_whole(path: Path, expected: object) -> None:
    """Raise FormatError if the file's CRC-32 is not ``expected``. Files above ``CHECKED_BYTES`` are not read."""
    if path.stat().st_size <= CHECKED_BYTES and checksum(path) != expected:
        raise FormatError(f"{path}: its content has changed since it was written (the checksum differs); train again")


@dataclass(frozen=True)
class ArrayFile:
    """An opened array file: ``arrays`` by name, memory-mapped and read-only, and the ``facts`` of its header."""

    path: Path
    arrays: dict[str, npt.NDArray[Any]]
    facts: dict[str, Any]

    def array(self, name: str, dtype: str, dims: int) -> npt.NDArray[Any]:
        """The array called ``name``. Raises FormatError if it is missing or has another type or number of dims."""
        if name not in self.arrays:
            refuse(self.path, "arrays", f"holds no '{name}'")
        array = self.arrays[name]
        if array.dtype != np.dtype(dtype) or array.ndim != dims:
            found = f"{array.dtype.str} of shape {array.shape}"
            refuse(self.path, name, f"must be {np.dtype(dtype).str} with {dims} dimensions, got {found}")
        return array

    def count(self, name: str, least: int = 0) -> int:
        """The fact called ``name``, an integer of at least ``least``. Raises FormatError if it is something else."""
        return _integer(self.path, name, self.facts.get(name), least)

    def counts(self, name: str) -> tuple[int, ...]:
        """The fact called ``name``, a list of integers above 0. Raises FormatError if it is something else."""
        values = self.facts.get(name)
        if not isinstance(values, list):
            refuse(self.path, name, f"must be a list of integers, got {values!r:.80}")
        return tuple(_integer(self.path, name, value, 1) for value in values)


def save_arrays(path: str | Path, kind: str, arrays: dict[str, npt.NDArray[Any]], facts: dict[str, Any]) -> None:
    """Write named arrays and JSON facts as one file, atomically: magic, version, header, then the arrays.

    ``kind`` names the content, and ``open_arrays`` asks for it. The same content always gives the same bytes. Raises
    ValueError for an array of a type or number of dims that the format does not have.
    """
    place, places = 0, []
    for name, array in arrays.items():
        if array.dtype.str not in DTYPES or array.ndim > MAX_DIMS:
            raise ValueError(f"'{name}' must be of {', '.join(DTYPES)}, got {array.dtype.str} {array.shape}")
        places.append({"name": name, "dtype": array.dtype.str, "shape": list(array.shape), "start": place})
        place += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    header = json.dumps({"kind": kind, **facts, "arrays": places, "bytes": place}, sort_keys=True).encode()
    header += b" " * (-(len(header) + 20) % ALIGNMENT)
    with atomic_write(path) as file:
        file.write(MAGIC + struct.pack("<III", VERSION, len(header), zlib.crc32(header)) + header)
        for array in arrays.values():
            data = np.ascontiguousarray(array)
            file.write(data.data if data.size else b"")
            file.write(b"\0" * (-data.nbytes % ALIGNMENT))


def open_arrays(path: str | Path, kind: str) -> ArrayFile:
    """Open a file written by ``save_arrays``. Only its header is read.

    Raises FormatError, naming the file and the field, if the file is missing, cut short, damaged, of another kind or
    version, or if its header contradicts itself or the file.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(20)
            if len(start) < 20 or start[:8] != MAGIC:
                raise FormatError(f"{path}: not a file of packed codes (it does not begin with {MAGIC.decode()})")
            version, length, crc = struct.unpack("<III", start[8:])
            if version != VERSION:
                raise FormatError(f"{path}: written in format version {version}; this release reads {VERSION}")
            raw = file.read(length) if length <= size - 20 else b""
            if len(raw) < length or zlib.crc32(raw) != crc:
                raise FormatError(f"{path}: the header is cut short or damaged; export or train again")
            header = _header(path, raw, kind)
            body = _integer(path, "bytes", header.get("bytes"))
            if size != 20 + length + body:
                expected = 20 + length + body
                raise FormatError(f"{path}: has {size} bytes, but its header says {expected}; export or train again")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise FormatError(f"{path}: is a folder; name the file of packed codes in it") from None
    places = header.get("arrays")
    if not isinstance(places, list):
        refuse(path, "arrays", f"must be a list, got {places!r:.80}")
    arrays, used = {}, []
    for number, place in enumerate(places):
        where = f"arrays[{number}]"
        name, dtype, shape, begin = _place(path, where, place)
        if name in arrays:
            refuse(path, f"{where}.name", f"'{name}' is listed twice")
        end = begin + math.prod(shape) * dtype.itemsize
        if end > body:
            refuse(path, where, f"'{name}' ends at byte {end}, but there are only {body}")
        arrays[name] = np.zeros(shape, dtype)
        if begin < end:
            used.append((begin, end, name))
            arrays[name] = np.frombuffer(mapped, dtype, math.prod(shape), 20 + length + begin).reshape(shape)
        arrays[name].flags.writeable = False
    used.sort()
    for (_, end, first), (begin, _, second) in pairwise(used):
        if begin < end:
            refuse(path, "arrays", f"'{first}' and '{second}' overlap")
    return ArrayFile(path, arrays, header)


def refuse(path: Path, field: str, message: str) -> NoReturn:
    """Raise FormatError about one field of a file's header."""
    raise FormatError(f"{path}: header field '{field}': {message}; make the file again")


def _header(path: Path, raw: bytes, kind: str) -> dict[str, Any]:
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError, JSONDecodeError, a number too long
        raise FormatError(f"{path}: the header is not JSON ({error}); export or train again") from None
    if not isinstance(header, dict):
        raise FormatError(f"{path}: the header is not a JSON object; export or train again")
    if header.get("kind") != kind:
        raise FormatError(f"{path}: holds {header.get('kind')!s:.80}, not {kind}")
    return header


def _place(path: Path, where: str, place: Any) -> tuple[str, np.dtype[Any], tuple[int, ...], int]:
    """Check the entry of one array in the header. Returns its name, type, shape and first byte."""
    if not isinstance(place, dict):
        refuse(path, where, f"must be an object, got {place!r:.80}")
    name, dtype, shape = (place.get(key) for key in ("name", "dtype", "shape"))
    if not isinstance(name, str):
        refuse(path, f"{where}.name", f"must be text, got {name!r:.80}")
    if dtype not in DTYPES:
        refuse(path, f"{where}.dtype", f"must be one of {', '.join(DTYPES)}, got {dtype!r:.80}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMS:
        refuse(path, f"{where}.shape", f"must be a list of up to {MAX_DIMS} integers, got {shape!r:.80}")
    sizes = tuple(_integer(path, f"{where}.shape", value) for value in shape)
    if math.prod(max(1, value) for value in sizes) > MAX_ELEMENTS:
        refuse(path, f"{where}.shape", f"{shape!r:.80} is too large")
    start = _integer(path, f"{where}.start", place.get("start"))
    if start % ALIGNMENT:
        refuse(path, f"{where}.start", f"must be a multiple of {ALIGNMENT}, got {start}")
    return name, np.dtype(dtype), sizes, start


def _integer(path: Path, field: str, value: Any, least: int = 0) -> int:
    if type(value) is not int or not least <= value < 1 << 63:
        refuse(path, field, f"must be an integer of at least {least}, got {value!r:.80}")
    return value
