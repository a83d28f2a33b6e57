"""Registries: the components that a recipe may name, with their settings.

A component is two classes. Its *settings* class (pydantic) declares what a recipe may write: every field has a type,
bounds, a default and a description. This one class is the TOML schema, the help of ``rectool show``, the reference page
and the table of the contract tests, and reading it needs no torch. Its *implementation* is built from what the run
supplies (graph, generator, ...: see the base class of each kind) and from ``settings``::

    class WalkSettings(EncoderSettings):
        # a docstring: what it is
        steps: Annotated[int, Field(ge=1, description="length of a walk")] = 2

    @encoders.register("walk", WalkSettings)
    class Walk(Encoder):
        def forward(self): ...  # reads self.settings.steps

The built-in components are registered in the same way. Besides, ``announce`` makes their settings known before their
implementation is imported: the component of a name is in the module of that name.

Other components come from a module named by ``plugins = ["my_module"]`` in the recipe, or from an installed package
with an entry point in the group ``rectoolkit.plugins``.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from rectoolkit.errors import Fault, UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydantic.fields import FieldInfo

    from rectoolkit.data import Dataset

C = TypeVar("C")
Recipe = Mapping[str, Mapping[str, Any]]  # the sections of a filled recipe, as ``misfits`` sees them
PLUGIN_GROUP = "rectoolkit.plugins"
SHOWN = 80  # letters of a wrong value that a message repeats
BOUNDS = ("ge", "gt", "le", "lt", "min_length", "pattern")


class Settings(BaseModel):
    """Settings that a recipe may write: unknown keys are faults, and values are not converted (1 is a float)."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, frozen=True, validate_default=True, defer_build=True
    )


class ComponentSettings(Settings):
    """Base of the settings of every component, and of what a component knows before it is built."""

    def misfits(self, recipe: Recipe) -> list[Fault]:
        """The faults of a filled recipe whose other parts this component does not work with.

        A fault names the key to change and the nearest value that works.
        """
        return []

    def reads(self) -> list[Path]:
        """The files that the component reads besides the data. Their content is part of the run's identity."""
        return []

    def check_data(self, dataset: Dataset, held_out: Mapping[str, Any] | None) -> None:
        """Raise UserError where these files do not suit the data, or have seen the part that the run holds out."""


@dataclass(frozen=True)
class Setting:
    """One setting as ``rectool show`` prints it."""

    name: str
    type: str
    default: Any
    bounds: str
    meaning: str


class Registry(Generic[C]):
    """Components of one kind (``encoder``, ``quantizer``, ``loss`` or ``sampler``) by name.

    ``module`` is imported at the first look-up: it registers the built-in components, or announces their settings.
    """

    def __init__(self, kind: str, module: str = "") -> None:
        self.kind = kind
        self._module = module
        self._announced: set[str] = set()
        self._settings: dict[str, type[ComponentSettings]] = {}
        self._classes: dict[str, type[C]] = {}

    def announce(self, settings: Mapping[str, type[ComponentSettings]]) -> None:
        """Make built-in components known by their settings.

        The component of a name registers itself in the module of that name, which is imported when it is first built.
        """
        self._announced.update(settings)
        for name, schema in settings.items():
            self._declare(name, schema, self.module(name))

    def register(
        self, name: str, settings: type[ComponentSettings] = ComponentSettings
    ) -> Callable[[type[C]], type[C]]:
        """Class decorator: make the class known as ``name``, with its settings. A second one of that name raises."""

        def add(cls: type[C]) -> type[C]:
            if settings.model_fields and "settings" not in inspect.signature(cls).parameters:
                raise TypeError(f"{self.kind} '{name}': its constructor needs the parameter 'settings'")
            self._load_built_in()
            self._declare(name, settings, cls.__module__)
            known = self._classes.get(name)
            if known is not None and known.__qualname__ != cls.__qualname__:
                where = f"{known.__module__}.{known.__qualname__}"
                raise ValueError(f"{self.kind} '{name}' is already registered by {where}")
            self._classes[name] = cls
            return cls

        return add

    def _declare(self, name: str, settings: type[ComponentSettings], module: str) -> None:
        known = self._settings.get(name)
        if known is not None and (self.module(name), known.__qualname__) != (module, settings.__qualname__):
            raise ValueError(f"{self.kind} '{name}' is already registered by {self.module(name)}")
        for key, field in settings.model_fields.items():
            if field.is_required():
                raise TypeError(f"{self.kind} '{name}': setting '{key}' needs a default")
        self._settings[name] = settings

    def names(self) -> list[str]:
        """Every registered name, sorted."""
        self._load()
        return sorted(self._settings)

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._settings

    def schema(self, name: str) -> type[Any]:
        """The settings class of ``name``. Raises UserError for an unknown name."""
        self._load()
        if name not in self._settings:
            raise UserError(f"unknown {self.kind} '{name}'; {nearest(name, self.names())}")
        return self._settings[name]

    def check(self, name: str, written: dict[str, Any], where: str) -> tuple[dict[str, Any], list[Fault]]:
        """``written`` with every default filled in, and its faults at ``where.key``."""
        return fill(self.schema(name), written, where)

    def settings(self, section: Mapping[str, Any]) -> Any:
        """The settings object of a recipe's section: the component's ``name`` and valid values for its settings."""
        return self.schema(section["name"])(**{key: value for key, value in section.items() if key != "name"})

    def module(self, name: str) -> str:
        """The module that implements ``name``."""
        if name in self._announced:
            return f"{self._module.rpartition('.')[0]}.{name}"
        return self._classes[name].__module__

    def about(self, name: str) -> str:
        """What ``name`` is: the first line of the docstring of its settings, or of the class if it has none."""
        schema = self.schema(name)
        described = self[name] if schema is ComponentSettings else schema
        return (described.__doc__ or "").strip().partition("\n")[0]

    def __getitem__(self, name: str) -> type[C]:
        """The implementation of ``name``, imported if it is a built-in. Raises UserError for an unknown name."""
        self.schema(name)
        if name not in self._classes:
            importlib.import_module(self.module(name))
        return self._classes[name]

    def needs(self, name: str) -> list[str]:
        """The names of what the run must supply to build ``name``."""
        return [need for need in inspect.signature(self[name]).parameters if need != "settings"]

    def build(self, name: str, written: Mapping[str, Any], supply: Mapping[str, Any]) -> C:
        """The component ``name`` with the settings ``written``; the rest it takes by name from ``supply``."""
        needs = self.needs(name)
        if missing := [need for need in needs if need not in supply]:
            raise UserError(
                f"the constructor of {self.kind} '{name}' has a parameter {', '.join(missing)}, but a run supplies "
                f"only: settings, {', '.join(supply)}"
            )
        component: Any = self[name]
        built: C = component(**{need: supply[need] for need in needs}, settings=self.schema(name)(**written))
        return built

    def _load(self) -> None:
        self._load_built_in()
        load_entry_points()

    def _load_built_in(self) -> None:
        if self._module:
            importlib.import_module(self._module)


@cache
def load_entry_points() -> None:
    """Import every installed package that announces components under the group ``rectoolkit.plugins``."""
    for point in entry_points(group=PLUGIN_GROUP):
        try:
            point.load()
        except Exception as error:
            raise UserError(
                f"the installed plugin '{point.name}' ({point.value}) fails to import: {error!r}; "
                "mend it or uninstall the package that brings it"
            ) from error


def fill(schema: type[Settings], written: dict[str, Any], where: str) -> tuple[dict[str, Any], list[Fault]]:
    """``written`` checked against ``schema`` with every default filled in, and its faults at ``where.key``."""
    try:
        return schema(**written).model_dump(), []
    except ValidationError as error:
        return {}, [_fault(schema, where, dict(detail)) for detail in error.errors()]


def settings_of(schema: type[Settings]) -> list[Setting]:
    """The settings of ``schema`` in the order of their declaration."""
    return [
        Setting(name, _type_text(info.annotation), info.default, _bounds(info), info.description or "")
        for name, info in schema.model_fields.items()
    ]


def _fault(schema: type[Settings], where: str, detail: dict[str, Any]) -> Fault:
    """What is wrong at a key and what would be right, in words that need no knowledge of the checker."""
    key = str(detail["loc"][0]) if detail["loc"] else ""
    at, given = f"{where}.{key}" if key else where, f", got {repr(detail['input'])[:SHOWN]}"
    if detail["type"] == "extra_forbidden":
        return Fault(at, f"unknown key; {nearest(key, schema.model_fields)}")
    if detail["type"] == "missing":
        return Fault(at, "this key is required")
    if detail["type"] == "value_error" or key not in schema.model_fields:
        message = detail["msg"].removeprefix("Value error, ")
        return Fault(at, f"{message[0].lower()}{message[1:]}{given}")
    info = schema.model_fields[key]
    if len(detail["loc"]) > 1 and get_origin(info.annotation) is list:
        entry = f"entry {int(detail['loc'][1]) + 1} of the list must be {_words(get_args(info.annotation)[0])}"
        return Fault(at, f"{entry}{given}")
    finite = "finite, " if detail["type"] == "finite_number" else ""
    bounds = " ".join(filter(None, (_words(info.annotation), _range(info))))
    return Fault(at, f"must be {finite}{bounds}{given}")


def _words(annotation: Any) -> str:
    """A type in plain words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(arguments[0])
    if origin is Literal:
        return " or ".join(filter(None, (", ".join(map(repr, arguments[:-1])), repr(arguments[-1]))))
    if origin is list:
        return f"a list of {_words(arguments[0]).removeprefix('a ')}s".replace("texts", "texts in quotes")
    if arguments:
        return " or ".join(_words(argument) for argument in arguments)
    plain = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "nothing"}
    return plain.get(annotation) or _type_text(annotation)


def _range(info: FieldInfo) -> str:
    """The bounds of a setting in plain words."""
    if isinstance(info.json_schema_extra, dict) and "words" in info.json_schema_extra:
        return str(info.json_schema_extra["words"])
    found = {name: getattr(m, name) for m in info.metadata for name in BOUNDS if getattr(m, name, None) is not None}
    if "ge" in found and "le" in found:
        return f"from {found['ge']} to {found['le']}" if found["ge"] != found["le"] else f"and only {found['ge']}"
    words = {"ge": "of at least", "gt": "above", "le": "at most", "lt": "below"}
    parts = [f"{word} {found[name]}" for name, word in words.items() if name in found]
    parts += [f"with at least {found['min_length']} of them"] if "min_length" in found else []
    parts += [f"that matches {found['pattern']}"] if "pattern" in found else []
    return " and ".join(parts)


def _type_text(annotation: Any) -> str:
    if annotation is type(None):
        return "nothing"
    if get_origin(annotation) is Literal:
        return " | ".join(repr(choice) for choice in get_args(annotation))
    if get_origin(annotation) is Annotated:
        return _type_text(get_args(annotation)[0])
    if get_origin(annotation) is list:
        return f"list of {_type_text(get_args(annotation)[0])}"
    if get_args(annotation):
        return " | ".join(_type_text(argument) for argument in get_args(annotation))
    return getattr(annotation, "__name__", str(annotation))


def _bounds(info: FieldInfo) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "at least", "max_length": "at most"}
    found = [f"{sign} {getattr(m, name)}" for m in info.metadata for name, sign in signs.items() if hasattr(m, name)]
    return ", ".join(found)


encoders: Registry[Any] = Registry("encoder", "rectoolkit.model.encoders.settings")
quantizers: Registry[Any] = Registry("quantizer", "rectoolkit.model.quantizers.settings")
losses: Registry[Any] = Registry("loss", "rectoolkit.model.losses.settings")
samplers: Registry[Any] = Registry("sampler", "rectoolkit.model.samplers.settings")
REGISTRIES: dict[str, Registry[Any]] = {r.kind: r for r in (encoders, quantizers, losses, samplers)}
