"""The catalog: a data set's name -> its card -> its files, verified -> a Dataset.

Data may not be shipped (licences, size), but what it must be can: a card ``datasets/NAME.toml`` says where to get
a set, its licence, format, checksums and counts. Files and cards are looked for in the same places, in order:

    ./datasets                        beside the user's work
    $RECTOOL_DATA                     a shared folder of data
    ~/.cache/rectoolkit/datasets      (or under $XDG_CACHE_HOME)
    the shipped cards                 of the package itself; no data

A card is PLACE/NAME.toml and its files lie in PLACE/NAME/; the first place that has them all wins. Or the card is
PLACE/NAME/card.toml, beside its files, as an import makes it: such a folder is whole in itself and can be moved, and
be named by its path. Loading downloads nothing (``rectool data fetch`` does): the error for missing files says where
they come from and where to put them.

Checksums and counts are verified at every load, for the published figures hold for the published bytes only;
sha256 of Gowalla takes 10 ms. Counts of users and items are the largest id plus one, so that a wrong one is noticed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rectoolkit
from rectoolkit.data import stored
from rectoolkit.data.assemble import Split, assemble, split_one
from rectoolkit.data.card import BINARY, CARD, Card, read_card
from rectoolkit.data.formats import reader, refuse_mistaken
from rectoolkit.data.ids import Ids
from rectoolkit.data.interactions import Dataset
from rectoolkit.data.planted import generate
from rectoolkit.errors import DataError, RecipeError, UserError, nearest
from rectoolkit.recipe.registry import fill

if TYPE_CHECKING:
    from collections.abc import Mapping


def load_dataset(
    name: str = "", path: str | Path = "", format: str = "adjacency", *, test_share: float = 0.2, seed: int = 2023
) -> Dataset:
    """The data set of a card's ``name``, or of the user's own ``path``; exactly one of the two is given.

    ``path`` is a folder with ``train.txt`` and ``test.txt`` (perhaps ``validation.txt``), or a single file, of
    which ``test_share`` of every user's items becomes the test part, at random from ``seed``. ``format`` is the
    format of the files at ``path``; a card, also one in the folder at ``path``, names its own. Raises DataError for
    everything wrong with the data, RecipeError for a faulty card.
    """
    if bool(name) == bool(path):
        raise DataError("a data set is given either by name (a card) or by path (your own files): give exactly one")
    if name:
        return load_card(find_card(name))
    read, path = reader(format), Path(path)
    settings, faults = fill(Split, {"test_share": test_share, "seed": seed}, "dataset")
    if faults:
        raise RecipeError(faults)
    if os.path.isfile(path / CARD):
        return load_card(read_card(path / CARD))
    if os.path.isfile(path):
        refuse_mistaken(path, format)
        return split_one(path.stem, read(path), Split(**settings))
    if not os.path.isdir(path):
        raise DataError(f"{path}: no such file or folder; give a folder with train.txt and test.txt, or one file")
    parts = ["train", "test"] + ["validation"] * (path / "validation.txt").exists()
    return assemble(path.resolve().name, {part: read(path / f"{part}.txt") for part in parts})


def load_data(section: Mapping[str, Any]) -> Dataset:
    """The data set that a recipe's filled section ``[dataset]`` names."""
    source = dict(section)
    return load_dataset(seed=source.pop("split_seed"), **source)


def load_card(card: Card, folder: Path | None = None) -> Dataset:
    """The data set that a card describes, its checksums and counts verified; its files where they are found, or in
    ``folder``."""
    if card.planted:
        dataset = generate(card.planted, card.name)
    elif card.head.format == BINARY:
        dataset = _load_binary(card)
    else:
        dataset = _load_text(card, folder)
    _check_counts(card, dataset)
    return dataset


def _load_text(card: Card, folder: Path | None) -> Dataset:
    read = reader(card.head.format)
    files = {part: read(file) for part, file in _verified_files(card, folder).items()}
    if "all" in files:
        return split_one(card.name, files["all"], card.split, card.ids)
    return assemble(card.name, files, card.ids)


def _load_binary(card: Card) -> Dataset:
    files = _verified_files(card)
    user_ids, item_ids = (Ids.load(files.pop(key)) if key in files else None for key in ("user_ids", "item_ids"))
    parts = {part: stored.load(file) for part, file in files.items()}
    return Dataset(card.name, parts["train"], parts["test"], parts.get("validation"), user_ids, item_ids)


def find_card(name: str) -> Card:
    """The card of that name, from the first place that has one.

    Raises DataError with the nearest name where there is none, RecipeError with all the faults of a faulty card.
    """
    if not name or Path(name).name != name:
        raise DataError(f"'{name}' is no data set's name; for files of your own give their path (dataset.path)")
    for place in places():
        for path in (place / name / CARD, place / f"{name}.toml"):
            if os.path.isfile(path):
                return read_card(path)
    raise DataError(
        f"no card for a data set '{name}'; {nearest(name, sorted(card_paths()))}; "
        f"looked for {name}.toml in {', '.join(map(str, places()))}"
    )


def list_cards(faults: list[UserError] | None = None) -> list[Card]:
    """Every card there is, by name; of two with one name the one that ``find_card`` finds.

    A faulty card raises as there, or is added to ``faults`` where that is given, so that the others can be listed.
    """
    cards = []
    for _, path in sorted(card_paths().items()):
        try:
            cards.append(read_card(path))
        except UserError as error:
            if faults is None:
                raise
            faults.append(error)
    return cards


def places() -> list[Path]:
    """The folders where cards and data are looked for, in order. Raises DataError where $RECTOOL_DATA is no folder."""
    shared = os.environ.get("RECTOOL_DATA", "")
    if shared and not os.path.isdir(shared):
        raise DataError(f"RECTOOL_DATA is {shared!r}, which is no folder; make it, set another one, or unset it")
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


def card_paths() -> dict[str, Path]:
    """The cards' files by name, each the first that ``find_card`` comes to."""
    found: dict[str, Path] = {}
    for place in reversed(places()):
        found |= {path.stem: path for path in place.glob("*.toml")}
        found |= {path.parent.name: path for path in place.glob(f"[!.]*/{CARD}")}
    return found


def _verified_files(card: Card, folder: Path | None = None) -> dict[str, Path]:
    """The local files of a card by part, train first, once their checksums are right."""
    named = card.files.named()
    folders = [card.path.parent] if card.path.name == CARD else [place / card.name for place in places()[:-1]]
    folder = folder or next((f for f in folders if all(os.path.isfile(f / name) for name in named.values())), None)
    if folder is None:
        raise DataError(
            f"the data set '{card.name}' is not on this machine: no folder with {' and '.join(named.values())} among "
            f"{', '.join(map(str, folders))}. Get it: {_how_to_get(card)}. "
            f"Put the files into {folders[-1]}, or set RECTOOL_DATA to the folder that holds {card.name}/"
        )
    for part, name in named.items():
        expected = card.checksum(part)
        if expected and (fault := expected.fault(folder / name)):
            raise DataError(
                f"{folder / name}: {fault} as {card.path} says; the file is cut short, damaged or another version. "
                f"Get it again: {card.head.source}"
            )
    return {part: folder / name for part, name in named.items()}


def _how_to_get(card: Card) -> str:
    fetch = f"rectool data fetch {card.name}, or " if any(card.urls.model_dump().values()) else ""
    return fetch + (card.head.source or "its card names no source")


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
