"""The command line: ``rectool``. What is heavy to import is imported inside the command that needs it.

A fault of the user's ends with code 2 and one message, a fault of the machine's (a full disk, say) with code 1.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rectoolkit import __version__
from rectoolkit.errors import Fault, RecipeError, UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence


class Commands(click.Group):
    """The commands in the order they are written, with the nearest name for a mistyped one, and clean errors."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            context.fail(f"unknown command '{args[0]}'; {nearest(args[0], self.commands)}")
        return super().resolve_command(context, args)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except UserError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(2)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left: nothing more to say
            sys.exit(1)
        except MemoryError as error:
            click.echo(f"error: out of memory: {error}", err=True)
            sys.exit(1)
        except OSError as error:
            click.echo(f"error: {error.filename or 'input or output'}: {error.strerror or error}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo("interrupted; a run goes on from its last checkpoint with the same command", err=True)
            sys.exit(130)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="rectool")
def main() -> None:
    """Train graph recommenders whose embeddings are integer codes of 1 to 8 bits, and rank from the packed codes."""


recipe_argument = click.argument("recipe", type=click.Path(path_type=Path))
run_argument = click.argument("run", type=click.Path(path_type=Path))
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Override a setting of the recipe; repeatable.",
)


@main.command()
@recipe_argument
@set_option
@click.option(
    "--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Where run folders go."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads to use; all cores by default.")
@click.option("--quiet", is_flag=True, help="Print the run's folder and nothing else.")
def run(recipe: Path, overrides: Sequence[str], runs: Path, device: str, threads: int | None, quiet: bool) -> None:
    """Train RECIPE (a .toml file), pack its codes, evaluate them, and print the table.

    The same recipe again reuses its finished run; an unfinished one goes on from its checkpoint.
    """
    from rectoolkit.execute import Circumstances, execute
    from rectoolkit.recipe import Recipe
    from rectoolkit.terminal import TrainingBar, console, print_run

    loaded = Recipe.load(recipe, overrides)
    chosen, why = choose_device(device)
    if quiet:
        click.echo(execute(loaded, Circumstances(runs, chosen, threads)).path)
        return
    for note in (*loaded.notes, *([why] if why else [])):
        console.print(f"note: {note}", style="yellow")
    with TrainingBar(loaded["train"]["epochs"], loaded["train"]["monitor"]) as bar:
        finished = execute(loaded, Circumstances(runs, chosen, threads, bar))
    if not bar.row:
        console.print("this run was finished before; its figures:")
    print_run(finished)


@main.command()
@recipe_argument
@set_option
@click.option("--toml", is_flag=True, help="Print the filled recipe as TOML.")
def show(recipe: Path, overrides: Sequence[str], toml: bool) -> None:
    """Print RECIPE filled in, with the type, bounds and meaning of every key."""
    from rectoolkit.recipe import ORDER, SECTIONS, HeadSettings, Recipe
    from rectoolkit.registry import REGISTRIES, settings_of
    from rectoolkit.terminal import console, print_settings

    loaded = Recipe.load(recipe, overrides)
    if toml:
        click.echo(loaded.toml(), nl=False)
        return
    for note in loaded.notes:
        console.print(f"note: {note}", style="yellow")
    print_settings(str(recipe), settings_of(HeadSettings), loaded.as_dict())
    for section in ORDER:
        values = loaded[section]
        if section in SECTIONS:
            print_settings(f"[{section}]", settings_of(SECTIONS[section]), values)
        else:
            schema = REGISTRIES[section].schema(values["name"])
            print_settings(f'[{section}] name = "{values["name"]}"', settings_of(schema), values)


@main.command("list")
@click.argument("kind", required=False)
@click.option("--plugin", "plugins", multiple=True, help="Import this module first; repeatable.")
@click.option("--markdown", is_flag=True, help="Print the page docs/components.md: all of them with their settings.")
def list_components(kind: str | None, plugins: Sequence[str], markdown: bool) -> None:
    """List the components there are, of one KIND (encoder, quantizer, loss, sampler) or of all."""
    from rich.table import Table

    from rectoolkit.recipe import import_plugins
    from rectoolkit.registry import REGISTRIES
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


@main.command()
@run_argument
@click.option("--user", "users", type=int, multiple=True, required=True, help="User id; repeatable.")
@click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), help="How many items.")
@click.option("--include-seen", is_flag=True, help="Rank the user's train items too.")
@click.option("--float-query", is_flag=True, help="Multiply the user's float32 row with the items' codes.")
@click.option("--rescore", type=click.IntRange(min=1), help="Rank the best so many again by float32 rows.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a user.")
def recommend(run: Path, users: Sequence[int], k: int, as_json: bool, **settings: Any) -> None:
    """Print the best K items for users, from the packed codes of a finished RUN folder."""
    from rectoolkit.run import Run

    hits = Run.open(run).recommend(list(users), k, **settings)
    for user, ids, scores in zip(users, hits.ids.tolist(), hits.scores.tolist(), strict=True):
        ranked = [(item, score) for item, score in zip(ids, scores, strict=True) if item >= 0]
        if as_json:
            items, values = [item for item, _ in ranked], [score for _, score in ranked]
            click.echo(json.dumps({"user": user, "items": items, "scores": values}))
        else:
            click.echo(f"user {user}: " + " ".join(f"{item}:{score:.4g}" for item, score in ranked))


@main.command()
@run_argument
@click.option("--to", type=click.Path(path_type=Path), required=True, help="The folder to write.")
@click.option(
    "--format",
    "formats",
    multiple=True,
    default=("codes",),
    show_default=True,
    metavar="NAME[,NAME]",
    help="codes, npy, parquet or faiss; several by commas, or repeat the option.",
)
def export(run: Path, to: Path, formats: Sequence[str]) -> None:
    """Write the codes of a finished RUN folder for services in any language."""
    from rectoolkit.run import Run

    written = Run.open(run).export(to, [name for names in formats for name in comma_separated(names)])
    for files in written.values():
        for name, what in files.items():
            click.echo(f"{to / name}: {what}")


at_least_1 = click.IntRange(min=1)


@main.command()
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option("--items", type=at_least_1, help="How many random items; 1000000 by default.")
@click.option("--dim", type=at_least_1, help="Their dims; 64 by default.")
@click.option("--bits", metavar="BITS[,BITS]", help="Widths of their codes; 1,2,4,8 by default.")
@click.option("-k", "--k", default=50, show_default=True, type=at_least_1, help="How many items a query asks for.")
@click.option("--batch", default=64, show_default=True, type=at_least_1, help="Queries at once.")
@click.option("--rounds", default=9, show_default=True, type=at_least_1, help="How often everyone takes a turn.")
@click.option("--threads", type=at_least_1, help="Threads to use; all cores by default.")
@click.option("--plot", type=click.Path(path_type=Path), help="A picture to write: .svg, .png or .pdf.")
@click.option("--json", "figures", type=click.Path(path_type=Path), help="A file for the figures.")
@click.option("--evaluation", is_flag=True, help="Time a full-rank evaluation of Gowalla's size instead.")
@click.option("--approximate", is_flag=True, help="Measure inverted lists beside the exact scan instead.")
@click.option("--lists", type=at_least_1, help="How many lists with --approximate; 2 sqrt(items) by default.")
@click.option("--only-ours", is_flag=True, help="Leave the other libraries out.")
def bench(
    run: Path | None,
    items: int | None,
    dim: int | None,
    bits: str | None,
    plot: Path | None,
    figures: Path | None,
    evaluation: bool,
    approximate: bool,
    lists: int | None,
    only_ours: bool,
    **settings: Any,
) -> None:
    """Measure the search beside faiss, torch and usearch: the codes of a finished RUN, or random ones."""
    from rectoolkit import bench

    random = {"--items": items, "--dim": dim, "--bits": bits, "--approximate": approximate or None}
    given = [name for name, value in random.items() if value is not None]
    if run is not None and (given or evaluation):
        raise UserError(f"{(given or ['--evaluation'])[0]} is for random vectors; leave it out, or the run folder")
    if evaluation and (given or plot or figures):
        raise UserError("--evaluation has sizes of its own and prints two lines; leave the other options out")
    if lists is not None and not approximate:
        raise UserError("--lists is for --approximate; add it, or leave --lists out")
    if approximate and plot:
        raise UserError("--approximate makes a table and no plot; leave --plot out")
    if evaluation:
        for name, seconds in bench.evaluation().items():
            click.echo(f"{name}: {seconds:.2f} s")
        return
    try:
        widths = [int(width) for width in comma_separated(bits or "1,2,4,8")]
    except ValueError:
        raise UserError(f"--bits must be whole numbers separated by commas, got '{bits}'") from None
    bench.check_writable(plot, figures)
    report: Any
    if approximate:
        from rectoolkit.bench.approximate import bench_lists, show_lists

        report = bench_lists(items or 1_000_000, dim or 64, widths, lists=lists, **settings)
        show_lists(report)
    else:
        settings["others"] = not only_ours
        drawn = (items or 1_000_000, dim or 64, widths)
        report = bench.bench(*drawn, **settings) if run is None else bench.bench_run(run, **settings)
        bench.show(report)
    if plot is not None:
        bench.plot(report, plot)
    if figures is not None:
        bench.save_figures(report, figures)


def comma_separated(text: str) -> list[str]:
    """The parts of ``a,b``, without the spaces around them."""
    return [part.strip() for part in text.split(",") if part.strip()]


@main.group(cls=Commands)
def data() -> None:
    """Data sets: what there is, and what is in them."""


@data.command("list")
def list_data() -> None:
    """List the data set cards."""
    from rich.table import Table

    from rectoolkit.data.catalog import list_cards
    from rectoolkit.terminal import console

    table = Table("name", "format", "description")
    for card in list_cards():
        table.add_row(card.name, card.head.format, card.head.description)
    console.print(table)


@data.command("show")
@click.argument("name")
def show_data(name: str) -> None:
    """Load a data set and print its counts."""
    from rich.table import Table

    from rectoolkit.data.catalog import load_dataset
    from rectoolkit.terminal import console

    table = Table("", name)
    for key, value in load_dataset(name=name).summary().items():
        table.add_row(key, f"{value:,}" if isinstance(value, int) else f"{value:.3g}")
    console.print(table)


def choose_device(wanted: str) -> tuple[str, str]:
    """The torch device for ``--device``, and a line to print where the choice needs one."""
    if wanted == "cpu":
        return "cpu", ""
    import torch

    number = re.fullmatch(r"auto|cuda(?::([0-9]{1,3}))?", wanted)
    if number is None:
        raise UserError(f"--device {wanted}: must be auto, cpu, cuda or cuda:N")
    if wanted == "auto":
        return ("cuda", "device cuda: sums over neighbours run in torch") if torch.cuda.is_available() else ("cpu", "")
    if int(number[1] or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {wanted}: torch sees {torch.cuda.device_count()} GPUs here; write cpu or auto")
    return wanted, ""


@main.command()
@click.argument("recipes", type=click.Path(path_type=Path), nargs=-1, required=True)
@set_option
@click.option(
    "--seeds", type=click.IntRange(1, 1000), default=1, show_default=True, help="Seeds, from each recipe's own on."
)
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Runs at once.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads of each run; the cores over --jobs by default.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Run folders.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--baseline", metavar="NAME", help="Test the others' difference from this recipe.")
@click.option("--sort", default="", metavar="COLUMN", help="A metric or a cost, such as bytes_per_item; first metric.")
@click.option("--out", type=click.Path(path_type=Path), help="Write csv, Markdown and an HTML report here.")
def compare(
    recipes: Sequence[Path],
    overrides: Sequence[str],
    seeds: int,
    jobs: int,
    threads: int | None,
    runs: Path,
    device: str,
    baseline: str | None,
    sort: str,
    out: Path | None,
) -> None:
    """Run RECIPES (.toml files or run folders) over several seeds and print them as one table.

    Every recipe is checked before any runs; finished runs are reused, unfinished ones go on. Overrides are for all.
    """
    from rectoolkit.compare import Around, compare, make_plan, missing, write
    from rectoolkit.compare.board import Board
    from rectoolkit.compare.tables import as_rich, remarks
    from rectoolkit.terminal import console

    plan = make_plan(recipes, overrides, seeds, sort, baseline, runs)
    chosen, why = choose_device(device)
    for note in (*plan.notes, *([why] if why else [])):
        console.print(f"note: {note}", style="yellow", markup=False)
    todo, total = len(missing(plan, runs)), sum(len(row.recipes) for row in plan.rows)
    console.print(f"{total} runs of {len(plan.rows)} recipes: {total - todo} finished before, {todo} to do")
    around = Around(runs, chosen, threads or max(1, (os.cpu_count() or 1) // jobs), jobs)
    with Board(console, todo) as board:
        compared = compare(plan, around, board)
    wide = console if console.is_terminal else type(console)(highlight=False, width=240)
    wide.print(as_rich(compared))
    for remark in remarks(compared):
        wide.print(remark, markup=False)
    for path in write(compared, out) if out else ():
        console.print(f"wrote {path}", markup=False, soft_wrap=True)
    if compared.failures:
        sys.exit(1)


@main.command("runs")
@click.argument("pattern", default="*")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Run folders.")
@click.option("--remove", metavar="NAME", help="Delete this run folder, after asking.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def runs_command(pattern: str, runs: Path, remove: str | None, yes: bool) -> None:
    """List the run folders, or those that match PATTERN (such as 'hqgnn*')."""
    from rich.table import Table

    from rectoolkit.compare.folders import find_run, list_runs, remove_run
    from rectoolkit.terminal import console

    if remove is not None:
        found = find_run(runs, remove)
        if yes or click.confirm(f"delete {found} and everything in it?"):
            remove_run(found)
            click.echo(f"removed {runs / remove}")
        return
    entries = list_runs(runs, pattern)
    if not entries:
        click.echo(f"{runs}: no run folder" + (f" matches '{pattern}'" if pattern != "*" else ""))
        return
    table = Table("run", "data", "bits", "accuracy", "state")
    for entry in entries:
        table.add_row(entry.folder.name, entry.dataset, entry.bits, entry.accuracy, entry.state)
    console.print(table)


@main.command("evaluate")
@run_argument
@click.option("--metrics", default="recall@20,ndcg@20", show_default=True, help="Metrics as name@k, by commas.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads to use; all cores by default.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def evaluate_command(run: Path, metrics: str, threads: int | None, as_json: bool) -> None:
    """Measure a finished RUN folder by other METRICS, from its packed codes; nothing is trained."""
    from rectoolkit.compare.folders import measure_again
    from rectoolkit.metrics import parse

    names = list(dict.fromkeys(name.strip() for name in metrics.split(",") if name.strip()))
    if not names:
        raise UserError("--metrics: name at least one, such as recall@20")
    for name in names:
        parse(name)
    means = measure_again(run, names, threads).means
    if as_json:
        click.echo(json.dumps(means))
        return
    for name, value in means.items():
        click.echo(f"{name:<14} {value:.4f}")


if __name__ == "__main__":
    main()
