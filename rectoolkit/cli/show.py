"""``rectool show``: print a filled recipe with the meaning of every key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rectoolkit.cli.group import (
    main,
    recipe_argument,
    set_option,
)
from rectoolkit.errors import Fault, RecipeError, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence


@main.command()
@recipe_argument
@set_option
@click.option("--toml", is_flag=True, help="Print the filled recipe as TOML.")
def show(recipe: Path, overrides: Sequence[str], toml: bool) -> None:
    """Print RECIPE with all defaults filled in, and the type, bounds and meaning of every key."""
    from rectoolkit.data.catalog import find_card
    from rectoolkit.recipe import Recipe
    from rectoolkit.recipe.registry import REGISTRIES
    from rectoolkit.recipe.settings import ORDER, SECTIONS, HeadSettings
    from rectoolkit.terminal import print_notes, print_settings

    loaded = Recipe.load(recipe, overrides)
    if name := loaded["dataset"]["name"]:
        try:
            find_card(name)
        except UserError as error:
            raise RecipeError([Fault("dataset.name", str(error))], str(recipe)) from None
    if toml:
        click.echo(loaded.toml(), nl=False)
        return
    print_notes(loaded.notes)
    print_settings(str(recipe), HeadSettings, loaded.as_dict())
    for section in ORDER:
        values = loaded[section]
        if section in SECTIONS:
            print_settings(f"[{section}]", SECTIONS[section], values)
        else:
            schema = REGISTRIES[section].schema(values["name"])
            print_settings(f'[{section}] name = "{values["name"]}"', schema, values)
