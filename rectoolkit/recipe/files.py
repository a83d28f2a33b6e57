"""Recipe files: reading TOML, and the recipes that come with the package, by name."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from rectoolkit.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(path: str | Path) -> tuple[dict[str, Any], str]:
    """A TOML file's content and text. Raises UserError naming the file, and the line if it is not TOML."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
        return tomllib.loads(text), text
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; name a recipe file (.toml) in it") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except (ValueError, RecursionError) as error:  # TOML's own errors are ValueErrors, as is a number too long
        raise UserError(f"{path}: not TOML: {error}") from None


def toml_value(text: str) -> Any:
    """A value as TOML writes it; text that is not TOML is a string, so that it needs no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text.strip()


@cache
def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the package by name, such as ``hqgnn`` and ``gowalla/hqgnn-1bit``."""
    package = Path(__file__).parents[1]
    for folder in (package / "shipped" / "recipes", package.parent / "recipes"):  # of a wheel, of a checkout
        if found := {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.toml")}:
            return dict(sorted(found.items(), key=lambda item: (item[0].count("/"), item[0])))
    return {}


def find_recipe(recipe: str | Path) -> Path:
    """The file of a recipe, given by path or by the name of a shipped one, with or without ``recipes/`` and ``.toml``.

    Raises UserError for an unknown name.
    """
    if not isinstance(recipe, str | Path):
        raise UserError(f"a recipe is given by the path of a file or by name, got {recipe!r:.80}")
    path = Path(recipe)
    if path.is_file():
        return path
    name = path.as_posix().removeprefix("recipes/").removesuffix(".toml")
    known = shipped_recipes()
    if name in known or path.exists():
        return known.get(name, path)
    if path.suffix == ".toml" and path.parts[0] != "recipes":
        raise UserError(f"{path}: no such file. Run `rectool list recipes` to see the recipes of the package.")
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise UserError(f"No recipe named '{name}'.{hint} Run `rectool list recipes` to see all.")
