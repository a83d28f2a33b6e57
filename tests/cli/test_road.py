"""``rectool run`` passes through the folders of the package in the order in which CONTRIBUTING.md lists them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

from command_line import rectool

import rectoolkit

PACKAGE = Path(rectoolkit.__file__).parent
FOLDERS = ["cli", "recipe", "data", "model", "training", "runs", "search", "evaluation"]
MOST_RETURNS = 10


def files_by_first_call(*arguments: object) -> list[str]:
    """The files of the package in the order in which the command first calls a function of theirs.

    Calls while a module is imported do not count.
    """
    called: dict[str, None] = {}

    def watch(frame: FrameType, event: str, _: object) -> None:
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(str(PACKAGE)) and path not in called and not importing(frame):
            called[path] = None

    def importing(frame: FrameType | None) -> bool:
        while frame is not None:
            if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(str(PACKAGE)):
                return True
            frame = frame.f_back
        return False

    sys.setprofile(watch)
    try:
        assert rectool(*arguments).exit_code == 0
    finally:
        sys.setprofile(None)
    return [str(Path(path).relative_to(PACKAGE)) for path in called]


def test_a_run_seldom_returns_to_an_earlier_folder(tmp_path: Path) -> None:
    files = files_by_first_call("run", "hqgnn", "--set", "train.epochs=1", "--threads", 1, "--runs", tmp_path)
    folders = [file.split("/")[0] for file in files if file.split("/")[0] in FOLDERS]
    assert set(folders) == set(FOLDERS)
    steps = [FOLDERS.index(folder) for folder in folders]
    returns = [f"{files[n]} -> {files[n + 1]}" for n in range(len(steps) - 1) if steps[n + 1] < steps[n]]
    assert len(returns) <= MOST_RETURNS, returns
