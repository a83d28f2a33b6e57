"""``rectool doctor``: report installed and missing packages.

Each library is imported in turn, so that one that fails is reported like any other finding.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import click

from rectoolkit import __version__
from rectoolkit.cli.group import main
from rectoolkit.errors import EXTRAS
from rectoolkit.search.index import available_cores

REQUIRED = {"numpy": "numpy", "numba": "numba", "pydantic": "pydantic", "rich": "rich"}
TRAINING = {  # package: module
    "torch": "torch", "pandas": "pandas", "pyarrow": "pyarrow", "scikit-learn": "sklearn", "scipy": "scipy",
}  # fmt: skip
OPTIONAL = {  # package: (module, what needs it)
    "optuna": ("optuna", "rectool tune"),
    "tensorboard": ("tensorboard", "rectool run --tensorboard"),
    "faiss-cpu": ("faiss", "rectool export to faiss, and rectool bench"),
    "usearch": ("usearch", "rectool bench"),
    "matplotlib": ("matplotlib", "the charts of rectool compare and rectool bench"),
    "jinja2": ("jinja2", "the report of rectool compare"),
}
SETS = {
    "vnni512": "AVX-512 VNNI (64 products at once)",
    "vnni256": "AVX-VNNI (32 products at once)",
    "avx2": "AVX2 (32 products at once)",
    "plain": "none: plain multiplication, several times slower from 2 bits on",
}


@dataclass(frozen=True)
class Finding:
    """A line of the report; ``wrong`` if rectoolkit does not work until it is repaired."""

    part: str
    name: str
    value: str
    wrong: bool = False


def examine() -> list[Finding]:
    """Every finding, in the order of the report."""
    return [*_system(), *_packages(), *_training(), *_compute(), *_optional()]


def _system() -> list[Finding]:
    python = platform.python_version()
    tested = (3, 10) <= sys.version_info[:2] < (3, 14)
    return [
        Finding("system", "rectoolkit", __version__),
        Finding("system", "python", python if tested else f"{python}: not tested; 3.10 to 3.13 are"),
        Finding("system", "platform", platform.platform()),
    ]


def _packages() -> list[Finding]:
    found = []
    for package, module in REQUIRED.items():
        fault = _fault(module)
        value = _version(package) if not fault else f"{fault}; pip install {package}"
        found.append(Finding("packages", package, value, bool(fault)))
    return found


def _training() -> list[Finding]:
    """The packages of the extra ``train``, and whether DGL or torch holds the graph."""
    faults = {package: _fault(module) for package, module in TRAINING.items()}
    if all(faults.values()):
        return [Finding("training", "packages", "missing; rectool run needs them: pip install 'rectoolkit[train]'")]
    found = []
    for package, fault in faults.items():
        value = f"{fault}; pip install 'rectoolkit[train]'" if fault else _version(package)
        found.append(Finding("training", package, value, bool(fault)))
    if not faults["torch"]:
        from rectoolkit.model.graph import backend

        found.append(Finding("training", "graph", f"{backend().name} ({backend().why})"))
    return found


def _compute() -> list[Finding]:
    set_here = os.environ.get("OMP_NUM_THREADS")
    cores = f"{available_cores()} of {os.cpu_count()} usable by this process"
    found = [
        Finding("compute", "cores", cores),
        Finding("compute", "OMP_NUM_THREADS", set_here or "not set, so torch uses all cores"),
    ]
    if not _fault("torch"):
        import torch

        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        found.append(Finding("compute", "torch threads", str(torch.get_num_threads())))
        found.append(Finding("compute", "devices", ", ".join(["cpu", *names]) + ("" if names else " (no GPU seen)")))
    if not _fault("numba"):
        from rectoolkit.search.kernels.compiling import INSTRUCTION_SET

        found.append(Finding("compute", "search kernels", SETS.get(INSTRUCTION_SET, INSTRUCTION_SET)))
    if not _fault("torch"):
        from rectoolkit.model.graph import backend, libxsmm_is_safe

        sums = "torch embedding_bag"
        if backend().name == "dgl":
            sums = "dgl (libxsmm)" if libxsmm_is_safe() else f"{sums}: no L3 cache is reported to libxsmm"
        found.append(Finding("compute", "neighbour sums", sums))
    return found


def _optional() -> list[Finding]:
    found = []
    for package, (module, use) in OPTIONAL.items():
        missing = f"missing; {use} needs it: pip install 'rectoolkit[{EXTRAS[module]}]'"
        found.append(Finding("optional", package, missing if _fault(module) else _version(package)))
    return found


def _fault(module: str) -> str:
    """Why ``module`` cannot be imported, or an empty string if it can."""
    try:
        if module == "dgl":
            from rectoolkit.model.graph import load_dgl

            load_dgl()
        importlib.import_module(module)
    except Exception as error:  # a library's broken part may raise anything
        return f"cannot be imported ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
    return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "installed, version unknown"


@main.command()
@click.option("--warm", is_flag=True, help="Compile the search kernels now, so that the first search does not wait.")
def doctor(warm: bool) -> None:
    """Report installed packages, the backends of search and training, and how to install missing packages.

    The exit code is 1 if a package that every command needs is missing.
    """
    findings, part = examine(), ""
    for finding in findings:
        if finding.part != part:
            click.echo(f"{'' if not part else chr(10)}{finding.part}")
            part = finding.part
        click.echo(f"  {finding.name:<16} {'WRONG: ' if finding.wrong else ''}{finding.value}")
    if any(finding.wrong for finding in findings):
        sys.exit(1)
    if warm:
        import time

        from rectoolkit.search.packed import compile_kernels

        begun = time.perf_counter()
        compile_kernels()
        click.echo(f"\nsearch kernels compiled, or found in the cache, in {time.perf_counter() - begun:.1f} s")
