"""Files that are either whole or not there: written beside their place, synced, then renamed into it."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from rectoolkit.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSY = (errno.EACCES, errno.EAGAIN)  # what a lock that another process holds answers
_UMASK = os.umask(0o022)  # read once, at import: the only way to read it is to set it, which other threads would see
os.umask(_UMASK)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file to write; it takes the name ``path`` only when the block ends without an error.

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
    """A folder to fill; it takes the name ``path`` only when the block ends without an error.

    Raises UserError where something has come to stand there in the meantime.
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
    """``text`` as a whole UTF-8 file."""
    with atomic_write(path) as file:
        file.write(text.encode())


@contextmanager
def alone(path: str | Path, busy: str) -> Iterator[None]:
    """The only process within this block for ``path``, a folder, or a file that is made where there is none.

    The lock goes with the process, however it ends. Raises UserError with the message ``busy`` where another holds it.
    """
    import fcntl

    path = Path(path)
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in BUSY:
                raise UserError(busy) from None
            raise  # a file system without locks, for one
        yield
    finally:
        os.close(handle)


def is_taken(path: str | Path) -> bool:
    """Whether a process is within ``alone`` for ``path`` at the moment."""
    import fcntl

    try:
        with open(path, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in BUSY
    return False


def remove_parts(folder: str | Path) -> None:
    """Remove what a killed writer left in ``folder``; call it only while nobody else writes there."""
    for part in Path(folder).glob(".*.part"):
        part.unlink(missing_ok=True)
