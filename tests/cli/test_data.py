"""``rectool data``: list, show and import as a user calls them."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import rectool

CARD = 'name = "mine"\ndescription = "two users"\nformat = "adjacency"\n[files]\ntrain = "a.txt"\ntest = "b.txt"\n'


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the data set ``mine`` in datasets/."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RECTOOL_DATA", raising=False)
    folder = tmp_path / "datasets" / "mine"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("0 1 2\n1 0\n")
    (folder / "b.txt").write_text("0 0\n")
    (tmp_path / "datasets" / "mine.toml").write_text(CARD)
    return tmp_path


def test_a_faulty_card_does_not_hide_the_others() -> None:
    Path("datasets/broken.toml").write_text(CARD.replace("adjacency", "adjacensy"))
    code, output = rectool("data", "list")
    assert code == 0
    assert "two users" in output
    assert "gowalla" in output
    assert "not listed, because its card is faulty: datasets/broken.toml:" in output
    assert "did you mean 'adjacency'?" in output


def test_show_takes_a_name_or_a_path() -> None:
    Path("datasets/mine/train.txt").write_text("0 1 2\n1 0\n")
    Path("datasets/mine/test.txt").write_text("0 0\n")
    for name in ("mine", "datasets/mine"):
        code, output = rectool("data", "show", name)
        assert code == 0, output
        assert "training items per user: mean 1.5, median 2, maximum 2" in output
    assert "did you mean 'mine'?" in rectool("data", "show", "mime").output


def test_rectool_data_that_is_not_a_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECTOOL_DATA", "nowhere")
    for arguments in (("data", "list"), ("data", "show", "mine")):
        code, output = rectool(*arguments)
        assert (code, "RECTOOL_DATA is 'nowhere', which is not a folder" in output) == (2, True)


@pytest.mark.parametrize("separator", [";", "|", "tab", "space", r"\t"])
def test_separators_may_be_named(separator: str) -> None:
    mark = {"tab": "\t", r"\t": "\t", "space": " "}.get(separator, separator)
    Path("log.csv").write_text(f"user{mark}item\n" + "".join(f"u{n % 3}{mark}i{n % 7}\n" for n in range(21)))
    code, output = rectool("data", "import", "log.csv", "--name", "log", "--separator", separator)
    assert code == 0, output
    assert "read │ 21" in output
