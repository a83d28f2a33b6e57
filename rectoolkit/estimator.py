"""Estimator: a recipe as an object that is fitted to data in memory, asked, saved and opened again.

    Estimator("hqgnn", {"quantizer.bits": 2}).fit(frame).recommend("ada", k=10)

It is a run under another roof: ``fit`` makes a run folder (in a temporary folder unless one is named), everything else
asks that. What the data calls its users and items is what it is asked by and answers with.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rectoolkit.data import Dataset, Ids, Interactions
from rectoolkit.errors import DataError, UserError, nearest
from rectoolkit.execute import Circumstances, execute
from rectoolkit.recipe import Recipe
from rectoolkit.run import Run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from rectoolkit.data.ids import Id
    from rectoolkit.index import Hits


class Frame(Protocol):
    """Columns by name: a pandas or polars frame, or a dictionary of lists."""

    def __getitem__(self, key: str, /) -> Any: ...


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
        self._run: Run | None = None

    def fit(
        self, data: Interactions | Frame, *, user: str = "user", item: str = "item", test: Interactions | None = None
    ) -> Estimator:
        """Train on all of ``data``: Interactions, or a frame whose columns ``user`` and ``item`` hold ids.

        A share of it (``train.validation``) picks the best epoch. ``test``, over the same ids as Interactions, is
        measured: ``run.metrics["accuracy"]``. Returns self. Raises DataError for ids that are no integers or strings.
        """
        user_ids = item_ids = None
        if not isinstance(data, Interactions):
            user_ids, users = _numbered("user", _column(data, user))
            item_ids, items = _numbered("item", _column(data, item))
            if len(users) != len(items):
                raise DataError(f"{len(users)} user ids against {len(items)} item ids; a pair needs one of each")
            data = Interactions.from_pairs(users, items, len(user_ids), len(item_ids))
        if not data.num_interactions:
            raise DataError("the data holds no interactions, so there is nothing to fit")
        held = test or Interactions.from_pairs([], [], data.num_users, data.num_items)
        dataset = Dataset("fitted", data, held, user_ids=user_ids, item_ids=item_ids)
        temporary = None if self.folder else tempfile.TemporaryDirectory(prefix="rectoolkit-")
        runs = self.folder or Path(temporary.name if temporary else ".")
        recipe = self.recipe.with_settings({"dataset.path": f"given to fit, digest {dataset.digest[:12]}"})
        run = execute(recipe, Circumstances(runs, self.device, self.threads), dataset)
        self._run = replace(run, keeper=temporary)  # the folder goes with the last that asks it
        return self

    @property
    def run(self) -> Run:
        """The run behind it: codes, metrics, export. Raises UserError before ``fit``."""
        if self._run is None:
            raise UserError("this estimator is not fitted yet: call fit, or open a saved one")
        return self._run

    def recommend(
        self,
        users: Id | Sequence[Id] | None = None,
        k: int = 10,
        *,
        items: Sequence[Id] | Sequence[Sequence[Id]] | None = None,
        include_seen: bool = False,
    ) -> Hits:
        """The best items for each user, or for new users known by ``items`` alone, by the data's ids.

        As ``Run.recommend``. Where ids are strings, ``Hits.ids`` holds strings, and None where nothing is left to rank.
        """
        return self.run.recommend(users, k, items=items, include_seen=include_seen)

    def similar_items(self, items: Id | Sequence[Id], k: int = 10) -> Hits:
        """The items most alike to each of ``items``, by the data's ids; as ``Run.similar_items``."""
        return self.run.similar_items(items, k)

    def save(self, path: str | Path) -> Path:
        """Copy the fitted run to the folder ``path``, as ``Run.save``; what ``open`` and ``rectool`` take."""
        return self.run.save(path)

    @classmethod
    def open(cls, path: str | Path) -> Estimator:
        """A saved estimator, ready to be asked. Raises FormatError where ``path`` is no finished run."""
        run = Run.open(path)
        opened = cls(Recipe.load(run.path / "recipe.toml"))
        opened._run = run
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


def _numbered(kind: str, column: Any) -> tuple[Ids, npt.NDArray[np.int64]]:
    """The ids in a column and each entry's row. Raises DataError for what are no integers from 0 or strings."""
    entries = np.asarray(column)
    if entries.dtype == object:
        listed = entries.tolist()
        other = [one for one in listed if not isinstance(one, int | str) or type(one) is not type(listed[0])]
        if other:
            raise DataError(f"{kind} ids must be all integers or all strings; found {other[0]!r} among them")
        entries = np.asarray(listed)
    if entries.ndim != 1 or entries.dtype.kind not in "iuU":
        raise DataError(f"{kind} ids must be one column of integers or strings, got {entries.dtype}")
    values, rows = np.unique(entries, return_inverse=True)
    if values.dtype.kind in "iu":
        wrong = values[(values < 0) | (values > np.iinfo(np.int64).max)]
        if len(wrong):
            raise DataError(f"{kind} ids that are integers must be from 0 to 2^63 - 1, got {wrong[0]}")
    try:
        return Ids.of(values), rows.astype(np.int64)
    except UnicodeEncodeError as error:
        raise DataError(f"{kind} ids that are strings must be whole Unicode, got {error.object!r}") from None


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
