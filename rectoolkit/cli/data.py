"""``rectool data``: list, show, import and download data sets."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from rectoolkit.cli.group import Commands, comma_separated, main
from rectoolkit.data.card import SplitName
from rectoolkit.data.readers.sources import FORMATS
from rectoolkit.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from rectoolkit.data import Card, Dataset

MARKS = {"tab": "\t", "\\t": "\t", "space": " "}


@main.group(cls=Commands)
def data() -> None:
    """List and show data sets, import your own, and download published ones."""


@data.command("list")
def list_data() -> None:
    """List all data sets that have a card."""
    from rich.table import Table

    from rectoolkit.data.catalog import list_cards
    from rectoolkit.terminal import console

    table = Table("name", "format", "description")
    faults: list[UserError] = []
    for card in list_cards(faults):
        table.add_row(card.name, card.format, card.description)
    console.print(table)
    for fault in faults:
        click.echo(f"not listed, because its card is faulty: {fault}", err=True)


@data.command("show")
@click.argument("name")
@click.option("--format", default="adjacency", show_default=True, help="Format of the files, if NAME is a path.")
def show_data(name: str, format: str) -> None:
    """Load a data set and print its counts and degrees. NAME is the name of a card, or the path of your own files."""
    from rectoolkit.data.card import CARD, read_card
    from rectoolkit.data.catalog import find_card, load_card, load_dataset

    path = Path(name)
    if (path / CARD).is_file() or not (os.sep in name or path.exists()):
        card = read_card(path / CARD) if path.exists() else find_card(name)
        dataset = load_card(card)
    else:
        card, dataset = None, load_dataset(path=path, format=format)
    if card is not None and card.imported is not None:
        _print_rows(card)
    _print_data(dataset)


@data.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name of the new data set.")
@click.option(
    "--test",
    multiple=True,
    type=click.Path(path_type=Path),
    help="File of the test set; FILES are then the training set.",
)
@click.option(
    "--validation", multiple=True, type=click.Path(path_type=Path), help="File of the validation set; needs --test."
)
@click.option("--format", default="", help=f"{', '.join(FORMATS)}. By default the file's suffix decides.")
@click.option("--user-column", "user", default="", help="Column of users. By default a usual name, such as user_id.")
@click.option("--item-column", "item", default="", help="Column of items. By default a usual name, such as item_id.")
@click.option("--rating-column", "rating", default="", help="Column of ratings, for --min-rating.")
@click.option("--time-column", "time", default="", help="Column of times, for splits by time.")
@click.option("--columns", default="", metavar="NAME,...", help="Names of all columns, if the file has no header.")
@click.option("--separator", default="", help="Column separator: a single character, 'tab' or 'space'.")
@click.option("--encoding", default="utf-8", show_default=True, help="utf-8, latin-1, utf-16, ...")
@click.option("--min-rating", type=float, help="Leave out rows with a lower rating.")
@click.option(
    "--drop-missing", is_flag=True, help="Leave out rows that lack a user, an item, or a required rating or time."
)
@click.option(
    "--k-core",
    default=0,
    type=click.IntRange(min=0),
    help="Keep only users and items with at least this many interactions.",
)
@click.option(
    "--split",
    type=click.Choice([name for name in get_args(SplitName) if name != "given"]),
    default="random",
    show_default=True,
    help="How to choose the test set. random: a random share of each user's items. leave-one-out: one item of each "
    "user, the latest if there are times. time: the latest share of all interactions. user-time: the latest share of "
    "each user's items.",
)
@click.option(
    "--test-share",
    default=0.2,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share to hold out as the test set.",
)
@click.option(
    "--validation-share",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of the training set to hold out for validation. By default, a recipe draws a validation set at random.",
)
@click.option("--seed", default=2023, show_default=True, type=click.IntRange(min=0), help="Seed of random splits.")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    default=Path("datasets"),
    show_default=True,
    help="Folder of the data set. Data sets in ./datasets and in $RECTOOL_DATA are found by name.",
)
@click.option("--replace", is_flag=True, help="Replace an imported data set of that name.")
def import_own(
    files: Sequence[Path],
    name: str,
    test: Sequence[Path],
    validation: Sequence[Path],
    columns: str,
    separator: str,
    into: Path,
    replace: bool,
    **settings: Any,
) -> None:
    """Make a data set from your own FILES: csv, tsv, parquet, RecBole's .inter, adjacency lists, pairs or ratings.

    Ids may be any integers or text, and runs and exports use the same ids. Recipes refer to the data set by its name.
    """
    from rectoolkit.data.card import Imported
    from rectoolkit.data.catalog import load_card
    from rectoolkit.data.importing import import_data
    from rectoolkit.terminal import status
    from rectoolkit.training.memory import peak_mb

    begun = time.monotonic()
    for option in ("min_rating", "test_share", "validation_share"):
        if not math.isfinite(settings[option] or 0):
            raise UserError(f"--{option.replace('_', '-')} {settings[option]}: must be a finite number")
    asked = Imported(columns=comma_separated(columns), separator=MARKS.get(separator, separator), **settings)
    worked = False
    with status() as told:

        def watch(doing: str, rows: int) -> None:
            nonlocal worked
            worked = True
            told(f"{doing} · {rows:,} rows")

        card = import_data(
            list(files),
            name,
            asked,
            test=list(test) or None,
            validation=list(validation) or None,
            into=into,
            overwrite=replace,
            watcher=watch,
        )
    if worked:
        click.echo(f"imported in {time.monotonic() - begun:.1f} s · peak memory {peak_mb():,.0f} MB")
    else:
        click.echo(f"{card.path.parent} already holds this import")
    _print_rows(card)
    _print_data(load_card(card))
    used = f"dataset.name={name}" if into == Path("datasets") else f'dataset.path="{card.path.parent}"'
    click.echo(f"train on it: rectool run hqgnn --set {used}")


@data.command("fetch")
@click.argument("name")
@click.option("--into", type=click.Path(path_type=Path), help="Folder to download to; the cache by default.")
def fetch_data(name: str, into: Path | None) -> None:
    """Download, unpack and verify the files of the card NAME. An interrupted download resumes."""
    from rectoolkit.data.catalog import find_card, places
    from rectoolkit.data.fetch import fetch
    from rectoolkit.terminal import downloading

    card = find_card(name)
    click.echo(f"licence: {card.licence or 'not stated by the card'}")
    click.echo(f"source: {card.source or 'not stated by the card'}")
    with downloading() as told:
        found = fetch(card, into or "", told)
    known = {file: card.checksum(part) for part, file in card.files.named().items()}
    for path, digest in found.items():
        verified = "verified" if known.get(path.name) else "not verified: the card has no checksum"
        click.echo(f"{path}: {path.stat().st_size:,} bytes, sha256 {digest[:12]}... {verified}")
    if into and into.resolve() not in [place.resolve() for place in places()]:
        click.echo(f"to find it there by name, set RECTOOL_DATA={into}")


def _print_rows(card: Card) -> None:
    """Print how many rows an import read, left out and kept, and how it was split."""
    from rich.table import Table

    from rectoolkit.terminal import console

    rows, made = card.rows, card.imported
    assert made is not None
    console.print(f"rows of {', '.join(made.sources)}", style="italic", soft_wrap=True)
    table = Table(show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    threshold = "" if made.min_rating is None else f"{made.min_rating:g}"
    shown = {
        "read": rows.read,
        "missing a value": rows.missing,
        f"rated below {threshold}": rows.below_rating,
        "duplicates, merged": rows.repeated,
        "also in an earlier part": rows.in_an_earlier_part,
        f"outside the {made.k_core}-core": rows.outside_core,
        "kept": rows.kept,
    }
    for name, count in shown.items():
        if count or name in ("read", "kept"):
            table.add_row(name, f"{count:,}")
    console.print(table)
    columns = ", ".join(
        f"{role} '{name}'" for role in ("user", "item", "rating", "time") if (name := getattr(made, role))
    )
    share = f", test share {made.test_share:g}" if made.split in ("random", "time", "user-time") else ""
    console.print(f"columns: {columns}; split: {made.split}{share}, seed {made.seed}", soft_wrap=True)


def _print_data(dataset: Dataset) -> None:
    """Print a data set's counts, and the distributions of training interactions over users and items."""
    import numpy as np
    from rich.table import Table

    from rectoolkit.terminal import console

    table = Table("", dataset.name)
    table.columns[1].justify = "right"
    for key, value in dataset.summary().items():
        table.add_row(key, f"{value:,}" if isinstance(value, int) else f"{value:.3g}")
    console.print(table)
    for title, degrees in (
        ("training items per user", dataset.train.user_degrees),
        ("training users per item", dataset.train.item_degrees),
    ):
        console.print(f"{title}: mean {degrees.mean():.1f}, median {np.median(degrees):.0f}, maximum {degrees.max():,}")
        for line in _degree_plot(degrees):
            console.print(line)


def _degree_plot(degrees: npt.NDArray[np.int64], width: int = 40) -> list[str]:
    """A line and a bar for the number of rows with 0, 1, 2 to 3, 4 to 7, ... interactions."""
    import numpy as np

    octaves = np.bincount(np.frexp(degrees.astype(np.float64))[1])  # 0 -> 0, 1 -> 1, 2..3 -> 2, 4..7 -> 3
    lines = []
    for octave, count in enumerate(octaves):
        low, high = (0, 0) if octave == 0 else (1 << (octave - 1), (1 << octave) - 1)
        if count or (octave and octaves[:octave].any()):
            range_of = f"{low:,}" if low == high else f"{low:,}-{high:,}"
            bar = "█" * int(np.ceil(width * count / octaves.max()))
            lines.append(f"{range_of:>15} {bar} {count:,}".rstrip())
    return lines
