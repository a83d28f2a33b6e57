"""The life of ``rectool run``: a recipe becomes a run folder. ``execute`` is read from top to bottom.

A finished run is reused, an unfinished one goes on from its checkpoint; ``metrics.json`` is written last. The folder
is locked while it is worked on; what it belongs to is the matter of ``rectoolkit.runs.store``.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit import __version__
from rectoolkit.data import Dataset, Interactions
from rectoolkit.data.catalog import load_data
from rectoolkit.errors import DataError, FormatError, UserError
from rectoolkit.evaluation.evaluate import Evaluation, evaluate, queries_per_second
from rectoolkit.files import alone, atomic_write, checksum, is_taken, remove_parts, save_arrays, write_text
from rectoolkit.recipe.registry import REGISTRIES
from rectoolkit.runs.layout import (
    CHECKPOINT,
    ENVIRONMENT,
    FAILURE,
    FOLD_IN,
    LAYOUT,
    LOCK,
    METRICS,
    MODEL,
    PER_USER,
    RECIPE,
    SEEN,
    read_json,
)
from rectoolkit.runs.run import Run
from rectoolkit.runs.store import Identity, held_out, is_finished, remember
from rectoolkit.search.codes import PackedTable
from rectoolkit.search.fold_in import FoldIn
from rectoolkit.search.packed import check_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from rectoolkit.model.recommender import Recommender
    from rectoolkit.recipe.recipe import Recipe
    from rectoolkit.training.callbacks import Watcher
    from rectoolkit.training.loop import Progress

    Table = PackedTable | npt.NDArray[np.float32]

DEVICE = r"cpu|cuda(:\d+)?"
CHECKED = (".codes", ".npy", ".bin", ".ids")  # files of numbers, whose damage nothing else would show


@dataclass(frozen=True)
class Circumstances:
    """What a run happens under and a recipe does not say; none of it is part of the digest."""

    runs: Path = Path("runs")
    device: str = "cpu"
    threads: int | None = None
    watcher: Watcher | None = None
    asked: str = ""  # ``identity.words`` of the command, by which it finds the finished run again

    def __post_init__(self) -> None:
        if self.threads is not None:
            check_count("threads", self.threads)
            object.__setattr__(self, "threads", int(self.threads))
        if not isinstance(self.device, str) or not re.fullmatch(DEVICE, self.device):
            raise UserError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {self.device!r}")
        if self.device != "cpu":
            import torch

            if int(self.device[5:] or 0) >= torch.cuda.device_count():
                raise UserError(
                    f"device '{self.device}': torch sees {torch.cuda.device_count()} GPUs here; write 'cpu'"
                )


@dataclass(frozen=True)
class Roles:
    """How a run uses its data: what it trains on, what it selects by (if anything), and what ranking leaves out."""

    train: Interactions
    held: Interactions | None
    seen: Interactions


def execute(recipe: Recipe, circumstances: Circumstances | None = None, dataset: Dataset | None = None) -> Run:
    """Do what the recipe says in its run folder: reuse a finished run, resume an unfinished one, or begin.

    ``dataset`` is used instead of what the recipe's section names; only such a one may be without a test part, and
    then nothing is measured but sizes and speeds.

    Raises UserError (with DataError, FormatError and TrainingError under it) for what the user can mend, and OSError
    for what the machine refuses; neither leaves a file that a later command would take for whole.
    """
    around = circumstances or Circumstances()
    tell = around.watcher.stage if around.watcher else lambda what: None
    tested = dataset is None
    if dataset is None:
        tell(f"loading data: {recipe['dataset']['name'] or recipe['dataset']['path']}")
        dataset = load_data(recipe["dataset"])
    parts = parts_of(recipe, dataset, tested)
    check_outside(recipe, dataset)
    folder, identity = around.runs / recipe.folder_name, Identity.of(recipe, dataset)
    if is_finished(folder, identity, dataset):
        with suppress(OSError):  # a folder that may only be read is reused all the same
            remember(folder, around.asked, recipe.notes)
        return Run.open(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (NotADirectoryError, FileExistsError):
        raise UserError(f"{around.runs}: is a file; name a folder for the runs") from None
    with locked(folder):
        if is_finished(folder, identity, dataset):  # by the process that held the lock until now
            return Run.open(folder)
        remove_parts(folder)
        (folder / METRICS).unlink(missing_ok=True)
        with _failures_kept(folder):
            _describe(folder, recipe, identity, dataset, around)
            remember(folder, around.asked, recipe.notes)
            for side, ids in dataset.ids().items():
                ids.save(folder / f"{side}.ids")  # the run answers with them wherever it is moved to
            tell(f"building the model on {parts.train.num_interactions:,} interactions")
            progress = _train(folder, recipe, parts, around)
            tell("measuring the codes on the test part")
            _measure(folder, recipe, dataset, progress, around)
    return Run.open(folder)


@contextmanager
def _failures_kept(folder: Path) -> Iterator[None]:
    """Leave the message of a failure in the folder, which tells it from an interrupt."""
    (folder / FAILURE).unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        with suppress(OSError):  # the disk may be full: the failure itself is what matters
            write_text(folder / FAILURE, f"{error if isinstance(error, UserError) else repr(error)}\n")
        raise


def parts_of(recipe: Recipe, dataset: Dataset, tested: bool = True) -> Roles:
    """Train, validation and seen interactions of a run. Raises DataError where a part that is needed is empty.

    A data set's own validation part is what selects where it has one; otherwise ``train.validation`` of each user's
    train items is held out. Ranking for the test leaves out both.
    """
    if tested and not dataset.test.num_interactions:
        raise DataError(
            f"{dataset.name}: no user has a test item, so there is nothing to evaluate; give a test file, or with a "
            "single file a larger dataset.test_share"
        )
    share, train = recipe["train"]["validation"], dataset.train
    if dataset.validation is not None:
        held = dataset.validation
        users, items = (np.concatenate(pair) for pair in zip(train.pairs(), held.pairs(), strict=True))
        seen = Interactions.from_pairs(users, items, train.num_users, train.num_items)
        return Roles(train, held if share else None, seen)
    if not share:
        return Roles(train, None, train)
    from rectoolkit.data.splits import hold_out

    times = _places(dataset) if recipe["train"]["held"] == "last" else None
    rest, held = hold_out(train, share, np.random.default_rng([recipe.seed, 1]), times)
    if not held.num_interactions:
        raise DataError(
            f"{dataset.name}: train.validation = {share} holds nothing out, since users have too few train items; "
            "write a larger share, or 0 to train without validation"
        )
    return Roles(rest, held, train)


def _places(dataset: Dataset) -> npt.NDArray[np.float64]:
    """The train items' order in their file, as times (N,). Raises DataError where there is none."""
    if dataset.places is None:
        raise DataError(
            f"{dataset.name}: train.held = 'last' needs a train file whose lines keep their order, and this data has "
            "none; write 'random', or give a validation part"
        )
    return dataset.places().astype(np.float64)


def check_outside(recipe: Recipe, dataset: Dataset) -> None:
    """Let every component that reads files of its own say whether they go with the data: before anything is made."""
    for kind, registry in REGISTRIES.items():
        suits = getattr(registry[recipe[kind]["name"]], "check_data", None)
        if suits is not None:
            suits(recipe[kind], dataset, held_out(recipe.seed, recipe["train"], dataset))


def train_model(folder: Path, recipe: Recipe, data: Roles, around: Circumstances) -> tuple[Recommender, Progress]:
    """The model trained on ``data.train``, its best epoch's weights in it; goes on from a checkpoint in ``folder``."""
    from rectoolkit.model.recommender import assemble
    from rectoolkit.training.loop import fit

    with torch_threads(around.threads):
        parts = assemble(recipe, data.train, around.device)
        validate = None if data.held is None else _validation(recipe, data.train, data.held, around)
        progress = fit(parts, recipe["train"], folder, validate, around.watcher)
    return parts.model, progress


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """So many torch threads while the block runs; as many as before with None."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(folder: Path, recipe: Recipe, data: Roles, around: Circumstances) -> Progress:
    """From the interactions to the tables in the folder."""
    import torch

    model, progress = train_model(folder, recipe, data, around)
    with torch_threads(around.threads):
        real = model.real()
        _save_tables(folder, data.seen, model.tables(real), real)
        _save_fold_in(folder, data, model, real)
    with atomic_write(folder / MODEL) as file:
        torch.save(model.state_dict(), file)
    return progress


def _validation(
    recipe: Recipe, train: Interactions, held: Interactions, around: Circumstances
) -> Callable[[Any], dict[str, float]]:
    """What measures the held-out part: the two tables of a model -> metrics, through the packed index."""
    metrics = [*recipe["evaluate"]["metrics"], recipe["train"]["monitor"]]

    def validate(tables: Any) -> dict[str, float]:
        users, items = map(_packed, tables)
        return evaluate(users, items, train, held, metrics, around.threads).means

    return validate


def _packed(table: Any) -> Table:
    return table if isinstance(table, np.ndarray) else PackedTable.pack(table)


def _save_tables(folder: Path, seen: Interactions, tables: Any, real: Any) -> None:
    for side, table, rows in zip(("users", "items"), map(_packed, tables), real, strict=True):
        with atomic_write(folder / f"{side}.npy") as file:
            np.save(file, np.ascontiguousarray(rows.detach().float().cpu().numpy()))
        if isinstance(table, PackedTable):
            table.save(folder / f"{side}.codes")
    seen.save(folder / SEEN)


def _save_fold_in(folder: Path, data: Roles, model: Recommender, real: Any) -> None:
    """What new users are given a row by, learned from those that were trained on."""
    import torch

    run = Run(folder)
    with torch.no_grad():
        model.encoder.eval()
        targets, aggregation = model.user_quantizer.target(real[0]), model.encoder.aggregation()
        grid = model.user_quantizer.row_grid()
    rows = np.ascontiguousarray(targets.detach().float().cpu().numpy())
    tables = (run.users, run.items)
    fold = FoldIn.fit(aggregation, data.train, data.seen.item_degrees, tables, run.float_rows()[0], rows, grid)
    fold.save(folder / FOLD_IN)


def _measure(folder: Path, recipe: Recipe, dataset: Dataset, progress: Progress, around: Circumstances) -> None:
    """Evaluate what lies in the folder, opened as a stranger would, and the same model before its quantizer."""
    run, names = Run(folder), recipe["evaluate"]["metrics"]
    tables: dict[str, tuple[Table, Table]] = {"codes": (run.users, run.items)}
    if isinstance(run.items, PackedTable):
        tables["float32"] = run.float_rows()
    before = "float32" if "float32" in tables else "codes"  # one table where nothing is coded
    nobody = Evaluation(np.zeros(0, np.int64), {})
    results = {
        name: evaluate(*pair, run.seen, dataset.test, names, around.threads)
        if dataset.test.num_interactions
        else nobody
        for name, pair in tables.items()
    }
    asked = results["codes"].users if len(results["codes"].users) else np.flatnonzero(run.seen.user_degrees)
    speeds = {name: queries_per_second(*pair, run.seen, asked, names, around.threads) for name, pair in tables.items()}
    coded, epochs = results["codes"], len(progress.rows)
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
        "best_epoch": progress.best_epoch or None,  # by validation, if there was any
        "train_seconds": progress.seconds,  # gradients alone: neither validation nor packing
        "seconds_per_epoch": progress.seconds / epochs,
        "peak_memory_mb": peak_memory_mb(),  # of the process, since it began
        "crc32": {path.name: checksum(path) for path in sorted(folder.iterdir()) if path.suffix in CHECKED},
    }
    write_text(folder / METRICS, json.dumps(figures, indent=2) + "\n")
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _bytes(users: Table, items: Table) -> dict[str, float]:
    sizes = [t.bytes_per_row if isinstance(t, PackedTable) else t.shape[1] * t.itemsize for t in (users, items)]
    return {"bytes_per_user": sizes[0], "bytes_per_item": sizes[1]}


def peak_memory_mb() -> float:
    """The most memory that this process has held since its program began."""
    if sys.platform == "linux":  # where ru_maxrss starts from what the parent held
        with open("/proc/self/status") as status:
            return next(float(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak / 1024**2)


def _describe(folder: Path, recipe: Recipe, identity: Identity, dataset: Dataset, around: Circumstances) -> None:
    """``recipe.toml`` and ``environment.json``: enough to repeat the run. A resumed run adds a session."""
    import torch

    def of(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "missing"

    session = {
        "begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rectoolkit": __version__,
        "python": platform.python_version(),
        "packages": {package: of(package) for package in ("torch", "dgl", "numpy", "numba", "scikit-learn")},
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
        "threads": around.threads or torch.get_num_threads(),
        "device": around.device,
    }
    try:
        earlier = read_json(folder / ENVIRONMENT)["sessions"]
    except (FormatError, KeyError):
        earlier = []
    environment = {
        "layout": LAYOUT,
        "digest": identity.recipe,
        "plugins": identity.plugins,
        "outside": identity.outside,
        "order": identity.order,
        "bits": recipe["quantizer"].get("bits", 32),
        "held_out": held_out(recipe.seed, recipe["train"], dataset),
        "data": {
            "name": dataset.name,
            "digest": dataset.digest,
            "summary": dataset.summary(),
            "user_ids": dataset.user_ids is not None,
            "item_ids": dataset.item_ids is not None,
        },
        "sessions": [*earlier, session],
    }
    write_text(folder / RECIPE, recipe.toml())
    write_text(folder / ENVIRONMENT, json.dumps(environment, indent=2) + "\n")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One writer a run folder; the lock goes with the process, however it ends."""
    with alone(folder / LOCK, f"{folder}: another process is working on this run; wait for it or stop it"):
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process works on this run folder at the moment."""
    return is_taken(folder / LOCK)
