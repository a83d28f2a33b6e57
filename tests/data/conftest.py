"""An empty working folder, and imports into it as the command line makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest
from command_line import rectool

from rectoolkit.data import load_dataset

Pairs = set[tuple[str, str]]


class Import(Protocol):
    """``rectool data import FILE --name mine OPTIONS`` of a file with that content."""

    def __call__(self, file: str, content: str | bytes, options: str = "") -> str: ...


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, whose datasets/ is the first place searched for data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RECTOOL_DATA", raising=False)
    return tmp_path


def _import(file: str, content: str | bytes, options: str) -> tuple[int, str]:
    Path(file).write_bytes(content if isinstance(content, bytes) else content.encode())
    name = () if "--name" in options else ("--name", "mine")
    return rectool("data", "import", file, *name, *options.split())


@pytest.fixture
def refused(place: Path) -> Import:
    """The message of an import that is refused, and leaves nothing behind."""

    def message(file: str, content: str | bytes, options: str = "") -> str:
        code, output = _import(file, content, options)
        assert code == 2, output
        assert not Path("datasets").exists() or not list(Path("datasets").iterdir())
        return output

    return message


@pytest.fixture
def imported(place: Path) -> Import:
    """The output of an import; its pairs are those of the data set ``mine``."""

    def output(file: str, content: str | bytes, options: str = "") -> str:
        code, printed = _import(file, content, f"{options} --replace")
        assert code == 0, printed
        return printed

    return output


@pytest.fixture
def parts_of(place: Path) -> object:
    """Each part of a data set as pairs of the source's ids."""

    def parts(name: str = "mine") -> dict[str, Pairs]:
        data = load_dataset(name)
        assert data.user_ids is not None
        assert data.item_ids is not None
        users, items = data.user_ids.array().astype(str), data.item_ids.array().astype(str)
        return {
            part: set(zip(users[one.pairs()[0]].tolist(), items[one.pairs()[1]].tolist(), strict=True))
            for part, one in data.parts().items()
        }

    return parts
