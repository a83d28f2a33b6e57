"""Recipe: a TOML description of a run, checked, filled and digested.

A recipe is flat data: two levels, no inheritance, no interpolation, no class paths. It states what differs from the
defaults of its components. ``Recipe.load`` reads a file, applies overrides (``section.key=value``, existing keys only),
imports its plugins, checks every section against its settings class, fills in every default, and reports all faults at
once with their lines.

The digest, the sha256 that names the run folder, covers what differs from the defaults, without ``description`` and
``expect``, which have no effect on the run. So a new setting with a default does not change the digest of any recipe.
In return the default of a released setting must never change, or old runs would pass for new ones.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import tomli_w

from rectoolkit.errors import Fault, RecipeError, UserError, nearest
from rectoolkit.recipe.files import find_recipe, read_toml
from rectoolkit.recipe.overrides import apply, parse
from rectoolkit.recipe.registry import REGISTRIES, import_plugins
from rectoolkit.recipe.schema import validate
from rectoolkit.recipe.settings import ORDER, SECTIONS, HeadSettings, expect_faults

if TYPE_CHECKING:
    from pathlib import Path

    from rectoolkit.recipe.overrides import Overrides


@dataclass(frozen=True)
class Recipe:
    """A checked and filled recipe.

    Attributes
    ----------
    name, description, seed, plugins
        The keys before the first section.
    sections
        Section -> key -> value, with every key of its settings. ``recipe["train"]`` is ``recipe.sections["train"]``.
    changed
        The same sections with only what differs from the defaults. A component's ``name`` is always there.
    expect
        Metric -> the value that the recipe reaches. Empty if a setting is overridden.
    notes
        Notes on settings that were dropped or have no effect.
    """

    name: str
    description: str
    seed: int
    plugins: list[str]
    sections: dict[str, dict[str, Any]]
    changed: dict[str, dict[str, Any]]
    expect: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def load(cls, recipe: str | Path, overrides: Overrides = ()) -> Recipe:
        """Load a recipe by path, or a shipped one by name.

        Parameters
        ----------
        recipe
            A TOML file, or a name such as ``"hqgnn"`` or ``"gowalla/hqgnn-1bit"``.
        overrides
            Changes: strings ``"section.key=value"``, or a mapping from ``"section.key"`` to values.

        Raises
        ------
        RecipeError
            With every fault of the recipe and its line.
        UserError
            If there is no such recipe, or the file is not TOML.
        """
        path = find_recipe(recipe)
        written, text = read_toml(path)
        return cls.check(written, overrides, source=str(recipe), text=text, beside=path.parent)

    @classmethod
    def check(
        cls,
        written: dict[str, Any],
        overrides: Overrides = (),
        source: str = "recipe",
        text: str = "",
        beside: Path | None = None,
    ) -> Recipe:
        """The recipe of a dictionary of sections, as TOML would give it. Raises RecipeError with every fault.

        ``source`` and ``text`` are for the messages. ``beside`` is a folder in which plugins may be.
        """
        if not isinstance(written, dict):
            raise UserError(f"a recipe must be a dictionary of sections, got {written!r:.80}")
        faults: list[Fault] = []
        keys, sections = _parts(written, faults)
        changes = parse(overrides, faults)
        keys |= {change.key: change.value for change in changes if not change.section}
        head, found = validate(HeadSettings, keys, "")
        faults += found
        import_plugins(head.plugins if head else [], faults, beside)
        notes = apply([change for change in changes if change.section], sections)
        expect = sections.pop("expect", {})
        filled, changed = {}, {}
        for section in ORDER:
            filled[section], changed[section] = _fill_section(section, sections.get(section, {}), faults)
        faults += expect_faults(expect)
        if not faults:
            faults += [
                fault for kind in REGISTRIES for fault in REGISTRIES[kind].settings(filled[kind]).misfits(filled)
            ]
        if head is None or faults:
            mark = "" if isinstance(overrides, Mapping) else "--set "
            overridden = {change.where: f"{mark}{change.where}" for change in changes}
            raise RecipeError([_placed(fault, text, overridden) for fault in faults], source)
        notes += [note for section, schema in SECTIONS.items() for note in schema(**filled[section]).notes()]
        return cls(
            **head.model_dump(),
            sections=filled,
            changed=changed,
            expect={} if changes else dict(expect),
            notes=tuple(notes),
        )

    def with_settings(self, settings: Mapping[str, Any]) -> Recipe:
        """This recipe with other values for ``section.key``. Raises RecipeError, as ``load`` does."""
        return Recipe.check(self.as_dict(), settings) if settings else self

    def __getitem__(self, section: str) -> dict[str, Any]:
        return self.sections[section]

    @property
    def head(self) -> HeadSettings:
        """The keys before the first section."""
        return HeadSettings(name=self.name, description=self.description, seed=self.seed, plugins=self.plugins)

    def as_dict(self) -> dict[str, Any]:
        """The whole recipe as TOML has it."""
        return {**self.head.model_dump(), **self.sections, **({"expect": self.expect} if self.expect else {})}

    def stated(self) -> dict[str, Any]:
        """The recipe as a file states it: only what differs from the defaults. It loads to the same recipe."""
        sections = {section: keys for section, keys in self.changed.items() if keys}
        return {**self.head.changed(), **sections, **({"expect": self.expect} if self.expect else {})}

    def toml(self) -> str:
        """The filled recipe as a TOML file, which loads to the same recipe."""
        return tomli_w.dumps(self.as_dict())

    @property
    def digest(self) -> str:
        """The sha256, in hex, of what the recipe states beyond the defaults and its description."""
        kept = {key: value for key, value in self.stated().items() if key not in ("description", "expect")}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    @property
    def folder_name(self) -> str:
        """The name of its run folder."""
        return f"{self.name}-{self.digest[:8]}"


def _parts(written: dict[str, Any], faults: list[Fault]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The keys before the first section, and the sections; anything else is a fault."""
    head, sections = {}, {}
    for key, value in written.items():
        if key in HeadSettings.model_fields:
            head[key] = value
        elif key not in (*ORDER, "expect"):
            allowed = (*HeadSettings.model_fields, *(f"[{name}]" for name in (*ORDER, "expect")))
            faults.append(
                Fault(key, f"unknown {'section' if isinstance(value, dict) else 'key'}; {nearest(key, allowed)}")
            )
        elif not isinstance(value, dict):
            faults.append(Fault(key, f"must be a section, [{key}], got {value!r}"))
        else:
            sections[key] = dict(value)
    return head, sections


def _fill_section(section: str, written: dict[str, Any], faults: list[Fault]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A section with every default filled in, and what of it differs from them; adds its faults."""
    if section in SECTIONS:
        settings, found = validate(SECTIONS[section], written, section)
        faults += found or (settings.faults() if settings else [])
        return (settings.model_dump(), settings.changed()) if settings else ({}, {})
    registry, name = REGISTRIES[section], written.get("name")
    if not isinstance(name, str) or name not in registry:
        wrong = "this key is required" if name is None else f"unknown {section} {name!r}"
        faults.append(Fault(f"{section}.name", f"{wrong}; {nearest(str(name), registry.names())}"))
        return {}, {}
    chosen, found = validate(registry.schema(name), {key: v for key, v in written.items() if key != "name"}, section)
    faults += found
    return ({"name": name, **chosen.model_dump()}, {"name": name, **chosen.changed()}) if chosen else ({}, {})


def _placed(fault: Fault, text: str, overridden: Mapping[str, str]) -> Fault:
    """The fault with the line of its key, or of its section; or as ``overridden`` names a key that an override set."""
    if fault.where.lstrip(".") in overridden:
        return Fault(overridden[fault.where.lstrip(".")], fault.message)
    section, dot, key = fault.where.lstrip(".").partition(".")
    wanted, current, line_of_section = key if dot else section, "", None
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\s*([\w-]+)\s*\]", line)
        if header:
            current = header[1]
            line_of_section = number if current == section else line_of_section
        elif re.match(rf"\s*[\"']?{re.escape(wanted)}[\"']?\s*=", line) and current == (section if dot else ""):
            return Fault(fault.where.lstrip("."), fault.message, number)
    return Fault(fault.where.lstrip("."), fault.message, line_of_section)
