"""What the card of an imported data set says of its making: settings, sources, and what became of the rows.

The two sections ``[imported]`` and ``[rows]``. The same settings over the same bytes give the same data set, byte
for byte, so an import whose card says both is not made again.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rectoolkit.recipe.registry import Settings

Share = Annotated[float, Field(ge=0, lt=1)]
SplitName = Literal["random", "leave-one-out", "time", "user-time", "given"]


class Imported(Settings):
    """The section ``[imported]``: what was read, and how. ``sha256`` are of the sources, in their order.

    ``parts`` says for each source which part it holds (``all`` where the split was made here).
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
        """What is set otherwise in ``other``, as ``k_core: 5, now 10``; the sources' names do not count."""
        mine, theirs = self.model_dump(), other.model_dump()
        found = [
            f"{key}: {value!r}, now {theirs[key]!r}"
            for key, value in mine.items()
            if key not in ("sources", "sha256") and value != theirs[key]
        ]
        changed = not self.sha256 or self.sha256 != other.sha256
        return [*found, *(["the content of the sources"] if changed else [])]


class RowCounts(Settings):
    """The section ``[rows]``: how many rows were read, and how many left out for which reason."""

    read: int = 0
    missing: int = 0
    below_rating: int = 0
    repeated: int = 0
    in_an_earlier_part: int = 0
    outside_core: int = 0

    @property
    def kept(self) -> int:
        """How many were kept, a pair each."""
        left_out = (self.missing, self.below_rating, self.repeated, self.in_an_earlier_part, self.outside_core)
        return self.read - sum(left_out)
