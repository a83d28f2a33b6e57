"""How the loops are compiled, and kept on disk for as long as the files they are made of stay the same."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numba

if TYPE_CHECKING:
    from collections.abc import Callable

Function = TypeVar("Function", bound="Callable[..., Any]")


def digest_of_sources() -> str:
    """One digest of every file in this folder: a loop is made of many of them, and numba looks at its own alone."""
    digest = sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


SOURCES = digest_of_sources()


def compiled(function: Function) -> Function:
    """``function`` compiled on its first call, kept on disk where a folder for it can be written.

    Without numba's reference counts (``_nrt``): they would cost 40 atomic operations a tile, 0.1 us, on counters that
    all threads share. So nothing here allocates an array; what a scan works in comes as ``Work``.
    """
    compiler: Any = numba.njit
    try:
        result: Any = compiler(nogil=True, cache=True, error_model="numpy", _nrt=False)(function)
        kept = result._cache._cache_file
        kept._source_stamp = SOURCES if kept._source_stamp else ""  # it held the time and size of one file
    except (RuntimeError, AttributeError):  # a read-only installation without a home directory, or another numba:
        result = compiler(nogil=True, error_model="numpy", _nrt=False)(function)  # compile again in each process
    return result  # type: ignore[no-any-return]


def part(function: Function) -> Function:
    """``function`` as a part of the scans that call it, which pass it a hundred values."""
    compiler: Any = numba.njit
    result: Function = compiler(forceinline=True, error_model="numpy", _nrt=False)(function)
    return result
