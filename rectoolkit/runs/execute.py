"""From a recipe to a run folder: prepare, train, save, measure.

A finished run is reused, and an unfinished one resumes from its checkpoint. ``metrics.json`` is written last. The
folder is locked while a process works on it. ``rectoolkit.runs.identity`` tells whether a folder holds a recipe's run.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.data.catalog import load_data
from rectoolkit.errors import UserError
from rectoolkit.evaluation.evaluate import evaluate
from rectoolkit.files import atomic_write, remove_parts, write_text
from rectoolkit.recipe.registry import REGISTRIES
from rectoolkit.runs.identity import Identity, describe, is_finished
from rectoolkit.runs.layout import FAILURE, FOLD_IN, METRICS, MODEL, SEEN, SIDES, codes_file, ids_file, rows_file
from rectoolkit.runs.measure import measure
from rectoolkit.runs.run import Run
from rectoolkit.runs.split import Split, held_out, split_of
from rectoolkit.runs.store import locked
from rectoolkit.search.codes import PackedTable
from rectoolkit.search.fold_in import FoldIn
from rectoolkit.search.index import check_count
from rectoolkit.training.callbacks import Callbacks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from rectoolkit.data import Dataset
    from rectoolkit.model.recommender import Recommender
    from rectoolkit.recipe import Recipe
    from rectoolkit.training.callbacks import Callback
    from rectoolkit.training.checkpoint import Progress

    Table = PackedTable | npt.NDArray[np.float32]

DEVICE = r"cpu|cuda(:\d+)?"


@dataclass(frozen=True)
class RunOptions:
    """Where and how a run is made. Unlike the recipe, none of it is part of the run's digest.

    Parameters
    ----------
    runs
        The folder of run folders.
    device
        The torch device: ``cpu``, ``cuda`` or ``cuda:N``.
    threads
        The number of threads of torch and of the search; all cores by default.
    callbacks
        Hear of the progress of training (``rectoolkit.training.callbacks``).

    Raises
    ------
    UserError
        If a value is not allowed, or torch does not see the device.
    """

    runs: Path = Path("runs")
    device: str = "cpu"
    threads: int | None = None
    callbacks: tuple[Callback, ...] = ()

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
class Prepared:
    """A run before its training: a recipe, the data it names, and the folder it becomes."""

    recipe: Recipe
    dataset: Dataset
    split: Split
    identity: Identity
    folder: Path

    def is_finished(self) -> bool:
        """Whether the folder holds this run, whole. Raises UserError if it was begun on something else."""
        return is_finished(self.folder, self.identity, self.dataset)


def execute(recipe: Recipe, options: RunOptions | None = None, dataset: Dataset | None = None) -> Run:
    """Make the run of a recipe: reuse a finished one, resume an unfinished one, or start.

    Parameters
    ----------
    recipe
        The loaded recipe.
    options
        Where and how to run; the folder ``runs`` and the CPU by default.
    dataset
        Data to use in place of what the recipe names. Only such data may lack a test part; then no accuracy is
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
    callback = Callbacks(*options.callbacks)
    run = prepare(recipe, options, dataset)
    if run.is_finished():
        return Run.open(run.folder)
    with _working(run, options) as finished:
        if not finished:
            callback.stage(f"building the model on {run.split.train.num_interactions:,} interactions")
            model, progress = train(run.folder, recipe, run.split, options)
            save(run.folder, run.split, model, options.threads)
            callback.stage("measuring the codes on the test part")
            measure(run.folder, recipe, run.dataset, progress, options.threads)
    return Run.open(run.folder)


def prepare(recipe: Recipe, options: RunOptions, dataset: Dataset | None = None) -> Prepared:
    """Load the data and check all that can be checked before training. Writes nothing."""
    tested = dataset is None
    if dataset is None:
        source = recipe["dataset"]["name"] or recipe["dataset"]["path"]
        Callbacks(*options.callbacks).stage(f"loading data: {source}")
        dataset = load_data(recipe["dataset"])
    split = split_of(recipe, dataset, tested)
    check_outside(recipe, dataset)
    return Prepared(recipe, dataset, split, Identity.of(recipe, dataset), options.runs / recipe.folder_name)


def check_outside(recipe: Recipe, dataset: Dataset) -> None:
    """Let the components that read files of their own check these files against the data."""
    for kind, registry in REGISTRIES.items():
        held = held_out(recipe.seed, recipe["train"], dataset)
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
    with locked(folder):
        if run.is_finished():
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
        progress = fit(parts, recipe["train"], folder, validate, Callbacks(*options.callbacks))
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
    """Set the number of torch threads while the block runs; None leaves it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def save(folder: Path, split: Split, model: Recommender, threads: int | None) -> None:
    """Write what training leaves: codes and float rows, the seen interactions, the fold-in of new users, weights."""
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
