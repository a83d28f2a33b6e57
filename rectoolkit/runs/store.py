"""The folder of run folders: list them, find one, lock one, remove one."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

from rectoolkit.errors import FormatError, UserError, nearest
from rectoolkit.files import alone, is_taken
from rectoolkit.recipe.files import read_toml
from rectoolkit.runs.layout import FAILURE, LOCK, METRICS, RECIPE, check_layout, read_environment, read_log
from rectoolkit.runs.run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """A run folder as ``rectool runs`` lists it. ``metric`` is its first one, empty until the run is finished.

    ``state`` is one of ``STATES``: finished, running (a process holds its lock), failed (``detail`` is the message),
    interrupted, damaged, or outdated (written by an earlier release).
    """

    folder: Path
    data: str
    encoder: str
    quantizer: str
    bits: str
    seed: str
    metric: str
    state: str
    detail: str


STATES = ("finished", "running", "interrupted", "failed", "damaged", "outdated")
FILTERS = ("data", "encoder", "quantizer", "bits", "seed", "state")


def list_runs(runs: Path, pattern: str = "*", where: Sequence[str] = ()) -> list[Entry]:
    """The run folders in ``runs`` whose name matches ``pattern`` (``hqgnn*``), sorted by name.

    ``where`` holds conditions ``key=value``, all of which must be true. Raises UserError for an unknown key.
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
    """The run folder ``name`` in ``runs``. Raises UserError with the nearest name if there is none."""
    folders = {entry.folder.name: entry.folder for entry in list_runs(runs)}
    if name not in folders:
        raise UserError(f"{runs}: no run folder '{name}'; {nearest(name, folders)}")
    return folders[name]


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a run folder while the block runs; it goes with the process, however that ends.

    If another process holds it, raises UserError, or waits for that process.
    """
    with alone(folder / LOCK, f"{folder}: another process is working on this run; wait for it or stop it", wait):
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process is working on this run folder."""
    return is_taken(folder / LOCK)


def remove_run(folder: Path) -> None:
    """Delete a run folder. Raises UserError if a process is working on it."""
    with locked(folder):
        shutil.rmtree(folder)


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
    """The first metric, the state, and a remark on the state."""
    try:
        check_layout(folder)
    except FormatError as error:
        return "", "outdated", str(error)
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
        return "", "failed", (folder / FAILURE).read_text(encoding="utf-8").strip()
    except OSError:
        return "", "interrupted", epochs


def _last_epoch(folder: Path) -> int:
    """The epoch of the last row of the log. The checkpoint may be some seconds older."""
    try:
        rows = read_log(folder)
    except FormatError:
        return 0
    return int(rows[-1]["epoch"]) if rows else 0
