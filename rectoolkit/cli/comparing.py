"""``rectool compare`` and ``runs``: many runs beside one another, and the folders they leave."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rectoolkit.cli.group import choose_device, device_option, main, runs_option, set_option
from rectoolkit.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rectoolkit.compare.folders import Entry


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
    from rectoolkit.compare import Around, compare, make_folder, make_plan, missing, write
    from rectoolkit.compare.board import Board
    from rectoolkit.compare.tables import as_rich, fitted, remarks, table_width
    from rectoolkit.terminal import console, print_notes

    plan = make_plan(recipes, overrides, seeds, sort, baseline, runs, vary)
    chosen, why = choose_device(device)
    print_notes((*plan.notes, *([why] if why else [])))
    if out:
        make_folder(out)
    todo, total = len(missing(plan, runs)), sum(len(row.recipes) for row in plan.rows)
    console.print(f"{total} runs of {len(plan.rows)} recipes: {total - todo} finished before, {todo} to do")
    around = Around(runs, chosen, threads or max(1, (os.cpu_count() or 1) // jobs), jobs)
    with Board(console, todo) as board:
        compared = compare(plan, around, board)
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


@main.command("runs")
@click.argument("pattern", default="*")
@click.option("--where", multiple=True, metavar="KEY=VALUE", help="data, encoder, quantizer, bits, seed or state.")
@runs_option
@click.option("--remove", metavar="NAME", help="Delete this run folder, after asking.")
@click.option("--remove-listed", is_flag=True, help="Delete all that are listed, after asking.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a run.")
def runs_command(
    pattern: str, where: Sequence[str], runs: Path, remove: str | None, remove_listed: bool, yes: bool, as_json: bool
) -> None:
    """List the run folders, or those that match PATTERN (such as 'hqgnn*') and every --where.

    A run is finished, running, interrupted (the same 'rectool run' goes on with it), failed, or damaged.
    """
    from rectoolkit.compare.folders import find_run, list_runs, remove_run

    if remove is not None:
        if remove_listed or where or pattern != "*":
            raise UserError("--remove names one run; to delete those that match, --remove-listed")
        found = find_run(runs, remove)
        if yes or click.confirm(f"delete {found} and everything in it?"):
            remove_run(found)
            click.echo(f"removed {runs / remove}")
        return
    entries = list_runs(runs, pattern, where)
    if not entries and not as_json:
        click.echo(f"{runs}: no run folder" + (" matches" if where or pattern != "*" else ""))
        return
    for entry in entries if as_json else ():
        click.echo(json.dumps({**vars(entry), "folder": str(entry.folder)}))
    if not as_json:
        _print_runs(entries)
    if remove_listed and (yes or click.confirm(f"delete these {len(entries)} run folders and everything in them?")):
        for entry in entries:
            remove_run(entry.folder)
            click.echo(f"removed {entry.folder}")


def _print_runs(entries: Sequence[Entry]) -> None:
    from rich.table import Table

    from rectoolkit.terminal import console

    table = Table("run", "data", "encoder", "quantizer", "bits", "seed", "metric", "state")
    for entry in entries:
        row = (entry.data, entry.encoder, entry.quantizer, entry.bits, entry.seed, entry.metric, entry.state)
        table.add_row(entry.folder.name, *row)
    page = console if console.is_terminal else type(console)(highlight=False, width=160)
    page.print(table)
    for entry in entries:
        if entry.detail:
            console.print(f"{entry.folder.name}: {entry.state}: {entry.detail}", markup=False, soft_wrap=True)
