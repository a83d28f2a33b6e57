"""Thousands of mutated recipes, overrides, cards and data files: each works or ends in a UserError, soon.

A few hundred of each by default; RECTOOL_MUTATIONS=5000 is the thorough pass.
"""

from __future__ import annotations

import os
import random
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rectoolkit.data import Dataset, Imported, import_data, load_dataset
from rectoolkit.data.card import read_card
from rectoolkit.errors import UserError
from rectoolkit.recipe import Recipe
from rectoolkit.recipe.files import read_toml, tomllib
from rectoolkit.recipe.registry import REGISTRIES
from rectoolkit.recipe.settings import FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
CARDS = sorted((ROOT / "datasets").glob("*.toml"))
MUTATIONS = int(os.environ.get("RECTOOL_MUTATIONS", "300"))
SECONDS = 5.0  # of processor time: no input of a few kilobytes may take longer, however busy the machine is
WORDS = [
    b"-1", b"0", b"1", b"2", b"1.5", b"nan", b"inf", b"-inf", b"1e400", b"1e-400", b"9" * 30, b"9" * 5000, b"0x10",
    b"true", b"[]", b"[[]]", b"[1]", b"{}", b"{a=1}", b'""', b'"x"', b"'x'", b'"\\u0000"', b'"\\ud800"', b"1979-05-27",
    b"07:32:00", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"\r", b"\r\n", b"\t", b" ", b"=", b".", b",", b"#",
    b'"""', b"[" * 3000, b"[dataset]", b"[[loss]]", b"[a.b]", b'name = "gste"', b'name = ["gste"]', b"plugins = 3",
    b'plugins = ["", ".", "..x", "a b", "os.path.x", "\\u0000"]', b"2147483646", b"2147483647", b"4294967296",
    b"\xc2\xa0", "٣".encode(), "é".encode(), b"1_0", b"+1", b"1e3", b"::", b";", b"user,item", b"userId",
]  # fmt: skip


def mutated(content: bytes, draws: random.Random) -> bytes:
    """``content`` with one to five places changed: bytes, words or whole lines."""
    for _ in range(draws.randint(1, 5)):
        at = draws.randrange(len(content) + 1)
        end = min(len(content), at + draws.choice([0, 1, 1, 2, 5, 30, 400]))
        kind = draws.randrange(5)
        if kind == 0:
            content = content[:at] + bytes([draws.randrange(256)]) + content[end:]
        elif kind == 1:
            content = content[:at] + content[end:]
        elif kind == 2:
            content = content[:at] + draws.choice(WORDS) + content[end:]
        else:
            lines = content.split(b"\n")
            number = draws.randrange(len(lines))
            key, equals, _ = lines[number].partition(b"=")
            if kind == 3 and equals:
                lines[number] = key + b"= " + draws.choice(WORDS)
            else:
                lines.insert(draws.randrange(len(lines)), lines.pop(number) if draws.random() < 0.5 else lines[number])
            content = b"\n".join(lines)
    return content


@contextmanager
def soon(what: object) -> Iterator[None]:
    """Raise where the block takes more than ``SECONDS`` of processor time."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"takes longer than {SECONDS} s: {what!r}")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def attempt(what: object, call: Any, *arguments: Any) -> Any:
    """The result of the call, or its UserError; anything else fails with the input that caused it."""
    try:
        with soon(what):
            return call(*arguments)
    except UserError as error:
        return error
    except BaseException as error:
        raise AssertionError(f"{type(error).__name__}: {error}\nfor {what!r}") from error


def test_mutated_recipes_load_or_are_refused(tmp_path: Path) -> None:
    draws, path, loaded = random.Random(11), tmp_path / "r.toml", 0
    originals = [path.read_bytes() for path in RECIPES]
    for number in range(MUTATIONS):
        content = mutated(originals[number % len(originals)], draws)
        path.write_bytes(content)
        found = attempt(content, Recipe.load, path)
        if isinstance(found, Recipe):
            path.write_text(found.toml())
            assert Recipe.load(path).digest == found.digest, content
            loaded += 1
    assert 0.02 * MUTATIONS < loaded < 0.8 * MUTATIONS, "mutations must reach both sides"


def test_any_override_is_applied_or_refused() -> None:
    draws, loaded = random.Random(12), 0
    keys = ["seed", "name", "plugins", "description", "expect.recall@20", "", ".", "a.b", "quantizer", "loss.", ".l2"]
    written, _ = read_toml(RECIPES[0])
    keys += [f"{section}.{key}" for section, table in written.items() if isinstance(table, dict) for key in table]
    names = [name for registry in REGISTRIES.values() for name in registry.names()]
    for _ in range(MUTATIONS):
        overrides = []
        for _ in range(draws.randint(1, 3)):
            value = draws.choice([*names, *(word.decode("latin-1") for word in WORDS)])
            overrides.append(draws.choice(keys) + draws.choice(["=", "=", "=", "==", " = ", ""]) + value)
        found = attempt(overrides, Recipe.load, draws.choice(RECIPES), overrides)
        if isinstance(found, Recipe):
            loaded += 1
            for path, text in {o.partition("=")[0].strip(): o.partition("=")[2] for o in overrides}.items():
                section, _, key = path.rpartition(".")
                applied = found[section][key] if section else getattr(found, key)
                assert applied == as_toml(text), overrides
    assert 0.02 * MUTATIONS < loaded < 0.8 * MUTATIONS, "overrides must reach both sides"


def as_toml(text: str) -> Any:
    """A value as TOML reads it, or the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text.strip()


def test_mutated_cards_are_read_or_refused(tmp_path: Path) -> None:
    draws, originals, read = random.Random(13), [path.read_bytes() for path in CARDS], 0
    for number in range(MUTATIONS):
        path = tmp_path / CARDS[number % len(CARDS)].name
        path.write_bytes(content := mutated(originals[number % len(CARDS)], draws))
        card = attempt(content, read_card, path)
        if not isinstance(card, UserError):
            read += 1
            assert card.name == path.stem, content
    assert 0.02 * MUTATIONS < read < 0.8 * MUTATIONS, "mutations must reach both sides"


FILES = {
    "adjacency": (b"0 1 2 3\n1 0 4\n2 3 4 5\n3 0 1\n", b"0 0 5\n1 1\n2 0\n3 5\n"),
    "pairs": (b"0 1\n0\t2\n1,0\n1 4\n2 3\n2 4\n", b"0 3\n1 2\n2 0\n"),
    "ratings": (b"0\t1\t5\t88125\n0\t2\t3\t88126\n1\t0\t4\t88127\n", b"0::3::5::97830\n1::2::3::97831\n"),
}  # fmt: skip


@pytest.mark.parametrize("format", FORMATS)
def test_mutated_data_files_load_or_are_refused(tmp_path: Path, format: str) -> None:
    """Whole folders: both parts, their id space and what the parts must not share."""
    draws, loaded = random.Random(14), 0
    default = (b"user,item,rating,timestamp\na,x,5,10\na,y,3,11\nb,x,4,12\nb,z,1,13\n", b"user,item\na,z\nb,y\n")
    train, test = FILES.get(format, default)
    for _ in range(MUTATIONS):
        contents = [train, test]
        part = draws.randrange(2)
        contents[part] = mutated(contents[part], draws)
        for name, content in zip(("train.txt", "test.txt"), contents, strict=True):
            (tmp_path / name).write_bytes(content)
        source: dict[str, Any] = {"path": str(tmp_path), "format": format}
        if draws.random() < 0.3:
            source["path"] = str(tmp_path / "train.txt")
        found = attempt((format, contents), lambda source=source: load_dataset(**source))
        if isinstance(found, Dataset):
            loaded += 1
            assert found.train.num_interactions > 0
            for interactions in found.parts().values():
                assert interactions.items.max(initial=0) < found.num_items
    assert format not in FILES or loaded > 0.02 * MUTATIONS


TABLES = {
    "csv": b"user_id,item_id,rating,timestamp,text\n"
    + b"".join(b'u%d,i%d,%d,%d,"a ""b"",\n c"\n' % (n % 5, n * 7 % 11, n % 5, 1000 + n) for n in range(30)),
    "tsv": b"user\titem\n" + b"".join(b"%d\t%d\n" % (n % 5, n * 7 % 11) for n in range(30)),
    "inter": b"user_id:token\titem_id:token\n" + b"".join(b'"%d"\t%d\n' % (n % 5, n * 7 % 11) for n in range(30)),
    "adjacency": b"".join(b"u%d %d %d %d\n" % (n, n, n + 1, n + 2) for n in range(9)),
    "pairs": b"".join(b"%d,%d\n" % (n % 5, n * 7 % 11) for n in range(30)),
    "ratings": b"".join(b"%d::%d::%d::%d\n" % (n % 5, n * 7 % 11, n % 5, 1000 + n) for n in range(30)),
}


@pytest.mark.parametrize("format", sorted(TABLES))
def test_mutated_sources_are_imported_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    """In several encodings and with several line ends; what is imported loads again."""
    monkeypatch.chdir(tmp_path)
    draws, made = random.Random(15), 0
    for _ in range(MUTATIONS // 3):
        content = mutated(TABLES[format], draws).replace(b"\n", draws.choice([b"\n", b"\n", b"\r", b"\r\n"]))
        if draws.random() < 0.1:
            content = content.decode("latin-1").encode(draws.choice(["utf-16", "utf-8-sig", "utf-32"]))
        (tmp_path / "log").write_bytes(content)
        asked = Imported(
            format=format,
            test_share=0.4,
            encoding=draws.choice(["utf-8", "utf-8", "utf-8", "utf-16", "latin-1", "utf-32-le", "cp1252"]),
            split=draws.choice(["random", "random", "leave-one-out"]),
            drop_missing=draws.random() < 0.3,
        )
        found = attempt(content, lambda asked=asked: import_data("log", "mine", asked, overwrite=True))
        if not isinstance(found, UserError):
            assert load_dataset("mine").train.num_interactions == found.counts.train, content
            made += 1
    assert made, "mutations must reach both sides"
