"""Benchmark of a full-rank evaluation of Gowalla's size: 1-bit codes against torch's matmul and topk."""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rectoolkit.bench.vectors import load_kernels, quantize
from rectoolkit.search.packed import Index

if TYPE_CHECKING:
    from collections.abc import Callable


def evaluation(
    users: int = 29_858, items: int = 40_981, dim: int = 64, *, k: int = 50, seen: int = 27, rounds: int = 5
) -> dict[str, float]:
    """Median seconds to rank all items for all users, without ``seen`` items of each."""
    random = np.random.default_rng(0)
    floats = [random.standard_normal((n, dim), np.float32) for n in (users, items)]
    asked, stored = (quantize(f, 1) for f in floats)
    indptr, excluded = np.arange(users + 1) * seen, random.integers(0, items, users * seen)
    load_kernels()
    queries, table = (torch.from_numpy(f) for f in floats)

    def by_torch() -> None:
        for start in range(0, users, 2048):
            scores = queries[start : start + 2048] @ table.T
            rows = np.repeat(np.arange(len(scores)), seen)
            masked = excluded[start * seen : start * seen + len(rows)]
            scores[torch.from_numpy(rows), torch.from_numpy(masked)] = -torch.inf
            torch.topk(scores, k)

    calls: dict[str, Callable[[], Any]] = {
        "rectoolkit 1 bit": partial(Index(stored).search, asked, k, seen=(indptr, excluded)),
        "torch matmul + topk": by_torch,
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            begun = perf_counter()
            call()
            times[name] += [perf_counter() - begun] if turn else []  # the first time compiles
    return {name: float(np.median(found)) for name, found in times.items()}
