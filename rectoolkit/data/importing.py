"""An import: sources of any of the formats -> a data set in a folder of its own, with a card, used by name.

``import_data`` is read from top to bottom: the columns are chosen, rows cleaned and spooled to disk, merged by
user, cut to the k-core, split, and written beside a card that says what was read, how, and what became of the rows.

    datasets/mine/card.toml                         the card: settings, counts, checksums
    datasets/mine/{train,test,validation}.bin       the parts (``stored``)
    datasets/mine/{users,items}.ids                 what the source calls them (``ids``)

Everything is made in a hidden folder beside the place and takes its name last. A killed import leaves nothing that
is taken for a data set, and the same command again starts over and ends in the same bytes: rows are numbered by
their ids and draws come from the seed, so nothing depends on the run. Starting over instead of resuming: a hundred
million rows take a few minutes, and a checkpoint would have to say which bytes of the sources it stands for.
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
from rectoolkit.data.columns import Columns, choose
from rectoolkit.data.dataset import Dataset
from rectoolkit.data.interactions import Interactions
from rectoolkit.data.k_core import k_core
from rectoolkit.data.rows import Cleaner
from rectoolkit.data.sources import open_source
from rectoolkit.data.splits import held_after, held_one, held_share, part
from rectoolkit.data.spool import Merged, Spool
from rectoolkit.errors import DataError
from rectoolkit.files import alone, file_digest, write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from rectoolkit.data.ids import Ids

    Bools = npt.NDArray[np.bool_]
    Watcher = Callable[[str, int], None]  # what is being done, and rows so far

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
PARTS = ("train", "validation", "test")  # the order of precedence of a given split, and the number of each part
TIMED = ("time", "user-time")


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
    """Make the data set ``name`` in the folder ``into`` of one or more ``sources`` (paths or pandas frames).

    ``asked`` says how (``Imported``); with ``test`` (and ``validation``) the split is given and ``sources`` are the
    train part. An import of the same settings over the same bytes is reused; any other of that name is refused, or
    replaced with ``overwrite``. Raises DataError for everything wrong with the sources or the settings.
    """
    place = Path(into)
    if not re.fullmatch(NAME, name):
        raise DataError(f"'{name}' cannot name a data set: letters, digits, '_', '-' and '.', at most 64")
    given = given_parts(sources, test, validation)
    settings, columns = resolve(given, asked or Imported())
    settings = settings.model_copy(update={"sha256": [file_digest(Path(one)) for one in _paths(given)]})
    _make_folder(place)
    _refuse_taken(name, place)
    with alone(place, f"{place}: another import is at work there; wait for it, or stop it"):
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
        finally:  # after an error, what was spooled would fill the disk until the next try
            shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return read_card(target / CARD)


def given_parts(sources: Any, test: Any = None, validation: Any = None) -> dict[str, list[Any]]:
    """The sources by part: ``all`` where the split is to be made, else ``train`` and ``test`` (and ``validation``)."""
    if test is None and validation is not None:
        raise DataError("a validation source needs a test source too; or leave both out and give validation_share")
    named = {"all" if test is None else "train": sources, "validation": validation, "test": test}
    return {
        part: list(one) if isinstance(one, list | tuple) else [one] for part, one in named.items() if one is not None
    }


def resolve(given: Mapping[str, Sequence[Any]], asked: Imported) -> tuple[Imported, Columns]:
    """The settings with their columns, sources and parts filled in, and the columns to read.

    Raises DataError where a column is missing or ambiguous, and where a setting would have no effect.
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
    for part_name, sources in given.items():
        for one in sources:
            source = open_source(one, asked.format, asked.separator, asked.encoding, asked.columns)
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
    """All rows of the sources, cleaned and merged by user; ``folder`` holds them in between.

    ``keep_texts``: ids that are texts stay so where all are plain numbers (of a file nobody knows what they are).
    """
    extra = np.uint8 if settings.split == "given" else np.float64 if columns.time else None
    cleaner = Cleaner(columns, settings.min_rating, settings.drop_missing)
    spool = Spool(folder, extra)
    for part_name, sources in given.items():
        for one in sources:
            source = open_source(one, settings.format, settings.separator, settings.encoding, settings.columns)
            for rows in cleaner.rows(source):
                spool.add(rows, PARTS.index(part_name) if part_name in PARTS else 0)
                if watcher:
                    watcher("reading", cleaner.read)
    if not sum(spool.lengths):
        raise DataError(
            f"{', '.join(settings.sources)}: no interactions: {cleaner.read} rows, of which {cleaner.missing} miss "
            f"a value and {cleaner.below_rating} are rated below the threshold"
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
    """The rows of a frame as ``train``, those of another as ``test``, and what they call their users and items.

    Nothing is saved. Ids keep their kind. A pair in both is left out of ``test``, as in ``import_data``.
    """
    given = given_parts(frame, test)
    settings, columns = resolve(given, asked)
    with TemporaryDirectory() as folder:
        merged, _ = read_parts(given, settings, columns, Path(folder), keep_texts=True)
    whole = Interactions(merged.indptr, merged.items, len(merged.user_ids), len(merged.item_ids))
    parts = {"train": whole} if test is None else _split(whole, merged.extra, settings)
    return parts, merged.user_ids, merged.item_ids


def _finish(name: str, merged: Merged, settings: Imported, cleaner: Cleaner) -> tuple[Dataset, RowCounts]:
    """The k-core and the split of what was merged."""
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
                right = "what stands in an earlier part too is left out; give rows of its own"
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
    """The parts: as given, or held out of the whole, then validation the same way out of what stays."""
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
    """The files of the data set, and its card last."""
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
    """The data set that is there already, where it is the one asked for. Raises DataError where it is another."""
    if not target.exists():
        return None
    card = read_card(target / CARD) if (target / CARD).is_file() else None
    if card is None or card.imported is None:
        raise DataError(f"{target}: is there, and is no imported data set; choose another name, or move it away")
    differences = card.imported.differences(settings)
    if differences and not overwrite:
        raise DataError(
            f"{target}: '{card.name}' was imported otherwise ({'; '.join(differences)}); choose another name, or "
            "replace it: --replace"
        )
    whole = all((target / file).is_file() for file in card.files.named().values())
    return card if whole and not differences else None


def _refuse_taken(name: str, place: Path) -> None:
    """Refuse a name that a card elsewhere has: one would hide the other, and a recipe would mean either."""
    found = card_paths().get(name)
    if found is not None and found.resolve() != (place / name / CARD).resolve():
        raise DataError(f"'{name}' is the name of another data set already ({found}); choose another name")


def _paths(given: Mapping[str, Sequence[Any]]) -> list[Any]:
    return [one for sources in given.values() for one in sources if isinstance(one, str | os.PathLike)]


def _make_folder(place: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except (NotADirectoryError, FileExistsError):
        raise DataError(f"{place}: is a file; name a folder for data sets") from None
