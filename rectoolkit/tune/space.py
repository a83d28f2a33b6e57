"""The search file: which settings of a recipe to try, and for how long.

    [search]
    trials = 30                       # number of trainings at most
    seed = 0                          # of the random draws
    timeout = 3600                    # seconds of training after which no further trial begins
    "encoder.layers" = [1, 2, 3]      # one of these
    "train.rate" = { low = 1e-3, high = 1e-1, log = true }
    "encoder.dim" = { low = 16, high = 64, step = 16 }

Every value of a list and both ends of a range are checked against the recipe beforehand, in pairs with every value of
the other settings. So all faults are reported before anything runs.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from rectoolkit.errors import Fault, RecipeError, UserError, nearest
from rectoolkit.recipe import Recipe
from rectoolkit.recipe.files import read_toml
from rectoolkit.recipe.schema import Settings, fill
from rectoolkit.recipe.settings import ORDER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    Values = Mapping[str, Any]

FIXED = {
    "dataset": "trials on other data cannot be compared",
    "evaluate": "it changes what is reported, not what is trained",
    "train.validation": "trials are compared on the validation part, which must be the same for all of them",
    "train.held": "trials are compared on the validation part, which must be the same for all of them",
    "train.monitor": "trials are compared by it",
}


class Head(Settings):
    """The keys of ``[search]`` that are not settings of the recipe."""

    trials: Annotated[int, Field(ge=1, le=10_000)] = 20
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    timeout: Annotated[float, Field(gt=0)] | None = None
    prune: bool = True


class Ends(Settings):
    """A range from ``low`` to ``high``, both included, drawn evenly or, with ``log``, evenly in the logarithm."""

    low: int | float
    high: int | float
    log: bool = False
    step: Annotated[int, Field(ge=1)] | None = None


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]

    @property
    def probes(self) -> tuple[Any, ...]:
        """The values tried on the recipe beforehand."""
        return self.values

    def as_toml(self) -> Any:
        return list(self.values)


@dataclass(frozen=True)
class Range:
    """A number from ``low`` to ``high``; an integer in steps of ``step`` if ``whole``."""

    low: float
    high: float
    log: bool
    step: int
    whole: bool

    @property
    def probes(self) -> tuple[Any, ...]:
        """The values tried on the recipe beforehand."""
        return (self.low, self.high)

    def as_toml(self) -> Any:
        step = {"step": self.step} if self.whole and self.step > 1 else {}
        return {"low": self.low, "high": self.high, **({"log": True} if self.log else {}), **step}


@dataclass(frozen=True)
class Search:
    """A search: ``space`` maps ``section.key`` to its values; ``trials`` and ``timeout`` limit its length."""

    space: dict[str, Choice | Range]
    trials: int = 20
    seed: int = 0
    timeout: float | None = None
    prune: bool = True

    def facts(self) -> dict[str, Any]:
        """The facts that identify this search, without ``trials`` and ``timeout``, which may be raised later."""
        space = {key: values.as_toml() for key, values in self.space.items()}
        return {"seed": self.seed, "prune": self.prune, **space}


def read_search(path: Path, recipe: Recipe) -> Search:
    """The search of a file, checked against ``recipe``. Raises RecipeError with all faults at once."""
    written, _ = read_toml(path)
    faults: list[Fault] = [
        Fault(key, "unknown; a search is one section, [search], with trials, seed, timeout, prune and the settings")
        for key in written
        if key != "search"
    ]
    section = written.get("search", {})
    if not isinstance(section, dict):
        raise RecipeError([Fault("search", f"must be a section, [search], got {section!r}")], str(path))
    keys = _flat(section)
    head, found = fill(Head, {key: value for key, value in keys.items() if "." not in key}, "search")
    faults += found
    space = {key: _values(key, value, recipe, faults) for key, value in keys.items() if "." in key}
    if not space and not faults:
        faults.append(Fault("search", 'names no setting to try; write one, such as "encoder.layers" = [1, 2, 3]'))
    known = {key: values for key, values in space.items() if values is not None}
    if not faults:
        faults += _misfits(known, recipe)
    if not recipe["train"]["validation"]:
        faults.append(Fault("train.validation", "is 0 in the recipe, so there is nothing to select by; write 0.1"))
    if faults:
        raise RecipeError(faults, str(path))
    return Search(known, **head)


def _flat(section: dict[str, Any]) -> dict[str, Any]:
    """``encoder.layers = [1]`` without quotes is a table in TOML: the same key."""
    flat: dict[str, Any] = {}
    for key, value in section.items():
        nested = isinstance(value, dict) and key in ORDER
        flat |= {f"{key}.{inner}": given for inner, given in value.items()} if nested else {key: value}
    return flat


def _values(key: str, written: Any, recipe: Recipe, faults: list[Fault]) -> Choice | Range | None:
    """The values of ``key``; None, and a fault, if they cannot be used."""
    section, _, name = key.partition(".")
    fixed = FIXED.get(key, FIXED.get(section))
    if section not in ORDER:
        faults.append(Fault(key, f"unknown section; {nearest(section, [s for s in ORDER if s not in FIXED])}"))
    elif fixed:
        faults.append(Fault(key, f"cannot be searched: {fixed}"))
    elif isinstance(written, list):
        return _choice(key, written, faults)
    elif isinstance(written, dict):
        return _range(key, written, recipe[section].get(name), faults)
    else:
        faults.append(Fault(key, f"must be a list of values or {{ low = ..., high = ... }}, got {written!r}"))
    return None


def _choice(key: str, written: list[Any], faults: list[Fault]) -> Choice | None:
    twice = [value for place, value in enumerate(written) if value in written[:place]]
    if not written:
        faults.append(Fault(key, "the list is empty, so there is nothing to try"))
    elif twice:
        faults.append(Fault(key, f"{twice[0]!r} is listed twice"))
    elif not all(isinstance(value, str | bool | int | float) for value in written):
        faults.append(Fault(key, "values must be strings, numbers, true or false"))
    else:
        return Choice(tuple(written))
    return None


def _range(key: str, written: dict[str, Any], current: Any, faults: list[Fault]) -> Range | None:
    ends, found = fill(Ends, written, key)
    faults += found
    if found:
        return None
    low, high, log, step = ends["low"], ends["high"], ends["log"], ends["step"]
    whole = isinstance(low, int) and isinstance(high, int) and not isinstance(current, float)
    wrong = {
        f"low ({low}) must be below high ({high})": low >= high,
        f"log = true needs low above 0, got {low}": log and low <= 0,
        "step is for whole numbers; leave it out": step is not None and not whole,
        "step and log = true do not go together": step is not None and log,
        f"step ({step}) does not lead from {low} to {high}": bool(step) and whole and (high - low) % (step or 1) != 0,
        "a range is for numbers; write a list of values": isinstance(current, bool | str | list),
        "must be finite": not all(map(math.isfinite, (low, high))),
    }
    faults += [Fault(key, message) for message, is_wrong in wrong.items() if is_wrong]
    if any(wrong.values()):
        return None
    return Range(low, high, log, step or 1, True) if whole else Range(float(low), float(high), log, 1, False)


def probed(space: dict[str, Choice | Range]) -> Iterator[dict[str, Any]]:
    """Every pair of two settings' values, with the other settings at their first value."""
    first = {key: values.probes[0] for key, values in space.items()}
    for keys in itertools.combinations(space, min(2, len(space))):
        for values in itertools.product(*(space[key].probes for key in keys)):
            yield {**first, **dict(zip(keys, values, strict=True))}


def _misfits(space: dict[str, Choice | Range], recipe: Recipe) -> list[Fault]:
    """The recipe's faults with the values, tried in pairs."""
    found: dict[str, Fault] = {}
    for tried in probed(space):
        try:
            recipe.with_settings(tried)
        except RecipeError as error:
            for fault in error.faults:
                where = fault.where.removeprefix("--set ")
                message = fault.message if where in tried else f"{fault.message}; tried {_told(tried)}"
                found.setdefault(where, Fault(where, message))
        except UserError as error:
            found.setdefault("search", Fault("search", f"{error}; tried {_told(tried)}"))
    return list(found.values())


def _told(values: Values) -> str:
    return ", ".join(f"{key} = {value!r}" for key, value in values.items())
