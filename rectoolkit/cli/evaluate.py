"""``rectool evaluate``: measure a finished run with other metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rectoolkit.cli.group import load_plugins, main, plugin_option, run_argument, threads_option
from rectoolkit.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence


@main.command("evaluate")
@run_argument
@click.option("--metrics", default="recall@20,ndcg@20", show_default=True, help="Metrics as name@k, comma-separated.")
@plugin_option
@threads_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate_command(run: Path, metrics: str, plugins: Sequence[str], threads: int | None, as_json: bool) -> None:
    """Measure a finished RUN folder with other metrics, from its packed codes. Nothing is trained.

    "rectool list metric" lists all metrics, of accuracy and of the recommended items.
    """
    from rectoolkit.runs.measure import measure_again

    load_plugins(plugins)
    names = list(dict.fromkeys(name.strip() for name in metrics.split(",") if name.strip()))
    if not names:
        raise UserError("--metrics: name at least one, such as recall@20")
    means = measure_again(run, names, threads).means
    means = {name: means[name] for name in names}
    if as_json:
        click.echo(json.dumps(means))
        return
    for name, value in means.items():
        click.echo(f"{name:<{max(map(len, means))}}  {value:.4f}")
