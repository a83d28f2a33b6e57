"""The ``rectool`` group: its commands, the exit codes, and the options that commands share.

A user's error ends with code 2 and one message, an error of the machine (such as a full disk) with code 1, and an
interrupt with code 130.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rectoolkit import __version__
from rectoolkit.errors import EXTRAS, Fault, RecipeError, UserError, missing_part, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

SECTIONS = {  # of ``rectool --help``
    "Train": ("run", "compare", "tune"),
    "Use finished runs": ("recommend", "evaluate", "export", "runs"),
    "Look up": ("show", "list", "data", "bench", "doctor"),
}


class Commands(click.Group):
    """A group that suggests the nearest command for a mistyped one, and ends errors with one message."""

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            context.fail(f"unknown command '{args[0]}'; {nearest(args[0], self.commands)}")
        return super().resolve_command(context, args)

    def main(self, *args: Any, **settings: Any) -> Any:
        show_everywhere()
        return super().main(*args, **settings)

    def invoke(self, context: click.Context) -> Any:
        try:
            result = super().invoke(context)
            sys.stdout.flush()  # here, so that an error of the stream is reported like any other
            return result
        except UserError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(2)
        except ImportError as error:
            if (error.name or "").partition(".")[0] not in EXTRAS:
                raise
            click.echo(f"error: {missing_part(error, 'this command')}", err=True)
            sys.exit(2)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has left
            sys.exit(1)
        except MemoryError as error:
            click.echo(f"error: out of memory: {error}", err=True)
            sys.exit(1)
        except OSError as error:
            click.echo(f"error: {error.filename or 'input or output'}: {error.strerror or error}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo(
                "interrupted; the same command resumes a run from its last checkpoint, or starts over",
                err=True,
            )
            sys.exit(130)


class Program(Commands):
    """The whole program, whose help lists the commands by section."""

    def list_commands(self, context: click.Context) -> list[str]:
        listed = [name for names in SECTIONS.values() for name in names]
        return [*listed, *(name for name in self.commands if name not in listed)]

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        listed = {name for names in SECTIONS.values() for name in names}
        others = tuple(name for name in self.commands if name not in listed)
        for section, names in (SECTIONS | ({"Others": others} if others else {})).items():
            with formatter.section(section):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit=200)) for name in names])


ASCII = {"·": "-", "±": "+-", "█": "#", "…": "..."}  # of the output of commands, beside the text of users


def show_everywhere() -> None:
    """Let output never raise: a stream shows in ASCII what its encoding lacks, and a closed stream shows nothing."""
    codecs.register_error("rectoolkit", _in_ascii)
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed: its number would go to the next file that is opened
            nothing = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(nothing, "r" if name == "stdin" else "w", encoding="utf-8"))
        elif name != "stdin" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="rectoolkit")


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(ASCII.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="rectool")
def main() -> None:
    """Train graph recommenders with embeddings of 1 to 8 bits per dimension, and rank items from the packed codes.

    Start with 'rectool run hqgnn'. A RECIPE describes a run: it is a .toml file or the name of a shipped recipe. A RUN
    is the folder that 'rectool run' makes.
    """


recipe_argument = click.argument("recipe", type=click.Path(path_type=Path))
run_argument = click.argument("run", type=click.Path(path_type=Path))
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Change a setting of the recipe, such as quantizer.bits=2. Repeatable.",
)
at_least_1 = click.IntRange(min=1)
threads_option = click.option(
    "--threads", type=click.IntRange(1, 1024), help="Number of threads; all cores by default."
)


def _check_device(_: click.Context, __: click.Parameter, wanted: str) -> str:
    """Refuse a wrong name even if no device is needed because the run is finished."""
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", wanted):
        raise UserError(f"--device {wanted}: must be auto, cpu, cuda or cuda:N")
    return wanted


device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    callback=_check_device,
    help="Torch device: auto, cpu, cuda or cuda:N.",
)
runs_option = click.option(
    "--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of run folders."
)


plugin_option = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="MODULE",
    help="Module to import first; it registers components or metrics. Repeatable.",
)


def load_plugins(plugins: Sequence[str]) -> None:
    """Import the modules of ``--plugin``. Raises RecipeError with all that fail."""
    from rectoolkit.recipe.registry import import_plugins

    faults: list[Fault] = []
    import_plugins(plugins, faults)
    if faults:
        raise RecipeError(faults, "--plugin")


def comma_separated(text: str) -> list[str]:
    """The parts of ``a,b``, without spaces around them."""
    return [part.strip() for part in text.split(",") if part.strip()]


def device_notes(device: str) -> list[str]:
    """A note that names the device to train on, unless it is the CPU."""
    return [] if device == "cpu" else [f"training on {device}"]
