"""Overrides: changes to a recipe, written as ``--set section.key=value`` or given from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from rectoolkit.errors import Fault, UserError, nearest
from rectoolkit.recipe.files import toml_value
from rectoolkit.recipe.registry import REGISTRIES
from rectoolkit.recipe.settings import ORDER, HeadSettings

Overrides = Sequence[str] | Mapping[str, Any]


class Override(NamedTuple):
    """One change. ``section`` is empty for the keys before the first section."""

    section: str
    key: str
    value: Any

    @property
    def where(self) -> str:
        """``section.key``."""
        return f"{self.section}.{self.key}".lstrip(".")


def parse(written: Overrides, faults: list[Fault]) -> list[Override]:
    """The changes in the order in which they apply; adds the faults of their form.

    Names of components come first, so that the settings of the component that they replace are dropped before any
    setting is changed.
    """
    if isinstance(written, Mapping):
        found = [_override(key, plain(key, value), str(key), faults) for key, value in written.items()]
    elif isinstance(written, str) or not all(isinstance(override, str) for override in written):
        raise UserError(f"overrides must be a list of strings, such as ['quantizer.bits=2'], got {written!r:.80}")
    else:
        found = [_parse_text(override, faults) for override in written]
    return sorted((override for override in found if override), key=lambda override: override.key != "name")


def _parse_text(written: str, faults: list[Fault]) -> Override | None:
    path, equals, text = written.partition("=")
    path = path.strip()
    if not equals:
        faults.append(Fault(f"--set {written!r}", "must read section.key=value, such as quantizer.bits=2"))
        return None
    if not text.isprintable():
        faults.append(Fault(f"--set {path}", f"the value {text!r} must be one line of readable text"))
        return None
    return _override(path, toml_value(text), f"--set {path}", faults)


def _override(path: str, value: Any, where: str, faults: list[Fault]) -> Override | None:
    section, dot, key = str(path).rpartition(".")
    if bool(dot) != bool(section) or (not section and key not in HeadSettings.model_fields):
        faults.append(Fault(where, "must read section.key=value, such as quantizer.bits=2"))
    elif section and section not in ORDER:
        faults.append(Fault(where, f"unknown section; {nearest(section, ORDER)}"))
    else:
        return Override(section, key, value)
    return None


def plain(key: str, value: Any) -> Any:
    """A value from Python as TOML would give it: numpy's numbers and arrays, paths and tuples are converted.

    Raises UserError for a value that TOML does not have.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, list | tuple):
        return [plain(key, entry) for entry in value]
    if isinstance(value, str | bool | int | float):
        return value
    raise UserError(f"{key}: {value!r:.80} must be a string, number, boolean, or a list of these")


def apply(overrides: Sequence[Override], sections: dict[str, dict[str, Any]]) -> list[str]:
    """Change the sections. Returns notes on the settings that were dropped."""
    notes = []
    for section, key, value in overrides:
        current = sections.setdefault(section, {})
        if section == "dataset" and key in ("name", "path") and value:
            other = "path" if key == "name" else "name"
            if current.get(other):
                current[other] = ""
        elif key == "name" and value != current.get("name"):
            notes += _switch(section, current, value)
        current[key] = value
    return notes


def _switch(section: str, current: dict[str, Any], name: Any) -> list[str]:
    """Hand the settings of a section to another component. What it does not take is dropped, with a note.

    Settings that were left at their default are handed over too, so that a filled recipe and one that states only what
    differs from the defaults change alike. Those are dropped without a note.
    """
    registry = REGISTRIES.get(section)
    if registry is None or not isinstance(name, str) or name not in registry:
        return []
    before = current.pop("name", None)
    defaults = registry.defaults(before) if isinstance(before, str) and before in registry else {}
    current |= {key: value for key, value in defaults.items() if key not in current}
    _, faults = registry.check(name, current, section)
    dropped = {key: current.pop(key) for key in sorted({fault.where.removeprefix(f"{section}.") for fault in faults})}
    dropped = {key: value for key, value in dropped.items() if key not in defaults or defaults[key] != value}
    what = ", ".join(f"{key} = {value!r}" for key, value in dropped.items())
    return [f"dropped, not for {section} '{name}': {what}"] if dropped else []
