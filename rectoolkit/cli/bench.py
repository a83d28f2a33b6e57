"""``rectool bench``: compare the speed of search with other libraries."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rectoolkit.cli.group import at_least_1, comma_separated, main, threads_option
from rectoolkit.errors import UserError

if TYPE_CHECKING:
    from rectoolkit.bench.report import Table

PIPED_WIDTH = 140  # columns of a table that goes into a file or another program


@main.command()
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option("--items", type=at_least_1, help="Number of random items; 1000000 by default.")
@click.option("--dim", type=at_least_1, help="Dims of the random items; 64 by default.")
@click.option("--bits", metavar="BITS[,BITS]", help="Bits per dim of their codes; 1,2,4,8 by default.")
@click.option("-k", "--k", default=50, show_default=True, type=at_least_1, help="Number of items per query.")
@click.option("--batch", default=64, show_default=True, type=at_least_1, help="Number of queries in a batch.")
@click.option("--rounds", default=9, show_default=True, type=at_least_1, help="Number of rounds of measurement.")
@threads_option
@click.option("--plot", type=click.Path(path_type=Path), help="Write a plot here: .svg, .png or .pdf.")
@click.option("--json", "figures", type=click.Path(path_type=Path), help="Write the figures here as JSON.")
@click.option("--approximate", is_flag=True, help="Compare inverted lists with the exact scan instead.")
@click.option("--lists", type=at_least_1, help="Number of lists with --approximate; 2 sqrt(items) by default.")
@click.option("--only-ours", is_flag=True, help="Leave out the other libraries.")
def bench(
    run: Path | None,
    items: int | None,
    dim: int | None,
    bits: str | None,
    plot: Path | None,
    figures: Path | None,
    approximate: bool,
    lists: int | None,
    only_ours: bool,
    **settings: Any,
) -> None:
    """Compare search speed with faiss, torch and usearch, on the codes of a finished RUN or on random codes."""
    from rectoolkit.bench import report as reports
    from rectoolkit.bench.approximate import bench_lists
    from rectoolkit.bench.exact import bench_random, bench_run
    from rectoolkit.terminal import status

    random = {"--items": items, "--dim": dim, "--bits": bits, "--approximate": approximate or None}
    given = [name for name, value in random.items() if value is not None]
    if run is not None and given:
        raise UserError(f"{given[0]} is for random vectors; leave it out, or the run folder")
    if lists is not None and not approximate:
        raise UserError("--lists is for --approximate; add it, or leave --lists out")
    if approximate and plot:
        raise UserError("--approximate has no plot; leave --plot out")
    try:
        widths = [int(width) for width in comma_separated(bits or "1,2,4,8")]
    except ValueError:
        raise UserError(f"--bits must be whole numbers separated by commas, got '{bits}'") from None
    reports.check_writable(plot, figures)
    report: Any
    if approximate:
        with status() as told:
            report = bench_lists(items or 1_000_000, dim or 64, widths, lists=lists, told=told, **settings)
        _print(reports.lists_table(report))
    else:
        settings["others"] = not only_ours
        drawn = (items or 1_000_000, dim or 64, widths)
        with status() as told:
            settings["told"] = told
            report = bench_random(*drawn, **settings) if run is None else bench_run(run, **settings)
        _print(reports.exact_table(report))
    if plot is not None:
        reports.plot(report, plot)
    if figures is not None:
        reports.save_figures(asdict(report), figures)


def _print(table: Table) -> None:
    from rectoolkit.terminal import console, print_table

    print_table(table.heads, table.rows, table.title, None if console.is_terminal else PIPED_WIDTH)
    for note in table.notes:
        console.print(note, soft_wrap=True)
