"""``rectool list``: the registered components."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rectoolkit.cli.group import (
    main,
)
from rectoolkit.errors import Fault, RecipeError, UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence


@main.command("list")
@click.argument("kind", required=False)
@click.option("--plugin", "plugins", multiple=True, help="Import this module first; repeatable.")
@click.option("--markdown", is_flag=True, help="Print all components with their settings as a Markdown page.")
def list_components(kind: str | None, plugins: Sequence[str], markdown: bool) -> None:
    """List the components there are, of one KIND (encoder, quantizer, loss, sampler) or of all."""
    from rich.table import Table

    from rectoolkit.recipe.recipe import import_plugins
    from rectoolkit.recipe.registry import REGISTRIES
    from rectoolkit.terminal import components_markdown, console

    faults: list[Fault] = []
    import_plugins(plugins, faults)
    if faults:
        raise RecipeError(faults, "--plugin")
    if kind is not None and kind not in REGISTRIES:
        raise UserError(f"unknown kind '{kind}'; {nearest(kind, REGISTRIES)}")
    if markdown:
        click.echo(components_markdown([kind] if kind else list(REGISTRIES)), nl=False)
        return
    table = Table("kind", "name", "what it is")
    for name, registry in REGISTRIES.items():
        if kind in (None, name):
            for component in registry.names():
                first = (registry[component].__doc__ or "").strip().splitlines()
                table.add_row(name, component, first[0] if first else "")
    console.print(table)
