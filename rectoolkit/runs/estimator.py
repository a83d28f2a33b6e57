"""Estimator: a recipe as a scikit-learn estimator, fitted to data in memory.

    Estimator("hqgnn", {"quantizer.bits": 2}).fit(frame).recommend("ada", k=10)

``fit`` makes a run folder, in a temporary folder unless one is named, and the other methods use that run. Users and
items are named by their ids in the data.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sklearn.base import BaseEstimator

from rectoolkit.data import Dataset, Imported, Interactions
from rectoolkit.data.importing import read_frames
from rectoolkit.errors import DataError, UserError
from rectoolkit.recipe import Recipe
from rectoolkit.recipe.settings import HeadSettings
from rectoolkit.runs.execute import RunOptions, execute
from rectoolkit.runs.layout import RECIPE
from rectoolkit.runs.run import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from rectoolkit.data.ids import Id
    from rectoolkit.search.index import Hits


class Frame(Protocol):
    """Columns by name: a pandas or polars frame, or a dictionary of lists."""

    def __getitem__(self, key: str, /) -> Any: ...


class Estimator(BaseEstimator):  # type: ignore[misc]
    """A recommender with ``fit``, ``recommend``, ``save`` and ``open``.

    It follows scikit-learn's conventions for estimators: the constructor checks nothing and keeps its arguments as
    they are, ``get_params``, ``set_params`` and ``sklearn.base.clone`` work, and attributes that ``fit`` sets end in
    an underscore.

    Parameters
    ----------
    recipe
        The name of a shipped recipe (``"hqgnn"``), the path of a recipe file, or a ``Recipe``.
    settings
        Settings to change in the recipe, by ``section.key``: ``{"quantizer.bits": 2}``.
    folder
        Where run folders go. With it, the same fit again is reused, and an interrupted one resumes. Without it the
        run folder is temporary, until ``save``.
    threads
        The number of threads; all cores by default.
    device
        The torch device: ``cpu``, ``cuda`` or ``cuda:N``.

    Attributes
    ----------
    run_
        The ``Run`` that ``fit`` made.
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
        self.recipe = recipe
        self.settings = settings
        self.folder = folder
        self.threads = threads
        self.device = device

    def fit(
        self,
        data: Interactions | Frame,
        y: None = None,
        *,
        user: str = "user",
        item: str = "item",
        test: Interactions | Frame | None = None,
    ) -> Self:
        """Train on ``data``. Its share ``train.validation`` is held out to select the best epoch.

        Parameters
        ----------
        data
            Interactions, or a frame (pandas, polars, a dictionary of columns) with a row for each interaction. Frames
            are read as ``data.from_frame`` reads them.
        y
            Ignored; scikit-learn's pipelines pass it.
        user, item
            The columns of the frame that hold the ids: integers or strings.
        test
            Interactions to measure on; ``run_.metrics["accuracy"]`` then holds the accuracy. If ``data`` is a frame,
            this is a frame of the same columns. Its pairs that are also in ``data`` are left out, and ids that only it
            has get an untrained row. If ``data`` is Interactions, this is Interactions with the same rows.

        Returns
        -------
        Estimator
            This estimator.

        Raises
        ------
        RecipeError
            If the recipe or a setting is wrong.
        DataError
            If the data is empty, a column is missing, or ids are not integers or strings.
        """
        recipe = self.filled_recipe
        user_ids = item_ids = None
        if not isinstance(data, Interactions):
            more = None if test is None or isinstance(test, Interactions) else _pandas(test, user, item)
            parts, user_ids, item_ids = read_frames(_pandas(data, user, item), Imported(user=user, item=item), more)
            data, test = parts["train"], parts.get("test", test)
        if test is not None and not isinstance(test, Interactions):
            raise DataError("the data is Interactions, so test must be too: ids of a frame are not row numbers")
        if not data.num_interactions:
            raise DataError("the data holds no interactions, so there is nothing to fit")
        held = test or Interactions.from_pairs([], [], data.num_users, data.num_items)
        dataset = Dataset("fitted", data, held, user_ids=user_ids, item_ids=item_ids)
        recipe = recipe.with_settings({"dataset.path": f"given to fit, digest {dataset.digest[:12]}"})
        temporary = None if self.folder else tempfile.TemporaryDirectory(prefix="rectoolkit-")
        runs = Path(temporary.name if temporary else self.folder or "")
        run = execute(recipe, RunOptions(runs, self.device, self.threads), dataset)
        self.run_ = replace(run, keeper=temporary)  # the folder is removed with the last reference to the run
        return self

    @property
    def filled_recipe(self) -> Recipe:
        """The recipe with ``settings`` applied and every default filled in. Raises RecipeError if it is wrong."""
        recipe = self.recipe if isinstance(self.recipe, Recipe) else Recipe.load(self.recipe)
        if not isinstance(self.settings, Mapping | None):
            raise UserError(f"settings must be a dictionary such as {{'quantizer.bits': 2}}, got {self.settings!r:.80}")
        return recipe.with_settings(self.settings or {})

    @property
    def run(self) -> Run:
        """The run: codes, metrics, export. Raises UserError before ``fit``."""
        if not hasattr(self, "run_"):
            raise UserError("this estimator is not fitted yet: call fit, or open a saved one")
        return self.run_

    def recommend(
        self,
        users: Id | Sequence[Id] | None = None,
        k: int = 10,
        *,
        items: Sequence[Id] | Sequence[Sequence[Id]] | None = None,
        include_seen: bool = False,
    ) -> Hits:
        """The best items for each user, or for new users given by ``items``; see ``Run.recommend``."""
        return self.run.recommend(users, k, items=items, include_seen=include_seen)

    def similar_items(self, items: Id | Sequence[Id], k: int = 10) -> Hits:
        """The items most similar to each of ``items``; see ``Run.similar_items``."""
        return self.run.similar_items(items, k)

    def save(self, path: str | Path) -> Path:
        """Copy the fitted run to the folder ``path``, for ``open`` and ``rectool``; see ``Run.save``."""
        return self.run.save(path)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a saved estimator.

        Parameters
        ----------
        path
            A folder that ``save`` wrote, or any finished run folder.

        Returns
        -------
        Estimator
            An estimator that is fitted, with the recipe of the run.

        Raises
        ------
        FormatError
            If ``path`` is not a finished run folder.
        """
        run = Run.open(path)
        opened = cls(Recipe.load(run.path / RECIPE))
        opened.run_ = run
        return opened

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of the constructor; with ``deep`` also each setting, as ``section__key``."""
        own: dict[str, Any] = super().get_params(deep=False)
        settings = self.settings if deep and isinstance(self.settings, Mapping) else {}
        return own | {key.replace(".", "__", 1): value for key, value in settings.items()}

    def set_params(self, **params: Any) -> Self:
        """Change arguments of the constructor, or settings: ``section__key`` (``quantizer__bits=2``) or ``seed``."""
        names = [name for name in params if "__" in name or name in HeadSettings.model_fields]
        settings = {name.replace("__", ".", 1): params.pop(name) for name in names}
        super().set_params(**params)
        if settings:
            self.settings = {**(self.settings or {}), **settings}
        return self


def _pandas(frame: Frame, user: str, item: str) -> Any:
    """Two columns of a frame of any library as a pandas frame. Raises DataError if they cannot be used as columns."""
    import pandas

    if frame is None or isinstance(frame, int | float | str | list | tuple):
        raise DataError(f"the data must be a frame, a dictionary of two columns or Interactions, got {frame!r:.80}")
    given = {name: _column(frame, name) for name in (user, item)}
    try:
        columns = {name: pandas.Series(column).reset_index(drop=True) for name, column in given.items()}
    except (TypeError, ValueError) as error:
        raise DataError(f"user and item ids must each be a column of integers or strings: {error}") from None
    if len(columns[user]) != len(columns[item]):
        raise DataError(
            f"{len(columns[user])} user ids against {len(columns[item])} item ids; a pair needs one of each"
        )
    return pandas.DataFrame(columns)


def _column(frame: Frame, name: str) -> Any:
    try:
        return frame[name]
    except Exception as error:  # a frame of any library, which may raise any exception
        columns: Any = getattr(frame, "columns", frame if isinstance(frame, dict) else ())
        there = ", ".join(map(str, columns))
        raise DataError(f"the data has no column '{name}' (it has: {there}); name it with user= and item=") from error
