"""The format ``binary``: parts as the arrays they are in memory, which is what an import writes.

``train.bin``, ``test.bin``, perhaps ``validation.bin`` hold ``indptr`` and ``items`` (docs/reference/file-format.md:
arrays at 64-byte boundaries after a JSON header); they are memory-mapped, so any number opens at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rectoolkit.data.interactions import Interactions
from rectoolkit.errors import FormatError
from rectoolkit.files import open_arrays, save_arrays

if TYPE_CHECKING:
    from pathlib import Path


def save(interactions: Interactions, path: Path) -> None:
    """Write one part, whole or not at all."""
    facts = {"num_users": interactions.num_users, "num_items": interactions.num_items}
    save_arrays(path, "interactions", {"indptr": interactions.indptr, "items": interactions.items}, facts)


def load(path: Path) -> Interactions:
    """One part, memory-mapped. Raises FormatError where the file is missing, cut short or something else."""
    file = open_arrays(path, "interactions")
    indptr, items = file.array("indptr", "<i8", 1), file.array("items", "<i4", 1)
    try:
        return Interactions(indptr, items, file.count("num_users"), file.count("num_items"))
    except (ValueError, IndexError) as error:
        raise FormatError(f"{path}: does not describe interactions: {error}") from None
