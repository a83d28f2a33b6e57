"""``rectool export``: write the codes of a run for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rectoolkit.cli.group import comma_separated, main, run_argument

if TYPE_CHECKING:
    from collections.abc import Sequence


@main.command()
@run_argument
@click.option("--to", type=click.Path(path_type=Path), required=True, help="Folder to write into.")
@click.option(
    "--format",
    "formats",
    multiple=True,
    default=("codes",),
    show_default=True,
    metavar="NAME[,NAME]",
    help="codes, npy, parquet or faiss. Comma-separated or repeatable.",
)
def export(run: Path, to: Path, formats: Sequence[str]) -> None:
    """Write the codes of a finished RUN for other tools and languages."""
    from rectoolkit.runs.run import Run

    written = Run.open(run).export(to, [name for names in formats for name in comma_separated(names)])
    for files in written.values():
        for name, what in files.items():
            click.echo(f"{to / name}: {what}")
