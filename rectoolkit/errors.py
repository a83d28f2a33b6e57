"""Exceptions shown to the user. The command line prints only their message and ends with code 2."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

EXTRAS = {  # module: the extra of this package that installs it
    **dict.fromkeys(("torch", "dgl", "pandas", "sklearn", "scipy"), "train"),
    **dict.fromkeys(("matplotlib", "jinja2"), "report"),
    **dict.fromkeys(("faiss", "pyarrow"), "export"),
    "usearch": "bench",
    "optuna": "tune",
    "tensorboard": "tensorboard",
}


class UserError(ValueError):
    """A request that cannot be carried out. The message says what is wrong, where, and what would be right."""


class DataError(UserError):
    """Interaction data that cannot be used."""


class FormatError(UserError):
    """A file of this toolkit that is missing, cut short, damaged, or of another version."""


class TrainingError(UserError):
    """Training that cannot go on: NaN or infinity, or a setting that leaves nothing to train on."""


class MissingPartError(UserError, ImportError):
    """An optional package that is not installed. The message says how to install it."""


@contextmanager
def needed(what: str) -> Iterator[None]:
    """Turn a failed import into a MissingPartError, which says that ``what`` needs the package."""
    try:
        yield
    except ImportError as error:
        raise missing_part(error, what) from error


def missing_part(error: ImportError, what: str) -> MissingPartError:
    """The error that names the package needed by ``what``, and the command that installs it."""
    module = (error.name or "").partition(".")[0]
    package = f"'rectoolkit[{EXTRAS[module]}]'" if module in EXTRAS else module or "it"
    return MissingPartError(f"{what} needs {module or 'a package'} ({error}): pip install {package}")


@dataclass(frozen=True)
class Fault:
    """One fault of a recipe: its key (``section.key``), and a message that says what would be right."""

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
