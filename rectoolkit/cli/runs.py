"""``rectool runs``: list and remove run folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rectoolkit.cli.group import main, runs_option
from rectoolkit.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rectoolkit.runs.store import Entry


PIPED_WIDTH = 100  # of a table that goes into a file or another program


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
    from rectoolkit.runs.store import find_run, list_runs, remove_run

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
