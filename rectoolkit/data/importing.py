"""Import: make a named data set from files or frames with any ids.

``import_data`` reads from top to bottom: choose the columns, check the rows and spool them to disk, merge them by user,
cut them to the k-core, split them, and write the parts beside a card. The card says what was read, how, and how many
rows were left out.

    datasets/mine/card.toml                         the card: settings, counts, checksums
    datasets/mine/{train,test,validation}.bin       the parts (``Interactions.save``)
    datasets/mine/{users,items}.ids                 the source's ids (``Ids.save``)

Everything is written to a hidden folder that is renamed last, so an import that is killed leaves nothing that could be
taken for a data set. The same command then starts over and ends in the same bytes, because rows are numbered by their
ids and random draws come from the seed.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import tomli_w

from rectoolkit.data.card import BINARY, CARD, Card, Imported, RowCounts, read_card
from rectoolkit.data.catalog import card_paths
from rectoolkit.data.dataset import Dataset
from rectoolkit.data.interactions import Interactions
from rectoolkit.data.k_core import k_core
from rectoolkit.data.readers.rows import Cleaner, Columns, choose
from rectoolkit.data.readers.sources import open_sources
from rectoolkit.data.splits import held_after, held_one, held_share, part
from rectoolkit.data.spool import Merged, Spool
from rectoolkit.errors import DataError, UserError
from rectoolkit.files import alone, file_digest, write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from rectoolkit.data.ids import Ids

    Bools = npt.NDArray[np.bool_]
    Watcher = Callable[[str, int], None]  # the step, and the number of rows so far

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
PARTS = ("train", "validation", "test")  # the order of precedence of a given split, and the number of each part
TIMED = ("time", "user-time")
WRITTEN = {CARD, *(f"{part}.bin" for part in PARTS), "users.ids", "items.ids"}


def import_data(
    sources: Any,
    name: str,
    asked: Imported | None = None,
    *,
    test: Any = None,
    validation: Any = None,
    into: str | Path = "datasets",
    overwrite: bool = False,
    watcher: Watcher | None = None,
) -> Card:
    """Make a data set from files or pandas frames and save it under a name.

    Parameters
    ----------
    sources : path, DataFrame, or list of them
        The rows of the data set, or of its train part if ``test`` is given.
    name : str
        The data set's name from now on.
    asked : Imported, optional
        The settings: columns, filters and split. By default columns are found by their usual names and 20 % of each
        user's items are held out at random.
    test, validation : path, DataFrame, or list of them, optional
        The other parts, if the split is given.
    into : path
        The folder of data sets. Data sets in ``./datasets`` and in ``$RECTOOL_DATA`` are found by name.
    overwrite : bool
        Replace an imported data set of that name.
    watcher : callable, optional
        Called with the step ("reading", "sorting" or "splitting") and the number of rows read so far.

    Returns
    -------
    Card
        The card of the data set. An import with the same settings over the same bytes is not repeated.

    Raises
    ------
    DataError
        If a source or a setting is faulty, or if the name is taken by another data set. The message names the place.
    """
    place = Path(into)
    if not re.fullmatch(NAME, name):
        raise DataError(f"'{name}' is not a valid name: use up to 64 letters, digits, '_', '-' and '.'")
    given = given_parts(sources, test, validation)
    settings, columns = resolve(given, asked or Imported())
    settings = settings.model_copy(update={"sha256": [file_digest(Path(one)) for one in _paths(given)]})
    _make_folder(place)
    _refuse_taken(name, place)
    with alone(place, f"{place}: another import is running there; wait for it, or stop it"):
        target, staging, old = place / name, place / f".{name}.import", place / f".{name}.replaced"
        for left in (staging, old):
            shutil.rmtree(left, ignore_errors=True)
        if (same := _existing(target, settings, overwrite)) is not None:
            return same
        try:
            (staging / "spool").mkdir(parents=True)
            merged, cleaner = read_parts(given, settings, columns, staging / "spool", watcher)
            shutil.rmtree(staging / "spool")
            if watcher:
                watcher("splitting", cleaner.read)
            dataset, counts = _finish(name, merged, settings, cleaner)
            _write(staging, dataset, settings, counts)
            if target.exists():
                os.rename(target, old)
            os.rename(staging, target)
        finally:  # after an error, the spooled rows would fill the disk until the next try
            shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return read_card(target / CARD)


def given_parts(sources: Any, test: Any = None, validation: Any = None) -> dict[str, list[Any]]:
    """The sources by part: ``all`` if the import makes the split, else ``train``, ``test`` and maybe ``validation``."""
    if test is None and validation is not None:
        raise DataError("a validation source needs a test source too; or leave both out and give validation_share")
    named = {"all" if test is None else "train": sources, "validation": validation, "test": test}
    return {
        part: list(one) if isinstance(one, list | tuple) else [one] for part, one in named.items() if one is not None
    }


def resolve(given: Mapping[str, Sequence[Any]], asked: Imported) -> tuple[Imported, Columns]:
    """The settings with columns, sources and parts filled in, and the columns to read.

    Raises DataError if a column is missing or ambiguous, or if a setting would have no effect.
    """
    split = "given" if "test" in given else asked.split
    timed, rated = split in TIMED, asked.min_rating is not None
    if split == "given" and "test" not in given:
        raise DataError("split 'given' needs a test source")
    if split == "given" and (asked.split not in ("random", "given") or asked.validation_share):
        raise DataError("with a test source the split is given: leave the split and the validation share out")
    if asked.rating and not rated:
        raise DataError(f"the rating column '{asked.rating}' has no effect without a threshold: give --min-rating")
    if asked.time and not (timed or split == "leave-one-out"):
        raise DataError(
            f"the time column '{asked.time}' has no effect on split '{split}': give --split time or user-time"
        )
    needed = ["user", "item", *(["rating"] if rated else []), *(["time"] if timed else [])]
    wished = ["time"] if split == "leave-one-out" else []
    columns = Columns(asked.user, asked.item, asked.rating, asked.time)
    names, parts = [], []
    for part_name, source in open_sources(given, asked):
        columns = choose(source.name, source.columns(), columns, needed, wished)
        names.append(source.name)
        parts.append(part_name)
    update = {**vars(columns), "split": split, "sources": names, "parts": parts}
    return asked.model_copy(update=update), columns


def read_parts(
    given: Mapping[str, Sequence[Any]],
    settings: Imported,
    columns: Columns,
    folder: Path,
    watcher: Watcher | None = None,
    *,
    keep_texts: bool = False,
) -> tuple[Merged, Cleaner]:
    """All rows of the sources, checked and merged by user. ``folder`` holds temporary files.

    Text ids that are all plain numbers become integers, unless ``keep_texts`` is set: a file does not tell the two
    apart, a frame does.
    """
    extra = np.uint8 if settings.split == "given" else np.float64 if columns.time else None
    cleaner = Cleaner(columns, settings.min_rating, settings.drop_missing)
    spool = Spool(folder, extra)
    for part_name, source in open_sources(given, settings):
        for rows in cleaner.rows(source):
            spool.add(rows, PARTS.index(part_name) if part_name in PARTS else 0)
            if watcher:
                watcher("reading", cleaner.read)
    if not sum(spool.lengths):
        left_out = f", of which {cleaner.missing} lack a value and {cleaner.below_rating} are rated below the threshold"
        raise DataError(
            f"{', '.join(settings.sources)}: no interactions: {cleaner.read} rows{left_out if cleaner.read else ''}"
        )
    if watcher:
        watcher("sorting", cleaner.read)
    return spool.merge(cleaner.texts if keep_texts else ()), cleaner


def from_frame(
    frame: Any, user: str = "", item: str = "", *, rating: str = "", min_rating: float | None = None
) -> tuple[Interactions, Ids, Ids]:
    """Read interactions from a pandas frame.

    Nothing is saved. ``import_data`` makes a data set of a frame: split, saved under a name, and used by recipes.

    Parameters
    ----------
    frame : pandas.DataFrame
        One row per interaction. Repeated pairs are merged.
    user, item, rating : str
        Names of columns. By default the columns with usual names, such as ``user_id``. Ids are integers from 0 or
        strings and keep their type; integers above 2**63 - 1 become strings.
    min_rating : float, optional
        Rows with a smaller rating are dropped.

    Returns
    -------
    interactions : Interactions
    user_ids, item_ids : Ids
        The frame's own ids, one per user and per item.

    Raises
    ------
    DataError
        If a column is missing or ambiguous, or has missing values or mixed types.
    """
    parts, user_ids, item_ids = read_frames(frame, Imported(user=user, item=item, rating=rating, min_rating=min_rating))
    return parts["train"], user_ids, item_ids


def read_frames(frame: Any, asked: Imported, test: Any = None) -> tuple[dict[str, Interactions], Ids, Ids]:
    """The rows of a frame as ``train``, those of another as ``test``, and the frames' ids of users and items.

    Nothing is saved. Ids keep their type. A pair in both frames is left out of ``test``, as in ``import_data``.
    """
    given = given_parts(frame, test)
    settings, columns = resolve(given, asked)
    with TemporaryDirectory() as folder:
        merged, _ = read_parts(given, settings, columns, Path(folder), keep_texts=True)
    whole = Interactions(merged.indptr, merged.items, len(merged.user_ids), len(merged.item_ids))
    parts = {"train": whole} if test is None else _split(whole, merged.extra, settings)
    return parts, merged.user_ids, merged.item_ids


def _finish(name: str, merged: Merged, settings: Imported, cleaner: Cleaner) -> tuple[Dataset, RowCounts]:
    """The k-core and the split of the merged rows."""
    indptr, items, extra = merged.indptr, merged.items, merged.extra
    user_ids, item_ids, outside = merged.user_ids, merged.item_ids, 0
    if settings.k_core > 1:
        core = k_core(indptr, items, len(item_ids), settings.k_core)
        outside = int(len(items) - core.pairs.sum())
        within = part(Interactions(indptr, items, len(user_ids), len(item_ids)), core.pairs)
        numbers = np.cumsum(core.items, dtype=np.int32) - np.int32(1)
        items = numbers[within.items]
        indptr = np.concatenate([within.indptr[:1], within.indptr[1:][core.users]])
        user_ids, item_ids = user_ids.kept(core.users), item_ids.kept(core.items)
        extra = None if extra is None else extra[core.pairs]
    whole = Interactions(indptr, items, len(user_ids), len(item_ids))
    parts = _split(whole, extra, settings)
    for needed in ("train", "test"):
        if not parts[needed].num_interactions:
            right = "give more data or another share"
            if settings.split == "given":
                right = "pairs that are in an earlier part too are left out; give others"
            raise DataError(
                f"{', '.join(settings.sources)}: the {needed} part would be empty: {whole.num_interactions} "
                f"interactions of {whole.num_users} users, split '{settings.split}'; {right}"
            )
    counts = RowCounts(
        read=cleaner.read,
        missing=cleaner.missing,
        below_rating=cleaner.below_rating,
        repeated=merged.repeated,
        in_an_earlier_part=merged.crossing,
        outside_core=outside,
    )
    return Dataset(name, parts["train"], parts["test"], parts.get("validation"), user_ids, item_ids), counts


def _split(whole: Interactions, extra: npt.NDArray[Any] | None, settings: Imported) -> dict[str, Interactions]:
    """The given parts, or test held out of the whole and validation held out of the rest in the same way."""
    if settings.split == "given":
        assert extra is not None
        given = {name: part(whole, extra == number) for number, name in enumerate(PARTS)}
        return {name: one for name, one in given.items() if name in settings.parts or name == "test"}
    generator = np.random.default_rng(settings.seed)

    def hold(rest: Interactions, share: float, times: npt.NDArray[Any] | None) -> Bools:
        if settings.split == "leave-one-out":
            return held_one(rest, generator, times)
        if settings.split == "time":
            assert times is not None
            return held_after(share, times)
        return held_share(rest, share, generator, times)

    mask = hold(whole, settings.test_share, extra)
    train, parts = part(whole, ~mask), {"test": part(whole, mask)}
    if settings.validation_share and train.num_interactions:
        times = None if extra is None else extra[~mask]
        mask = hold(train, settings.validation_share, times)
        parts["validation"] = part(train, mask)
        train = part(train, ~mask)
    return {"train": train, **parts}


def _write(folder: Path, dataset: Dataset, settings: Imported, counts: RowCounts) -> None:
    """Write the files of the data set, its card last."""
    files = {}
    for name, interactions in dataset.parts().items():
        files[name] = f"{name}.bin"
        interactions.save(folder / files[name])
    for side, ids in dataset.ids().items():
        files[f"{side[:-1]}_ids"] = f"{side}.ids"
        ids.save(folder / f"{side}.ids")
    sizes = {name: interactions.num_interactions for name, interactions in dataset.parts().items()}
    card = {
        "name": dataset.name,
        "description": f"imported from {', '.join(Path(source).name for source in settings.sources)}",
        "format": BINARY,
        "files": files,
        "sha256": {name: file_digest(folder / file) for name, file in files.items()},
        "counts": {"users": dataset.num_users, "items": dataset.num_items, **sizes},
        "imported": settings.model_dump(exclude_none=True),
        "rows": counts.model_dump(),
    }
    write_text(folder / CARD, tomli_w.dumps(card))


def _existing(target: Path, settings: Imported, overwrite: bool) -> Card | None:
    """The data set that exists already, if it is the one asked for and undamaged.

    Raises DataError if it is another. A damaged one is made again; if its card is damaged, only with ``overwrite``.
    """
    if not target.exists():
        return None
    other = f"{target}: exists, and is not an imported data set; choose another name, or move it away"
    try:
        card = read_card(target / CARD)
    except UserError as error:
        files = {file.name for file in target.iterdir()} if target.is_dir() else set()
        if not files or files - WRITTEN:
            raise DataError(other) from None
        if overwrite:
            return None
        raise DataError(f"{error}; the card is damaged: import the data again with --replace") from None
    if card.imported is None:
        raise DataError(other)
    differences = card.imported.differences(settings)
    if differences and not overwrite:
        raise DataError(
            f"{target}: '{card.name}' was imported with other settings ({'; '.join(differences)}); choose another "
            "name, or replace it: --replace"
        )
    return card if not differences and _is_whole(target, card) else None


def _is_whole(folder: Path, card: Card) -> bool:
    files = card.files.named()
    return all(
        (folder / file).is_file() and not (checksum and checksum.fault(folder / file))
        for part, file in files.items()
        for checksum in [card.checksum(part)]
    )


def _refuse_taken(name: str, place: Path) -> None:
    """Raise DataError if a card elsewhere has that name, because one would hide the other."""
    found = card_paths().get(name)
    if found is not None and found.resolve() != (place / name / CARD).resolve():
        raise DataError(f"'{name}' is already the name of another data set ({found}); choose another name")


def _paths(given: Mapping[str, Sequence[Any]]) -> list[Any]:
    return [one for sources in given.values() for one in sources if isinstance(one, str | os.PathLike)]


def _make_folder(place: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except (NotADirectoryError, FileExistsError):
        raise DataError(f"{place}: is a file; name a folder for data sets") from None
