"""Ranked lists: answers as they are shown, and the lists of all users written to a file.

    csv, parquet    columns user, rank (from 1), item, score; a row per item
    jsonl           {"user": ..., "items": [...], "scores": [...]}; a line per user

The file is written completely or not at all, and only one block of users is in memory. Users and items appear with
their ids in the data. In csv, an id with a comma, a quote or a line break is quoted.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np

from rectoolkit.errors import UserError, nearest, needed
from rectoolkit.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from rectoolkit.runs.run import Run
    from rectoolkit.search.index import Hits

BLOCK_HITS = 1 << 20  # items in the lists of a block of users: 8 MB of ids


@dataclass(frozen=True)
class Ranked:
    """One answer as it is shown: the user or item it is for, and the items with their scores, best first."""

    of: Any
    items: list[Any]
    scores: list[float]

    @property
    def name(self) -> str:
        """``of`` as text; several items are separated by commas."""
        return ",".join(map(str, self.of)) if isinstance(self.of, list) else str(self.of)


def as_shown(of: Sequence[Any], hits: Hits) -> Iterator[Ranked]:
    """A Ranked for each row of ``hits``, without its empty places; ``of`` names the rows."""
    for name, ids, scores in zip(of, hits.ids.tolist(), hits.scores.tolist(), strict=True):
        number = sum(item not in (-1, None) for item in ids)  # empty places come last
        yield Ranked(name, ids[:number], scores[:number])


def write_lists(run: Run, path: Path, k: int, told: Callable[[int, int], None] | None = None, **settings: Any) -> int:
    """Write the k best items of every user to ``path`` (.csv, .jsonl or .parquet); return the number of users.

    ``settings`` are those of ``Run.recommend``. ``told`` is called with the users done and the users in all. Raises
    UserError for another suffix, and if pyarrow is missing for parquet.
    """
    if path.suffix not in WRITERS:
        raise UserError(f"{path}: unknown suffix '{path.suffix}'; {nearest(path.suffix, WRITERS)}")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent}: no such folder")
    kind = WRITERS[path.suffix]
    num_users, at_once = run.seen.num_users, max(1, BLOCK_HITS // max(1, min(k, run.seen.num_items)))
    with atomic_write(path) as file:
        writer = kind(file, run)
        for start in range(0, num_users, at_once):
            rows = np.arange(start, min(start + at_once, num_users))
            users = rows.tolist() if run.user_ids is None else run.user_ids.take(rows)
            writer.write(list(as_shown(users, run.named(run.rank(rows, k, **settings)))))
            if told:
                told(start + len(rows), num_users)
        writer.close()
    return num_users


class Writer(Protocol):
    """Writes blocks of answers."""

    def write(self, rows: list[Ranked]) -> None: ...

    def close(self) -> None: ...


class Csv:
    """user,rank,item,score, with scores in the fewest digits that give the same float32."""

    def __init__(self, file: BinaryIO, run: Run) -> None:
        self.file = file
        file.write(b"user,rank,item,score\n")

    def write(self, rows: list[Ranked]) -> None:
        lines = io.StringIO()
        table = csv.writer(lines, lineterminator="\n")
        for row in rows:
            pairs = zip(row.items, row.scores, strict=True)
            table.writerows((row.of, rank, item, np.float32(score)) for rank, (item, score) in enumerate(pairs, 1))
        self.file.write(lines.getvalue().encode())

    def close(self) -> None: ...


class Jsonl:
    """A JSON object per user."""

    def __init__(self, file: BinaryIO, run: Run) -> None:
        self.file = file

    def write(self, rows: list[Ranked]) -> None:
        lines = (json.dumps({"user": row.of, "items": row.items, "scores": row.scores}) + "\n" for row in rows)
        self.file.write("".join(lines).encode())

    def close(self) -> None: ...


class Parquet:
    """The columns of csv, with a row group per block."""

    def __init__(self, file: BinaryIO, run: Run) -> None:
        with needed("parquet"):
            import pyarrow as arrow
            import pyarrow.parquet as parquet
        user, item = (
            arrow.int64() if ids is None or ids.values is not None else arrow.string()
            for ids in (run.user_ids, run.item_ids)
        )
        columns = {"user": user, "rank": arrow.int32(), "item": item, "score": arrow.float32()}
        self.arrow, self.schema = arrow, arrow.schema(columns.items())
        self.writer = parquet.ParquetWriter(file, self.schema)

    def write(self, rows: list[Ranked]) -> None:
        columns = {
            "user": [row.of for row in rows for _ in row.items],
            "rank": [rank for row in rows for rank in range(1, len(row.items) + 1)],
            "item": [item for row in rows for item in row.items],
            "score": [score for row in rows for score in row.scores],
        }
        self.writer.write_table(self.arrow.table(columns, self.schema))

    def close(self) -> None:
        self.writer.close()


WRITERS: dict[str, Callable[[BinaryIO, Run], Writer]] = {".csv": Csv, ".jsonl": Jsonl, ".parquet": Parquet}
