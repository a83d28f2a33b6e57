"""Memory of the process: freed memory is kept while training, and the peak is measured.

A step allocates and frees about ten tables as large as the embeddings. By default glibc returns such arrays to the
system at once, and the system clears and maps each page anew at its next use. ``kept`` makes glibc hold on to freed
memory until training ends.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # of glibc's mallopt
DEFAULTS = ((MMAP_MAX, 65536), (TRIM_THRESHOLD, 128 << 10), (MMAP_THRESHOLD, 128 << 10))


@contextmanager
def kept() -> Iterator[None]:
    """Keep freed memory in the process while the block runs. Does nothing without glibc.

    This holds for the whole process, so blocks must not be nested. glibc has no way to read its settings. The end of
    the block therefore sets the documented defaults: it undoes MALLOC_TRIM_THRESHOLD_ and the like, and turns off
    glibc's own adjustment of the thresholds.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(MMAP_MAX, 0)
    library.mallopt(TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        for option, value in DEFAULTS:
            library.mallopt(option, value)
        library.malloc_trim(0)


def peak_mb() -> float:
    """The largest amount of memory that this process has held, in MiB."""
    if sys.platform == "linux":  # where ru_maxrss starts from the parent's memory
        with open("/proc/self/status") as status:
            return next(float(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2)


def _glibc() -> Any:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "gnu_get_libc_version") else None
