"""Estimator: a recipe as an object that is fitted to data in memory, asked, saved and opened again.

    Estimator("hqgnn", {"quantizer.bits": 2}).fit(frame).recommend("ada", k=10)

It is a run under another roof: ``fit`` makes a run folder (in a temporary folder unless one is named), everything else
asks that. What the data calls its users and items is what it is asked by and answers with.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rectoolkit.atomic import write_text
from rectoolkit.data import Dataset, Interactions
from rectoolkit.errors import DataError, FormatError, UserError, nearest
from rectoolkit.execute import Circumstances, execute
from rectoolkit.recipe import Recipe
from rectoolkit.run import Run, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from rectoolkit.index import Hits

    Name = int | str

NAMES = "names.json"  # beside the run's files, where users and items are not row numbers


class Frame(Protocol):
    """Columns by name: a pandas or polars frame, or a dictionary of lists."""

    def __getitem__(self, key: str, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class Names:
    """What the data calls its rows: integers or strings, ascending, each once."""

    kind: str
    values: npt.NDArray[Any]

    @classmethod
    def of(cls, kind: str, column: Any) -> tuple[Names, npt.NDArray[np.int64]]:
        """The names in a column and each entry's row. Raises DataError for what are no integers or strings."""
        entries = np.asarray(column)
        if entries.dtype == object:
            wrong = next((entry for entry in entries.tolist() if not isinstance(entry, str | int)), None)
            if wrong is not None or len({type(entry) for entry in entries.tolist()}) > 1:
                raise DataError(f"{kind} ids must be all integers or all strings; found {wrong!r} among them")
            entries = np.asarray(entries.tolist())
        if entries.ndim != 1 or entries.dtype.kind not in "iuU":
            raise DataError(f"{kind} ids must be one column of integers or strings, got {entries.dtype}")
        values, rows = np.unique(entries, return_inverse=True)
        return cls(kind, values), rows.astype(np.int64)

    def rows(self, asked: Any) -> npt.NDArray[np.int64]:
        """The rows of these names. Raises UserError with the nearest known name for an unknown one."""
        wanted = np.atleast_1d(np.asarray(asked))
        if wanted.ndim != 1 or not len(wanted) or wanted.dtype.kind not in "iuU":
            raise UserError(f"{self.kind}s must be one or more ids, as the data has them, got {asked!r}")
        if (wanted.dtype.kind == "U") != (self.values.dtype.kind == "U"):
            known = self.values[0].item()
            raise UserError(f"{self.kind} {wanted[0].item()!r} is unknown: this data's are such as {known!r}")
        place = np.minimum(np.searchsorted(self.values, wanted), len(self.values) - 1)
        unknown = np.flatnonzero(self.values[place] != wanted)
        if len(unknown):
            first = place[unknown[0]]
            around = map(str, self.values[max(0, first - 2) : first + 3].tolist())
            raise UserError(
                f"{self.kind} '{wanted[unknown[0]]}' is unknown; {nearest(str(wanted[unknown[0]]), around)}"
            )
        return np.asarray(place, np.int64)

    def named(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Row numbers as names; where a row is -1, -1 again, or None among strings."""
        if self.values.dtype.kind != "U":
            return np.where(rows >= 0, self.values[rows], -1)
        named = self.values.astype(object)[rows]
        named[rows < 0] = None
        return np.asarray(named)


class Estimator:
    """A recommender with the usual methods: ``fit``, ``recommend``, ``similar_items``, ``save``, ``open``.

    ``recipe``: the name of a recipe that comes with the package, a file, or a Recipe; ``settings`` are put into it
    (``{"quantizer.bits": 2}``). ``folder``: where run folders go, so that fitting the same again costs nothing and a
    fit that was cut short goes on; without one they are temporary until ``save``. ``threads`` and ``device`` as of
    ``rectool run``. Constructing checks nothing but the recipe, and raises RecipeError.
    """

    def __init__(
        self,
        recipe: str | Path | Recipe = "hqgnn",
        settings: Mapping[str, Any] | None = None,
        *,
        folder: str | Path | None = None,
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.recipe = (recipe if isinstance(recipe, Recipe) else _load(recipe)).with_settings(settings or {})
        self.folder = None if folder is None else Path(folder)
        self.threads, self.device = threads, device
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._run: Run | None = None
        self._names: tuple[Names, Names] | None = None

    def fit(
        self, data: Interactions | Frame, *, user: str = "user", item: str = "item", test: Interactions | None = None
    ) -> Estimator:
        """Train on all of ``data``: Interactions, or a frame whose columns ``user`` and ``item`` hold ids.

        A share of it (``train.validation``) picks the best epoch. ``test``, over the same ids as Interactions, is
        measured: ``run.metrics["accuracy"]``. Returns self. Raises DataError for ids that are no integers or strings.
        """
        names = None
        if not isinstance(data, Interactions):
            (user_names, users), (item_names, items) = (
                Names.of(kind, _column(data, column)) for kind, column in (("user", user), ("item", item))
            )
            names, data = (user_names, item_names), Interactions.from_pairs(users, items)
        if not data.num_interactions:
            raise DataError("the data holds no interactions, so there is nothing to fit")
        held = test or Interactions.from_pairs([], [], data.num_users, data.num_items)
        dataset = Dataset("fitted", data, held)
        self._temporary = None if self.folder else tempfile.TemporaryDirectory(prefix="rectoolkit-")
        runs = self.folder or Path(self._temporary.name if self._temporary else ".")
        recipe = self.recipe.with_settings({"dataset.path": f"given to fit, digest {dataset.digest[:12]}"})
        run = execute(recipe, Circumstances(runs, self.device, self.threads), dataset)
        if names:
            kept = {f"{n.kind}s": n.values.tolist() for n in names}
            write_text(run.path / NAMES, json.dumps(kept, ensure_ascii=False) + "\n")
        self._run, self._names = run, names
        return self

    @property
    def run(self) -> Run:
        """The run behind it: codes, metrics, export. Raises UserError before ``fit``."""
        if self._run is None:
            raise UserError("this estimator is not fitted yet: call fit, or open a saved one")
        return self._run

    def recommend(
        self,
        users: Name | Sequence[Name] | None = None,
        k: int = 10,
        *,
        items: Sequence[Name] | Sequence[Sequence[Name]] | None = None,
        include_seen: bool = False,
    ) -> Hits:
        """The best items for each user, or for new users known by ``items`` alone, by the data's ids.

        As ``Run.recommend``. Where ids are strings, ``Hits.ids`` holds strings, and None where nothing is left to rank.
        """
        run = self.run
        if self._names is None:
            return run.recommend(users, k, items=items, include_seen=include_seen)  # type: ignore[arg-type]
        user_names, item_names = self._names
        rows: Any = None if users is None else user_names.rows(users)
        lists: Any = None
        if items is not None:
            nested = len(items) > 0 and all(np.ndim(row) == 1 for row in items)
            lists = [item_names.rows(row).tolist() for row in (items if nested else [items])]
        return self._named(run.recommend(rows, k, items=lists, include_seen=include_seen))

    def similar_items(self, items: Name | Sequence[Name], k: int = 10) -> Hits:
        """The items most alike to each of ``items``, by the data's ids; as ``Run.similar_items``."""
        if self._names is None:
            return self.run.similar_items(items, k)  # type: ignore[arg-type]
        return self._named(self.run.similar_items(self._names[1].rows(items).tolist(), k))

    def save(self, path: str | Path) -> Path:
        """Copy the fitted run to the folder ``path``, which must not exist; what ``open`` and ``rectool`` take."""
        path = Path(path)
        if path.exists():
            raise UserError(f"{path}: exists already; name a new folder")
        part = path.with_name(f".{path.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(self.run.path, part, ignore=shutil.ignore_patterns(".lock"))
        part.rename(path)
        return path

    @classmethod
    def open(cls, path: str | Path) -> Estimator:
        """A saved estimator, ready to be asked. Raises FormatError where ``path`` is no finished run."""
        run = Run.open(path)
        opened = cls(Recipe.load(run.path / "recipe.toml"))
        opened._run = run
        if (run.path / NAMES).exists():
            kept = read_json(run.path / NAMES)
            names = [Names(kind, np.asarray(kept.get(f"{kind}s", []))) for kind in ("user", "item")]
            if [len(n.values) for n in names] != [run.seen.num_users, run.seen.num_items]:
                raise FormatError(f"{run.path / NAMES}: names not as many users and items as the run has; fit again")
            opened._names = (names[0], names[1])
        return opened

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments, as scikit-learn asks for them."""
        return {"recipe": self.recipe, "folder": self.folder, "threads": self.threads, "device": self.device}

    def set_params(self, **settings: Any) -> Estimator:
        """Change the recipe by ``section__key=value`` (``quantizer__bits=2``), or a constructor's argument."""
        own = {name: settings.pop(name) for name in ("recipe", "folder", "threads", "device") if name in settings}
        keys = {name.replace("__", ".", 1): value for name, value in settings.items()}
        arguments: dict[str, Any] = self.get_params() | own
        self.__init__(arguments.pop("recipe"), keys, **arguments)  # type: ignore[misc]
        return self

    def __repr__(self) -> str:
        return f"Estimator({self.recipe.name!r}, {'fitted: ' + str(self._run.path) if self._run else 'not fitted'})"

    def _named(self, hits: Hits) -> Hits:
        assert self._names is not None
        return replace(hits, ids=self._names[1].named(hits.ids))


def _column(frame: Frame, name: str) -> Any:
    try:
        return frame[name]
    except Exception as error:  # a frame of any library, which raises what it likes
        columns: Any = getattr(frame, "columns", frame if isinstance(frame, dict) else ())
        there = ", ".join(map(str, columns))
        raise DataError(f"the data has no column '{name}' (it has: {there}); name it with user= and item=") from error


def _load(recipe: str | Path) -> Recipe:
    """A recipe file, or one that comes with the package by its name."""
    if isinstance(recipe, str) and not recipe.endswith(".toml"):
        package = Path(__file__).parent
        places = [package / "shipped" / "recipes", package.parent / "recipes"]
        known = {path.stem: path for place in places for path in sorted(place.glob("*.toml"))}
        if recipe not in known:
            raise UserError(f"no recipe '{recipe}' comes with the package; {nearest(recipe, known)}")
        return Recipe.load(known[recipe])
    return Recipe.load(recipe)
