"""The folder of run folders: what lies there, measuring one again, and taking one away."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

from rectoolkit.compare.plan import read_environment
from rectoolkit.errors import FormatError, UserError, nearest
from rectoolkit.recipe import read_toml
from rectoolkit.run import METRICS, RECIPE, Run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rectoolkit.evaluate import Evaluation

LOG = "log.jsonl"


@dataclass(frozen=True)
class Entry:
    """A run folder as ``rectool runs`` lists it; ``accuracy`` is its first metric, empty until it is finished."""

    folder: Path  # named by the recipe and its digest
    dataset: str
    bits: str
    accuracy: str
    state: str


def list_runs(runs: Path, pattern: str = "*") -> list[Entry]:
    """The run folders in ``runs`` whose folder name matches ``pattern`` (``hqgnn*``), by name."""
    if not runs.is_dir():
        return []
    folders = (path for path in sorted(runs.iterdir()) if path.is_dir() and fnmatch(path.name, pattern))
    return [_entry(folder) for folder in folders if read_environment(folder).get("layout") is not None]


def find_run(runs: Path, name: str) -> Path:
    """The run folder ``name`` in ``runs``. Raises UserError, with the nearest name, where there is none."""
    folders = {entry.folder.name: entry.folder for entry in list_runs(runs)}
    if name not in folders:
        raise UserError(f"{runs}: no run folder '{name}'; {nearest(name, folders)}")
    return folders[name]


def remove_run(folder: Path) -> None:
    """Delete a run folder. Raises UserError where a process works on it."""
    from rectoolkit.execute import locked

    with locked(folder):
        shutil.rmtree(folder)


def measure_again(path: Path, metrics: Sequence[str], threads: int | None = None) -> Evaluation:
    """The ``metrics`` of a finished run, from its packed codes and the test part of its data; nothing is trained.

    Raises UserError where the data has changed since the run was made.
    """
    from rectoolkit.evaluate import evaluate
    from rectoolkit.execute import load_data

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
    bits = recipe.get("quantizer", {}).get("bits", 32)
    data = environment.get("data", {})
    accuracy, state = _progress(folder, recipe)
    return Entry(folder, str(data.get("name", "")), str(bits), accuracy, state)


def _progress(folder: Path, recipe: dict[str, Any]) -> tuple[str, str]:
    """The first metric, and whether the run is finished or how far it came."""
    if (folder / METRICS).exists():
        try:
            metric, value = next(iter(Run.open(folder).metrics["accuracy"].items()))
        except (FormatError, KeyError, StopIteration) as error:
            return "", f"unreadable: {error}"
        return f"{metric} {value:.4f}", "finished"
    try:
        lines = (folder / LOG).read_text().splitlines()
        reached = json.loads(lines[-1])["epoch"] if lines else 0
    except (OSError, ValueError, KeyError):
        reached = 0
    return "", f"epoch {reached} of {recipe.get('train', {}).get('epochs', '?')}"
