"""The card of a data set: a TOML file that says what the set is, where it comes from, and what a right copy holds.

``read_card`` checks all of it and reports every fault at once; ``catalog`` finds cards and loads what they describe.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from rectoolkit.data.assemble import Offsets, Split
from rectoolkit.data.checksum import Checksum
from rectoolkit.data.formats import READERS
from rectoolkit.data.planted import Planted
from rectoolkit.data.provenance import Imported, RowCounts
from rectoolkit.errors import DataError, Fault, RecipeError, nearest
from rectoolkit.recipe.registry import Settings, fill

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CARD, BINARY = "card.toml", "binary"
FileName = Annotated[str, Field(pattern=r"^[^/\\]*$", description="a name within the folder, without / or \\")]
Sha256 = Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]
Md5 = Annotated[str, Field(pattern="^([0-9a-f]{32})?$")]
Url = Annotated[str, Field(pattern="^(https?://.+)?$")]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)] | None


class Head(Settings):
    """The keys at the top of a card: what the set is, where it comes from and under which licence."""

    name: str
    description: str
    format: str
    source: str = ""
    licence: str = ""


class Files(Settings):
    """File names within the set's folder: ``train`` and ``test`` (and ``validation``), or one file ``all``.

    ``user_ids`` and ``item_ids`` are what the source calls them (``data.ids``), a row each.
    """

    train: FileName = ""
    test: FileName = ""
    validation: FileName = ""
    all: FileName = ""
    user_ids: FileName = ""
    item_ids: FileName = ""

    def named(self) -> dict[str, str]:
        """The files there are, by what they hold."""
        return {key: name for key, name in self.model_dump().items() if name}


class Sha256s(Settings):
    """The sha256 of each file, in hex; left out where it is not known."""

    train: Sha256 = ""
    test: Sha256 = ""
    validation: Sha256 = ""
    all: Sha256 = ""
    user_ids: Sha256 = ""
    item_ids: Sha256 = ""


class Md5s(Settings):
    """The md5 of each file, in hex, where no sha256 is known: it tells damage and versions, not malice."""

    train: Md5 = ""
    test: Md5 = ""
    validation: Md5 = ""
    all: Md5 = ""


class Urls(Settings):
    """Where each file is downloaded from. ``archive.zip#folder/file`` names a file within a zip or tar archive."""

    train: Url = ""
    test: Url = ""
    validation: Url = ""
    all: Url = ""


class Counts(Settings):
    """What a correct download gives. ``users`` and ``items`` are the id space: the largest id plus one."""

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
    sha256: Sha256s = Sha256s()
    md5: Md5s = Md5s()
    counts: Counts = Counts()
    ids: Offsets = Offsets()
    split: Split = Split()
    planted: Planted | None = None
    urls: Urls = Urls()
    imported: Imported | None = None
    rows: RowCounts = RowCounts()

    @property
    def name(self) -> str:
        return self.head.name

    def checksum(self, part: str) -> Checksum | None:
        """Of the file that holds ``part``: its sha256, else its md5, else None where the card has neither."""
        for algorithm in ("sha256", "md5"):
            if digest := getattr(getattr(self, algorithm), part, ""):
                return Checksum(algorithm, digest)
        return None


SECTIONS: dict[str, type[Settings]] = {
    "files": Files,
    "sha256": Sha256s,
    "md5": Md5s,
    "counts": Counts,
    "ids": Offsets,
    "split": Split,
    "planted": Planted,
    "urls": Urls,
    "imported": Imported,
    "rows": RowCounts,
}


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
    allowed = [*READERS, "planted", BINARY]
    kind, expected = ("folder", Path(os.path.abspath(path)).parent.name) if path.name == CARD else ("file", path.stem)
    if head["name"] != expected:
        faults.append(Fault("name", f"must be the {kind}'s name, '{expected}', got '{head['name']}'"))
    if head["format"] not in allowed:
        faults.append(Fault("format", f"unknown format '{head['format']}'; {nearest(head['format'], allowed)}"))
    elif head["format"] == "planted":
        if "planted" not in sections:
            faults.append(Fault("planted", "this section is required by format = 'planted'"))
        idle = [k for k in ("files", "sha256", "md5", "ids", "split") if k in sections]
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
