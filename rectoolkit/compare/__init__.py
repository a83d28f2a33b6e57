"""Many runs in one table: the life of ``rectool compare``, top to bottom.

``plan`` recipes and data, all checked before anything runs; ``jobs`` the runs that are missing, each in a process
of its own; ``figures`` what the finished runs say together; ``significance`` the tests against a baseline;
``tables`` terminal, Markdown and csv; ``page`` the HTML report, with ``charts`` and ``breakdown``; ``board`` the
progress.

A comparison keeps no state of its own. What is finished is what has a finished run folder, so the same command
after an interrupt makes what is missing, goes on with what was begun, and gives the same table.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rectoolkit.compare.figures import Comparison, compare_runs
from rectoolkit.compare.jobs import Job, Observer, run_jobs
from rectoolkit.compare.plan import Plan, make_plan
from rectoolkit.errors import UserError
from rectoolkit.runs.layout import METRICS

if TYPE_CHECKING:
    from pathlib import Path

    from rectoolkit.runs.execute import RunOptions

__all__ = [
    "Comparison",
    "Job",
    "Plan",
    "compare",
    "compare_runs",
    "make_folder",
    "make_plan",
    "missing",
    "write",
]


def missing(plan: Plan, runs: Path) -> list[Job]:
    """The runs of ``plan`` not finished in the folder ``runs``: all rows' first seeds, then the second ones."""
    rounds = max(len(row.recipes) for row in plan.rows)
    jobs = [Job(row.label, row.recipes[turn]) for turn in range(rounds) for row in plan.rows if turn < len(row.recipes)]
    return [job for job in jobs if not (runs / job.recipe.folder_name / METRICS).exists()]


def compare(plan: Plan, options: RunOptions, at_once: int, observer: Observer) -> Comparison:
    """Make the runs that are missing, ``at_once`` at a time, then compare all; one that fails leaves the others going.

    ``options.threads`` are those of each run.
    """
    jobs = missing(plan, options.runs)
    failures = run_jobs(jobs, options, at_once, observer)
    told = {str(job): why for job, why in failures.items()}
    return compare_runs(plan, options.runs, told, min(at_once, len(jobs)) or 1)


def make_folder(folder: Path) -> None:
    """The folder that ``write`` writes into, made where there is none; so early that no training is in vain."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{folder}: is a file, or lies in one; name a folder to write to") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: may not be written to; name another folder")


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """The comparison as files in ``folder``, made where there is none; what was written."""
    from rectoolkit.compare.page import as_html
    from rectoolkit.compare.tables import as_csv, as_csv_of_runs, as_markdown
    from rectoolkit.files import write_text

    make_folder(folder)
    contents = {
        "table.csv": as_csv(comparison),
        "runs.csv": as_csv_of_runs(comparison),
        "table.md": as_markdown(comparison),
        "report.html": as_html(comparison),
    }
    for name, content in contents.items():
        write_text(folder / name, content)
    return [folder / name for name in contents]
