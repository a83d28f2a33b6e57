"""The command line: ``rectool``. A file per group of commands; what is heavy is imported inside the command."""

from rectoolkit.cli import comparing, data, doctoring, measuring, serving, timing, training, tuning
from rectoolkit.cli.group import main

__all__ = ["comparing", "data", "doctoring", "main", "measuring", "serving", "timing", "training", "tuning"]
