"""Catalog: find data sets by name and load them, with checksums and counts verified.

The package does not ship data (licences, size), but it ships cards. A card ``datasets/NAME.toml`` says where to get a
data set, and states its licence, format, checksums and counts. Cards and files are searched in these places, in order:

    ./datasets                        the working directory
    $RECTOOL_DATA                     a shared folder
    ~/.cache/rectoolkit/datasets      (or under $XDG_CACHE_HOME)
    the cards shipped with the package

A card is PLACE/NAME.toml with its files in PLACE/NAME/. An imported data set has its card beside its files, as
PLACE/NAME/card.toml. Such a folder is self-contained: it can be moved, and opened by its path. Loading never
downloads anything; ``rectool data fetch`` does.

Published figures hold for the published bytes only, so checksums and counts are verified at every load.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import rectoolkit
from rectoolkit.data.card import BINARY, CARD, Card, Offsets, SplitSettings, read_card
from rectoolkit.data.dataset import Dataset
from rectoolkit.data.ids import Ids
from rectoolkit.data.interactions import Interactions, check_dense
from rectoolkit.data.planted import generate
from rectoolkit.data.readers.text import TextFile
from rectoolkit.data.readers.words import WordFile, read_pairs
from rectoolkit.data.splits import hold_out
from rectoolkit.errors import DataError, RecipeError, UserError, nearest
from rectoolkit.recipe.schema import fill
from rectoolkit.recipe.settings import FORMATS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rectoolkit.data.interactions import Int64s
    from rectoolkit.data.readers.words import PairFile

NO_OFFSETS = Offsets()


def load_dataset(
    name: str = "", path: str | Path = "", format: str = "adjacency", *, test_share: float = 0.2, seed: int = 2023
) -> Dataset:
    """Load a data set by its card's name, or from files of your own.

    Parameters
    ----------
    name : str
        The name of a card. Give either ``name`` or ``path``.
    path : str or Path
        A folder with ``train.txt`` and ``test.txt`` (and perhaps ``validation.txt``), the folder of an imported data
        set, or a single file, which is split at random.
    format : {"adjacency", "pairs", "ratings"}
        The format of the files at ``path``. A card states its own format.
    test_share : float
        For a single file: the share of each user's items that becomes the test part.
    seed : int
        For a single file: the seed of the split.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If the data is missing or faulty. The message names the file, the line and the remedy.
    RecipeError
        If a card or an argument is faulty.
    """
    if bool(name) == bool(path):
        raise DataError("give a data set either by name (a card) or by path (your own files): exactly one of the two")
    if name:
        return load_card(find_card(name))
    if format not in FORMATS:
        raise DataError(f"unknown format '{format}'; {nearest(format, FORMATS)}")
    path = Path(path)
    settings, faults = fill(SplitSettings, {"test_share": test_share, "seed": seed}, "dataset")
    if faults:
        raise RecipeError(faults)
    if os.path.isfile(path / CARD):
        return load_card(read_card(path / CARD))
    if os.path.isfile(path):
        _refuse_mistaken(path, format)
        return _split(path.stem, read_pairs(path, format), SplitSettings(**settings))
    if not os.path.isdir(path):
        raise DataError(f"{path}: no such file or folder; give a folder with train.txt and test.txt, or one file")
    parts = ["train", "test"] + ["validation"] * (path / "validation.txt").exists()
    return _join(path.resolve().name, {part: read_pairs(path / f"{part}.txt", format) for part in parts})


def load_data(section: Mapping[str, Any]) -> Dataset:
    """Load the data set of a recipe's filled section ``[dataset]``."""
    source = dict(section)
    return load_dataset(seed=source.pop("split_seed"), **source)


def load_card(card: Card, folder: Path | None = None) -> Dataset:
    """Load the data set that a card describes and verify it. Its files are searched for, or lie in ``folder``."""
    if card.planted:
        dataset = generate(card.planted, card.name)
    elif card.format == BINARY:
        dataset = _load_binary(card)
    else:
        dataset = _load_text(card, folder)
    _check_counts(card, dataset)
    return dataset


def _load_text(card: Card, folder: Path | None) -> Dataset:
    files = {part: read_pairs(file, card.format) for part, file in _verified_files(card, folder).items()}
    if "all" in files:
        return _split(card.name, files["all"], card.split, card.ids)
    return _join(card.name, files, card.ids)


def _refuse_mistaken(path: Path, format: str) -> None:
    """Raise DataError if a file, by default read as an adjacency list, is plainly something else."""
    table = f"a table: rectool data import {path} --name {path.stem}, then dataset.name"
    found = {
        "pairs": 'pairs of user and item: --set dataset.format="pairs"',
        "ratings": 'ratings: --set dataset.format="ratings"',
        "a table": table,
        "names": table,
    }.get(WordFile(TextFile(path), format).mistaken())
    if found:
        raise DataError(f"{path}: read as an adjacency list (the default format), but the lines look like {found}")


def _join(name: str, files: dict[str, PairFile], offsets: Offsets = NO_OFFSETS) -> Dataset:
    """The data set of the files ``train``, ``test`` and perhaps ``validation``, over one id space.

    Raises DataError if a pair is in two parts. A test pair that is also in train would be masked from the ranking
    and count as missed, so the figures would be wrong without notice.
    """
    num_users = max(file.num_users for file in files.values()) - offsets.first_user
    num_items = max(file.num_items for file in files.values()) - offsets.first_item
    check_dense(num_users, num_items, sum(len(file.keys) for file in files.values()), name)
    parts = {
        part: Interactions.from_keys(_shifted(file, offsets), num_users, num_items) for part, file in files.items()
    }
    order = list(parts)
    for index, part in enumerate(order):
        for other in order[:index]:
            _check_apart(files[other], parts[other], files[part], parts[part], offsets)
    return Dataset(name, parts["train"], parts["test"], parts.get("validation"), places=files["train"].places)


def _split(name: str, file: PairFile, split: SplitSettings, offsets: Offsets = NO_OFFSETS) -> Dataset:
    """The data set of one file: a share of each user's items is held out for the test part."""
    num_users, num_items = file.num_users - offsets.first_user, file.num_items - offsets.first_item
    check_dense(num_users, num_items, len(file.keys), str(file.path))
    whole = Interactions.from_keys(_shifted(file, offsets), num_users, num_items)
    return Dataset(name, *hold_out(whole, split.test_share, np.random.default_rng(split.seed)))


def _shifted(file: PairFile, offsets: Offsets) -> Int64s:
    """The file's keys with the offsets subtracted. They stay ascending, because all shift alike."""
    if offsets == NO_OFFSETS:
        return file.keys
    users, items = file.keys >> 32, file.keys & 0xFFFFFFFF
    low = (users < offsets.first_user) | (items < offsets.first_item)
    if low.any():
        user, item = int(users[low.argmax()]), int(items[low.argmax()])
        raise DataError(
            f"{file.path}, line {file.lines_of(user, item)[0]}: user {user}, item {item}, but the card says that "
            f"users begin at {offsets.first_user} and items at {offsets.first_item}"
        )
    shifted: Int64s = file.keys - ((offsets.first_user << 32) + offsets.first_item)
    return shifted


def _check_apart(
    first: PairFile, first_part: Interactions, second: PairFile, second_part: Interactions, offsets: Offsets
) -> None:
    users, items = second_part.pairs()
    both = np.flatnonzero(first_part.contains(users, items))
    if not len(both):
        return
    user, item = int(users[both[0]]) + offsets.first_user, int(items[both[0]]) + offsets.first_item
    where = ", ".join(f"{file.path}, line {file.lines_of(user, item)[0]}" for file in (first, second))
    raise DataError(
        f"{second.path}: {len(both)} of its {len(users)} pairs are in {first.path} too, the first: user {user}, "
        f"item {item} ({where}); a pair may be in one part only: remove it from the other"
    )


def _load_binary(card: Card) -> Dataset:
    files = _verified_files(card)
    user_ids, item_ids = (Ids.load(files.pop(key)) if key in files else None for key in ("user_ids", "item_ids"))
    parts = {part: Interactions.load(file) for part, file in files.items()}
    return Dataset(card.name, parts["train"], parts["test"], parts.get("validation"), user_ids, item_ids)


def find_card(name: str) -> Card:
    """Find a data set's card by name, in the first place that has one.

    Parameters
    ----------
    name : str
        The data set's name.

    Returns
    -------
    Card

    Raises
    ------
    DataError
        If there is no card of that name. The message suggests the nearest name.
    RecipeError
        If the card is faulty. The message lists all faults.
    """
    if not name or Path(name).name != name:
        raise DataError(f"'{name}' is not the name of a data set; for files of your own give their path (dataset.path)")
    for place in places():
        for path in (place / name / CARD, place / f"{name}.toml"):
            if os.path.isfile(path):
                return read_card(path)
    raise DataError(
        f"no card for a data set '{name}'; {nearest(name, sorted(card_paths()))}; "
        f"looked for {name}.toml in {', '.join(map(str, places()))}"
    )


def list_cards(faults: list[UserError] | None = None) -> list[Card]:
    """All cards, sorted by name. Of two cards with the same name, the one that ``find_card`` finds.

    The error of a faulty card is raised, or appended to ``faults`` if given, so that the other cards can be listed.
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
    """The folders searched for cards and data, in order. Raises DataError if $RECTOOL_DATA is not a folder."""
    shared = os.environ.get("RECTOOL_DATA", "")
    if shared and not os.path.isdir(shared):
        raise DataError(f"RECTOOL_DATA is {shared!r}, which is not a folder; create it, name another one, or unset it")
    package = Path(rectoolkit.__file__).parent
    shipped = package / "shipped" / "datasets"  # a wheel; a checkout has datasets/ beside the package
    return [
        Path("datasets"),
        *([Path(shared)] if shared else []),
        cache_folder(),
        shipped if shipped.is_dir() else package.parent / "datasets",
    ]


def cache_folder() -> Path:
    """The user's own folder of data: ``$XDG_CACHE_HOME/rectoolkit/datasets``, by default under ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rectoolkit" / "datasets"


def card_paths() -> dict[str, Path]:
    """The files of all cards by name. Of two with the same name, the one that ``find_card`` finds."""
    found: dict[str, Path] = {}
    for place in reversed(places()):
        found |= {path.stem: path for path in place.glob("*.toml")}
        found |= {path.parent.name: path for path in place.glob(f"[!.]*/{CARD}")}
    return found


def _verified_files(card: Card, folder: Path | None = None) -> dict[str, Path]:
    """The files of a card by part, train first. Raises DataError if one is missing or has a wrong checksum."""
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
                f"Get it again: {_how_to_get(card)}"
            )
    return {part: folder / name for part, name in named.items()}


def _how_to_get(card: Card) -> str:
    if card.imported:
        return f"import {' and '.join(card.imported.sources)} again (rectool data import ... --name {card.name})"
    fetch = f"rectool data fetch {card.name}, or " if card.urls.named() else ""
    return fetch + (card.source or "its card names no source")


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
