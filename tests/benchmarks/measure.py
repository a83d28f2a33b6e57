"""Benchmarks for developers: training against other implementations, growth with the data, evaluation, limits.

python tests/benchmarks/measure.py steps
python tests/benchmarks/measure.py growth planted-1m planted-10m
python tests/benchmarks/measure.py evaluation
python tests/benchmarks/measure.py limits
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rectoolkit.cli.group import Commands, at_least_1, threads_option

if TYPE_CHECKING:
    from typing import Any


@click.group(cls=Commands)
def main() -> None:
    """Benchmarks beside 'rectool bench': training, a full evaluation, and the limits of the machine."""


figures_option = click.option("--json", "figures", type=click.Path(path_type=Path), help="A file for the figures.")


@main.command()
@click.option("--dataset", default="gowalla", show_default=True, help="Name of a data set's card.")
@click.option("--dim", default=64, show_default=True, type=at_least_1, help="Dims of an embedding.")
@click.option("--layers", default=3, show_default=True, type=at_least_1, help="Propagation steps.")
@click.option("--batch", default=2048, show_default=True, type=at_least_1, help="Interactions in a batch.")
@click.option("--rounds", default=9, show_default=True, type=at_least_1, help="Number of rounds of measurement.")
@click.option("--steps", default=5, show_default=True, type=at_least_1, help="Number of batches per round.")
@click.option("--whole-epochs", is_flag=True, help="Measure a whole epoch per round.")
@click.option(
    "--most",
    default=120.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds after which a trainer starts no further round.",
)
@threads_option
@click.option("--only-ours", is_flag=True, help="Leave out LightGCN-PyTorch and PyG.")
@figures_option
def steps(
    dataset: str, dim: int, layers: int, batch: int, only_ours: bool, figures: Path | None, **settings: Any
) -> None:
    """Compare a training step of LightGCN with BPR with LightGCN-PyTorch and PyG."""
    from steps import bench_training, show_training
    from trainers import Sizes

    from rectoolkit.bench.report import check_writable, save_figures
    from rectoolkit.data.catalog import load_dataset
    from rectoolkit.terminal import status

    check_writable(None, figures)
    loaded = load_dataset(dataset)
    with status() as told:
        report = bench_training(loaded, Sizes(dim, layers, batch), others=not only_ours, told=told, **settings)
    show_training(report)
    if figures is not None:
        save_figures(asdict(report), figures)


@main.command()
@click.argument("names", nargs=-1)
@click.option("--steps", default=64, show_default=True, type=at_least_1, help="Number of batches per epoch.")
@click.option("--dim", default=64, show_default=True, type=at_least_1, help="Dims of an embedding.")
@click.option("--layers", default=3, show_default=True, type=at_least_1, help="Propagation steps.")
@click.option("--precision", default="float32", show_default=True, type=click.Choice(["float32", "bfloat16"]))
@threads_option
@figures_option
def growth(names: tuple[str, ...], figures: Path | None, **settings: Any) -> None:
    """Train one whole epoch on each of the data sets NAMES, in a process each: seconds and peak memory.

    An epoch has the same number of batches at every size, so work that is linear in the data grows with its size.
    Without NAMES: planted-1m and planted-10m.
    """
    from growth import measure, show_growth

    from rectoolkit.bench.report import check_writable, save_figures
    from rectoolkit.data.catalog import find_card
    from rectoolkit.terminal import status

    check_writable(None, figures)
    names, rows = names or ("planted-1m", "planted-10m"), []
    for name in names:
        find_card(name)
    try:
        with status() as told:
            for name in names:
                rows.append(measure(name, told, **settings))
    finally:  # a size too large for the memory leaves those before it measured
        if rows:
            show_growth(rows)
        if rows and figures is not None:
            save_figures([asdict(row) for row in rows], figures)


@main.command("evaluation")
def evaluation_command() -> None:
    """Time a full-rank evaluation of Gowalla's size: 1-bit codes against torch."""
    from full_ranking import evaluation

    for name, seconds in evaluation().items():
        click.echo(f"{name}: {seconds:.2f} s")


@main.command()
@click.option("--items", default=1_000_000, show_default=True, type=at_least_1, help="Number of random items.")
@click.option("--rounds", default=9, show_default=True, type=at_least_1, help="Number of rounds of measurement.")
@threads_option
def limits(items: int, rounds: int, threads: int | None) -> None:
    """Measure how close the search comes to the limits of the machine: instructions and memory bandwidth."""
    from limits import show_limits

    from rectoolkit.bench.exact import measure
    from rectoolkit.bench.vectors import random_vectors
    from rectoolkit.terminal import status

    vectors = random_vectors(256, items, 64, (1, 2, 4, 8))
    with status() as told:
        report = measure(vectors, rounds=rounds, threads=threads, others=False, told=told)
    show_limits(report, vectors)


if __name__ == "__main__":
    main()
