"""The file of a study: JSON, replaced as a whole after every trial, so that a kill loses no finished trial."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rectoolkit.errors import FormatError, UserError
from rectoolkit.files import write_text

if TYPE_CHECKING:
    from pathlib import Path

STUDY, BEST = "study.json", "best.toml"
LAYOUT = 2


@dataclass(frozen=True)
class Trial:
    """One training: the settings tried, how it ended, and its validation metric by epoch, of which ``best`` is largest.

    ``why`` is the reason of a failure. ``seconds`` counts training alone, over all sessions.
    """

    number: int
    values: dict[str, Any]
    state: Literal["finished", "pruned", "failed"]
    best: float | None
    best_epoch: int
    validation: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0
    why: str = ""


@dataclass(frozen=True)
class Store:
    """A study's file in ``folder``. ``identity`` (recipe, search, data) says which study it is."""

    folder: Path
    identity: dict[str, dict[str, Any]]

    def load(self) -> list[Trial]:
        """The trials so far. Raises UserError with the differences if the file belongs to another study."""
        path = self.folder / STUDY
        if not path.exists():
            return []
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            identity, layout = content["identity"], content["layout"]
            trials = [
                Trial(**{**trial, "validation": {int(epoch): value for epoch, value in trial["validation"].items()}})
                for trial in content["trials"]
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FormatError(f"{path}: not a complete study ({error!r}); delete it to start over") from None
        if layout != LAYOUT:
            raise FormatError(f"{path}: a study of layout {layout}; this release reads {LAYOUT}")
        differing = _differences(identity, self.identity)
        if differing:
            advice = "name another folder with --out, or delete this one"
            raise UserError("\n".join([f"{self.folder}: holds another study; {advice}", *differing]))
        return trials

    def save(self, trials: list[Trial]) -> None:
        """Write all trials."""
        head = json.dumps({"layout": LAYOUT, "identity": self.identity}, indent=1).removesuffix("\n}")
        lines = ",\n  ".join(json.dumps(vars(trial)) for trial in trials)  # indented, they would take ten times as long
        write_text(self.folder / STUDY, f'{head},\n "trials": [\n  {lines}\n ]\n}}\n')


def _differences(then: Any, now: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each key in which two identities differ."""
    found = []
    for part, keys in now.items():
        before = then.get(part, {}) if isinstance(then, dict) else {}
        # through JSON, as the file went: a tuple is a list there
        after = json.loads(json.dumps(keys))
        for key in dict.fromkeys([*before, *after]):
            was, is_now = (json.dumps(side[key]) if key in side else "not there" for side in (before, after))
            if was != is_now:
                found.append(f"  {part}: {key} was {was}, is {is_now}")
    return found
