"""The folder of run folders: list them, find one, lock one, remove one."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

from rectoolkit.errors import FormatError, UserError, nearest
from rectoolkit.files import alone, is_taken
from rectoolkit.recipe import Recipe
from rectoolkit.recipe.files import read_toml
from rectoolkit.runs.layout import (
    ENVIRONMENT,
    FAILURE,
    LAYOUT,
    LOCK,
    METRICS,
    RECIPE,
    check_layout,
    read_environment,
    read_json,
    read_log,
)
from rectoolkit.runs.run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """A run folder as ``rectool runs`` lists it. ``metric`` is its first one, empty until the run is finished.

    ``state`` is one of ``STATES``: finished, running (a process holds its lock), failed (``detail`` is the message),
    interrupted, outdated (written by an earlier release), or damaged: files are missing or changed, or the folder was
    copied or renamed.
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
NAME = r"-[0-9a-f]{8}$"  # how the name of a run folder ends
FILTERS = ("data", "encoder", "quantizer", "bits", "seed", "state")


def list_runs(runs: Path, pattern: str = "*", where: Sequence[str] = ()) -> list[Entry]:
    """The run folders in ``runs`` whose name matches ``pattern`` (``hqgnn*``), sorted by name.

    ``where`` holds conditions ``key=value``, all of which must be true. Raises UserError for an unknown key.
    """
    wanted = [_condition(text) for text in where]
    if not runs.is_dir():
        return []
    folders = (path for path in sorted(runs.iterdir()) if fnmatch(path.name, pattern))
    entries = [_entry(folder) for folder in folders if _is_listed(folder)]
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
    """Delete a run folder, or a file or link in its place. Raises UserError if a process is working on it."""
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink()
        return
    with suppress(OSError):
        folder.chmod(folder.stat().st_mode | 0o700)
    with locked(folder):
        shutil.rmtree(folder)


def _is_listed(path: Path) -> bool:
    """Whether something in a folder of runs has the name or a file of a run, and is not just being written."""
    named = re.search(NAME, path.name) or any(os.path.exists(path / name) for name in (ENVIRONMENT, METRICS))
    return bool(named) and not path.name.startswith(".")


def _entry(folder: Path) -> Entry:
    """The row of a folder. A damaged one is a row as well, whatever is in it."""
    environment, recipe = read_environment(folder), {}
    with suppress(UserError, OSError):
        recipe = read_toml(folder / RECIPE)[0]
    try:
        metric, state, detail = _state(folder, recipe)
    except Exception as error:  # anything may be in a folder that somebody else wrote into
        metric, state, detail = "", "damaged", str(error) if isinstance(error, UserError) else repr(error)
    return Entry(
        folder,
        data=_text(environment, "data", "name"),
        encoder=_text(recipe, "encoder", "name"),
        quantizer=_text(recipe, "quantizer", "name"),
        bits=_text(recipe, "quantizer", "bits") or "32",
        seed=str(recipe.get("seed", "")),
        metric=metric,
        state=state,
        detail=detail,
    )


def _text(content: dict[str, Any], section: str, key: str) -> str:
    """A value of a section; empty if there is none."""
    values = content.get(section)
    return str(values.get(key, "")) if isinstance(values, dict) else ""


def _state(folder: Path, recipe: dict[str, Any]) -> tuple[str, str, str]:
    """The first metric, the state, and a remark on the state. Raises FormatError and others if it is damaged."""
    if not folder.is_dir():
        raise FormatError(f"{folder}: is not a folder")
    epochs = f"{_last_epoch(folder)} of {_text(recipe, 'train', 'epochs') or '?'} epochs logged"
    if is_locked(folder):
        return "", "running", epochs
    layout = read_json(folder / ENVIRONMENT).get("layout")
    if layout != LAYOUT and isinstance(layout, int):
        try:
            check_layout(folder)
        except FormatError as error:
            return "", "outdated", str(error)
    run = Run(folder)
    _check_origin(run)
    if not (folder / METRICS).exists():
        if (folder / FAILURE).exists():
            return "", "failed", (folder / FAILURE).read_text(encoding="utf-8", errors="replace").strip()
        return "", "interrupted", epochs
    run.check()
    metric, value = next(iter(run.metrics["accuracy"].items()), ("", 0.0))
    return f"{metric} {value:.4f}" if metric else "", "finished", ""


def _check_origin(run: Run) -> None:
    """Raise UserError unless the folder has the name and the recipe of the run that it holds."""
    folder, digest = run.path, run.environment.get("digest")
    check_layout(folder)
    written, _ = read_toml(folder / RECIPE)
    name = f"{written.get('name', '?')}-{digest!s:.8}"
    if folder.name != name:
        raise FormatError(f"{folder}: copied or renamed, its run is {name}; rename it back or remove it")
    if not written.get("plugins") and Recipe.check(written).digest != digest:  # a list imports no plugin
        raise FormatError(f"{folder / RECIPE}: not the recipe of this run; run the recipe again elsewhere")


def _last_epoch(folder: Path) -> int:
    """The epoch of the last row of the log. The checkpoint may be some seconds older."""
    try:
        rows = read_log(folder)
    except FormatError:
        return 0
    return int(rows[-1]["epoch"]) if rows else 0
