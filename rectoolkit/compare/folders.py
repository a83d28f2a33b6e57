"""The folder of run folders: what lies there, measuring one again, and taking one away."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

from rectoolkit.compare.plan import read_environment
from rectoolkit.data.catalog import load_data
from rectoolkit.errors import FormatError, UserError, nearest
from rectoolkit.recipe.recipe import read_toml
from rectoolkit.runs.execute import is_locked, locked
from rectoolkit.runs.layout import FAILURE, METRICS, RECIPE, read_log
from rectoolkit.runs.run import Run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rectoolkit.evaluation.evaluate import Evaluation


@dataclass(frozen=True)
class Entry:
    """A run folder as ``rectool runs`` lists it; ``metric`` is its first one, empty until it is finished.

    ``state`` is one of ``STATES``: finished (all its files are there and whole), running (a process holds its lock),
    failed (the last attempt ended with ``detail``), interrupted (it ended without a word), damaged.
    """

    folder: Path  # named by the recipe and its digest
    data: str
    encoder: str
    quantizer: str
    bits: str
    seed: str
    metric: str
    state: str
    detail: str


STATES = ("finished", "running", "interrupted", "failed", "damaged")
FILTERS = ("data", "encoder", "quantizer", "bits", "seed", "state")


def list_runs(runs: Path, pattern: str = "*", where: Sequence[str] = ()) -> list[Entry]:
    """The run folders in ``runs`` whose folder name matches ``pattern`` (``hqgnn*``), by name.

    ``where``: conditions ``key=value``, all of which hold. Raises UserError for a key that is none of ``FILTERS``.
    """
    wanted = [_condition(text) for text in where]
    if not runs.is_dir():
        return []
    folders = (path for path in sorted(runs.iterdir()) if path.is_dir() and fnmatch(path.name, pattern))
    entries = [_entry(folder) for folder in folders if read_environment(folder).get("layout") is not None]
    return [entry for entry in entries if all(getattr(entry, key) == value for key, value in wanted)]


def _condition(text: str) -> tuple[str, str]:
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or key not in FILTERS:
        raise UserError(f"--where {text!r}: must read key=value; {nearest(key, FILTERS)}")
    if key == "state" and value not in STATES:
        raise UserError(f"--where {text!r}: no such state; {nearest(value, STATES)}")
    return key, value


def find_run(runs: Path, name: str) -> Path:
    """The run folder ``name`` in ``runs``. Raises UserError, with the nearest name, where there is none."""
    folders = {entry.folder.name: entry.folder for entry in list_runs(runs)}
    if name not in folders:
        raise UserError(f"{runs}: no run folder '{name}'; {nearest(name, folders)}")
    return folders[name]


def remove_run(folder: Path) -> None:
    """Delete a run folder. Raises UserError where a process works on it."""
    with locked(folder):
        shutil.rmtree(folder)


def measure_again(path: Path, metrics: Sequence[str], threads: int | None = None) -> Evaluation:
    """The ``metrics`` of a finished run, from its packed codes and the test part of its data; nothing is trained.

    Raises UserError where the data has changed since the run was made.
    """
    from rectoolkit.evaluation.evaluate import evaluate

    run = Run.open(path)
    dataset = load_data(read_toml(path / RECIPE)[0]["dataset"])
    then = read_environment(path).get("data", {}).get("digest", "")
    if then != dataset.digest:
        raise UserError(
            f"{path}: trained on other interactions of the data set '{dataset.name}' (digest {then[:12]}, now "
            f"{dataset.digest[:12]}); its codes say nothing about the test part of these"
        )
    return evaluate(run.users, run.items, run.seen, dataset.test, metrics, threads)


def _entry(folder: Path) -> Entry:
    environment = read_environment(folder)
    try:
        recipe = read_toml(folder / RECIPE)[0]
    except UserError:
        recipe = {}
    quantizer = recipe.get("quantizer", {})
    metric, state, detail = _state(folder, recipe)
    return Entry(
        folder,
        data=str(environment.get("data", {}).get("name", "")),
        encoder=str(recipe.get("encoder", {}).get("name", "")),
        quantizer=str(quantizer.get("name", "")),
        bits=str(quantizer.get("bits", 32)),
        seed=str(recipe.get("seed", "")),
        metric=metric,
        state=state,
        detail=detail,
    )


def _state(folder: Path, recipe: dict[str, Any]) -> tuple[str, str, str]:
    """The first metric, the state, and what is to be said of it."""
    if (folder / METRICS).exists():
        try:
            run = Run.open(folder)
            _ = run.users, run.items
            metric, value = next(iter(run.metrics["accuracy"].items()), ("", 0.0))
        except (FormatError, KeyError) as error:
            return "", "damaged", str(error)
        return f"{metric} {value:.4f}" if metric else "", "finished", ""
    epochs = f"{_last_epoch(folder)} of {recipe.get('train', {}).get('epochs', '?')} epochs logged"
    if is_locked(folder):
        return "", "running", epochs
    try:
        return "", "failed", (folder / FAILURE).read_text().strip()
    except OSError:
        return "", "interrupted", epochs


def _last_epoch(folder: Path) -> int:
    """The epoch of the log's last row; the checkpoint that a run goes on from may be some seconds older."""
    try:
        rows = read_log(folder)
    except FormatError:
        return 0
    return int(rows[-1]["epoch"]) if rows else 0
