"""Run: the folder that a recipe becomes. Opening one and recommending from it needs neither torch nor dgl.

    recipe.toml        the filled recipe             log.jsonl            one row an epoch
    environment.json   versions, machine, data       checkpoint.pt        while it trains
    users.codes, items.codes   packed codes          users.npy, items.npy   the same rows before the quantizer, float32
    seen.bin           train interactions            per_user.bin         each test user's metrics
    model.pt           weights                       metrics.json         written last: the run is finished

The life of ``rectool run`` is ``execute``, top to bottom.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit import __version__
from rectoolkit.atomic import atomic_write, remove_parts, write_text
from rectoolkit.codes import PackedTable, load_arrays, save_arrays
from rectoolkit.data import Interactions
from rectoolkit.errors import FormatError, UserError
from rectoolkit.evaluate import Evaluation, evaluate, open_index, rows_of, take
from rectoolkit.float_index import open_embeddings, share_dims
from rectoolkit.index import Index, Rescore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from rectoolkit.data import Dataset
    from rectoolkit.index import Hits
    from rectoolkit.model import Recommender
    from rectoolkit.recipe import Recipe
    from rectoolkit.train import Progress, Watcher

    Table = PackedTable | npt.NDArray[np.float32]

LAYOUT = 1  # of the run folder; raised when its files change meaning
METRICS, RECIPE, ENVIRONMENT, SEEN, PER_USER, MODEL = (
    "metrics.json",
    "recipe.toml",
    "environment.json",
    "seen.bin",
    "per_user.bin",
    "model.pt",
)


@dataclass(frozen=True)
class Run:
    """A finished run, opened for reading: codes, metrics, recommendations."""

    path: Path

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """The run in the folder ``path``. Raises FormatError where it is no finished run of this version."""
        path = Path(path)
        if not path.is_dir():
            raise FormatError(f"{path}: no such run folder; 'rectool run RECIPE' makes one in runs/")
        layout = _read_json(path / ENVIRONMENT).get("layout")
        if layout != LAYOUT:
            raise FormatError(
                f"{path}: a run folder of layout {layout}; this release reads {LAYOUT}: run its recipe.toml again"
            )
        if not (path / METRICS).exists():
            raise FormatError(f"{path}: this run is not finished; 'rectool run {path / RECIPE}' goes on with it")
        return cls(path)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Accuracy, sizes, speeds: what ``metrics.json`` holds."""
        return _read_json(self.path / METRICS)

    @cached_property
    def users(self) -> Table:
        """The users' packed codes (U rows), memory-mapped; float32 rows of a run without a quantizer."""
        return self._table("users")

    @cached_property
    def items(self) -> Table:
        """The items' packed codes (I rows), memory-mapped; float32 rows of a run without a quantizer."""
        return self._table("items")

    @cached_property
    def seen(self) -> Interactions:
        """The train interactions, which ranking excludes."""
        arrays, header = load_arrays(self.path / SEEN, "interactions")
        return Interactions(arrays["indptr"], arrays["items"], header["num_users"], header["num_items"])

    def per_user(self) -> Evaluation:
        """The test metrics of every user."""
        arrays, header = load_arrays(self.path / PER_USER, "per_user")
        users = arrays.pop("users")
        return Evaluation(users, dict(arrays), header["seconds"])

    def recommend(
        self,
        users: int | Sequence[int],
        k: int = 10,
        *,
        include_seen: bool = False,
        float_query: bool = False,
        rescore: int | None = None,
    ) -> Hits:
        """The ``k`` best items for each user id, without the user's train items; a row a user, best first.

        ``float_query``: multiply the user's float32 row, not the codes of it, with the items' codes. ``rescore``: rank
        the best so many by codes again by float32 rows of both sides. Raises UserError where the run has no codes for
        these, and of a float query where its quantizer rotates or projects a row before it is coded.
        """
        asked = np.atleast_1d(np.asarray(users))
        num_users = self.seen.num_users
        wrong = asked[(asked < 0) | (asked >= num_users)]
        if len(wrong):
            raise UserError(f"user {wrong[0]} is unknown: this run's users are 0 to {num_users - 1}")
        mask = None if include_seen else rows_of(self.seen, asked)
        if not float_query and rescore is None:
            return open_index(self.items).search(take(self.users, asked), k, seen=mask)  # type: ignore[arg-type]
        (coded, items), (real, real_items) = self.tables(), self.float_rows()
        if float_query and not share_dims(items, real_items):
            raise UserError(
                f"{self.path}: its quantizer rotates or projects a row before coding it, so float rows cannot be "
                "multiplied with its codes; leave the float query out, or rescore the best by float rows"
            )
        if rescore is not None and rescore < k:
            raise UserError(f"rescore ({rescore}) is how many items to rank again, at least k ({k})")
        again = None if rescore is None else Rescore(real[asked], real_items, rescore)
        queries = real[asked] if float_query else coded.take(asked)
        return Index(items).search(queries, k, seen=mask, rescore=again)

    def tables(self) -> tuple[PackedTable, PackedTable]:
        """The packed codes of users and items. Raises UserError of a run without a quantizer."""
        users, items = self.users, self.items
        if not (isinstance(users, PackedTable) and isinstance(items, PackedTable)):
            raise UserError(
                f"{self.path}: this run has no codes (its quantizer is float32); its float rows are users.npy and "
                "items.npy there; for codes, train with another quantizer: --set quantizer.name=gste"
            )
        return users, items

    def float_rows(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The float32 rows of users and items before the quantizer, memory-mapped."""
        return open_embeddings(self.path / "users.npy"), open_embeddings(self.path / "items.npy")

    def export(self, to: str | Path, formats: Sequence[str] = ("codes",)) -> dict[str, dict[str, str]]:
        """Write the codes into the folder ``to``, as ``rectoolkit.export`` does."""
        from rectoolkit.export import export

        return export(*self.tables(), to, formats)

    def _table(self, side: str) -> Table:
        packed = self.path / f"{side}.codes"
        return PackedTable.load(packed) if packed.exists() else open_embeddings(self.path / f"{side}.npy")


@dataclass(frozen=True)
class Circumstances:
    """What a run happens under and a recipe does not say; none of it is part of the digest."""

    runs: Path = Path("runs")
    device: str = "cpu"
    threads: int | None = None
    watcher: Watcher | None = None


def execute(recipe: Recipe, circumstances: Circumstances | None = None) -> Run:
    """Do what the recipe says in its run folder: reuse a finished run, resume an unfinished one, or begin.

    Raises UserError for what the user can mend, and leaves nothing half-written behind.
    """
    from rectoolkit.data.catalog import load_dataset

    around = circumstances or Circumstances()
    source = dict(recipe["dataset"])
    dataset = load_dataset(seed=source.pop("split_seed"), **source)
    folder = around.runs / recipe.folder_name
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if _begun(folder, dataset) and (folder / METRICS).exists():
            return Run.open(folder)
        remove_parts(folder)
        _describe(folder, recipe, dataset, around)
        _train_and_measure(folder, recipe, dataset, around)
    return Run.open(folder)


def _train_and_measure(folder: Path, recipe: Recipe, dataset: Dataset, around: Circumstances) -> None:
    """From the data to ``metrics.json``."""
    import torch

    from rectoolkit.data.splits import hold_out
    from rectoolkit.model import assemble
    from rectoolkit.train import CHECKPOINT, fit

    if around.threads:
        torch.set_num_threads(around.threads)
    train, validate, share = dataset.train, None, recipe["train"]["validation"]
    if share:
        train, held = hold_out(train, share, np.random.default_rng([recipe.seed, 1]))

        def validate(model: Recommender) -> dict[str, float]:
            users, items = _pack(model, model.real())
            metrics = sorted({recipe["train"]["monitor"], *recipe["evaluate"]["metrics"]})
            return evaluate(users, items, train, held, metrics, around.threads).means

    parts = assemble(recipe, train, around.device)
    progress = fit(parts, recipe["train"], folder, validate, around.watcher)
    real = parts.model.real()
    tables = _pack(parts.model, real)
    floats = tuple(rows.detach().to("cpu", torch.float32).numpy() for rows in real)
    with atomic_write(folder / MODEL) as file:
        torch.save(parts.model.state_dict(), file)
    _save_tables(folder, dataset, tables, floats)
    _measure(folder, recipe, dataset, progress, around)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _pack(model: Recommender, real: Any) -> tuple[Table, Table]:
    users, items = (t if isinstance(t, np.ndarray) else PackedTable.pack(t) for t in model.tables(real))
    return users, items


def _save_tables(folder: Path, dataset: Dataset, tables: tuple[Table, Table], floats: tuple[Any, ...]) -> None:
    for side, table, rows in zip(("users", "items"), tables, floats, strict=True):
        with atomic_write(folder / f"{side}.npy") as file:
            np.save(file, np.ascontiguousarray(rows))
        if isinstance(table, PackedTable):
            table.save(folder / f"{side}.codes")
    facts = {"num_users": dataset.num_users, "num_items": dataset.num_items}
    save_arrays(folder / SEEN, "interactions", {"indptr": dataset.train.indptr, "items": dataset.train.items}, facts)


def _measure(folder: Path, recipe: Recipe, dataset: Dataset, progress: Progress, around: Circumstances) -> None:
    """Evaluate what lies in the folder, opened as a stranger would, and the same model before its quantizer."""
    run, names = Run(folder), recipe["evaluate"]["metrics"]
    coded = evaluate(run.users, run.items, run.seen, dataset.test, names, around.threads)
    floats = [open_embeddings(folder / f"{side}.npy") for side in ("users", "items")]
    real = evaluate(floats[0], floats[1], run.seen, dataset.test, names, around.threads)
    save_arrays(folder / PER_USER, "per_user", {"users": coded.users, **coded.values}, {"seconds": coded.seconds})
    epochs = len(progress.rows)
    figures = {
        "name": recipe.name,
        "bits": recipe["quantizer"].get("bits", 32),
        "accuracy": coded.means,
        "float32": {"accuracy": real.means, "queries_per_second": real.queries_per_second, **_bytes(*floats)},
        "queries_per_second": coded.queries_per_second,
        **_bytes(run.users, run.items),
        "test_users": len(coded.users),
        "epochs": epochs,
        "best_epoch": progress.best_epoch or epochs,
        "train_seconds": progress.seconds,
        "seconds_per_epoch": progress.seconds / epochs,
        "peak_memory_mb": _peak_memory_mb(),
    }
    write_text(folder / METRICS, json.dumps(figures, indent=2) + "\n")


def _bytes(users: Table, items: Table) -> dict[str, float]:
    sizes = [t.bytes_per_row if isinstance(t, PackedTable) else t.shape[1] * t.itemsize for t in (users, items)]
    return {"bytes_per_user": sizes[0], "bytes_per_item": sizes[1]}


def _peak_memory_mb() -> float:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak / (1024 if sys.platform == "linux" else 1024**2))


def _begun(folder: Path, dataset: Dataset) -> bool:
    """Whether the folder holds this run on this data. Raises UserError where it was begun on other data."""
    if not (folder / ENVIRONMENT).exists():
        return False
    environment = _read_json(folder / ENVIRONMENT)
    if environment.get("layout") != LAYOUT:
        raise FormatError(
            f"{folder}: a run folder of layout {environment.get('layout')}, not {LAYOUT}; move it away to begin anew"
        )
    if environment["data"]["digest"] != dataset.digest:
        raise UserError(
            f"{folder}: this run was begun on other interactions of the data set '{dataset.name}' "
            f"(digest {environment['data']['digest'][:12]}, now {dataset.digest[:12]}); "
            "move the folder away to begin anew"
        )
    return True


def _describe(folder: Path, recipe: Recipe, dataset: Dataset, around: Circumstances) -> None:
    """``recipe.toml`` and ``environment.json``: enough to repeat the run."""
    import torch

    def of(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "missing"

    packages = ("torch", "dgl", "numpy", "numba", "scikit-learn")
    environment = {
        "layout": LAYOUT,
        "rectoolkit": __version__,
        "python": platform.python_version(),
        "packages": {package: of(package) for package in packages},
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
        "threads": around.threads or torch.get_num_threads(),
        "device": around.device,
        "digest": recipe.digest,
        "data": {"name": dataset.name, "digest": dataset.digest, "summary": dataset.summary()},
        "begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    write_text(folder / RECIPE, recipe.toml())
    write_text(folder / ENVIRONMENT, json.dumps(environment, indent=2) + "\n")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One writer a run folder; the lock goes with the process, however it ends."""
    import fcntl

    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{folder}: another process is working on this run; wait for it or stop it") from None
        yield


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file; {path.parent} is not a run folder of this toolkit") from None
    except (ValueError, OSError) as error:
        raise FormatError(f"{path}: not whole JSON ({error}); run the recipe again") from None
    if not isinstance(content, dict):
        raise FormatError(f"{path}: not a JSON object; run the recipe again")
    return content
