"""The catalog: a data set's name -> its card -> its files, verified -> a Dataset.

Data may not be shipped (licences, size), but what it must be can: a card ``datasets/NAME.toml`` says where to get
a set, its licence, format, checksums and counts. Files and cards are looked for in the same places, in order:

    ./datasets                        beside the user's work
    $RECTOOL_DATA                     a shared folder of data
    ~/.cache/rectoolkit/datasets      (or under $XDG_CACHE_HOME)
    the shipped cards                 of the package itself; no data

A card is PLACE/NAME.toml, its files lie in PLACE/NAME/. The first place that has them all wins. Nothing is
downloaded: the error for missing files says where they come from and where to put them.

Checksums and counts are verified at every load, for the published figures hold for the published bytes only;
sha256 of Gowalla takes 10 ms. Counts also give the id space: lastfm has users whose ids never occur.
"""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

import rectoolkit
from rectoolkit.data.assemble import Offsets, Split, assemble, split_one
from rectoolkit.data.formats import READERS, reader
from rectoolkit.data.interactions import Dataset
from rectoolkit.data.planted import Planted, generate
from rectoolkit.errors import DataError, Fault, RecipeError, nearest
from rectoolkit.registry import Settings, fill

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Digest = Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)] | None


class Head(Settings):
    """The keys at the top of a card: what the set is, where it comes from and under which licence."""

    name: str
    description: str
    format: str
    source: str = ""
    licence: str = ""


class Files(Settings):
    """File names within the set's folder: ``train`` and ``test`` (and ``validation``), or one file ``all``."""

    train: str = ""
    test: str = ""
    validation: str = ""
    all: str = ""


class Checksums(Settings):
    """The sha256 of each file, in hex; left out where it is not known."""

    train: Digest = ""
    test: Digest = ""
    validation: Digest = ""
    all: Digest = ""


class Counts(Settings):
    """What a correct download gives. ``users`` and ``items`` are the id space: the largest id plus one or more."""

    users: Count = None
    items: Count = None
    train: Count = None
    test: Count = None
    validation: Count = None
    all: Count = None


@dataclass(frozen=True)
class Card:
    """One data set's card, as read from ``path``."""

    path: Path
    head: Head
    files: Files = Files()
    sha256: Checksums = Checksums()
    counts: Counts = Counts()
    ids: Offsets = Offsets()
    split: Split = Split()
    planted: Planted | None = None

    @property
    def name(self) -> str:
        return self.head.name


SECTIONS: dict[str, type[Settings]] = {
    "files": Files,
    "sha256": Checksums,
    "counts": Counts,
    "ids": Offsets,
    "split": Split,
    "planted": Planted,
}


def load_dataset(
    name: str = "", path: str | Path = "", format: str = "adjacency", *, test_share: float = 0.2, seed: int = 2023
) -> Dataset:
    """The data set of a card's ``name``, or of the user's own ``path``; exactly one of the two is given.

    ``path`` is a folder with ``train.txt`` and ``test.txt`` (perhaps ``validation.txt``), or a single file, of
    which ``test_share`` of every user's items becomes the test part, at random from ``seed``. ``format`` is the
    format of the files at ``path``; a card names its own. Raises DataError for everything wrong with the data,
    RecipeError for a faulty card.
    """
    if bool(name) == bool(path):
        raise DataError("a data set is given either by name (a card) or by path (your own files): give exactly one")
    if name:
        return load_card(find_card(name))
    read, path = reader(format), Path(path)
    settings, faults = fill(Split, {"test_share": test_share, "seed": seed}, "dataset")
    if faults:
        raise RecipeError(faults)
    if os.path.isfile(path):
        return split_one(path.stem, read(path), Split(**settings))
    if not os.path.isdir(path):
        raise DataError(f"{path}: no such file or folder; give a folder with train.txt and test.txt, or one file")
    parts = ["train", "test"] + ["validation"] * (path / "validation.txt").exists()
    return assemble(path.resolve().name, {part: read(path / f"{part}.txt") for part in parts})


def load_card(card: Card) -> Dataset:
    """The data set that a card describes, its checksums and counts verified."""
    if card.planted:
        dataset = generate(card.planted, card.name)
    else:
        read = reader(card.head.format)
        files = {part: read(file) for part, file in _verified_files(card).items()}
        num_users, num_items = card.counts.users or 0, card.counts.items or 0
        if "all" in files:
            dataset = split_one(card.name, files["all"], card.split, card.ids, num_users, num_items)
        else:
            dataset = assemble(card.name, files, card.ids, num_users, num_items)
    _check_counts(card, dataset)
    return dataset


def find_card(name: str) -> Card:
    """The card of that name, from the first place that has one.

    Raises DataError with the nearest name where there is none, RecipeError with all the faults of a faulty card.
    """
    if not name or Path(name).name != name:
        raise DataError(f"'{name}' is no data set's name; for files of your own give their path (dataset.path)")
    for place in places():
        if os.path.isfile(place / f"{name}.toml"):
            return read_card(place / f"{name}.toml")
    raise DataError(
        f"no card for a data set '{name}'; {nearest(name, sorted(_card_paths()))}; "
        f"looked for {name}.toml in {', '.join(map(str, places()))}"
    )


def list_cards() -> list[Card]:
    """Every card there is, by name; of two with one name the one that ``find_card`` finds. Raises as it does."""
    return [read_card(path) for _, path in sorted(_card_paths().items())]


def places() -> list[Path]:
    """The folders where cards and data are looked for, in order."""
    shared = os.environ.get("RECTOOL_DATA", "")
    package = Path(rectoolkit.__file__).parent
    shipped = package / "shipped" / "datasets"  # a wheel; a checkout has datasets/ beside the package
    return [
        Path("datasets"),
        *([Path(shared)] if shared else []),
        cache_folder(),
        shipped if shipped.is_dir() else package.parent / "datasets",
    ]


def cache_folder() -> Path:
    """The user's own place for data: ``$XDG_CACHE_HOME/rectoolkit/datasets``, by default under ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rectoolkit" / "datasets"


def read_card(path: Path) -> Card:
    """The card in that file. Raises RecipeError with all its faults at once."""
    try:
        written: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # TOML's and UTF-8's errors are ValueErrors, as is a number too long
        raise DataError(f"{path}: not a TOML file: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    faults: list[Fault] = []
    sections: dict[str, Any] = {}
    for name, schema in SECTIONS.items():
        table = written.pop(name, None)
        if isinstance(table, dict):
            filled, wrong = fill(schema, table, name)
            faults += wrong
            sections[name] = None if wrong else schema(**filled)
        elif table is not None:
            faults.append(Fault(name, f"this is a section: [{name}], got {table!r}"))
    head, wrong = fill(Head, {k: v for k, v in written.items() if not isinstance(v, dict)}, "card")
    faults += [replace(fault, where=fault.where.removeprefix("card.")) for fault in wrong]
    faults += [Fault(k, f"unknown section; {nearest(k, SECTIONS)}") for k, v in written.items() if isinstance(v, dict)]
    faults += _head_faults(path, head, sections)
    if faults:
        raise RecipeError(faults, str(path))
    return Card(path, Head(**head), **sections)


def _head_faults(path: Path, head: dict[str, Any], sections: dict[str, Any]) -> list[Fault]:
    """What is wrong between the keys of a card that are each right in themselves."""
    if not head:
        return []
    faults = []
    allowed = [*READERS, "planted"]
    if head["name"] != path.stem:
        faults.append(Fault("name", f"must be the file's name, '{path.stem}', got '{head['name']}'"))
    if head["format"] not in allowed:
        faults.append(Fault("format", f"unknown format '{head['format']}'; {nearest(head['format'], allowed)}"))
    elif head["format"] == "planted":
        if "planted" not in sections:
            faults.append(Fault("planted", "this section is required by format = 'planted'"))
        idle = [k for k in ("files", "sha256", "ids", "split") if k in sections]
        faults += [Fault(k, "this section is for files, and planted data has none") for k in idle]
    elif "planted" in sections:
        faults.append(Fault("planted", f"this section is for format = 'planted', got '{head['format']}'"))
    elif "files" not in sections:
        faults.append(Fault("files", "this section is required: train and test, or all"))
    elif (files := sections["files"]) and not _complete(files):
        faults.append(Fault("files", "either train and test are given, or all"))
    return faults


def _complete(files: Files) -> bool:
    return not (files.train or files.test or files.validation) if files.all else bool(files.train and files.test)


def _card_paths() -> dict[str, Path]:
    return {path.stem: path for place in reversed(places()) for path in place.glob("*.toml")}


def _verified_files(card: Card) -> dict[str, Path]:
    """The local files of a card by part, train first, once their checksums are right."""
    named = {part: name for part, name in card.files.model_dump().items() if name}
    folders = [place / card.name for place in places()[:-1]]
    folder = next((f for f in folders if all(os.path.isfile(f / name) for name in named.values())), None)
    if folder is None:
        raise DataError(
            f"the data set '{card.name}' is not on this machine: no folder with {' and '.join(named.values())} among "
            f"{', '.join(map(str, folders))}. Get it: {card.head.source or 'its card names no source'}. "
            f"Put the files into {folders[-1]}, or set RECTOOL_DATA to the folder that holds {card.name}/"
        )
    for part, name in named.items():
        expected = getattr(card.sha256, part)
        if expected and (found := _sha256(folder / name)) != expected:
            raise DataError(
                f"{folder / name}: sha256 is {found}, but {card.path} says {expected}; the file is cut short, "
                f"damaged or another version. Get it again: {card.head.source}"
            )
    return {part: folder / name for part, name in named.items()}


def _sha256(path: Path) -> str:
    hasher = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                hasher.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return hasher.hexdigest()


def _check_counts(card: Card, dataset: Dataset) -> None:
    found = {"users": dataset.num_users, "items": dataset.num_items}
    found |= {part: interactions.num_interactions for part, interactions in dataset.parts().items()}
    found["all"] = sum(interactions.num_interactions for interactions in dataset.parts().values())
    wrong = [
        f"{found[key]} {key} where {expected} are right"
        for key, expected in card.counts.model_dump().items()
        if expected is not None and found.get(key) != expected
    ]
    if wrong:
        raise DataError(f"the data set '{card.name}' is not what {card.path} describes: {', '.join(wrong)}")
