"""The files of a run folder: their names, and readers for the plain ones.

recipe.toml        the filled recipe             log.jsonl            one row per epoch
environment.json   versions, machine, data       checkpoint.pt        while it trains
users.codes, items.codes   packed codes          users.npy, items.npy   the same rows before the quantizer, float32
seen.bin           train and validation pairs    per_user.bin         the metrics of each test user
model.pt           weights                       fold_in.bin          how new users are embedded
metrics.json       written last: finished        failure.txt          why the last attempt failed
users.ids, items.ids   the ids of users and items in the data, unless these are the row numbers
tensorboard/       event files, if asked for     .lock                locked by the process that works on the run
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rectoolkit.errors import FormatError

LAYOUT = 2  # version of the run folder; raised when its files change meaning
SIDES = ("users", "items")
RECIPE = "recipe.toml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.json"
SEEN = "seen.bin"
PER_USER = "per_user.bin"
MODEL = "model.pt"
FOLD_IN = "fold_in.bin"
LOG = "log.jsonl"
CHECKPOINT = "checkpoint.pt"
FAILURE = "failure.txt"
TENSORBOARD = "tensorboard"
LOCK = ".lock"


def codes_file(side: str) -> str:
    """The name of the packed codes of a side, ``users`` or ``items``."""
    return f"{side}.codes"


def rows_file(side: str) -> str:
    """The name of the float32 rows of a side."""
    return f"{side}.npy"


def ids_file(side: str) -> str:
    """The name of the ids of a side in the data."""
    return f"{side}.ids"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a run folder. Raises FormatError where it is missing or cut short."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file; {path.parent} is not a run folder of this toolkit") from None
    except (ValueError, OSError, RecursionError) as error:
        raise FormatError(f"{path}: not whole JSON ({error}); run the recipe again") from None
    if not isinstance(content, dict):
        raise FormatError(f"{path}: not a JSON object; run the recipe again")
    return content


def check_layout(folder: Path) -> None:
    """Raise FormatError if a run folder was written in another layout than this release reads."""
    layout = read_json(folder / ENVIRONMENT).get("layout")
    if layout != LAYOUT:
        age = "an earlier" if isinstance(layout, int) and layout < LAYOUT else "another"
        raise FormatError(
            f"{folder}: written by {age} release (layout {layout}, this release reads {LAYOUT}); run its recipe again: "
            f"rectool run {folder / RECIPE} --runs {folder.parent}"
        )


def read_environment(folder: Path) -> dict[str, Any]:
    """``environment.json`` of a run folder; empty where there is none that can be read."""
    try:
        return read_json(folder / ENVIRONMENT)
    except FormatError:
        return {}


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's log, one per epoch. Raises FormatError where it is missing or cut short."""
    path = folder / LOG
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (ValueError, OSError, RecursionError) as error:
        raise FormatError(f"{path}: not whole lines of JSON ({error}); run the recipe again elsewhere") from None
    if not all(isinstance(row, dict) and {"epoch", "loss"} <= set(row) for row in rows):
        raise FormatError(f"{path}: a line without epoch and loss; run the recipe again elsewhere")
    return rows
