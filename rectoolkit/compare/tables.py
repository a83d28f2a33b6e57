"""A comparison as text: the table for the terminal and Markdown, and csv files with unrounded figures."""

from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rectoolkit.compare.figures import Comparison, Figures, Spread

SIGNIFICANT = 0.05


def cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """The column titles and the rows of the table, as text; differences are those of the leading metric."""
    metrics, lead = comparison.plan.metrics, leading(comparison)
    heads = ["recipe", "seeds", "bits", *metrics]
    if comparison.has_baseline:
        heads += [f"{lead} - {comparison.plan.baseline}", "p (t)", "p (Wilcoxon)", "Cohen's d"]
    heads += ["bytes/user", "bytes/item", "queries/s", "training (s)"]
    rows = []
    for row in comparison.rows:
        line = [row.label, row.seeds, str(row.bits), *(_spread(row.accuracy[metric]) for metric in metrics)]
        line += _against(row, lead) if comparison.has_baseline else []
        line += [f"{row.bytes_per_user:.1f}", f"{row.bytes_per_item:.1f}", f"{row.queries_per_second:,.0f}"]
        rows.append([*line, f"{row.train_seconds:,.1f}"])
    return heads, rows


def leading(comparison: Comparison) -> str:
    """The metric that the rows are sorted by, or the first one if they are sorted by a cost."""
    sort = comparison.plan.sort
    return sort if sort in comparison.plan.metrics else comparison.plan.metrics[0]


def remarks(comparison: Comparison) -> list[str]:
    """Notes on the table: the data, the meaning of ±, the tests, and the runs that are missing."""
    dataset = comparison.plan.dataset
    test_users = int((dataset.test.user_degrees > 0).sum())
    several = max(len(row.recipes) for row in comparison.plan.rows) > 1
    lines = [
        f"data: {dataset.name} (digest {dataset.digest[:12]}), {dataset.num_users:,} users, "
        f"{dataset.num_items:,} items, {dataset.train.num_interactions:,} training interactions, "
        f"{test_users:,} test users",
        f"accuracy: ranked from the packed codes, {'mean ± standard deviation over seeds' if several else 'one seed'}",
    ]
    if comparison.has_baseline:
        lines.append(
            f"difference from {comparison.plan.baseline}: paired over users"
            f"{', with values averaged over seeds' if several else ''}. "
            "p-values of the t-test and Wilcoxon's test are two-sided, with Holm's correction over the recipes. "
            f"* if both are below {SIGNIFICANT}. "
            "Cohen's d is that of the paired differences"
        )
    if comparison.at_once > 1:
        lines.append(f"speeds and times: {comparison.at_once} runs shared the machine, so each was slower than alone")
    lines += [f"note: {note}" for note in comparison.plan.notes]
    return lines + [f"failed: {job}: {why}" for job, why in comparison.failures.items()]


def fitted(comparison: Comparison, width: int) -> tuple[list[str], list[list[str]], list[str]]:
    """The columns of ``cells`` that fit into a terminal of ``width``, and the titles of those left out.

    Costs are left out first, then the second test, then the metrics other than the leading one, from the last on.
    """
    heads, rows = cells(comparison)
    lead = leading(comparison)
    others = [metric for metric in reversed(comparison.plan.metrics) if metric != lead]
    droppable = ["training (s)", "bytes/user", "p (Wilcoxon)", "queries/s", *others, "p (t)", "seeds", "Cohen's d"]
    left_out: list[str] = []
    for head in [head for head in droppable if head in heads]:
        if table_width(heads, rows) <= width:
            break
        place = heads.index(head)
        heads, rows = _without(heads, place), [_without(row, place) for row in rows]
        left_out.append(head)
    return heads, rows, left_out


def table_width(heads: list[str], rows: list[list[str]]) -> int:
    """The width of a table on a terminal: its cells, each with a border and two spaces."""
    return 1 + sum(3 + max(map(len, column)) for column in zip(heads, *rows, strict=True))


def _without(cells: list[str], place: int) -> list[str]:
    return cells[:place] + cells[place + 1 :]


def as_markdown(comparison: Comparison) -> str:
    """The table and its remarks in Markdown."""
    heads, rows = cells(comparison)
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    notes = "\n".join(f"- {remark}" for remark in remarks(comparison))
    return f"{table}\n\n{notes}\n"


def as_csv(comparison: Comparison) -> str:
    """One line per recipe, unrounded; a figure that does not exist is empty."""
    metrics = comparison.plan.metrics
    records = []
    for row in comparison.rows:
        record: dict[str, Any] = {"recipe": row.label, "seeds": len(row.runs), "bits": row.bits}
        for metric in metrics:
            record |= {metric: row.accuracy[metric].mean, f"{metric} deviation": row.accuracy[metric].deviation}
        for metric in metrics if comparison.has_baseline else ():
            test = row.against.get(metric)
            names = ("difference", "t_p", "wilcoxon_p", "effect")
            record |= {f"{metric} {name}": getattr(test, name) if test else math.nan for name in names}
        for name in ("bytes_per_user", "bytes_per_item", "bits_per_node", "queries_per_second", "train_seconds"):
            record[name] = getattr(row, name)
        records.append(record)
    return _csv(records)


def as_csv_of_runs(comparison: Comparison) -> str:
    """One line per run."""
    records = []
    for row in comparison.rows:
        recipes = {recipe.folder_name: recipe for plan in comparison.plan.rows for recipe in plan.recipes}
        for run in row.runs:
            recipe, figures = recipes[run.path.name], run.metrics
            record: dict[str, Any] = {"recipe": row.label, "seed": recipe.seed, "digest": recipe.digest}
            record |= {metric: figures["accuracy"][metric] for metric in comparison.plan.metrics}
            names = ("bits", "bytes_per_user", "bytes_per_item", "queries_per_second", "train_seconds", "best_epoch")
            records.append(record | {name: figures[name] for name in names})
    return _csv(records)


def _csv(records: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in record.items()})
    return text.getvalue()


def _spread(spread: Spread) -> str:
    return f"{spread.mean:.4f}" + ("" if math.isnan(spread.deviation) else f" ±{spread.deviation:.4f}")


def _against(row: Figures, metric: str) -> list[str]:
    """Difference, p-values and effect size, with * if both tests find the difference significant."""
    test = row.against.get(metric)
    if test is None:
        return ["", "", "", ""]
    star = " *" if max(test.t_p, test.wilcoxon_p) < SIGNIFICANT else ""
    return [f"{test.difference:+.4f}{star}", _p(test.t_p), _p(test.wilcoxon_p), f"{test.effect:+.2f}"]


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
