"""The faults a user can mend. The command line prints their message alone and ends with code 2."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class UserError(ValueError):
    """What was asked for cannot be done; the message says what is wrong, where, and what would be right."""


class DataError(UserError):
    """Interaction data that cannot be used."""


class FormatError(UserError):
    """A file of this toolkit that is cut short, damaged, or of another version."""


class TrainingError(UserError):
    """Training that cannot go on: NaN or infinity, or a setting that leaves nothing to train on."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a recipe: the key it stands at (``section.key``) and what would be right."""

    where: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        line = f"line {self.line}, " if self.line else ""
        return f"{line}{self.where}: {self.message}"


class RecipeError(UserError):
    """All faults of a recipe, at once."""

    def __init__(self, faults: Iterable[Fault], source: str = "recipe") -> None:
        self.faults = list(faults)
        self.source = source
        between = " " if len(self.faults) == 1 else "\n  "
        super().__init__(between.join([f"{source}:", *map(str, self.faults)]))


def nearest(wrong: str, allowed: Iterable[str]) -> str:
    """``did you mean 'x'? allowed: ...``: the end of every message about an unknown name."""
    allowed = list(allowed)
    near = get_close_matches(wrong, allowed, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}allowed: {', '.join(allowed) or 'nothing'}"
