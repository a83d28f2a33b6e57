"""The plan of a comparison: the runs that it needs, with everything checked before the first of them begins."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rectoolkit.errors import UserError, nearest
from rectoolkit.recipe import Recipe
from rectoolkit.runs.layout import RECIPE, read_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rectoolkit.data import Dataset

COLUMNS = ("name", "bits", "bytes_per_user", "bytes_per_item", "queries_per_second", "train_seconds")
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Row:
    """A row of the table: ``recipes`` that differ only in their seed."""

    label: str
    recipes: tuple[Recipe, ...]


@dataclass(frozen=True)
class Plan:
    """The rows, the ``dataset`` they share, and the ``metrics`` that all of them measure."""

    rows: tuple[Row, ...]
    metrics: tuple[str, ...]
    dataset: Dataset
    sort: str
    baseline: str | None
    notes: tuple[str, ...]


def make_plan(
    paths: Sequence[Path],
    overrides: Sequence[str] = (),
    seeds: int = 1,
    sort: str = "",
    baseline: str | None = None,
    runs: Path = Path("runs"),
    vary: Sequence[str] = (),
) -> Plan:
    """Load and check every recipe with ``overrides`` applied, and load the data.

    Each recipe gets ``seeds`` seeds, counted up from its own. ``vary`` holds settings ``section.key=value,value``: a
    recipe becomes a row for each value, or for each combination of the values of several settings. A run folder among
    ``paths`` stands for its recipe.

    Raises UserError with the faults of all recipes at once, and if the rows, or runs begun in the folder ``runs``, use
    different data.
    """
    variations = _variations(vary)
    recipes = _load_all(paths, overrides, variations)
    notes = [f"{recipe.name}: {note}" for recipe in recipes for note in recipe.notes]
    rows = _rows(recipes, seeds, list(dict.fromkeys(key for variation in variations for key, _ in variation)))
    metrics, found = _common_metrics(rows)
    _check_names(rows, metrics, sort, baseline)
    dataset = _one_dataset(rows)
    _check_runs(rows, runs, dataset)
    return Plan(rows, metrics, dataset, sort or metrics[0], baseline, tuple(dict.fromkeys(notes + found)))


def _variations(vary: Sequence[str]) -> list[tuple[tuple[str, str], ...]]:
    """Every combination of the values in ``section.key=value,value``, as (key, value) pairs."""
    settings: dict[str, list[tuple[str, str]]] = {}
    for written in vary:
        key, equals, text = (part.strip() for part in written.partition("="))
        values = [value.strip() for value in text.split(",") if value.strip()]
        if not equals or not values:
            raise UserError(f"--vary {written!r}: must read section.key=value,value, such as quantizer.bits=1,2,4")
        if key in settings or len(set(values)) < len(values):
            raise UserError(f"--vary {written!r}: {'the key' if key in settings else 'a value'} is given twice")
        settings[key] = [(key, value) for value in values]
    return list(itertools.product(*settings.values()))


def _load_all(
    paths: Sequence[Path], overrides: Sequence[str], variations: Sequence[tuple[tuple[str, str], ...]]
) -> list[Recipe]:
    recipes, faults = [], []
    for path, variation in itertools.product(paths, variations):
        varied = [f"{key}={value}" for key, value in variation]
        try:
            recipes.append(Recipe.load(path / RECIPE if path.is_dir() else path, [*overrides, *varied]))
        except UserError as error:
            faults.append(str(error))
    if faults:
        number = len(paths) * len(variations)
        count = f"{len(faults)} of {number} recipes cannot be used; nothing was run\n" if number > 1 else ""
        raise UserError(count + "\n".join(dict.fromkeys(faults)))
    return recipes


def _rows(recipes: Sequence[Recipe], seeds: int, varied: Sequence[str]) -> tuple[Row, ...]:
    """The recipes grouped into rows: recipes that differ only in their seed share one. Every label is unique."""
    groups: dict[str, dict[int, Recipe]] = {}
    for recipe in recipes:
        if recipe.seed + seeds - 1 > MAX_SEED:
            raise UserError(f"{recipe.name}: {seeds} seeds from {recipe.seed} on exceed the largest seed, {MAX_SEED}")
        group = groups.setdefault(replace(recipe, seed=0).digest, {})
        for seed in range(recipe.seed, recipe.seed + seeds):
            group.setdefault(seed, replace(recipe, seed=seed))
    members = [tuple(group[seed] for seed in sorted(group)) for group in groups.values()]
    labels = _labels([row[0] for row in members], varied)
    return tuple(Row(label, row) for label, row in zip(labels, members, strict=True))


def _labels(recipes: Sequence[Recipe], varied: Sequence[str]) -> list[str]:
    """The recipes' names with the ``varied`` settings, and where these are equal, with the settings that differ."""
    short = {key: key.rpartition(".")[2] for key in varied}
    if len(set(short.values())) < len(short):
        short = dict(zip(varied, varied, strict=True))
    flat = [_flat(recipe) for recipe in recipes]
    named = [
        " ".join([recipe.name, *(f"{short[key]}={own[key]}" for key in varied if key in own)])
        for recipe, own in zip(recipes, flat, strict=True)
    ]
    labels = []
    for name, own in zip(named, flat, strict=True):
        same = [other for other, label in zip(flat, named, strict=True) if label == name]
        telling = [key for key in own if any(other.get(key) != own[key] for other in same)]
        labels.append(" ".join([name, *(f"{key}={own[key]}" for key in telling)]))
    return [
        f"{label} {recipe.digest[:8]}" if labels.count(label) > 1 else label
        for label, recipe in zip(labels, recipes, strict=True)
    ]


def _flat(recipe: Recipe) -> dict[str, Any]:
    return {f"{section}.{key}": value for section, keys in recipe.sections.items() for key, value in keys.items()}


def _common_metrics(rows: Sequence[Row]) -> tuple[tuple[str, ...], list[str]]:
    """The metrics that every row measures, in the first row's order, and a note on the others."""
    measured = [row.recipes[0]["evaluate"]["metrics"] for row in rows]
    common = tuple(dict.fromkeys(metric for metric in measured[0] if all(metric in other for other in measured)))
    if not common:
        raise UserError("these recipes have no metric in common; '--set evaluate.metrics=[\"recall@20\"]' adds one")
    left = sorted({metric for metrics in measured for metric in metrics} - set(common))
    return common, [f"left out {', '.join(left)}, which not every recipe measures"] if left else []


def _check_names(rows: Sequence[Row], metrics: Sequence[str], sort: str, baseline: str | None) -> None:
    labels = [row.label for row in rows]
    if sort and sort not in (*metrics, *COLUMNS):
        raise UserError(f"--sort {sort}: no such column; {nearest(sort, (*metrics, *COLUMNS))}")
    if baseline is not None and baseline not in labels:
        raise UserError(f"--baseline '{baseline}': no row of that name; {nearest(baseline, labels)}")


def _one_dataset(rows: Sequence[Row]) -> Dataset:
    """The data set of all rows. Raises UserError with the differences if there are several."""
    from rectoolkit.data.catalog import load_data

    by_source: dict[str, list[str]] = {}
    for row in rows:
        by_source.setdefault(json.dumps(row.recipes[0]["dataset"], sort_keys=True), []).append(row.label)
    first: Dataset | None = None
    differing = []
    for source, labels in by_source.items():
        dataset = load_data(json.loads(source))
        first = first or dataset
        differing.append((dataset.digest, dataset.name, dataset.summary(), labels))
    assert first is not None
    if len({digest for digest, *_ in differing}) > 1:
        lines = [
            f"  {name} (digest {digest[:12]}; {_facts(summary)}): {', '.join(labels)}"
            for digest, name, summary, labels in differing
        ]
        raise UserError(
            "recipes on different data cannot be compared; '--set dataset.name=...' gives them the same\n"
            + "\n".join(lines)
        )
    return first


def _facts(summary: dict[str, Any]) -> str:
    return ", ".join(f"{summary[key]:,} {key}" for key in ("users", "items", "train", "test") if key in summary)


def _check_runs(rows: Sequence[Row], runs: Path, dataset: Dataset) -> None:
    """Raise UserError, naming every run, if something would stop a run before its training.

    A run folder stops a run if it was begun on other data, or with another plugin, teacher or (if it matters) order of
    training lines. So does a component's file that is missing or does not fit the data.
    """
    from rectoolkit.runs.execute import check_run

    other, faults = [], []
    for recipe in (recipe for row in rows for recipe in row.recipes):
        data = read_environment(runs / recipe.folder_name).get("data", {})
        if data.get("digest", dataset.digest) != dataset.digest:
            facts = f"digest {data['digest'][:12]}; {_facts(data.get('summary', {}))}"
            other.append(f"  {runs / recipe.folder_name} ({facts})")
            continue
        try:
            check_run(recipe, dataset, runs)
        except UserError as error:
            faults.append(f"{recipe.name}, seed {recipe.seed}: {error}")
    if other:
        now = f"digest {dataset.digest[:12]}; {_facts(dataset.summary())}"
        raise UserError(
            f"these runs were begun on other data than '{dataset.name}' is now ({now}), so their figures cannot be "
            "compared; move their folders, or delete them with 'rectool runs --remove'\n" + "\n".join(other)
        )
    if faults:
        raise UserError("\n".join(faults))
