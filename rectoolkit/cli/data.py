"""``rectool data``: what data sets there are, and what is in them."""

from __future__ import annotations

import click

from rectoolkit.cli.group import Commands, main


@main.group(cls=Commands)
def data() -> None:
    """Data sets: what there is, and what is in them."""


@data.command("list")
def list_data() -> None:
    """List the data set cards."""
    from rich.table import Table

    from rectoolkit.data.catalog import list_cards
    from rectoolkit.terminal import console

    table = Table("name", "format", "description")
    for card in list_cards():
        table.add_row(card.name, card.head.format, card.head.description)
    console.print(table)


@data.command("show")
@click.argument("name")
def show_data(name: str) -> None:
    """Load a data set and print its counts."""
    from rich.table import Table

    from rectoolkit.data.catalog import load_dataset
    from rectoolkit.terminal import console

    table = Table("", name)
    for key, value in load_dataset(name=name).summary().items():
        table.add_row(key, f"{value:,}" if isinstance(value, int) else f"{value:.3g}")
    console.print(table)
