"""The pages of the documentation and their code blocks: ``python tests/documents.py PAGE ...`` renews printed outputs.

A page runs from top to bottom in one folder. Its Python blocks share one process. A ``python`` or ``toml`` block whose
first line is a comment with a file name is saved under that name instead. A block of ``text`` below a block is its
output. A comment changes this for the next block: ``not run: why`` leaves it to the reader, ``output: figures vary``
compares the output without its figures, and ``output: not shown`` only asks that the block succeeds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
BLOCK = re.compile(r"(?:<!-- (.*?) -->\n)?^```(bash|python|toml)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.M | re.S)
TUTORIAL = DOCS / "tutorial" / "first-run.md"
CONTINUES = re.compile(r"uses\s+the\s+run\s+of\s+the\s+\[tutorial\]")
VOLATILE = re.compile(r"[\d.,]+ (?=s\b|ms\b|MB\b|min\b)|(?<=queries per second).*|(?<=-)[0-9a-f]{8}\b")
PYTHON = """
import contextlib, io, json, sys, traceback
space = {"__name__": "__main__"}
for line in sys.stdin:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            exec(compile(json.loads(line), "page", "exec"), space)
            failed = False
        except BaseException:
            traceback.print_exc()
            failed = True
    print(json.dumps([failed, printed.getvalue()]), flush=True)
"""


def blocks(path: Path, language: str) -> list[str]:
    """The code of each block of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.M | re.S)


def commands() -> list[str]:
    """Every ``rectool`` command of all pages, without comments and pipes."""
    lines = [line for path in PAGES for block in blocks(path, "bash") for line in block.splitlines()]
    return sorted({re.split(r" #| \| ", line)[0].strip() for line in lines if line.startswith("rectool ")})


@dataclass(frozen=True)
class Step:
    """A block that was run: its code, the output that the page shows, and what it printed."""

    code: str
    shown: str
    printed: str
    failed: bool
    comment: str

    @property
    def compared(self) -> bool:
        return "not shown" not in self.comment

    def masked(self, text: str) -> str:
        """``text`` without what differs between machines: times, speeds, digests, and figures where they vary."""
        text = VOLATILE.sub("#", text)
        if "vary" in self.comment:
            text = re.sub(r"[─━┏┓┡┩└┘┴┳╇]+", "─", re.sub(r"-?[\d.,]+", "#", re.sub(r" +", " ", text)))
        return text


def workplace(folder: Path) -> dict[str, str]:
    """The environment of a folder in which a page runs, with ``rectool`` on its path."""
    program = folder / "bin" / "rectool"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rectoolkit "$@"\n')
    program.chmod(0o755)
    for name in ("recipes", "tests", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    path = os.pathsep.join([str(program.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    around = {**os.environ, "PATH": path, "COLUMNS": "100", "XDG_CACHE_HOME": str(folder), "OMP_NUM_THREADS": "1"}
    around["PYTHONPATH"] = str(ROOT)
    around.pop("RECTOOL_DATA", None)
    return around


def run_page(page: Path, folder: Path, runs: Path | None = None) -> list[Step]:
    """Run a page in an empty ``folder``, with the run folders of the tutorial where the page continues it."""
    around, steps = workplace(folder), []
    if runs is not None:
        shutil.copytree(runs, folder / "runs")
    python = subprocess.Popen(
        [sys.executable, "-c", PYTHON], cwd=folder, env=around, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with python:
        for comment, language, code, shown in BLOCK.findall(page.read_text()):
            if comment.startswith("not run"):
                continue
            if saved := re.match(r"# ([\w.]+\.(?:py|toml))\n", code):
                (folder / saved[1]).write_text(code)
            elif language == "python":
                failed, printed = _python(python, code)
                steps.append(Step(code, shown, printed, failed, comment))
            elif language == "bash":
                ran = subprocess.run(
                    ["bash", "-euc", code],
                    cwd=folder,
                    env=around,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    check=False,
                )
                steps.append(Step(code, shown, _lines(ran.stdout), ran.returncode != 0, comment))
    return steps


def _python(process: subprocess.Popen[str], code: str) -> tuple[bool, str]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(code) + "\n")
    process.stdin.flush()
    failed, printed = json.loads(process.stdout.readline())
    return failed, _lines(printed)


def _lines(printed: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in printed.splitlines())


def renew(page: Path, runs: Path | None) -> Path:
    """Write the output of each block of ``page`` below it where it changed; the folder that it ran in."""
    folder = Path(tempfile.mkdtemp())
    steps = iter(run_page(page, folder, runs))

    def with_output(found: re.Match[str]) -> str:
        comment, language, code, _ = found.groups()
        if (comment or "").startswith("not run") or language == "toml" or re.match(r"# [\w.]+\.py\n", code):
            return found[0]
        step = next(steps)
        if step.masked(step.shown) == step.masked(step.printed):
            return found[0]
        head = found[0][: found[0].index("```" + language)] + f"```{language}\n{code}```\n"
        return f"{head}\n```text\n{step.printed}```\n" if step.printed and step.compared else head

    page.write_text(BLOCK.sub(with_output, page.read_text()))
    return folder


if __name__ == "__main__":
    runs = renew(TUTORIAL, None) / "runs"
    for path in (Path(name).resolve() for name in sys.argv[1:]):
        if path != TUTORIAL:
            renew(path, runs if CONTINUES.search(path.read_text()) else None)
