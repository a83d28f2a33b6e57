"""Reference pages made while the site is built: commands, components, recipes, data sets.

Nothing here is committed as a page, so nothing can be stale. The pages come from the click tree, the registries with
the docstrings of their modules, the files in ``recipes/``, and the cards in ``datasets/``.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[2]
EXPECTED = ("recall@20", "ndcg@20", "recall@50", "ndcg@50")

RECIPES = """\
# Recipes

`rectool run NAME` runs a recipe of the package, `rectool show NAME` prints it with all settings filled in, and `rectool
list recipes` lists them. Names without a folder use the embedded data, one recipe per method, so that you can compare
them. The others are tuned for a data set, which must be on the machine ([data sets](datasets.md)). The metrics are
those that a run reaches with the seed of the recipe; the [results](../explanation/results.md) have means over seeds.

Recipes with a teacher name the teacher's recipe. It is trained first, on the same data, if its run is missing.

Any recipe runs on another data set with `--set dataset.name=NAME`. Settings tuned on one data set need not suit
another.
"""
RECIPE_FILES = """\
# Recipe files

A recipe is a TOML file with one section per part of a run. It states what differs from the defaults below.
`rectool show RECIPE` prints it filled in, and `--set SECTION.KEY=VALUE` overrides a setting in any command that takes a
recipe.

The sections `[encoder]`, `[quantizer]`, `[loss]` and `[sampler]` name a component by `name`; its settings are on the
pages [encoders](encoders.md), [quantizers](quantizers.md), [losses](losses.md) and [samplers](samplers.md). The section
`[expect]` lists the metrics that the recipe reaches.

If you name another component with `--set`, the settings that fit are kept and the others are dropped with a note. Every
encoder works with every quantizer unless one of them refuses, with the reason.
"""
DATASETS = """\
# Data sets

A data set has a card, a TOML file with its source, licence, counts and checksums. Every load verifies counts and
checksums. A recipe names a data set by `dataset.name`. Its files are searched for in `./datasets`, in the folder
`$RECTOOL_DATA`, and among the downloads of `rectool data fetch NAME`, each in a folder of that name. `rectool data
list` prints all cards, those of your own [imports](../how-to/own-data.md) included.
"""
ENCODERS = """\
# Encoders

An encoder computes the embeddings (rows) of all users and items from the training graph.
"""
QUANTIZERS = """\
# Quantizers

A quantizer maps real rows to integer codes, and an affine map turns codes back into values. Most train together with
the encoder. `round`, `rotate_sign` and `itq` code a finished float32 model.
"""
LOSSES = """\
# Losses

A loss compares the rows of users with those of positive and negative items.

`distill` and `softmax_distill` learn from the ranking of a float32 model, the teacher. `loss.teacher` names its recipe,
which is trained on the same data first if its run is missing, or the folder of a finished float32 run.
"""
SAMPLERS = """\
# Samplers

A sampler draws the users, positive items and negative items of each batch.
"""
METRICS = """\
# Metrics

A metric is written `name@k`, with `k` the length of the list. Recipes report and monitor accuracy metrics.
`rectool evaluate` computes all of them.

In the formulas, h_r is 1 if the item at rank r is a test item of the user, and n is the number of these items. d_i is
the number of training users of item i, and c_i is the number of lists that contain it. U and I are the numbers of users
and items.
"""


def on_files(files: Files, config: MkDocsConfig, **_: object) -> Files:
    from mkdocs.structure.files import File

    for name, page in PAGES.items():
        files.append(File.generated(config, name, content=page()))
    return files


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; nothing where there are no rows."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *lines, "", ""]) if lines else ""


def commands() -> str:
    """The page of the command line, from its click tree."""
    import click

    from rectoolkit.cli import main

    def tree(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
        yield path, command
        if isinstance(command, click.Group):
            context = click.Context(command, info_name=path)
            for name in command.list_commands(context):
                if child := command.get_command(context, name):
                    yield from tree(child, f"{path} {name}")

    text = ["# Command line\n", "`rectool COMMAND --help` prints the same on the terminal.\n"]
    for path, command in tree(main, "rectool"):
        context = click.Context(command, info_name=path)
        usage = " ".join([path, *command.collect_usage_pieces(context)])
        about = re.sub(r"[<*]", r"\\\g<0>", command.help or "").replace("\b\n", "").replace("\f", "")
        text += [f"## {path}\n", f"```text\n{usage}\n```\n", "\n".join(map(str.strip, about.splitlines())) + "\n"]
        if isinstance(command, click.Group):
            names = command.list_commands(context)
            links = [f"[{name}](#{path.replace(' ', '-')}-{name})" for name in names]
            text += [f"Commands: {', '.join(links)}.\n"]
        options = [p for p in command.get_params(context) if isinstance(p, click.Option) and "--help" not in p.opts]
        text += [table(("option", "meaning", "default"), (_option(o, context) for o in options))]
    return "\n".join(text)


def _option(option: Any, context: Any) -> tuple[str, str, str]:
    names = ", ".join([*option.opts, *option.secondary_opts])
    value = "" if option.is_flag or option.count else f" {option.make_metavar(context)}"
    default = option.get_default(context)
    shown = "" if default in (None, False, (), "") or "Sentinel" in str(default) else f"`{_plain(default)}`"
    about = option.help or ""
    if option.required:
        about += " Required."
    if option.multiple and "repeat" not in about:
        about += " Repeatable."
    return f"`{names}{value}`", about, shown


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def components(kind: str, head: str) -> Callable[[], str]:
    """The page of one registry: each component with its settings and the docstring of its module."""

    def page() -> str:
        from rectoolkit.recipe.registry import REGISTRIES, metrics

        registry = {**REGISTRIES, "metric": metrics}[kind]
        text = [head]
        for name in registry.names():
            path = Path(registry.module(name).replace(".", "/") + ".py")
            text += [f"## {name}\n", prose(registry.about(name)), settings(registry.schema(name))]
            body = "\n\n".join(docstrings(ROOT / path, name)).removeprefix(registry.about(name)).strip()
            if body:
                text += [prose(body) if kind == "metric" else details("Method and source", prose(body))]
            text += [f"Source: `{path}`\n"]
        return "\n".join(text)

    return page


def docstrings(path: Path, name: str) -> list[str]:
    """The docstrings of more than one line of the module that holds a component alone, and of its class."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    known = [node for node in module.body if isinstance(node, ast.ClassDef) and _registered(node)]
    owners: list[ast.Module | ast.ClassDef] = [node for node in known if _registered(node) == name]
    found = [ast.get_docstring(node) or "" for node in ([module] if len(known) == 1 else []) + owners]
    return [text for text in found if "\n" in text]


def _registered(node: ast.ClassDef) -> str:
    """The name that a class is registered under."""
    for call in node.decorator_list:
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "register":
            return str(ast.literal_eval(call.args[0]))
    return ""


def settings(schema: Any) -> str:
    """The table of the settings of a component or a section."""
    from rectoolkit.recipe.schema import allowed
    from rectoolkit.terminal import toml_value

    fields = schema.model_fields.items()
    rows = [
        (f"`{key}`", "" if info.is_required() else f"`{toml_value(info.default)}`", allowed(info), info.description)
        for key, info in fields
    ]
    return table(("key", "default", "allowed", "meaning"), rows)


def details(title: str, body: str) -> str:
    """A part of the page that is shown on demand."""
    inner = "\n".join(f"    {line}" if line else "" for line in body.splitlines())
    return f'??? info "{title}"\n\n{inner}\n'


def prose(docstring: str) -> str:
    """A docstring as Markdown: indented and aligned lines become code, the rest stays text."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", docstring.strip("\n")):
        lines = paragraph.splitlines()
        if all(line.startswith("    ") for line in lines) or any(re.search(r"\S {3,}\S", line) for line in lines):
            parts.append(f"```text\n{textwrap.dedent(paragraph).replace('``', '')}\n```")
        else:
            text = re.sub(r"``(.+?)``", r"`\1`", paragraph)
            pieces = re.split(r"(`[^`]*`)", text)
            parts.append("".join(p if p.startswith("`") else re.sub(r"[<*]", r"\\\g<0>", p) for p in pieces))
    return "\n\n".join(parts) + "\n"


def recipe_files() -> str:
    """The page of the sections that are not components."""
    from rectoolkit.recipe.settings import SECTIONS, HeadSettings

    text = [
        RECIPE_FILES,
        "## Top level\n",
        settings(HeadSettings),
    ]
    for section, schema in SECTIONS.items():
        text += [f"## [{section}]\n", settings(schema)]
    return "\n".join(text)


def recipes() -> str:
    """The page of shipped recipes, with the figures under their ``[expect]``."""
    from rectoolkit.recipe import Recipe
    from rectoolkit.recipe.files import shipped_recipes

    text = [RECIPES]
    named = [Recipe.load(name) for name in shipped_recipes()]
    groups: dict[str, list[list[str]]] = {}
    for name, recipe in zip(shipped_recipes(), named, strict=True):
        expected = [f"{recipe.expect[metric]:.4f}" if metric in recipe.expect else "-" for metric in EXPECTED]
        bits = str(recipe["quantizer"].get("bits", 32))
        parts = [recipe["encoder"]["name"], recipe["quantizer"]["name"], bits]
        row = [f"`{name}`", *parts, prose(recipe.description).strip(), *expected]
        groups.setdefault(name.rpartition("/")[0] or "methods", []).append(row)
    for group in sorted(groups, key=lambda group: (group != "methods", group)):
        measured = any(row[5:] != ["-"] * len(EXPECTED) for row in groups[group])
        head = ["recipe", "encoder", "quantizer", "bits", "description", *EXPECTED][: None if measured else 5]
        title = {"methods": "Methods", "lastfm": "Last.fm"}.get(group, group.capitalize())
        text += [f"## {title}\n", table(head, (row[: len(head)] for row in groups[group]))]
    return "\n".join(text)


def datasets() -> str:
    """The page of the data sets with a card."""
    from rectoolkit.data.card import Card
    from rectoolkit.recipe.files import tomllib

    text = [DATASETS]
    for path in sorted((ROOT / "datasets").glob("*.toml")):
        written = tomllib.loads(path.read_text(encoding="utf-8"))
        card = Card(**written) if "planted" not in written else None
        counts = card.counts if card else None
        text += [f"## {written['name']}\n", prose(written["description"]).strip() + ".\n"]
        if counts and counts.users:
            known = {key: value for key, value in counts.model_dump().items() if value}
            text += [table(list(known), [[f"{value:,}" for value in known.values()]])]
        text += [f"- Source: {prose(written.get('source', '')).strip()}", f"- Licence: {written.get('licence', '-')}\n"]
    return "\n".join(text)


PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands,
    "reference/recipe-files.md": recipe_files,
    "reference/recipes.md": recipes,
    "reference/datasets.md": datasets,
    "reference/encoders.md": components("encoder", ENCODERS),
    "reference/quantizers.md": components("quantizer", QUANTIZERS),
    "reference/losses.md": components("loss", LOSSES),
    "reference/samplers.md": components("sampler", SAMPLERS),
    "reference/metrics.md": components("metric", METRICS),
}
