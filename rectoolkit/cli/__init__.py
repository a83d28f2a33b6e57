"""The command line, ``rectool``: one file per command. Heavy imports happen inside the commands."""

from rectoolkit.cli import bench, compare, data, doctor, evaluate, export, list, recommend, run, runs, show, tune
from rectoolkit.cli.group import main

__all__ = [
    "bench",
    "compare",
    "data",
    "doctor",
    "evaluate",
    "export",
    "list",
    "main",
    "recommend",
    "run",
    "runs",
    "show",
    "tune",
]
