"""Recipe: one complete TOML description of a run, checked, filled and digested.

A recipe is data, flat and complete: two levels, no inheritance, no interpolation, no class paths. ``Recipe.load``
reads a file, applies overrides (``section.key=value``, existing keys only), imports its plugins, checks every
section against the schema its component's constructor declares, fills every default in, and reports all faults at
once with the line they stand at. The digest is the sha256 of the filled recipe without ``description`` and
``expect``, which change nothing about a run.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tomli_w
from pydantic import Field

from rectoolkit.errors import Fault, RecipeError, UserError, nearest
from rectoolkit.evaluation.metrics import AccuracyMetric, parse
from rectoolkit.recipe.registry import REGISTRIES, Settings, fill
from rectoolkit.recipe.settings import FORMATS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Metric = Annotated[str, Field(description="name@k")]


class HeadSettings(Settings):
    """The keys before the first section."""

    name: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$",
            description="begins the run folder's name",
            json_schema_extra={"words": "of at most 64 lower-case letters, digits, '-' and '_', no sign first"},
        ),
    ]
    description: Annotated[str, Field(description="what the recipe is, for people")] = ""
    seed: Annotated[int, Field(ge=0, lt=2**63, description="start of every random stream of the run")] = 0
    plugins: Annotated[list[str], Field(description="modules to import, which register components")] = []  # noqa: RUF012


class DatasetSettings(Settings):
    """Where the interactions come from: a card's name, or a folder of your own."""

    name: Annotated[str, Field(description="a data set by name (see rectool data list); empty with path")] = ""
    path: Annotated[
        str, Field(description="folder of your own train and test files, or an import; empty with name")
    ] = ""
    format: Annotated[str, Field(description="format of the files at path: adjacency, pairs, ratings")] = "adjacency"
    test_share: Annotated[
        float, Field(gt=0, lt=1, description="where path is one file: share of each user's items kept for the test")
    ] = 0.2
    split_seed: Annotated[int, Field(ge=0, description="where path is one file: seed of that split")] = 2023


class TrainSettings(Settings):
    """The training loop."""

    optimizer: Annotated[Literal["adam", "adagrad", "sgd"], Field(description="torch's optimizer")] = "adam"
    rate: Annotated[float, Field(gt=0, description="learning rate")] = 1e-3
    schedule: Annotated[
        Literal["constant", "cosine", "linear"], Field(description="the rate over the steps of all epochs, to 0 or not")
    ] = "constant"
    epochs: Annotated[int, Field(ge=1, le=100_000, description="passes over train, at most")] = 60
    validation: Annotated[
        float, Field(ge=0, le=0.5, description="share of each user's train items held out; 0 trains on all of train")
    ] = 0.1
    held: Annotated[
        Literal["random", "last"],
        Field(description="which items validate: random ones, or those that each user's train line lists last"),
    ] = "random"
    monitor: Annotated[str, Field(description="metric on the held-out share that picks the best epoch")] = "ndcg@20"
    every: Annotated[int, Field(ge=1, description="epochs between two validations")] = 1
    patience: Annotated[int, Field(ge=0, description="validations without a better one before stopping; 0: never")] = 0


class EvaluateSettings(Settings):
    """What is measured on the test part when training is done."""

    metrics: Annotated[list[Metric], Field(min_length=1, description="accuracy metrics; see rectool list metric")] = [  # noqa: RUF012
        "recall@20",
        "ndcg@20",
        "recall@50",
        "ndcg@50",
    ]


SECTIONS: dict[str, type[Settings]] = {
    "dataset": DatasetSettings,
    "train": TrainSettings,
    "evaluate": EvaluateSettings,
}
ORDER = ("dataset", *REGISTRIES, "train", "evaluate")


@dataclass(frozen=True)
class Recipe:
    """A checked and filled recipe. ``sections`` maps section -> key -> value, every key of the schema present.

    ``expect`` holds the figures that a recipe promises (metric -> value), none where a setting of it is overridden;
    ``notes`` what loading it changed.
    """

    name: str
    description: str
    seed: int
    plugins: list[str]
    sections: dict[str, dict[str, Any]]
    expect: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
        """The recipe of a file with ``overrides`` (``section.key=value``) applied. Raises RecipeError, UserError."""
        written, text = read_toml(path, "; those that come with the package are named as recipes/hqgnn.toml is")
        return cls.check(written, overrides, source=str(path), text=text, beside=Path(path).parent)

    @classmethod
    def check(
        cls,
        written: dict[str, Any],
        overrides: Sequence[str] = (),
        source: str = "recipe",
        text: str = "",
        beside: Path | None = None,
    ) -> Recipe:
        """The recipe of a dictionary of sections, as TOML would give it. Raises RecipeError with every fault.

        ``beside`` is the folder in which plugins may lie too.
        """
        if not isinstance(written, dict):
            raise UserError(f"a recipe is a dictionary of sections, got {written!r:.80}")
        if isinstance(overrides, str) or not all(isinstance(override, str) for override in overrides):
            raise UserError(f"overrides come as a list of texts, such as ['quantizer.bits=2'], got {overrides!r:.80}")
        faults: list[Fault] = []
        head, sections = _parts(written, faults)
        parsed = _overrides(overrides, faults)
        head |= {key: value for section, key, value in parsed if not section}
        checked_head, found = fill(HeadSettings, head, "")
        faults += found
        import_plugins(checked_head.get("plugins", []), faults, beside)
        notes = _apply([override for override in parsed if override[0]], sections)
        filled = {name: _fill_section(name, sections, faults) for name in ORDER}
        expect = _expect(sections.pop("expect", {}), faults)
        if not faults:
            faults += _misfits(filled)
        if faults:
            set_here = {".".join(filter(None, override[:2])) for override in parsed}
            raise RecipeError([_placed(fault, text, set_here) for fault in faults], source)
        notes += _without_effect(filled)
        return cls(**checked_head, sections=filled, expect={} if parsed else expect, notes=tuple(notes))

    def with_settings(self, settings: Mapping[str, Any]) -> Recipe:
        """This recipe with the values of ``section.key`` replaced. Raises RecipeError, as ``load`` does."""
        written = [f"{key}={_as_toml(key, value)}" for key, value in settings.items()]
        return Recipe.check(self.as_dict(), written) if written else self

    def __getitem__(self, section: str) -> dict[str, Any]:
        return self.sections[section]

    def as_dict(self) -> dict[str, Any]:
        """The whole recipe as TOML has it."""
        head = {"name": self.name, "description": self.description, "seed": self.seed, "plugins": self.plugins}
        return {**head, **self.sections, **({"expect": self.expect} if self.expect else {})}

    def toml(self) -> str:
        """The filled recipe as a TOML file, which loads to the same recipe."""
        return tomli_w.dumps(self.as_dict())

    @property
    def digest(self) -> str:
        """The sha256, in hex, of everything that bears on the run."""
        return digest_of(self.as_dict())

    @property
    def folder_name(self) -> str:
        """The name of its run folder."""
        return f"{self.name}-{self.digest[:8]}"


def _as_toml(key: str, value: Any) -> str:
    """A value as TOML writes it. Raises UserError where TOML has no such value."""
    try:
        text = tomli_w.dumps({"v": value.item() if hasattr(value, "item") else value})  # numpy's numbers as Python's
    except (TypeError, ValueError) as error:
        raise UserError(f"{key}: {value!r:.80} is no text, number, truth or list of such ({error})") from None
    return text.partition("=")[2].strip()


def digest_of(filled: dict[str, Any]) -> str:
    """The sha256, in hex, of a filled recipe as TOML has it, without what changes nothing about a run."""
    kept = {key: value for key, value in filled.items() if key not in ("description", "expect")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def read_toml(path: str | Path, absent: str = "") -> tuple[dict[str, Any], str]:
    """A TOML file's content and text. Raises UserError naming the file, and the line where it is no TOML.

    ``absent`` is what the message adds where there is no such file.
    """
    if not isinstance(path, str | Path):
        raise UserError(f"a recipe is loaded from the path of a file, got {path!r:.80}")
    try:
        text = _shipped(Path(path)).read_bytes().decode("utf-8-sig")
        return tomllib.loads(text), text
    except FileNotFoundError:
        raise UserError(f"{path}: no such file{absent}") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; name a recipe file (.toml) in it") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except (ValueError, RecursionError) as error:  # TOML's own errors are ValueErrors, as is a number too long
        raise UserError(f"{path}: not TOML: {error}") from None


def _shipped(path: Path) -> Path:
    """``path``, or where there is none, the recipe of that name in the package (``recipes/hqgnn.toml``)."""
    if path.parts[:1] != ("recipes",) or path.exists():
        return path
    package = Path(__file__).parents[1]  # a wheel has recipes/ in shipped/, a checkout beside the package
    return next((found for place in (package / "shipped", package.parent) if (found := place / path).exists()), path)


def _parts(written: dict[str, Any], faults: list[Fault]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The keys before the first section, and the sections; what is neither is a fault."""
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


def _overrides(written: Sequence[str], faults: list[Fault]) -> list[tuple[str, str, Any]]:
    """``section.key=value`` as (section, key, value), the section empty for keys before the first section.

    Names of components come first, so that the settings written for another component are dropped before any is set.
    """
    parsed = []
    for override in written:
        path, equals, text = override.partition("=")
        section, dot, key = path.strip().rpartition(".")
        if not equals or bool(dot) != bool(section) or (not section and key not in HeadSettings.model_fields):
            faults.append(Fault(f"--set {override!r}", "must read section.key=value, such as quantizer.bits=2"))
        elif not text.isprintable():
            faults.append(Fault(f"--set {path.strip()}", f"the value {text!r} must be one line of readable text"))
        elif section and section not in ORDER:
            faults.append(Fault(f"--set {path.strip()}", f"unknown section; {nearest(section, ORDER)}"))
        else:
            parsed.append((section, key, _value(text)))
    return sorted(parsed, key=lambda override: override[1] != "name")


def _apply(overrides: list[tuple[str, str, Any]], sections: dict[str, dict[str, Any]]) -> list[str]:
    """Set the keys; the check that follows refuses those that do not exist. Returns what was dropped on the way."""
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
    """Another component takes the section over: drop, and say so, what was written and is not for it."""
    registry = REGISTRIES.get(section)
    if registry is None or not isinstance(name, str) or name not in registry:
        return []
    written = {key: value for key, value in current.items() if key != "name"}
    _, faults = registry.check(name, written, section)
    dropped = {key: current.pop(key) for key in sorted({fault.where.removeprefix(f"{section}.") for fault in faults})}
    what = ", ".join(f"{key} = {value!r}" for key, value in dropped.items())
    return [f"dropped, not for {section} '{name}': {what}"] if dropped else []


def _value(text: str) -> Any:
    """A value as TOML writes it; what is not TOML is a string, so that quotes are not needed."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text.strip()


def _fill_section(name: str, sections: dict[str, dict[str, Any]], faults: list[Fault]) -> dict[str, Any]:
    written = dict(sections.get(name, {}))
    if name in SECTIONS:
        filled, found = fill(SECTIONS[name], written, name)
        faults += found
        if not found:
            faults += _CHECKS[name](filled)
        return filled
    registry, chosen = REGISTRIES[name], written.pop("name", None)
    if not isinstance(chosen, str) or chosen not in registry:
        wrong = "this key is required" if chosen is None else f"unknown {name} {chosen!r}"
        faults.append(Fault(f"{name}.name", f"{wrong}; {nearest(str(chosen), registry.names())}"))
        return {}
    filled, found = registry.check(chosen, written, name)
    faults += found
    return {"name": chosen, **filled}


def _check_dataset(filled: dict[str, Any]) -> list[Fault]:
    if filled["format"] not in FORMATS:
        wrong = f"unknown format '{filled['format']}'; {nearest(filled['format'], FORMATS)}"
        return [Fault("dataset.format", wrong)]
    if bool(filled["name"]) == bool(filled["path"]):
        return [Fault("dataset", "write either name (a card) or path (a folder of your own), not both or neither")]
    return []


def _check_metrics(where: str, metrics: Sequence[str]) -> list[Fault]:
    twice = sorted({metric for metric in metrics if metrics.count(metric) > 1})
    faults = [Fault(where, f"'{metric}' stands here twice") for metric in twice]
    for metric in metrics:
        try:
            parse(metric, AccuracyMetric)
        except UserError as error:
            faults.append(Fault(where, str(error)))
    return faults


_CHECKS: dict[str, Callable[[dict[str, Any]], list[Fault]]] = {
    "dataset": _check_dataset,
    "train": lambda filled: _check_metrics("train.monitor", [filled["monitor"]]),
    "evaluate": lambda filled: _check_metrics("evaluate.metrics", filled["metrics"]),
}


def import_plugins(plugins: Sequence[str], faults: list[Fault], beside: Path | None = None) -> None:
    """Import the modules named, from the working folder, else from ``beside``, else as ``python`` does; add faults."""
    places = [Path.cwd(), *([beside.resolve()] if beside else [])] if plugins else []
    first = [str(place) for place in places]
    sys.path[:] = [*first, *(place for place in sys.path if place not in first)]
    for module in plugins:
        try:
            found = getattr(importlib.import_module(module), "__file__", None)
        except (Exception, SystemExit) as error:  # whatever the user's module raises is the user's to see
            absent = isinstance(error, ModuleNotFoundError) and error.name == module
            right = "; it must lie in the working folder or beside the recipe" if absent else ""
            faults.append(Fault("plugins", f"cannot import '{module}': {error!r}{right}"))
            continue
        meant = next((file for place in places if (file := place / f"{module}.py").is_file()), None)
        if found and meant and not meant.samefile(found):
            faults.append(Fault("plugins", f"'{module}' is {found} here, not {meant}; give one of them another name"))


def _misfits(filled: dict[str, dict[str, Any]]) -> list[Fault]:
    """What the chosen components say of one another."""
    found: list[Fault] = []
    for kind, registry in REGISTRIES.items():
        found += registry.settings(filled[kind]).misfits(filled)
    return found


def _expect(written: dict[str, Any], faults: list[Fault]) -> dict[str, float]:
    for metric, value in written.items():
        faults += _check_metrics(f"expect.{metric}", [metric])
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            faults.append(Fault(f"expect.{metric}", f"must be a number from 0 to 1, got {value!r}"))
    return dict(written)


def _without_effect(filled: dict[str, dict[str, Any]]) -> list[str]:
    """What the recipe sets and nothing uses."""
    train, source = filled["train"], filled["dataset"]
    notes = []
    if not train["validation"]:
        plain = TrainSettings().model_dump()
        idle = [key for key in ("patience", "held", "monitor") if train[key] != plain[key]]
        notes += [f"train.{key} has no effect without train.validation" for key in idle]
    if source["name"]:
        plain = DatasetSettings(name=source["name"]).model_dump()
        idle = [key for key in ("format", "test_share", "split_seed") if source[key] != plain[key]]
        notes += [f"dataset.{key} has no effect on a card, which says it itself" for key in idle]
    return notes


def _placed(fault: Fault, text: str, set_here: set[str]) -> Fault:
    """The fault with the line of the file at which its key, or its section, stands, unless an override set it."""
    if fault.where.lstrip(".") in set_here:
        return Fault(f"--set {fault.where.lstrip('.')}", fault.message)
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
