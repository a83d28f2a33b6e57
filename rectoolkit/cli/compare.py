"""``rectool compare``: several recipes in one table."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rectoolkit.cli.group import choose_device, device_option, main, runs_option, set_option

if TYPE_CHECKING:
    from collections.abc import Sequence


PIPED_WIDTH = 100  # of a table that goes into a file or another program


@main.command()
@click.argument("recipes", type=click.Path(path_type=Path), nargs=-1, required=True)
@set_option
@click.option(
    "--vary",
    multiple=True,
    metavar="SECTION.KEY=VALUE,VALUE",
    help="A row for each value, such as quantizer.bits=1,2,4; repeatable.",
)
@click.option(
    "--seeds", type=click.IntRange(1, 1000), default=1, show_default=True, help="Seeds, from each recipe's own on."
)
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Runs at once.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads of each run; the cores over --jobs by default.")
@runs_option
@device_option
@click.option("--baseline", metavar="NAME", help="Test the others' difference from this recipe.")
@click.option("--sort", default="", metavar="COLUMN", help="A metric or a cost, such as bytes_per_item; first metric.")
@click.option("--out", type=click.Path(path_type=Path), help="Write csv, Markdown and an HTML report here.")
@click.option("--wide", is_flag=True, help="All columns, however wide the table becomes.")
def compare(
    recipes: Sequence[Path],
    overrides: Sequence[str],
    vary: Sequence[str],
    seeds: int,
    jobs: int,
    threads: int | None,
    runs: Path,
    device: str,
    baseline: str | None,
    sort: str,
    out: Path | None,
    wide: bool,
) -> None:
    """Run RECIPES (.toml files or run folders) over several seeds and print them as one table.

    Every recipe is checked before any runs; finished runs are reused, unfinished ones go on. Overrides are for all.
    """
    from rectoolkit.compare import compare, make_folder, make_plan, missing, write
    from rectoolkit.compare.board import Board
    from rectoolkit.compare.tables import as_rich, fitted, remarks, table_width
    from rectoolkit.runs.execute import RunOptions
    from rectoolkit.terminal import console, print_notes

    plan = make_plan(recipes, overrides, seeds, sort, baseline, runs, vary)
    chosen, why = choose_device(device)
    print_notes((*plan.notes, *([why] if why else [])))
    if out:
        make_folder(out)
    todo, total = len(missing(plan, runs)), sum(len(row.recipes) for row in plan.rows)
    of = f"{total} run{'s'[: total > 1]} of {len(plan.rows)} recipe{'s'[: len(plan.rows) > 1]}"
    console.print(f"{of}: {total - todo} finished before, {todo} to do")
    options = RunOptions(runs, chosen, threads or max(1, (os.cpu_count() or 1) // jobs))
    with Board(console, todo) as board:
        compared = compare(plan, options, jobs, board)
    room = console.width if console.is_terminal else PIPED_WIDTH
    heads, rows, left_out = fitted(compared, 10_000 if wide else room)
    title = f"{compared.plan.dataset.name}, by {compared.plan.sort}"
    page = type(console)(highlight=False, width=max(room, len(title), table_width(heads, rows)))
    page.print(as_rich(compared, heads, rows))
    if left_out:
        console.print(f"left out to fit {room} columns: {', '.join(left_out)}; --wide has them", soft_wrap=True)
    for remark in remarks(compared):
        console.print(remark, markup=False, soft_wrap=True)
    for path in write(compared, out) if out else ():
        console.print(f"wrote {path}", markup=False, soft_wrap=True)
    if compared.failures:
        sys.exit(1)
