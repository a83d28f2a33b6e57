"""``rectool recommend`` and ``export``: what a finished run is for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rectoolkit.cli.group import comma_separated, main, run_argument
from rectoolkit.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rectoolkit.run import Run


@main.command()
@run_argument
@click.option("--user", "users", multiple=True, required=True, help="User id, as your data has it; repeatable.")
@click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), help="How many items.")
@click.option("--include-seen", is_flag=True, help="Rank the user's train items too.")
@click.option("--float-query", is_flag=True, help="Multiply the user's float32 row with the items' codes.")
@click.option("--rescore", type=click.IntRange(min=1), help="Rank the best so many again by float32 rows.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a user.")
def recommend(run: Path, users: Sequence[str], k: int, as_json: bool, **settings: Any) -> None:
    """Print the best K items for users, from the packed codes of a finished RUN folder."""
    from rectoolkit.run import Run

    opened = Run.open(run)
    asked = [_user(opened, user) for user in users]
    hits = opened.recommend(asked, k, **settings)
    for user, ids, scores in zip(asked, hits.ids.tolist(), hits.scores.tolist(), strict=True):
        ranked = [(item, score) for item, score in zip(ids, scores, strict=True) if item not in (-1, None)]
        if as_json:
            items, values = [item for item, _ in ranked], [score for _, score in ranked]
            click.echo(json.dumps({"user": user, "items": items, "scores": values}))
        else:
            click.echo(f"user {user}: " + " ".join(f"{item}:{score:.4g}" for item, score in ranked))


def _user(run: Run, written: str) -> int | str:
    """A user as the run knows it: text where the data's ids are text, else a number."""
    if run.user_ids is not None and run.user_ids.values is None:
        return written
    if not re.fullmatch(r"-?[0-9]{1,18}", written):
        raise UserError(f"user '{written}': this run's users are integers, such as 0")
    return int(written)


@main.command()
@run_argument
@click.option("--to", type=click.Path(path_type=Path), required=True, help="The folder to write.")
@click.option(
    "--format",
    "formats",
    multiple=True,
    default=("codes",),
    show_default=True,
    metavar="NAME[,NAME]",
    help="codes, npy, parquet or faiss; several by commas, or repeat the option.",
)
def export(run: Path, to: Path, formats: Sequence[str]) -> None:
    """Write the codes of a finished RUN folder for services in any language."""
    from rectoolkit.run import Run

    written = Run.open(run).export(to, [name for names in formats for name in comma_separated(names)])
    for files in written.values():
        for name, what in files.items():
            click.echo(f"{to / name}: {what}")
