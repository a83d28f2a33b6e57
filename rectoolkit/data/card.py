"""Card: the TOML file that describes a data set: its source, licence, files, checksums and counts.

``catalog`` finds cards and loads the data they describe, ``fetch`` downloads their files, and ``importing`` writes a
card beside each imported data set.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar, get_args

from pydantic import Field, PrivateAttr

from rectoolkit.data.planted import Planted
from rectoolkit.errors import DataError, Fault, RecipeError, nearest
from rectoolkit.files import file_digest
from rectoolkit.recipe.schema import Settings, fill
from rectoolkit.recipe.settings import FORMATS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CARD, BINARY = "card.toml", "binary"
T = TypeVar("T")
EMPTY: Any = ""
FileName = Annotated[str, Field(pattern=r"^[^/\\]*$")]
Sha256 = Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]
Md5 = Annotated[str, Field(pattern="^([0-9a-f]{32})?$")]
Url = Annotated[str, Field(pattern="^(https?://.+)?$")]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)] | None
Share = Annotated[float, Field(ge=0, lt=1)]
SplitName = Literal["random", "leave-one-out", "time", "user-time", "given"]


class PerFile(Settings, Generic[T]):
    """One value for each file of a data set, empty where there is none.

    A data set has the files ``train`` and ``test`` (and perhaps ``validation``), or one file ``all``. The files
    ``user_ids`` and ``item_ids`` hold the source's ids of an imported data set.
    """

    train: T = EMPTY
    test: T = EMPTY
    validation: T = EMPTY
    all: T = EMPTY
    user_ids: T = EMPTY
    item_ids: T = EMPTY

    def named(self) -> dict[str, T]:
        """The values that are not empty, by file."""
        return {key: value for key, value in self if value}


class Counts(Settings):
    """The numbers of users, items and interactions of a correct copy. ``users`` is the largest user id plus one."""

    users: Count = None
    items: Count = None
    train: Count = None
    test: Count = None
    validation: Count = None
    all: Count = None


class Offsets(Settings):
    """The smallest user and item id in the files. They are subtracted, so that ids start at 0."""

    first_user: Annotated[int, Field(ge=0)] = 0
    first_item: Annotated[int, Field(ge=0)] = 0


class SplitSettings(Settings):
    """The split of a data set that has one file: a share of each user's items is drawn for the test part."""

    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: Annotated[int, Field(ge=0)] = 2023


class Imported(Settings):
    """The settings of an import, and the sources that it read.

    The same settings over the same bytes give the same data set, byte for byte. An import that already exists is
    therefore not repeated. ``sha256`` lists the digests of the source files in order. ``parts`` says which part each
    source holds (``all`` if the import made the split).
    """

    sources: list[str] = []  # noqa: RUF012
    parts: list[str] = []  # noqa: RUF012
    sha256: list[str] = []  # noqa: RUF012
    format: str = ""
    separator: str = ""
    encoding: str = "utf-8"
    columns: list[str] = []  # noqa: RUF012
    user: str = ""
    item: str = ""
    rating: str = ""
    time: str = ""
    min_rating: float | None = None
    drop_missing: bool = False
    k_core: Annotated[int, Field(ge=0)] = 0
    split: SplitName = "random"
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    validation_share: Share = 0.0
    seed: Annotated[int, Field(ge=0)] = 2023

    def differences(self, other: Imported) -> list[str]:
        """The settings that differ in ``other``, such as ``k_core: 5, now 10``. Names of sources do not count."""
        mine, theirs = self.model_dump(), other.model_dump()
        found = [
            f"{key}: {value!r}, now {theirs[key]!r}"
            for key, value in mine.items()
            if key not in ("sources", "sha256") and value != theirs[key]
        ]
        changed = not self.sha256 or self.sha256 != other.sha256
        return [*found, *(["the content of the sources"] if changed else [])]


class RowCounts(Settings):
    """The number of rows that an import read, and the numbers it left out, by reason."""

    read: int = 0
    missing: int = 0
    below_rating: int = 0
    repeated: int = 0
    in_an_earlier_part: int = 0
    outside_core: int = 0

    @property
    def kept(self) -> int:
        """The number of rows kept, one per pair."""
        left_out = (self.missing, self.below_rating, self.repeated, self.in_an_earlier_part, self.outside_core)
        return self.read - sum(left_out)


class Checksum(NamedTuple):
    """The digest that a file must have, in hex, and its algorithm (``sha256`` or ``md5``)."""

    algorithm: str
    digest: str

    def fault(self, path: Path) -> str:
        """A message if the file at ``path`` has another digest, else an empty string."""
        found = file_digest(path, self.algorithm)
        return "" if found == self.digest else f"its {self.algorithm} is {found}, and not {self.digest}"


class Card(Settings):
    """A data set's card. Keys at the top of the file come first, then its sections.

    ``urls`` holds the download addresses; ``archive.zip#folder/file`` names a file within an archive. ``md5`` serves
    files whose source states no sha256.
    """

    name: str
    description: str
    format: str
    source: str = ""
    licence: str = ""

    files: PerFile[FileName] = PerFile[FileName]()
    sha256: PerFile[Sha256] = PerFile[Sha256]()
    md5: PerFile[Md5] = PerFile[Md5]()
    urls: PerFile[Url] = PerFile[Url]()
    counts: Counts = Counts()
    ids: Offsets = Offsets()
    split: SplitSettings = SplitSettings()
    planted: Planted | None = None
    imported: Imported | None = None
    rows: RowCounts = RowCounts()

    _path: Path = PrivateAttr(Path())

    @property
    def path(self) -> Path:
        """The file that the card was read from."""
        return self._path

    def checksum(self, part: str) -> Checksum | None:
        """The checksum of the file that holds ``part``: the sha256, else the md5, else None."""
        for algorithm, digests in (("sha256", self.sha256), ("md5", self.md5)):
            if digest := digests.named().get(part):
                return Checksum(algorithm, digest)
        return None


SECTIONS: dict[str, type[Settings]] = {
    key: kind
    for key, info in Card.model_fields.items()
    for kind in (info.annotation, *get_args(info.annotation))
    if isinstance(kind, type) and issubclass(kind, Settings)
}


def read_card(path: Path) -> Card:
    """Read and check a card. Raises RecipeError with all faults of the card, DataError if it is not a TOML file."""
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
    unknown = [key for key, value in written.items() if isinstance(value, dict)]
    keys = {key: value for key, value in written.items() if key not in unknown}
    _, wrong = fill(Card, keys, "card")
    faults += [replace(fault, where=fault.where.removeprefix("card.")) for fault in wrong]
    faults += [Fault(key, f"unknown section; {nearest(key, SECTIONS)}") for key in unknown]
    if not wrong:
        faults += _contradictions(path, keys["name"], keys["format"], sections)
    if faults:
        raise RecipeError(faults, str(path))
    card = Card(**keys, **sections)
    card._path = path
    return card


def _contradictions(path: Path, name: str, format: str, sections: dict[str, Any]) -> list[Fault]:
    """Faults between keys that are each valid alone."""
    faults = []
    allowed = [*FORMATS, "planted", BINARY]
    kind, expected = ("folder", Path(os.path.abspath(path)).parent.name) if path.name == CARD else ("file", path.stem)
    if name != expected:
        faults.append(Fault("name", f"must be the {kind}'s name, '{expected}', got '{name}'"))
    if format not in allowed:
        faults.append(Fault("format", f"unknown format '{format}'; {nearest(format, allowed)}"))
    elif format == "planted":
        if "planted" not in sections:
            faults.append(Fault("planted", "this section is required by format = 'planted'"))
        idle = [key for key in ("files", "sha256", "md5", "ids", "split") if key in sections]
        faults += [Fault(key, "this section is for files, and planted data has none") for key in idle]
    elif "planted" in sections:
        faults.append(Fault("planted", f"this section is for format = 'planted', got '{format}'"))
    elif "files" not in sections:
        faults.append(Fault("files", "this section is required: train and test, or all"))
    elif (files := sections["files"]) and not _complete(files):
        faults.append(Fault("files", "give either train and test, or all"))
    return faults


def _complete(files: PerFile[str]) -> bool:
    return not (files.train or files.test or files.validation) if files.all else bool(files.train and files.test)
