"""Benchmark of a whole epoch of LightGCN with BPR on data of several sizes: seconds and peak memory.

Each size runs in its own process, and an epoch has the same number of batches at every size. The cost of a batch is a
propagation over all interactions, and its own rows. Both are linear in the data, so an epoch of ten times the
interactions should take ten times as long. If it takes longer, the embeddings no longer fit a cache, or something is
not linear.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rectoolkit.errors import UserError
from rectoolkit.training.callbacks import Callback

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Grown:
    """The figures of one size: seconds to load, to build and per epoch of ``steps`` batches, and peak memory in MB."""

    dataset: str
    interactions: int
    nodes: int
    steps: int
    batch: int
    load_seconds: float
    build_seconds: float
    epoch_seconds: float
    load_mb: float
    build_mb: float
    peak_mb: float
    loss: float


class Lines(Callback):
    """Writes the progress of an epoch, a line per batch, for the process that started this one."""

    def step(self, epoch: int, batch: int, batches: int) -> None:
        print(f"batch {batch} of {batches}", flush=True)


def measure(name: str, told: Callable[[str], None], **settings: Any) -> Grown:
    """Measure one data set in a new process; ``told`` receives the progress. Raises UserError if it fails."""
    command = [sys.executable, __file__, json.dumps({"name": name, **settings})]
    line = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told(f"{name}: loading")
        for line in process.stdout:
            if line.startswith("batch "):
                told(f"{name}: {line.strip()}")
    if process.returncode:
        killed = "; it was killed, perhaps for want of memory" if process.returncode in (-9, 137) else "; see above"
        raise UserError(f"{name}: the measuring process ended with {process.returncode}{killed}")
    return Grown(**json.loads(line))


def one_size(
    name: str, steps: int = 64, dim: int = 64, layers: int = 3, precision: str = "float32", threads: int | None = None
) -> Grown:
    """The measurement itself, in this process."""
    import torch
    from trainers import Ours, Sizes

    from rectoolkit.data.catalog import load_dataset
    from rectoolkit.training import memory
    from rectoolkit.training.loop import one_epoch

    torch.set_num_threads(threads or torch.get_num_threads())
    begun = time.perf_counter()
    train = load_dataset(name).train
    loaded, load_mb = time.perf_counter(), memory.peak_mb()
    batch = -(-train.num_interactions // steps)
    ours = Ours(train, Sizes(dim, layers, batch), precision)
    built, build_mb = time.perf_counter(), memory.peak_mb()
    with memory.kept():
        loss = one_epoch(ours.parts, ours.optimizer, ours.settings, 0, Lines())
    ended = time.perf_counter()
    facts = (train.num_interactions, train.num_users + train.num_items, len(ours.parts.sampler), batch)
    return Grown(name, *facts, loaded - begun, built - loaded, ended - built, load_mb, build_mb, memory.peak_mb(), loss)


def show_growth(rows: list[Grown]) -> None:
    """Print the table, with a column for each size."""
    from rich.console import Console
    from rich.table import Table

    costs = [row.epoch_seconds / row.interactions / row.steps * 1e9 for row in rows]
    lines = {
        "interactions in train": [f"{row.interactions:,}" for row in rows],
        "nodes": [f"{row.nodes:,}" for row in rows],
        "batches": [f"{row.steps} of {row.batch:,}" for row in rows],
        "load, s": [f"{row.load_seconds:.1f}" for row in rows],
        "build, s": [f"{row.build_seconds:.1f}" for row in rows],
        "epoch, s": [f"{row.epoch_seconds:.1f}" for row in rows],
        "ns a batch and interaction": [f"{cost:.1f}" for cost in costs],
        "x, over the size before": [
            "",
            *(f"{cost / before:.2f}" for before, cost in pairwise(costs)),
        ],
        "peak after loading, MB": [f"{row.load_mb:,.0f}" for row in rows],
        "peak after building, MB": [f"{row.build_mb:,.0f}" for row in rows],
        "peak, MB": [f"{row.peak_mb:,.0f}" for row in rows],
    }
    table = Table("", *(row.dataset for row in rows))
    for label, cells in lines.items():
        table.add_row(label, *cells)
    Console().print(table)


if __name__ == "__main__":
    try:
        print(json.dumps(vars(one_size(**json.loads(sys.argv[1])))))
    except UserError as error:
        sys.exit(f"error: {error}")
