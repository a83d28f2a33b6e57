"""``rectool recommend``: top-k lists from a finished run."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rectoolkit.cli.group import main, run_argument
from rectoolkit.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rectoolkit.data import Ids
    from rectoolkit.runs.lists import Ranked
    from rectoolkit.runs.run import Run


@main.command()
@run_argument
@click.option("--user", "users", multiple=True, help="Id of a user in your data. Repeatable.")
@click.option("--items", "lists", multiple=True, metavar="ID[,ID]", help="Item ids of a new user. Repeatable.")
@click.option("--similar-to", "alike", multiple=True, help="Id of an item, to list the most similar items. Repeatable.")
@click.option("--all", "everyone", is_flag=True, help="Recommend to all users of the run; needs --to.")
@click.option("--to", type=click.Path(path_type=Path), help="File for --all: .csv, .jsonl or .parquet.")
@click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), help="Number of items.")
@click.option("--include-seen", is_flag=True, help="Also rank items from the user's training set.")
@click.option("--float-query", is_flag=True, help="Rank by the user's float32 row instead of its codes.")
@click.option("--rescore", type=click.IntRange(min=1), help="Rank this many of the best items again by float32 rows.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per user.")
def recommend(
    run: Path,
    users: Sequence[str],
    lists: Sequence[str],
    alike: Sequence[str],
    everyone: bool,
    to: Path | None,
    k: int,
    as_json: bool,
    **settings: Any,
) -> None:
    """Print the best items for users, from the packed codes of a finished RUN.

    Choose users of the run by --user or --all, a new user by --items, or items by --similar-to. Ids are those of your
    data. In --items, put an id with a comma in "quotes". Prints tables on a terminal, otherwise one line per user.
    """
    from rectoolkit.runs.lists import as_shown
    from rectoolkit.runs.run import Run

    asked = {"--user": users, "--items": lists, "--similar-to": alike, "--all": everyone}
    given = [name for name, value in asked.items() if value]
    if len(given) != 1:
        what = f"got {' and '.join(given)}" if given else "got none"
        raise UserError(f"give exactly one of --user, --items, --all and --similar-to, {what}")
    if bool(to) != everyone:
        raise UserError("--all writes the file that --to names; give both, such as --all --to lists.csv")
    opened = Run.open(run)
    if to:
        _write_all(opened, to, k, settings)
        return
    of: Sequence[Any]
    if users:
        of = [_id("user", user, opened.user_ids) for user in users]
        kind, hits = "user", opened.recommend(of, k, **settings)
    elif lists:
        of = [[_id("item", part, opened.item_ids) for part in _parts(text)] for text in lists]
        kind, hits = "from items", opened.recommend(None, k, items=of, **settings)
    else:
        idle = [f"--{name.replace('_', '-')}" for name, value in settings.items() if value]
        if idle:
            raise UserError(f"{idle[0]} is for users; leave it out with --similar-to")
        of = [_id("item", item, opened.item_ids) for item in alike]
        kind, hits = "similar to", opened.similar_items(of, k)
    _print(kind, list(as_shown(of, hits)), as_json)


def _id(kind: str, written: str, ids: Ids | None) -> int | str:
    """The id of a user or item: a string if the ids of the data are strings, else an integer."""
    if ids is not None and ids.values is None:
        return written
    if not re.fullmatch(r"-?[0-9]{1,20}", written):
        raise UserError(f"{kind} '{written:.80}': this run's {kind}s are integers of 64 bits")
    return int(written)


def _parts(written: str) -> list[str]:
    """The comma-separated ids of ``--items``; an id with a comma is in quotes."""
    return [part.strip() for part in next(csv.reader([written], skipinitialspace=True), []) if part.strip()]


def _write_all(run: Run, to: Path, k: int, settings: dict[str, Any]) -> None:
    from rectoolkit.runs.lists import write_lists
    from rectoolkit.terminal import counting

    with counting("users") as told:
        number = write_lists(run, to, k, told, **settings)
    click.echo(f"{to}: the best {min(k, run.seen.num_items)} items of {number:,} users")


def _print(kind: str, answers: Sequence[Ranked], as_json: bool) -> None:
    """Print the answers: tables on a terminal, otherwise lines, or JSON if asked for."""
    if sys.stdout.isatty() and not as_json:
        from rich.table import Table
        from rich.text import Text

        from rectoolkit.terminal import console

        for answer in answers:
            table = Table(title=Text(f"{kind} {answer.name}"), title_justify="left")
            for column in ("rank", "item", "score"):
                table.add_column(column, justify="right")
            for rank, (item, score) in enumerate(zip(answer.items, answer.scores, strict=True), 1):
                table.add_row(str(rank), str(item), f"{score:.4g}")
            console.print(table)
        return
    for answer in answers:
        if as_json:
            click.echo(json.dumps({kind.replace(" ", "_"): answer.of, "items": answer.items, "scores": answer.scores}))
        else:
            ranked = zip(answer.items, answer.scores, strict=True)
            click.echo(f"{kind} {answer.name}: " + " ".join(f"{item}:{score:.4g}" for item, score in ranked))
