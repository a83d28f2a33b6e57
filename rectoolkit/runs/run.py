"""Run: a finished run folder, opened for reading. Needs neither torch nor dgl.

``rectoolkit.runs.layout`` lists the files of the folder, and ``rectoolkit.runs.execute`` writes them.
"""

from __future__ import annotations

import filecmp
import shutil
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from rectoolkit.checks import row_numbers
from rectoolkit.data import Ids, Interactions
from rectoolkit.errors import FormatError, UserError
from rectoolkit.evaluation.evaluate import Evaluation, rows_of, take
from rectoolkit.files import atomic_write, check_whole, new_folder, open_arrays
from rectoolkit.runs.layout import (
    ENVIRONMENT,
    FOLD_IN,
    METRICS,
    PER_USER,
    SEEN,
    SIDES,
    check_layout,
    codes_file,
    ids_file,
    read_json,
    rows_file,
)
from rectoolkit.search import open_index
from rectoolkit.search.codes import PackedTable
from rectoolkit.search.float32 import open_embeddings
from rectoolkit.search.fold_in import FoldIn
from rectoolkit.search.index import Rescore, check_count
from rectoolkit.search.neighbours import neighbours

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from rectoolkit.data.ids import Id
    from rectoolkit.search.codes import CodeTable
    from rectoolkit.search.index import Hits, SearchIndex
    from rectoolkit.search.packed import Index

    Table = PackedTable | npt.NDArray[np.float32]


@dataclass(frozen=True)
class Run:
    """A finished run, opened for reading: codes, metrics, recommendations.

    Its files are read when first needed, the large ones by memory map. Use ``Run.open``.

    Parameters
    ----------
    path
        The run folder.
    keeper
        An object that lives as long as the run, such as the owner of a temporary folder.
    """

    path: Path
    keeper: object = field(default=None, repr=False, compare=False)

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open a finished run.

        Parameters
        ----------
        path
            The run folder, such as ``runs/hqgnn-0123abcd``.

        Returns
        -------
        Run
            The run, with nothing but its environment read.

        Raises
        ------
        FormatError
            If ``path`` is not a run folder, its run is not finished, or an earlier release wrote it.
        """
        if not isinstance(path, str | Path):
            raise UserError(f"a run folder is opened by its path, got {path!r:.80}")
        path = Path(path)
        if path.is_file():
            raise FormatError(f"{path}: is a file; name the run folder it lies in")
        if not path.is_dir():
            raise FormatError(f"{path}: no such run folder; 'rectool run RECIPE' makes one in runs/")
        check_layout(path)
        if not (path / METRICS).exists():
            raise FormatError(f"{path}: this run is not finished; 'rectool run {path}' resumes it")
        return cls(path)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """``environment.json``: digests of what the run was made from, versions, and the machine."""
        environment = read_json(self.path / ENVIRONMENT)
        if not isinstance(environment.get("data", {}), dict) or not isinstance(environment.get("bits", 32), int):
            raise FormatError(f"{self.path / ENVIRONMENT}: its data or bits are damaged; run the recipe again")
        return environment

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """``metrics.json``: accuracy, sizes and speeds. Raises FormatError if it is damaged."""
        metrics = read_json(self.path / METRICS)
        missing = {"accuracy", "float32", "queries_per_second", "train_seconds", "bits"} - set(metrics)
        if missing:
            raise FormatError(f"{self.path / METRICS}: holds no {', '.join(sorted(missing))}; run the recipe again")
        accuracy = metrics["accuracy"]
        if not isinstance(accuracy, dict) or not all(isinstance(value, int | float) for value in accuracy.values()):
            raise FormatError(f"{self.path / METRICS}: its accuracy is not a number per metric; run the recipe again")
        return metrics

    def check(self) -> None:
        """Raise FormatError unless all files of the run are there and whole."""
        _ = self.users, self.items, self.seen, self.metrics, self.per_user(), self.float_rows()
        _ = self.user_ids, self.item_ids
        if (self.path / FOLD_IN).exists():
            _ = self.fold_in

    @cached_property
    def users(self) -> Table:
        """Packed codes of the U users, memory-mapped; float32 rows (U, D) in a run without a quantizer."""
        return self._table("users")

    @cached_property
    def items(self) -> Table:
        """Packed codes of the I items, memory-mapped; float32 rows (I, D) in a run without a quantizer."""
        return self._table("items")

    @cached_property
    def seen(self) -> Interactions:
        """The train and validation interactions, which rankings leave out."""
        seen = Interactions.load(self.path / SEEN)
        self._check(SEEN)
        return seen

    @cached_property
    def index(self) -> SearchIndex:
        """The index over the items, made once for all requests."""
        return open_index(self.items)

    def per_user(self) -> Evaluation:
        """The test metrics of each of the Q users with test items: ``users`` (Q,) and ``values``, metric -> (Q,)."""
        file = open_arrays(self.path / PER_USER, "per_user")
        users = file.array("users", "<i8", 1)
        values = {name: file.array(name, "<f8", 1) for name in file.arrays if name != "users"}
        if wrong := [name for name, value in values.items() if len(value) != len(users)]:
            raise FormatError(f"{file.path}: '{wrong[0]}' has no value for each user; run the recipe again")
        self._check(PER_USER)
        return Evaluation(users, values)

    @cached_property
    def user_ids(self) -> Ids | None:
        """The id of each user row in the data, memory-mapped; None if these are the row numbers."""
        return self._ids("users", self.seen.num_users)

    @cached_property
    def item_ids(self) -> Ids | None:
        """The id of each item row in the data, memory-mapped; None if these are the row numbers."""
        return self._ids("items", self.seen.num_items)

    def recommend(
        self,
        users: Id | Sequence[Id] | None = None,
        k: int = 10,
        *,
        items: Sequence[Id] | Sequence[Sequence[Id]] | None = None,
        include_seen: bool = False,
        float_query: bool = False,
        rescore: int | None = None,
    ) -> Hits:
        """Recommend items to users of the run, or to new users.

        Parameters
        ----------
        users
            Ids of Q users of the run, or one id. Give either ``users`` or ``items``.
        k
            How many items to recommend; at most all items.
        items
            Ids of the items of a new user, or a list of them for each of Q new users.
        include_seen
            Whether to also rank the items that a user has in train and validation, or that are in ``items``.
        float_query
            Whether to multiply the user's float32 row, instead of its codes, with the codes of the items.
        rescore
            How many of the best items by codes to rank again by float32 rows of both sides. Only with ``users``.

        Returns
        -------
        Hits
            ``ids`` and ``scores`` (Q, k), best first. Ids are those of the data, where it has its own. A row with fewer
            than k items to rank ends in ids -1, or None where ids are strings.

        Raises
        ------
        UserError
            If an id is unknown, k or ``rescore`` is too small, the run has no codes for ``float_query`` or ``rescore``,
            or its quantizer mixes the dims of a row, so that ``float_query`` has no meaning.
        """
        if (users is None) == (items is None):
            raise UserError("give either the ids of users, or the items of a new user")
        if items is None:
            rows = self._rows("user", users)
            return self.named(self.rank(rows, k, include_seen=include_seen, float_query=float_query, rescore=rescore))
        if rescore is not None:
            raise UserError("rescore is for users of the run: a new user has no float row to rank again by")
        return self.named(self._rank_new(_as_lists(items), k, include_seen, float_query))

    def rank(
        self,
        rows: npt.NDArray[np.int64],
        k: int = 10,
        *,
        include_seen: bool = False,
        float_query: bool = False,
        rescore: int | None = None,
    ) -> Hits:
        """Recommend items by row numbers.

        Parameters
        ----------
        rows
            Row numbers of Q users, from 0. A negative one is an error, not counted from the end.
        k, include_seen, float_query, rescore
            As for ``recommend``.

        Returns
        -------
        Hits
            ``ids`` and ``scores`` (Q, k), best first. Ids are row numbers of items.

        Raises
        ------
        UserError
            As ``recommend`` does.
        """
        for name, count in (("k", k), ("rescore", 1 if rescore is None else rescore)):
            check_count(name, count)
        rows, k = row_numbers(rows, self.seen.num_users, "rows", "user"), min(k, self.seen.num_items)
        mask = None if include_seen else rows_of(self.seen, rows)
        if not float_query and rescore is None:
            return self.index.search(take(self.users, rows), k, seen=mask)
        (coded, _), (real, real_items) = self.tables(), self.float_rows()
        if float_query and self.environment.get("mixes_dims"):
            raise UserError(
                f"{self.path}: its quantizer rotates or projects a row before coding it, so float rows cannot be "
                "multiplied with its codes; leave the float query out, or rescore the best by float rows"
            )
        if rescore is not None and rescore < k:
            raise UserError(f"rescore ({rescore}) must be at least k ({k}): it is the number of items to rank again")
        again = None if rescore is None else Rescore(real[rows], real_items, rescore)
        queries = real[rows] if float_query else coded.take(rows)
        return cast("Index", self.index).search(queries, k, seen=mask, rescore=again)

    def _rank_new(self, lists: Sequence[Sequence[Id]], k: int, include_seen: bool, float_query: bool) -> Hits:
        check_count("k", k)
        if float_query:
            self.tables()  # raises without codes
        rows, mask = [np.unique(self._rows("item", one)) for one in lists], None
        if not include_seen:
            mask = (np.concatenate([[0], np.cumsum([len(row) for row in rows])]), np.concatenate(rows))
        queries = self._embed(rows, float_query)
        return self.index.search(queries, min(k, self.seen.num_items), seen=mask)

    def named(self, hits: Hits) -> Hits:
        """``hits`` with the items' ids in the data in place of their row numbers."""
        return hits if self.item_ids is None else replace(hits, ids=self.item_ids.named(hits.ids))

    def _rows(self, kind: str, asked: Any) -> npt.NDArray[np.int64]:
        """The row numbers of the users or items with these ids; ``kind`` is user or item."""
        users = kind == "user"
        ids, count = (self.user_ids, self.seen.num_users) if users else (self.item_ids, self.seen.num_items)
        try:
            given = np.atleast_1d(np.asarray(asked))
            if given.dtype.kind == "O" and {*map(type, given.flat)} in ({str}, {int}):  # as a frame's columns are
                given = np.array(given.tolist())
        except ValueError:  # lists of unequal lengths
            given = np.empty((1, 0))
        if given.ndim != 1 or not len(given) or given.dtype.kind not in ("iu" if ids is None else "iuU"):
            what = "integer ids" if ids is None else "ids, as the data has them"
            raise UserError(f"{kind}s must be one or more {what}, got {asked!r}")
        if ids is not None:
            return ids.rows(given, kind)
        wrong = given[(given < 0) | (given >= count)]
        if len(wrong):
            raise UserError(f"{kind} {wrong[0]} is unknown: this run's {kind}s are 0 to {count - 1}")
        return given.astype(np.int64)

    def embed(self, lists: Sequence[Sequence[Id]], *, as_floats: bool = False) -> CodeTable | npt.NDArray[np.float32]:
        """Embed new users from their items, without training.

        Parameters
        ----------
        lists
            A list of item ids for each of Q new users.
        as_floats
            Whether to return float32 rows instead of codes.

        Returns
        -------
        CodeTable or float32 array (Q, D)
            Codes on the grid of ``users``, or float32 rows.

        Raises
        ------
        UserError
            If an item is unknown or a list is empty.
        """
        return self._embed([self._rows("item", one) for one in lists], as_floats)

    def _embed(self, lists: Sequence[npt.NDArray[np.int64]], as_floats: bool) -> CodeTable | npt.NDArray[np.float32]:
        rows = self.fold_in.rows(lists, self.items, self.seen.item_degrees, self.item_ids)
        users = self.users
        return self.fold_in.coded(rows, users) if isinstance(users, PackedTable) and not as_floats else rows

    @cached_property
    def fold_in(self) -> FoldIn:
        """The map that embeds new users."""
        if (self.path / FOLD_IN).exists():
            self._check(FOLD_IN)
        fold = FoldIn.load(self.path / FOLD_IN)
        if wrong := fold.misfit(self.users, self.items):
            raise FormatError(f"{self.path / FOLD_IN}: {wrong}; run the recipe again")
        return fold

    def similar_items(self, items: Id | Sequence[Id], k: int = 10) -> Hits:
        """The items most similar to each of ``items``, by the cosine of their decoded codes.

        Parameters
        ----------
        items
            Ids of Q items, or one id.
        k
            How many items to return for each. The item itself is left out.

        Returns
        -------
        Hits
            ``ids`` and ``scores`` (Q, k), best first; scores are cosines from -1 to 1.

        Raises
        ------
        UserError
            If an item is unknown or k is below 1.
        """
        return self.named(neighbours(self.items, self._rows("item", items), k))

    def tables(self) -> tuple[PackedTable, PackedTable]:
        """The packed codes of users and items. Raises UserError if the run has no quantizer."""
        users, items = self.users, self.items
        if not (isinstance(users, PackedTable) and isinstance(items, PackedTable)):
            raise UserError(
                f"{self.path}: this run has no codes (its quantizer is float32), only the float rows users.npy and "
                "items.npy; for codes, train with another quantizer: --set quantizer.name=gste"
            )
        return users, items

    def float_rows(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The float32 rows of users and items before the quantizer, memory-mapped."""
        users, items = (open_embeddings(self.path / rows_file(side)) for side in SIDES)
        self._check(*map(rows_file, SIDES))
        return users, items

    def export(self, to: str | Path, formats: Sequence[str] = ("codes",)) -> dict[str, dict[str, str]]:
        """Write the codes for other tools.

        Parameters
        ----------
        to
            The folder to write into.
        formats
            ``codes``, ``npy``, ``parquet`` or ``faiss``: see ``rectoolkit.runs.export``.

        Returns
        -------
        dict
            Format -> file -> a description of the file.

        Raises
        ------
        UserError
            If the run has no codes, a format is unknown, its library is missing, or ``to`` holds files of another run.
        """
        from rectoolkit.runs.export import export

        data = self.environment.get("data", {}).get("digest")
        source = {"name": self.path.name, "digest": self.environment.get("digest"), "data": data}
        return export(*self.tables(), to, formats, source, self.user_ids, self.item_ids)

    def save(self, path: str | Path) -> Path:
        """Copy the run folder, completely or not at all.

        Parameters
        ----------
        path
            The new folder. If it already holds this copy, nothing happens.

        Returns
        -------
        Path
            The new folder, for ``Run.open``, ``Estimator.open`` and ``rectool``.

        Raises
        ------
        UserError
            If something else is at ``path``.
        """
        if not isinstance(path, str | Path):
            raise UserError(f"a run is saved to a folder, got {path!r}")
        path = Path(path)
        files = [file for file in sorted(Run.open(self.path).path.iterdir()) if _is_kept(file)]
        if path.exists():
            if path.is_dir() and all(_same(file, path / file.name) for file in files):
                return path
            raise UserError(f"{path}: exists already and is not a copy of this run; name a new folder")
        with new_folder(path) as part:
            for file in files:
                with atomic_write(part / file.name) as written, file.open("rb") as read:
                    shutil.copyfileobj(read, written)
        return path

    def _ids(self, side: str, count: int) -> Ids | None:
        path = self.path / ids_file(side)
        if not self.environment.get("data", {}).get(f"{side[:-1]}_ids"):
            return None
        ids = Ids.load(path)
        if len(ids) != count:
            raise FormatError(f"{path}: {len(ids)} ids where this run has {count} {side}; run the recipe again")
        self._check(path.name)
        return ids

    def _table(self, side: str) -> Table:
        coded = self.environment.get("bits", 0) <= 8
        path = self.path / (codes_file(side) if coded else rows_file(side))
        table = PackedTable.load(path) if coded else open_embeddings(path)
        rows = table.num_rows if isinstance(table, PackedTable) else len(table)
        expected = self.seen.num_users if side == "users" else self.seen.num_items
        if rows != expected:
            raise FormatError(f"{path}: {rows} rows where this run has {expected} {side}; run the recipe again")
        self._check(path.name)
        return table

    @cached_property
    def _checked(self) -> set[str]:
        """The files whose bytes were compared with their checksums."""
        return set()

    def _check(self, *names: str) -> None:
        """Raise FormatError if a file of at most 256 MB differs from its checksum in ``metrics.json``."""
        written = self.metrics.get("crc32") if (self.path / METRICS).exists() else None
        for name in names:
            if isinstance(written, dict) and name in written and name not in self._checked:
                check_whole(self.path / name, written[name])
                self._checked.add(name)


def is_whole(folder: Path) -> bool:
    """Whether a folder holds a finished run whose files are all there and whole."""
    try:
        Run.open(folder).check()
    except FormatError:
        return False
    return True


def _as_lists(items: Any) -> Sequence[Sequence[Id]]:
    """The items of one user as a list of one list; those of several users as they are."""
    try:
        nested = len(items) > 0 and all(np.ndim(row) == 1 for row in items)
    except TypeError:
        raise UserError(f"items must be the item ids of a user, or a list of them per user, got {items!r}") from None
    return items if nested else [items]


def _is_kept(file: Path) -> bool:
    """Whether a file of a run folder belongs to the run, unlike its lock and what a killed writer left."""
    return file.is_file() and not file.name.startswith(".")


def _same(file: Path, other: Path) -> bool:
    """Whether two files hold the same bytes."""
    return other.is_file() and filecmp.cmp(file, other, shallow=False)
