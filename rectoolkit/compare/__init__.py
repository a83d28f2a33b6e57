"""Many runs in one table: the life of ``rectool compare``, top to bottom.

``plan`` recipes and data, all checked before anything runs; ``jobs`` the runs that are missing, each in a process
of its own; ``figures`` what the finished runs say together; ``significance`` the tests against a baseline;
``tables`` terminal, Markdown and csv; ``page`` the HTML report, with ``charts`` and ``breakdown``; ``board`` the
progress; ``folders`` what lies in the folder of runs.

A comparison keeps no state of its own. What is finished is what has a finished run folder, so the same command
after an interrupt makes what is missing, goes on with what was begun, and gives the same table.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rectoolkit.compare.figures import Comparison, compare_runs
from rectoolkit.compare.jobs import Around, Job, Observer, run_jobs
from rectoolkit.compare.plan import Plan, make_plan
from rectoolkit.errors import UserError
from rectoolkit.runs.layout import METRICS

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "Around",
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


def compare(plan: Plan, around: Around, observer: Observer) -> Comparison:
    """Make the runs that are missing, then compare all; a run that fails leaves the others going."""
    jobs = missing(plan, around.runs)
    failures = run_jobs(jobs, around, observer)
    at_once = min(around.at_once, len(jobs)) or 1
    return compare_runs(plan, around.runs, {str(job): why for job, why in failures.items()}, at_once)


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
