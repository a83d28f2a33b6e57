"""Registries: a name in a recipe -> a class, whose constructor's signature is the schema.

The star rule. In a component's constructor the parameters *before* ``*`` come from the run (``graph``,
``segments``, ``generator``, ...: see the base class of each kind); those *after* ``*`` are what a recipe may
write, each typed, bounded (``Annotated[int, Field(ge=1)]``) and with a default. That one line is the Python
API, the TOML schema, the help of ``rectool show`` and the table that the contract tests run over. A ``**settings``
there stands for what may be written for the base class, whose settings then come first.

A component may also say what it does not go together with: ``misfits(recipe) -> list[Fault]``, a class method that
is shown the filled recipe before anything is built. It names the key to change and the nearest thing that works.
One that reads files which neither the recipe nor its data holds names them in ``reads(settings) -> list[Path]``: then
their content belongs to the run's identity. In ``check_data(settings, dataset, held_out)`` it refuses what is of other
data, or has seen what the run holds out of train.

Components from outside register themselves the same way, in a module named by ``plugins = ["my_module"]`` in
the recipe or through an installed package's entry point of the group ``rectoolkit.plugins``.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from rectoolkit.errors import Fault, UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic.fields import FieldInfo

C = TypeVar("C")
Recipe = Mapping[str, Mapping[str, Any]]  # a filled recipe's sections, as ``misfits`` of a component sees them
PLUGIN_GROUP = "rectoolkit.plugins"
SHOWN = 80  # letters of a wrong value that a message repeats
STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
BOUNDS = ("ge", "gt", "le", "lt", "min_length", "pattern")


class Settings(BaseModel):
    """Settings that a recipe may write: unknown keys are faults, types are taken as written (1 is a float)."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True, validate_default=True)


@dataclass(frozen=True)
class Setting:
    """One setting as ``rectool show`` prints it."""

    name: str
    type: str
    default: Any
    bounds: str
    meaning: str


class Registry(Generic[C]):
    """Names -> component classes of one kind (``encoder``, ``quantizer``, ``loss`` or ``sampler``)."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package  # imported at the first look-up: it registers the built-in components
        self._classes: dict[str, type[C]] = {}

    def register(self, name: str) -> Callable[[type[C]], type[C]]:
        """Class decorator: make the class known as ``name``. A second class of that name is an error."""

        def add(cls: type[C]) -> type[C]:
            known = self._classes.get(name)
            if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ValueError(
                    f"{self.kind} '{name}' is already registered by {known.__module__}.{known.__qualname__}"
                )
            for parameter in _written(cls):
                for part, value in (("a default", parameter.default), ("a type", parameter.annotation)):
                    if value is inspect.Parameter.empty:
                        raise TypeError(f"{self.kind} '{name}': setting '{parameter.name}' needs {part}")
            self._classes[name] = cls
            return cls

        return add

    def names(self) -> list[str]:
        """Every registered name, sorted."""
        self._load()
        return sorted(self._classes)

    def __getitem__(self, name: str) -> type[C]:
        self._load()
        if name not in self._classes:
            raise UserError(f"unknown {self.kind} '{name}'; {nearest(name, self.names())}")
        return self._classes[name]

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._classes

    def schema(self, name: str) -> type[Settings]:
        """The pydantic model of what a recipe may write for ``name``."""
        return schema_of(self[name])

    def check(self, name: str, written: dict[str, Any], where: str) -> tuple[dict[str, Any], list[Fault]]:
        """``written`` with every default filled in, and its faults at ``where.key``."""
        return fill(self.schema(name), written, where)

    def needs(self, name: str) -> list[str]:
        """The parameters before ``*``: what the run must supply to build ``name``."""
        return [p.name for p in _parameters(self[name]) if p.kind is not inspect.Parameter.KEYWORD_ONLY]

    def build(self, name: str, settings: dict[str, Any], supply: dict[str, Any]) -> C:
        """An instance: the parameters before ``*`` taken by name from ``supply``, the rest from ``settings``."""
        missing = [need for need in self.needs(name) if need not in supply]
        if missing:
            raise UserError(
                f"{self.kind} '{name}' asks for {', '.join(missing)} before the '*' of its constructor, but a run "
                f"supplies only: {', '.join(supply)}"
            )
        return self[name](**{need: supply[need] for need in self.needs(name)}, **settings)

    def _load(self) -> None:
        importlib.import_module(self._package)
        load_entry_points()


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
    """The settings of ``schema`` in the order of the signature."""
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


def _parameters(cls: type) -> list[inspect.Parameter]:
    return [parameter for parameter, _ in _declared(cls.__mro__)]


def _declared(classes: Sequence[type]) -> list[tuple[inspect.Parameter, dict[str, Any]]]:
    """A constructor's parameters, each with the names that its annotation may use.

    ``classes``: a class and its bases in order of resolution. ``**settings`` stands for those of the next constructor.
    """
    place = next(number for number, owner in enumerate(classes) if "__init__" in vars(owner))
    if classes[place] is object:
        return []
    init = vars(classes[place])["__init__"]
    own = {p.name: (p, init.__globals__) for p in list(inspect.signature(init).parameters.values())[1:]}
    kinds = {p.kind for p, _ in own.values()}
    named = {name: pair for name, pair in own.items() if pair[0].kind not in STARRED}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        return list(named.values())
    inherited = {p.name: (p, space) for p, space in _declared(classes[place + 1 :]) if p.kind is p.KEYWORD_ONLY}
    supplied = {name: pair for name, pair in named.items() if pair[0].kind is not inspect.Parameter.KEYWORD_ONLY}
    return list({**supplied, **inherited, **named}.values())


def _written(cls: type) -> list[inspect.Parameter]:
    return [p for p in _parameters(cls) if p.kind is inspect.Parameter.KEYWORD_ONLY]


def schema_of(cls: type) -> type[Settings]:
    """The settings after the ``*`` of a class's constructor, as a pydantic model."""
    try:  # only these annotations: those before the star may be unimported
        fields: dict[str, Any] = {
            p.name: (eval(p.annotation, space) if isinstance(p.annotation, str) else p.annotation, p.default)
            for p, space in _declared(cls.__mro__)
            if p.kind is inspect.Parameter.KEYWORD_ONLY
        }
    except NameError as error:
        raise TypeError(
            f"{cls.__module__}.{cls.__name__}: {error}; types of settings are needed at run time, so import them "
            "outside 'if TYPE_CHECKING'"
        ) from None
    return create_model(cls.__name__, __base__=Settings, **fields)


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


encoders: Registry[Any] = Registry("encoder", "rectoolkit.model.encoders")
quantizers: Registry[Any] = Registry("quantizer", "rectoolkit.model.quantizers")
losses: Registry[Any] = Registry("loss", "rectoolkit.model.losses")
samplers: Registry[Any] = Registry("sampler", "rectoolkit.model.samplers")
REGISTRIES: dict[str, Registry[Any]] = {r.kind: r for r in (encoders, quantizers, losses, samplers)}
