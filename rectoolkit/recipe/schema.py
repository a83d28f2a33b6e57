"""Settings classes: the keys of one section, and plain messages for values that do not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from rectoolkit.errors import Fault, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo

SHOWN = 80  # characters of a wrong value that a message repeats
BOUNDS = ("ge", "gt", "le", "lt", "min_length", "pattern")


class Settings(BaseModel):
    """Base class of settings. Unknown keys are faults, and values are not converted (1 is a float)."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, frozen=True, validate_default=True, defer_build=True
    )

    def changed(self) -> dict[str, Any]:
        """The settings whose value is not the default."""
        return self.model_dump(exclude_defaults=True)


S = TypeVar("S", bound=Settings)


def validate(schema: type[S], written: Mapping[str, Any], where: str) -> tuple[S | None, list[Fault]]:
    """The settings object for the written values, or None and the faults at ``where.key``."""
    try:
        return schema(**written), []
    except ValidationError as error:
        return None, [_fault(schema, where, dict(detail)) for detail in error.errors()]


def fill(schema: type[Settings], written: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[Fault]]:
    """``written`` checked against ``schema`` with every default filled in, and its faults at ``where.key``."""
    settings, faults = validate(schema, written, where)
    return settings.model_dump() if settings else {}, faults


def allowed(info: FieldInfo) -> str:
    """The values of a setting in plain words, such as ``a whole number from 1 to 8``."""
    return " ".join(filter(None, (_type(info.annotation), _range(info))))


def _fault(schema: type[Settings], where: str, detail: dict[str, Any]) -> Fault:
    """The fault of one key, in words that do not refer to pydantic: what is wrong and what is allowed."""
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
        entry = f"entry {int(detail['loc'][1]) + 1} of the list must be {_type(get_args(info.annotation)[0])}"
        return Fault(at, f"{entry}{given}")
    finite = "finite, " if detail["type"] == "finite_number" else ""
    return Fault(at, f"must be {finite}{allowed(info)}{given}")


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " or ".join(filter(None, (", ".join(map(repr, arguments[:-1])), repr(arguments[-1]))))
    if origin is list:
        return f"a list of {_type(arguments[0]).removeprefix('a ')}s".replace("strings", "strings in quotes")
    if arguments:
        return " or ".join(_type(argument) for argument in arguments)
    plain = {int: "a whole number", float: "a number", str: "a string", bool: "true or false", type(None): "nothing"}
    return plain.get(annotation) or str(getattr(annotation, "__name__", annotation))


def _range(info: FieldInfo) -> str:
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
