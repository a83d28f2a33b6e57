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

from rectoolkit.data import Dataset, Imported, Interactions
from rectoolkit.data.importing import read_frames
from rectoolkit.errors import DataError, UserError, nearest
from rectoolkit.recipe.recipe import Recipe
from rectoolkit.runs.execute import RunOptions, execute
from rectoolkit.runs.layout import RECIPE
from rectoolkit.runs.run import Run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rectoolkit.data.ids import Id
    from rectoolkit.search.index import Hits


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
        self,
        data: Interactions | Frame,
        *,
        user: str = "user",
        item: str = "item",
        test: Interactions | Frame | None = None,
    ) -> Estimator:
        """Train on all of ``data``: Interactions, or a frame whose columns ``user`` and ``item`` hold ids.

        A share of it (``train.validation``) picks the best epoch. ``test`` is measured: ``run.metrics["accuracy"]``. It
        is a frame of the same columns, or Interactions over the same rows; what it says again of ``data`` is left out
        of a frame, and an id that only it has gets a row that nothing trains. Frames are read as
        ``data.from_frame`` reads them. Returns self. Raises DataError for ids that are no integers or strings.
        """
        user_ids = item_ids = None
        if not isinstance(data, Interactions):
            more = None if test is None or isinstance(test, Interactions) else _pandas(test, user, item)
            parts, user_ids, item_ids = read_frames(_pandas(data, user, item), Imported(user=user, item=item), more)
            data, test = parts["train"], parts.get("test", test)
        if test is not None and not isinstance(test, Interactions):
            raise DataError("the data is Interactions, so test must be too: ids of a frame are not its rows")
        if not data.num_interactions:
            raise DataError("the data holds no interactions, so there is nothing to fit")
        held = test or Interactions.from_pairs([], [], data.num_users, data.num_items)
        dataset = Dataset("fitted", data, held, user_ids=user_ids, item_ids=item_ids)
        temporary = None if self.folder else tempfile.TemporaryDirectory(prefix="rectoolkit-")
        runs = self.folder or Path(temporary.name if temporary else ".")
        recipe = self.recipe.with_settings({"dataset.path": f"given to fit, digest {dataset.digest[:12]}"})
        run = execute(recipe, RunOptions(runs, self.device, self.threads), dataset)
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
        opened = cls(Recipe.load(run.path / RECIPE))
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


def _pandas(frame: Frame, user: str, item: str) -> Any:
    """The two columns of a frame of any library as a pandas frame. Raises DataError where they are no columns."""
    import pandas

    if frame is None or isinstance(frame, int | float | str | list | tuple):
        raise DataError(f"the data must be a frame, a dictionary of two columns or Interactions, got {frame!r:.80}")
    given = {name: _column(frame, name) for name in (user, item)}
    try:
        columns = {name: pandas.Series(column).reset_index(drop=True) for name, column in given.items()}
    except (TypeError, ValueError) as error:
        raise DataError(f"user and item ids must be a column of integers or strings each: {error}") from None
    if len(columns[user]) != len(columns[item]):
        raise DataError(
            f"{len(columns[user])} user ids against {len(columns[item])} item ids; a pair needs one of each"
        )
    return pandas.DataFrame(columns)


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
        package = Path(__file__).parents[1]
        places = [package / "shipped" / "recipes", package.parent / "recipes"]
        known = {path.stem: path for place in places for path in sorted(place.glob("*.toml"))}
        if recipe not in known:
            raise UserError(f"no recipe '{recipe}' comes with the package; {nearest(recipe, known)}")
        return Recipe.load(known[recipe])
    return Recipe.load(recipe)
