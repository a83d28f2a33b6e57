"""``rectool list``: the registered components, and the recipes that come with the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rectoolkit.cli.group import load_plugins, main, plugin_option
from rectoolkit.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence


@main.command("list")
@click.argument("kind", required=False)
@plugin_option
def list_components(kind: str | None, plugins: Sequence[str]) -> None:
    """List the registered components: of one KIND (encoder, quantizer, loss, sampler or metric), or all of them.

    "rectool list recipes" lists the recipes that come with the package.
    """
    from rich.table import Table

    from rectoolkit.recipe import Recipe
    from rectoolkit.recipe.files import shipped_recipes
    from rectoolkit.recipe.registry import REGISTRIES, metrics
    from rectoolkit.terminal import console

    load_plugins(plugins)
    registries = {**REGISTRIES, metrics.kind: metrics}
    if kind == "recipes":
        table = Table("name", "data set", "description")
        for name in shipped_recipes():
            recipe = Recipe.load(name)
            table.add_row(name, recipe["dataset"]["name"], recipe.description)
        console.print(table)
        return
    if kind is not None and kind not in registries:
        raise UserError(f"unknown kind '{kind}'; {nearest(kind, [*registries, 'recipes'])}")
    shown = [registry for name, registry in registries.items() if kind in (None, name)]
    table = Table("kind", "name", "description")
    for registry in shown:
        for name in registry.names():
            table.add_row(registry.kind, name, registry.about(name))
    console.print(table)
