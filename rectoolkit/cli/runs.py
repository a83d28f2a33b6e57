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
@click.option(
    "--where",
    multiple=True,
    metavar="KEY=VALUE",
    help="List only runs with this data, encoder, quantizer, bits, seed or state. Repeatable.",
)
@runs_option
@click.option("--remove", metavar="NAME", help="Delete this run folder after asking.")
@click.option("--remove-listed", is_flag=True, help="Delete all listed run folders after asking.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per run.")
def runs_command(
    pattern: str, where: Sequence[str], runs: Path, remove: str | None, remove_listed: bool, yes: bool, as_json: bool
) -> None:
    """List run folders, or remove them.

    PATTERN selects runs by name, such as 'hqgnn*'. A run is finished, running, interrupted ('rectool run' resumes it),
    failed, damaged, or outdated (written by an earlier release).
    """
    from rectoolkit.runs.store import find_run, list_runs, remove_run

    if remove is not None:
        if remove_listed or where or pattern != "*":
            raise UserError("--remove takes the name of one run; use --remove-listed to delete all listed runs")
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
