"""The command line as tests call it: in this process, never ending in a traceback."""

from __future__ import annotations

from typing import NamedTuple

from click.testing import CliRunner

from rectoolkit.cli import main


class Answer(NamedTuple):
    """How a command ended: its exit code and everything it printed."""

    exit_code: int
    output: str


def rectool(*arguments: object, input: str | None = None) -> Answer:
    """Call ``rectool`` with these arguments; an exception other than a clean exit fails the test."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=input)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return Answer(result.exit_code, result.output)
