"""``rectool compare``: several recipes in one table."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rectoolkit.cli.group import device_notes, device_option, main, runs_option, set_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from rectoolkit.compare.jobs import Job


PIPED_WIDTH = 100  # columns of a table that goes into a file or another program


@main.command()
@click.argument("recipes", type=click.Path(path_type=Path), nargs=-1, required=True)
@set_option
@click.option(
    "--vary",
    multiple=True,
    metavar="SECTION.KEY=VALUE,VALUE",
    help="Make a row for each value, such as quantizer.bits=1,2,4; repeatable.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Number of seeds per recipe, counted up from its own.",
)
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Number of runs at a time.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads of each run; the cores / --jobs by default.")
@runs_option
@device_option
@click.option("--baseline", metavar="NAME", help="Test the other recipes against this one.")
@click.option("--sort", default="", metavar="COLUMN", help="Sort by a metric or a cost, such as bytes_per_item.")
@click.option("--out", type=click.Path(path_type=Path), help="Write csv, Markdown, charts and an HTML report here.")
@click.option("--wide", is_flag=True, help="Show all columns, even if the table is wider than the terminal.")
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
    """Run RECIPES over several seeds and print them as one table.

    A recipe is a .toml file, the name of a shipped recipe, or a run folder. All recipes are checked before anything
    runs. Finished runs are reused, and unfinished ones resume. --set applies to every recipe.
    """
    from rectoolkit.compare.figures import compare_runs
    from rectoolkit.compare.jobs import missing, run_jobs
    from rectoolkit.compare.plan import make_plan
    from rectoolkit.compare.report import make_folder, write
    from rectoolkit.compare.tables import fitted, remarks, table_width
    from rectoolkit.runs.execute import RunOptions
    from rectoolkit.terminal import console, print_notes, print_table

    plan = make_plan(recipes, overrides, seeds, sort, baseline, runs, vary)
    options = RunOptions(runs, device, threads or max(1, (os.cpu_count() or 1) // jobs)).on_device()
    print_notes((*plan.notes, *device_notes(options.device)))
    if out:
        make_folder(out)
    todo, total = missing(plan, runs), sum(len(row.recipes) for row in plan.rows)
    of = f"{total} run{'s'[: total > 1]} of {len(plan.rows)} recipe{'s'[: len(plan.rows) > 1]}"
    console.print(f"{of}: {total - len(todo)} finished before, {len(todo)} to do")
    with JobProgress(todo) as progress:
        failures = run_jobs(todo, options, jobs, progress)
    why_missing = {str(job): why for job, why in failures.items()}
    compared = compare_runs(plan, runs, why_missing, min(jobs, len(todo)) or 1)
    room = console.width if console.is_terminal else PIPED_WIDTH
    heads, rows, left_out = fitted(compared, 10_000 if wide else room)
    title = f"{plan.dataset.name}, sorted by {plan.sort}"
    print_table(heads, rows, title, max(room, len(title), table_width(heads, rows)))
    if left_out:
        console.print(f"left out to fit {room} columns: {', '.join(left_out)}; --wide shows them", soft_wrap=True)
    for remark in remarks(compared):
        console.print(remark, soft_wrap=True)
    if out:
        written, absent = write(compared, out)
        console.print(f"wrote into {out}: {', '.join(written)}", soft_wrap=True)
        print_notes([absent] if absent else [])
    if failures:
        sys.exit(1)


class JobProgress:
    """Progress of the jobs: a line for each finished job; on a terminal, bars for the running jobs and for all."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

        from rectoolkit.terminal import DESCRIPTION, bars

        self.bars = bars(DESCRIPTION, BarColumn(), MofNCompleteColumn(), "epochs", TimeRemainingColumn())
        self.count, self.ended_count = len(jobs), 0
        self.whole = self.bars.add_task("all runs", total=sum(job.recipe["train"]["epochs"] for job in jobs))
        self.running: dict[Job, Any] = {}
        self.rows: dict[Job, dict[str, Any]] = {}
        self.lock = threading.Lock()

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def began(self, job: Job) -> None:
        self.running[job] = self.bars.add_task(str(job), total=job.recipe["train"]["epochs"])

    def stage(self, job: Job, what: str) -> None:
        with self.lock:
            self.bars.update(self.running[job], description=f"{job}: {what}")

    def epoch(self, job: Job, row: dict[str, Any]) -> None:
        with self.lock:
            before = self.rows.get(job, {}).get("epoch", 0)
            self.rows[job] = row
            self.bars.advance(self.whole, row["epoch"] - before)
            self.bars.update(self.running[job], description=str(job), completed=row["epoch"])

    def ended(self, job: Job, failure: str | None) -> None:
        with self.lock:
            row = self.rows.get(job, {})
            self.ended_count += 1
            self.bars.advance(self.whole, job.recipe["train"]["epochs"] - row.get("epoch", 0))
            self.bars.remove_task(self.running[job])
            how = f"failed: {failure}" if failure else f"trained {row.get('seconds', 0.0):.1f} s"
            line = f"[{self.ended_count}/{self.count}] {job}: {how}"
            self.bars.console.print(line, style="red" if failure else "", soft_wrap=True)
