"""Freed memory stays while it is kept, and goes back afterwards."""

from __future__ import annotations

import ctypes
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rectoolkit.training import memory

PAGE = resource.getpagesize()


def faults(size: int) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(size, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(memory._glibc() is None, reason="needs glibc")
def test_a_second_array_takes_the_pages_of_the_first() -> None:
    size = 64 << 20
    with memory.kept():
        faults(size)
        assert faults(size) < size // PAGE // 10
        held = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    assert int(Path("/proc/self/statm").read_text().split()[1]) * PAGE < held - size // 2


def test_the_peak_is_that_of_the_process() -> None:
    code = (
        "import numpy as np; from rectoolkit.training.memory import peak_mb\n"
        "before = peak_mb(); np.ones(300 << 20, np.uint8); grown = peak_mb()\n"
        "assert 290 < grown - before < 400 and peak_mb() >= grown, (before, grown)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("the C library was asked"))
    monkeypatch.setattr(sys, "platform", "darwin")
    with memory.kept():
        assert np.ones(1 << 20, np.uint8).all()
