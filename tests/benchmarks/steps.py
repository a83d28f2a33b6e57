"""Benchmark of a training step against LightGCN-PyTorch and PyG: the same data, weights and batches, in one run.

All implementations take turns on the same batches, round after round, so that other load on the machine affects all
alike. The report has medians with quartiles, and ratios. A step is loss, gradient and optimizer. Drawing a batch is
reported separately, because each implementation draws in its own way. For our step, the report also shows the time of
its parts, and how close its propagation comes to the limit of the machine:

    bytes of a propagation = edges (4 D + 4) + nodes 4 D      a row and an id read an edge, a row written a node
    limit = 2 K propagations' bytes / bytes a second          forward and backward, K layers

The rate is that of reading an array as large as the embeddings repeatedly and in order; it comes from the cache if the
embeddings fit. Propagation reads rows out of order, so it cannot reach the limit. bfloat16 reads half.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from trainers import Ours, Sizes, trainers

from rectoolkit.training import memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trainers import Trainer

    from rectoolkit.data import Dataset
    from rectoolkit.model.graph import BipartiteGraph

MOST_SECONDS = 120.0  # of one trainer: the slowest take fewer turns
PHASES = ("sampling", "propagation forward", "propagation backward", "forward, rest", "backward, rest", "optimizer")


@dataclass
class Steps:
    """The times of one trainer: milliseconds per step (median, quartiles) and per drawn batch, seconds per epoch."""

    name: str
    steps: int
    step_ms: float
    lower_ms: float
    upper_ms: float
    sampling_ms: float
    epoch_seconds: float
    ratio: float  # its step over ours in float32


@dataclass
class Breakdown:
    """Medians of the parts of our step in milliseconds, and the limit of its propagations."""

    name: str
    parts: dict[str, float]
    limit_ms: float
    bytes: float
    rate: float  # bytes a second


@dataclass
class TrainingReport:
    """All rows, the parts of our steps, the libraries left out, and the sizes."""

    dataset: str
    interactions: int
    nodes: int
    batches: int
    sizes: Sizes
    threads: int
    whole_epochs: bool
    rows: list[Steps]
    breakdowns: list[Breakdown]
    skipped: list[str] = field(default_factory=list)


def bench_training(
    dataset: Dataset,
    sizes: Sizes | None = None,
    *,
    rounds: int = 9,
    steps: int = 5,
    whole_epochs: bool = False,
    threads: int | None = None,
    others: bool = True,
    most: float = MOST_SECONDS,
    told: Callable[[str], None] = lambda _: None,
) -> TrainingReport:
    """Measure all trainers on ``dataset``: ``rounds`` turns of ``steps`` batches, or of whole epochs."""
    sizes, before = sizes or Sizes(), torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        skipped: list[str] = []
        told(f"building the trainers on {dataset.train.num_interactions:,} interactions")
        everyone = trainers(dataset.train, sizes, others, skipped)
        ours = [trainer for trainer in everyone if isinstance(trainer, Ours)]
        batches = len(ours[0].parts.sampler)
        breakdowns = []
        with memory.kept():  # for everyone: all gain from it, the others as well as ours
            rows = _take_turns(everyone, batches, rounds, batches if whole_epochs else min(steps, batches), most, told)
            for trainer in ours:
                told(f"taking apart: {trainer.name}")
                breakdowns.append(take_apart(trainer, max(2, min(rounds * steps, batches))))
        train, count = dataset.train, torch.get_num_threads()
        nodes = train.num_users + train.num_items
        facts = (dataset.name, train.num_interactions, nodes, batches, sizes, count, whole_epochs)
        return TrainingReport(*facts, rows, breakdowns, skipped)
    finally:
        torch.set_num_threads(before)


def _take_turns(
    everyone: list[Trainer], batches: int, rounds: int, steps: int, most: float, told: Callable[[str], None]
) -> list[Steps]:
    """In each round, every trainer in turn does the same steps and draws as many batches as an epoch has."""
    taken: dict[str, list[float]] = {trainer.name: [] for trainer in everyone}
    turns: dict[str, list[float]] = {trainer.name: [] for trainer in everyone}
    drawing: dict[str, list[float]] = {trainer.name: [] for trainer in everyone}
    for number in range(rounds + 1):  # the first is not counted
        drawn = _first(everyone[0].draw(), steps if number else 1)
        for trainer in everyone[number % len(everyone) :] + everyone[: number % len(everyone)]:
            if sum(taken[trainer.name]) > most:
                continue
            told(f"round {number} of {rounds}: {trainer.name}")
            begun = time.perf_counter()
            for _ in trainer.draw():
                pass
            ended = time.perf_counter()
            seconds = [_timed(trainer.step, batch) for batch in drawn]
            if number:
                drawing[trainer.name].append((ended - begun) / batches)
                taken[trainer.name] += seconds
                turns[trainer.name].append(sum(seconds))
    rows, own = [], float(np.median(taken[everyone[0].name]))
    for trainer in everyone:
        step, sampling = (float(np.median(of[trainer.name])) for of in (taken, drawing))
        lower, upper = np.quantile(taken[trainer.name], [0.25, 0.75]) * 1e3
        an_epoch = float(np.median(turns[trainer.name])) if steps == batches else step * batches
        figures = (step * 1e3, float(lower), float(upper), sampling * 1e3, an_epoch + sampling * batches)
        rows.append(Steps(trainer.name, len(taken[trainer.name]), *figures, ratio=step / own))
    return rows


def _first(batches: Iterator[Any], count: int) -> list[Any]:
    return [batch for _, batch in zip(range(count), batches, strict=False)]


def _timed(run: Callable[..., Any], *arguments: Any) -> float:
    begun = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - begun


def take_apart(ours: Ours, steps: int) -> Breakdown:
    """The time of each part of ``steps`` steps. Marks in the autograd graph time the backward of the propagation."""
    clock = _Clock()
    graph = ours.encoder.graph
    smooth = graph.smooth
    found: dict[str, list[float]] = {phase: [] for phase in PHASES}

    def marked(x: Tensor, *settings: Any) -> Tensor:
        clock.times["forward begins"] = time.perf_counter()
        y = smooth(_Mark.apply(x, clock, "backward ends"), *settings)  # type: ignore[no-untyped-call]
        clock.times["forward ends"] = time.perf_counter()
        return _Mark.apply(y, clock, "backward begins")  # type: ignore[no-any-return, no-untyped-call]

    graph.smooth = marked  # type: ignore[assignment,method-assign]
    try:
        batches = ours.draw()
        for number in range(steps):
            begun = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                batches = ours.draw()
                batch = next(batches)
            drawn = time.perf_counter()
            value = ours.loss(batch)
            float(value.detach())
            lost = time.perf_counter()
            ours.optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            back = time.perf_counter()
            ours.optimizer.step()
            ended = time.perf_counter()
            at = clock.times
            forward, backward = (at[f"{way} ends"] - at[f"{way} begins"] for way in ("forward", "backward"))
            parts = (drawn - begun, forward, backward, lost - drawn - forward, back - lost - backward, ended - back)
            for phase, seconds in zip(PHASES, parts, strict=True):
                if number:  # the first draw makes the epoch's order too
                    found[phase].append(seconds * 1e3)
    finally:
        del graph.smooth  # the class's own again
    parts_ms = {phase: float(np.median(times)) for phase, times in found.items()}
    dim, itemsize = ours.encoder.dim, ours.encoder.precision.itemsize
    moved = 2 * ours.encoder.layers * propagation_bytes(graph, dim, itemsize)
    rate = bytes_per_second(graph.num_nodes * dim * itemsize)
    return Breakdown(ours.name, parts_ms, moved / rate * 1e3, moved, rate)


@dataclass
class _Clock:
    times: dict[str, float] = field(default_factory=dict)


class _Mark(torch.autograd.Function):
    """The identity; its backward records the time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, clock: _Clock, name: str) -> Tensor:
        ctx.clock, ctx.name = clock, name
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        ctx.clock.times[ctx.name] = time.perf_counter()
        return gradients[0], None, None


def propagation_bytes(graph: BipartiteGraph, dim: int, itemsize: int = 4) -> float:
    """The bytes that one sum over neighbours reads and writes."""
    row = dim * itemsize
    return float(len(graph.indices) * (row + graph.indices.element_size()) + graph.num_nodes * row)


def bytes_per_second(size: int, seconds: float = 0.5) -> float:
    """The rate at which torch's threads read an array of ``size`` bytes over and over: the best of several passes."""
    array = torch.ones(max(size // 4, 1024))
    passes = max(1, (1 << 25) // array.nbytes)
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until or best == float("inf"):
        begun = time.perf_counter()
        for _ in range(passes):
            array.sum()
        best = min(best, (time.perf_counter() - begun) / passes)
    return array.nbytes / best


def show_training(report: TrainingReport) -> None:
    """Print the tables."""
    from rich.console import Console
    from rich.table import Table

    console, sizes = Console(), report.sizes
    table = Table("", "ms a step", "quartiles", "sampling", "s an epoch", "x", "steps")
    for row in report.rows:
        spread = f"{row.lower_ms:,.0f} to {row.upper_ms:,.0f}"
        figures = (f"{row.step_ms:,.1f}", spread, f"{row.sampling_ms:.2f}", f"{row.epoch_seconds:,.1f}")
        table.add_row(row.name, *figures, f"{row.ratio:.2f}", str(row.steps))
    console.print(
        f"{report.dataset}: {report.interactions:,} interactions of {report.nodes:,} nodes, {sizes.dim} dims, "
        f"{sizes.layers} layers, {report.batches} batches of {sizes.batch}, {report.threads} threads"
    )
    console.print(table)
    epoch = (
        "measured as a whole" if report.whole_epochs else f"a step's median and its batch's drawing x {report.batches}"
    )
    console.print(f"an epoch is {epoch}; sampling is of a batch, ms; x is a step over the first row's")
    apart = Table("our step, ms", *(b.name.removeprefix("rectoolkit, ") for b in report.breakdowns))
    for phase in PHASES:
        apart.add_row(phase, *(f"{b.parts[phase]:.2f}" for b in report.breakdowns))
    apart.add_section()
    for label, of in (
        ("propagation, both ways", lambda b: f"{_propagation(b):.2f}"),
        ("its limit", lambda b: f"{b.limit_ms:.2f}"),
        ("limit / propagation", lambda b: f"{b.limit_ms / _propagation(b):.0%}"),
        ("GB moved", lambda b: f"{b.bytes / 1e9:.2f}"),
        ("GB a second, read in order", lambda b: f"{b.rate / 1e9:.1f}"),
    ):
        apart.add_row(label, *map(of, report.breakdowns))
    console.print(apart)
    for line in report.skipped:
        console.print(line)


def _propagation(breakdown: Breakdown) -> float:
    return breakdown.parts["propagation forward"] + breakdown.parts["propagation backward"]
