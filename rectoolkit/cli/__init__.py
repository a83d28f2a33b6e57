"""The command line: ``rectool``. A file per group of commands; what is heavy is imported inside the command."""

from rectoolkit.cli import comparing, data, measuring, serving, timing, training
from rectoolkit.cli.group import main

__all__ = ["comparing", "data", "main", "measuring", "serving", "timing", "training"]
