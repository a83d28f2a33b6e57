"""Measuring a run on the test part of its data, from its packed codes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from rectoolkit.data.catalog import load_data
from rectoolkit.errors import UserError
from rectoolkit.evaluation.evaluate import Evaluation, evaluate, queries_per_second
from rectoolkit.files import checksum, save_arrays, write_text
from rectoolkit.recipe.files import read_toml
from rectoolkit.recipe.registry import import_plugins, parse_metric
from rectoolkit.runs.layout import CHECKPOINT, ENVIRONMENT, METRICS, PER_USER, RECIPE, read_json
from rectoolkit.runs.run import Run
from rectoolkit.search.codes import PackedTable
from rectoolkit.training.memory import peak_mb

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from rectoolkit.data import Dataset
    from rectoolkit.errors import Fault
    from rectoolkit.recipe import Recipe
    from rectoolkit.training.checkpoint import Progress

    Table = PackedTable | npt.NDArray[np.float32]

CHECKED = (".codes", ".npy", ".bin", ".ids")  # files of numbers, whose damage nothing else would show


def measure(folder: Path, recipe: Recipe, dataset: Dataset, progress: Progress, threads: int | None) -> None:
    """Measure the saved codes, and the same model before its quantizer; write ``metrics.json``, which ends the run."""
    run, names = Run(folder), recipe["evaluate"]["metrics"]
    tables: dict[str, tuple[Table, Table]] = {"codes": (run.users, run.items)}
    if isinstance(run.items, PackedTable):
        tables["float32"] = run.float_rows()
    before = "float32" if "float32" in tables else "codes"  # one pair of tables in a run without a quantizer
    untested = Evaluation(np.zeros(0, np.int64), {})
    results = {
        name: evaluate(*pair, run.seen, dataset.test, names, threads) if dataset.test.num_interactions else untested
        for name, pair in tables.items()
    }
    coded, epochs = results["codes"], len(progress.rows)
    asked = coded.users if len(coded.users) else np.flatnonzero(run.seen.user_degrees)
    speeds = {name: queries_per_second(*pair, run.seen, asked, names, threads) for name, pair in tables.items()}
    save_arrays(folder / PER_USER, "per_user", {"users": coded.users, **coded.values}, {})
    figures = {
        "name": recipe.name,
        "bits": recipe["quantizer"].get("bits", 32),
        "accuracy": coded.means,
        "float32": {
            "accuracy": results[before].means,
            "queries_per_second": speeds[before],
            **_bytes(*tables[before]),
        },
        "queries_per_second": speeds["codes"],
        **_bytes(*tables["codes"]),
        "test_users": len(coded.users),
        "epochs": epochs,
        "best_epoch": progress.best_epoch or None,  # None without validation
        "train_seconds": progress.seconds,  # gradients alone, without validation and packing
        "seconds_per_epoch": progress.seconds / epochs,
        "peak_memory_mb": peak_mb(),  # of the process since its start
        "crc32": {path.name: checksum(path) for path in sorted(folder.iterdir()) if path.suffix in CHECKED},
    }
    write_text(folder / METRICS, json.dumps(figures, indent=2) + "\n")
    (folder / CHECKPOINT).unlink(missing_ok=True)


def measure_again(path: Path, metrics: Sequence[str], threads: int | None = None) -> Evaluation:
    """Other ``metrics`` of a finished run, from its packed codes and the test part of its data.

    The plugins of the run are imported first, because they may define the metrics. Raises UserError if a metric is
    unknown, or if the data has changed since the run was made.
    """
    run, (recipe, _) = Run.open(path), read_toml(path / RECIPE)
    faults: list[Fault] = []
    import_plugins(recipe.get("plugins", []), faults, path)
    try:
        for metric in metrics:
            parse_metric(metric)
    except UserError as error:  # a plugin that is missing matters only now: the codes need none
        raise UserError("\n  ".join([str(error), *map(str, faults)])) from None
    dataset = load_data(recipe["dataset"])
    then = read_json(path / ENVIRONMENT).get("data", {}).get("digest", "")
    if then != dataset.digest:
        raise UserError(
            f"{path}: the run was trained on other interactions of the data set '{dataset.name}' (digest {then[:12]}, "
            f"now {dataset.digest[:12]}), so its codes cannot be measured on the test part of these"
        )
    return evaluate(run.users, run.items, run.seen, dataset.test, metrics, threads)


def _bytes(users: Table, items: Table) -> dict[str, float]:
    sizes = [t.bytes_per_row if isinstance(t, PackedTable) else t.shape[1] * t.itemsize for t in (users, items)]
    return {"bytes_per_user": sizes[0], "bytes_per_item": sizes[1]}
