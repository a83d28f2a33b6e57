"""A click log of any size for measuring imports: ``python tests/benchmarks/click_log.py 100000000 clicks.parquet``.

Rows (user, item, rating, time) in row groups of a million, each from its own random stream, so memory does not grow:
users are as many as a twentieth of the rows and written as texts, items as many as a five-hundredth (10,000 at
least) and as integers. Both are drawn with probability falling as a power of their rank, so pairs repeat as they do
in logs. A file name ending in ``.csv`` gives csv.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

GROUP = 1_000_000
BEGIN = 1_700_000_000  # seconds since 1970; a row a second


def write_click_log(rows: int, path: Path) -> None:
    """Write ``rows`` rows to ``path``, parquet or csv by its suffix."""
    import pyarrow
    from pyarrow import compute, csv, parquet

    users, items = max(1000, rows // 20), max(10_000, rows // 500)
    schema = pyarrow.schema(
        [
            ("user_id", pyarrow.string()),
            ("item_id", pyarrow.int64()),
            ("rating", pyarrow.int8()),
            ("timestamp", pyarrow.int64()),
        ]
    )
    writer = (csv.CSVWriter if path.suffix == ".csv" else parquet.ParquetWriter)(str(path), schema)
    with writer:
        for group, start in enumerate(range(0, rows, GROUP)):
            draws, count = np.random.default_rng([2023, group]), min(GROUP, rows - start)
            user = (users * draws.random(count) ** 1.5).astype(np.int64) * 7919 % users  # rank says nothing of the id
            item = (items * draws.random(count) ** 3).astype(np.int64) * 104_729 % items
            names = compute.binary_join_element_wise("user-", pyarrow.array(user).cast(pyarrow.string()), "")
            rating = draws.integers(1, 6, count, np.int8)
            time = np.arange(BEGIN + start, BEGIN + start + count)
            writer.write_table(pyarrow.table([names, item, rating, time], schema=schema))


if __name__ == "__main__":
    if len(sys.argv) != 3 or not sys.argv[1].isdigit():
        sys.exit("usage: python tests/benchmarks/click_log.py ROWS FILE.parquet")
    write_click_log(int(sys.argv[1]), Path(sys.argv[2]))
