"""The files of ``rectool compare --out``: tables, the HTML report, and its charts for a paper."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rectoolkit.compare.tables import as_csv, as_csv_of_runs, as_markdown
from rectoolkit.errors import UserError, missing_part
from rectoolkit.files import atomic_write, write_text

if TYPE_CHECKING:
    from pathlib import Path

    from rectoolkit.compare.figures import Comparison


def make_folder(folder: Path) -> None:
    """Make the folder for the report. Called before any training, so that no run is wasted on a wrong path."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{folder}: is a file, or lies in one; name a folder to write to") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: cannot be written to; name another folder")


def write(comparison: Comparison, folder: Path) -> tuple[list[str], str]:
    """Write the report into ``folder``. Returns the names written, and a note on omitted parts, if any.

    The page and the charts need jinja2 and matplotlib, which are optional.
    """
    make_folder(folder)
    texts = {
        "table.csv": as_csv(comparison),
        "runs.csv": as_csv_of_runs(comparison),
        "table.md": as_markdown(comparison),
    }
    left_out, charts = "", []
    try:
        from rectoolkit.compare.charts import draw
        from rectoolkit.compare.page import as_html
    except ImportError as error:
        left_out = f"report.html and charts/ are left out: {missing_part(error, 'the report')}"
    else:
        charts = draw(comparison)
        texts["report.html"] = as_html(comparison, charts)
    for name, text in texts.items():
        write_text(folder / name, text)
    for chart in charts:
        make_folder(folder / "charts")
        for name, content in chart.files().items():
            with atomic_write(folder / "charts" / name) as file:
                file.write(content)
    return [*texts, *(["charts/"] if charts else [])], left_out
