"""From a recipe to a run folder: prepare, train, save, measure.

A finished run is reused, and an unfinished one resumes from its checkpoint. ``metrics.json`` is written last. The
folder is locked while a process works on it. ``rectoolkit.runs.identity`` tells whether a folder holds a recipe's run.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.data.catalog import load_data
from rectoolkit.errors import UserError
from rectoolkit.evaluation.evaluate import evaluate
from rectoolkit.files import atomic_write, remove_parts, write_text
from rectoolkit.recipe.registry import REGISTRIES
from rectoolkit.runs.identity import Identity, describe, is_begun, is_finished
from rectoolkit.runs.layout import FAILURE, FOLD_IN, METRICS, MODEL, SEEN, SIDES, codes_file, ids_file, rows_file
from rectoolkit.runs.measure import measure
from rectoolkit.runs.run import Run
from rectoolkit.runs.split import Split, held_out, split_of
from rectoolkit.runs.store import locked
from rectoolkit.runs.teacher import resolve_teacher
from rectoolkit.search.codes import PackedTable
from rectoolkit.search.fold_in import FoldIn
from rectoolkit.search.index import check_count
from rectoolkit.training.callbacks import Callback, Callbacks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from rectoolkit.data import Dataset
    from rectoolkit.model.recommender import Recommender
    from rectoolkit.recipe import Recipe
    from rectoolkit.training.checkpoint import Progress

    Table = PackedTable | npt.NDArray[np.float32]

_AFTER_FORK: list[bool] = []  # filled in a process that was forked from one that had loaded torch
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _AFTER_FORK.append(True) if "torch" in sys.modules else None)

DEVICE = r"auto|cpu|cuda(:\d{1,3})?"


@dataclass(frozen=True)
class RunOptions:
    """Options of making a run, such as device and threads. They are not part of the run's digest.

    Parameters
    ----------
    runs
        The folder of run folders.
    device
        The torch device to train on: ``cpu``, ``cuda``, ``cuda:N``, or ``auto`` for a GPU where there is one.
    threads
        The number of threads of torch and of the search; all cores by default.
    callbacks
        Receive the progress of training (``rectoolkit.training.callbacks``).
    wait
        Whether to wait for another process that works on the same run. By default that is an error.

    Raises
    ------
    UserError
        If a value is not allowed.
    """

    runs: Path = Path("runs")
    device: str = "cpu"
    threads: int | None = None
    callbacks: tuple[Callback, ...] = ()
    wait: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.runs, str | Path):
            raise UserError(f"runs must be the path of a folder, got {self.runs!r}")
        object.__setattr__(self, "runs", Path(self.runs))
        if self.threads is not None:
            check_count("threads", self.threads)
            object.__setattr__(self, "threads", int(self.threads))
        if not isinstance(self.device, str) or not re.fullmatch(DEVICE, self.device):
            raise UserError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {self.device!r}")

    @property
    def callback(self) -> Callback:
        """All callbacks as one."""
        return Callbacks(*self.callbacks)

    def on_device(self) -> RunOptions:
        """These options with ``auto`` replaced by a device. Raises UserError if torch does not see the device."""
        if self.device == "cpu":
            return self
        import torch

        count = torch.cuda.device_count()
        if self.device == "auto":
            return replace(self, device="cuda" if count else "cpu")
        if int(self.device[5:] or 0) >= count:
            raise UserError(f"device '{self.device}': torch sees {count} GPUs here; write 'cpu' or 'auto'")
        return self


@dataclass(frozen=True)
class Prepared:
    """A run before its training: its recipe, the data it names, and the folder it becomes.

    ``built`` is the recipe with the folder of the teacher's run in place of the teacher's recipe.
    """

    recipe: Recipe
    built: Recipe
    dataset: Dataset
    split: Split
    identity: Identity
    folder: Path


def execute(recipe: Recipe, options: RunOptions | None = None, dataset: Dataset | None = None) -> Run:
    """Make the run of a recipe: reuse a finished one, resume an unfinished one, or start.

    Parameters
    ----------
    recipe
        The loaded recipe.
    options
        Where and how to run; the folder ``runs`` and the CPU by default.
    dataset
        Data to use in place of the recipe's data set. Only such data may lack a test part; then no accuracy is
        measured.

    Returns
    -------
    Run
        The finished run, opened for reading.

    Raises
    ------
    UserError
        If the recipe, its data or its run folder cannot be used (DataError, FormatError and TrainingError included).
    OSError
        If the machine refuses, for example because the disk is full. No file is left that would pass for complete.
    """
    options = options or RunOptions()
    run = prepare(recipe, options, dataset)
    if isinstance(run, Run):
        return run
    options = options.on_device()
    with _working(run, options) as finished:
        if not finished:
            where = "" if options.device == "cpu" else f" on {options.device}"
            options.callback.stage(f"building the model on {run.split.train.num_interactions:,} interactions{where}")
            model, progress = train(run.folder, run.built, run.split, options)
            save(run.folder, run.split, model, options.threads)
            options.callback.stage("measuring the codes on the test part")
            measure(run.folder, recipe, run.dataset, progress, options.threads)
    return Run.open(run.folder)


def prepare(recipe: Recipe, options: RunOptions, dataset: Dataset | None = None) -> Prepared | Run:
    """Load the data and check all that can be checked before training, or open the finished run.

    A missing teacher is trained here.
    """
    tested = dataset is None
    if dataset is None:
        source = recipe["dataset"]["name"] or recipe["dataset"]["path"]
        options.callback.stage(f"loading data: {source}")
        dataset = load_data(recipe["dataset"])
    folder = options.runs / recipe.folder_name
    built, teacher = resolve_teacher(recipe, dataset, options.runs)
    identity = Identity.of(recipe, dataset, built, teacher)
    if is_finished(folder, identity, dataset):  # needs neither its split nor its teacher any more
        return Run.open(folder)
    split = split_of(recipe, dataset, tested)
    if teacher is not None:
        train_teacher(recipe, teacher, dataset, options)
        identity = Identity.of(recipe, dataset, built, teacher)
        is_begun(folder, identity, dataset)  # refuses a folder begun with another teacher
    check_outside(built, dataset)
    return Prepared(recipe, built, dataset, split, identity, folder)


def with_teacher(recipe: Recipe, dataset: Dataset, options: RunOptions) -> Recipe:
    """The recipe with the folder of its teacher's run, which is trained if missing; checks the files it reads."""
    built, teacher = resolve_teacher(recipe, dataset, options.runs)
    if teacher is not None:
        train_teacher(recipe, teacher, dataset, options)
    check_outside(built, dataset)
    return built


def train_teacher(recipe: Recipe, teacher: Recipe, dataset: Dataset, options: RunOptions) -> None:
    """Make the run of the teacher of ``recipe``, unless it is finished. Waits for another process that makes it."""
    telling = _TeacherProgress(recipe["loss"]["teacher"], teacher, options.callback)
    execute(teacher, replace(options, callbacks=(telling,), wait=True), dataset)


def check_run(recipe: Recipe, dataset: Dataset, runs: Path) -> None:
    """Raise UserError if something would stop the run of a recipe before its training. Trains nothing."""
    built, teacher = resolve_teacher(recipe, dataset, runs)
    folder = runs / recipe.folder_name
    if is_begun(folder, Identity.of(recipe, dataset, built, teacher), dataset) and (folder / METRICS).exists():
        return
    if teacher is None or (runs / teacher.folder_name / METRICS).exists():
        check_outside(built, dataset)


class _TeacherProgress(Callback):
    """Reports the training of a teacher as at most ten stages, since its epochs are not those of the run."""

    def __init__(self, written: str, teacher: Recipe, callback: Callback) -> None:
        self.epochs, self.callback = teacher["train"]["epochs"], callback
        self.written, self.begun = written, False

    def stage(self, what: str) -> None:
        if not self.begun:
            self.begun = True
            self.callback.stage(f"training the teacher: {self.written}")

    def epoch(self, row: dict[str, Any]) -> None:
        if row["epoch"] % -(-self.epochs // 10) == 0:
            self.callback.stage(f"training the teacher: {self.written}, epoch {row['epoch']} of {self.epochs}")

    def resume(self, rows: list[dict[str, Any]]) -> None: ...


def check_outside(recipe: Recipe, dataset: Dataset) -> None:
    """Let the components that read files of their own check these files against the data."""
    held = held_out(recipe.seed, recipe["train"], dataset)
    for kind, registry in REGISTRIES.items():
        registry.settings(recipe[kind]).check_data(dataset, held)


@contextmanager
def _working(run: Prepared, options: RunOptions) -> Iterator[bool]:
    """Make, lock and describe the run folder. Yields True if another process finished the run in the meantime.

    A failure leaves its message in the folder, which tells it from an interrupt.
    """
    folder = run.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (NotADirectoryError, FileExistsError):
        raise UserError(f"{options.runs}: is a file; name a folder for the runs") from None
    with locked(folder, options.wait):
        if is_finished(folder, run.identity, run.dataset):
            yield True
            return
        remove_parts(folder)
        for earlier in (METRICS, FAILURE):
            (folder / earlier).unlink(missing_ok=True)
        try:
            describe(folder, run.recipe, run.identity, run.dataset, options.device, options.threads)
            for side, ids in run.dataset.ids().items():
                ids.save(folder / ids_file(side))
            yield False
        except Exception as error:
            with suppress(OSError):  # the disk may be full: the failure itself is what matters
                write_text(folder / FAILURE, f"{error if isinstance(error, UserError) else repr(error)}\n")
            raise


def train(folder: Path, recipe: Recipe, split: Split, options: RunOptions) -> tuple[Recommender, Progress]:
    """The model trained on ``split.train``, with the weights of its best epoch; resumes from a checkpoint."""
    from rectoolkit.model.recommender import assemble
    from rectoolkit.training.loop import fit

    with _torch_threads(options.threads):
        parts = assemble(recipe, split.train, options.device)
        validate = _validation(recipe, split, options.threads)
        progress = fit(parts, recipe["train"], folder, validate, options.callback)
    return parts.model, progress


def _validation(recipe: Recipe, split: Split, threads: int | None) -> Callable[[Any], dict[str, float]] | None:
    """The function that computes the validation metrics of two tables, through the packed index."""
    if (held := split.validation) is None:
        return None
    metrics = [*recipe["evaluate"]["metrics"], recipe["train"]["monitor"]]

    def validate(tables: Any) -> dict[str, float]:
        users, items = map(_packed, tables)
        return evaluate(users, items, split.train, held, metrics, threads).means

    return validate


@contextmanager
def _torch_threads(count: int | None) -> Iterator[None]:
    """Set the number of torch threads while the block runs; None leaves it.

    In a process forked from one that had loaded torch, OpenMP waits for ever for the threads of its parent. None stands
    for one thread there, with a warning, and more are a UserError.
    """
    import torch

    before = torch.get_num_threads()
    if _AFTER_FORK and before > 1:
        advice = 'for more, start it with multiprocessing.get_context("spawn")'
        if (count or 1) > 1:
            raise UserError(f"threads must be 1 in a process forked from one that had loaded torch; {advice}")
        if count is None:
            warnings.warn(f"training with one thread in a forked process; {advice}", stacklevel=3)
            count = 1
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def save(folder: Path, split: Split, model: Recommender, threads: int | None) -> None:
    """Write the results of training: codes and float rows, the seen interactions, the fold-in of new users, weights."""
    import torch

    with _torch_threads(threads):
        real = model.real()
        _save_tables(folder, model.tables(real), real)
        split.seen.save(folder / SEEN)
        _save_fold_in(folder, split, model, real)
    with atomic_write(folder / MODEL) as file:
        torch.save(model.state_dict(), file)


def _save_tables(folder: Path, tables: Any, real: Any) -> None:
    for side, table, rows in zip(SIDES, map(_packed, tables), real, strict=True):
        with atomic_write(folder / rows_file(side)) as file:
            np.save(file, np.ascontiguousarray(rows.detach().float().cpu().numpy()))
        if isinstance(table, PackedTable):
            table.save(folder / codes_file(side))


def _packed(table: Any) -> Table:
    return table if isinstance(table, np.ndarray) else PackedTable.pack(table)


def _save_fold_in(folder: Path, split: Split, model: Recommender, real: Any) -> None:
    """Fit, on the trained users, the map that embeds new users from their items."""
    import torch

    run = Run(folder)
    with torch.no_grad():
        model.encoder.eval()
        targets, aggregation = model.user_quantizer.target(real[0]), model.encoder.aggregation()
        grid = model.user_quantizer.row_grid()
    rows = np.ascontiguousarray(targets.detach().float().cpu().numpy())
    tables = (run.users, run.items)
    fold = FoldIn.fit(aggregation, split.train, split.seen.item_degrees, tables, run.float_rows()[0], rows, grid)
    fold.save(folder / FOLD_IN)
