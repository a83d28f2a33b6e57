"""The HTML report: one page with the table and the charts, light and dark, that loads nothing from elsewhere."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import jinja2

from rectoolkit.compare.charts import COLOURS
from rectoolkit.compare.tables import cells, remarks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rectoolkit.compare.charts import Chart
    from rectoolkit.compare.figures import Comparison


def as_html(comparison: Comparison, charts: Sequence[Chart]) -> str:
    """The whole page, from the template ``page.html``."""
    template = files("rectoolkit.compare").joinpath("page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    heads, rows = cells(comparison)
    return environment.from_string(template).render(
        title=f"{len(comparison.rows)} recipes on {comparison.plan.dataset.name}",
        heads=heads,
        rows=rows,
        baseline=comparison.plan.baseline if comparison.has_baseline else None,
        remarks=remarks(comparison),
        charts=charts,
        colours=COLOURS,
    )
