"""``rectool doctor``: what this machine has and lacks."""

from __future__ import annotations

import sys

import click

from rectoolkit.cli.group import main


@main.command()
def doctor() -> None:
    """Say what is installed, what the search and training run on, and what is missing with the command to type.

    Ends with code 1 where something that every command needs is missing.
    """
    from rectoolkit.doctor import examine

    findings, part = examine(), ""
    for finding in findings:
        if finding.part != part:
            click.echo(f"{'' if not part else chr(10)}{finding.part}")
            part = finding.part
        click.echo(f"  {finding.name:<16} {'WRONG: ' if finding.wrong else ''}{finding.value}")
    if any(finding.wrong for finding in findings):
        sys.exit(1)
