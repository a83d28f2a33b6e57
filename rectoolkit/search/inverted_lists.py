"""Inverted lists: approximate top-k over packed codes, for catalogues of tens of millions of items.

k-means on the decoded values sorts the items into lists. A query opens the ``probe`` lists whose centroids have the
largest inner product with it, which is the mean score of a list's items. It ranks the items there by the kernels of the
exact index, so the scores and the order of those items are exact. Only good items in other lists can be missed, and
``recall`` measures how many. With all lists open, the hits are those of ``Index``, ties included.

A query costs one product with all centroids and probe / lists of a full scan, so the gain grows with the catalogue.
Lists cannot help with items that form no clusters, such as random codes. Trained embeddings do form them. In memory the
lists add 4 bytes for each item, and the float32 centroids.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from rectoolkit.errors import UserError, needed
from rectoolkit.files import open_arrays, refuse, save_arrays
from rectoolkit.search.codes import PackedTable
from rectoolkit.search.index import Masks, blocks_of, check_count
from rectoolkit.search.packed import Index, answered, best_of_allowed, check_packed

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from rectoolkit.search.codes import Integers
    from rectoolkit.search.index import Hits, PerQuery, Queries
    from rectoolkit.search.kernels.numpy_search import Question

    Floats = npt.NDArray[np.float32]
    Ints = npt.NDArray[np.int64]
    Keys = npt.NDArray[np.uint64]

SAMPLED, ROUNDS = 64, 10  # items of k-means for each list, and its rounds
ROWS_AT_ONCE = 1 << 17  # decoded: 32 MB of 64 dims
BLOCK_PROMISES = 1 << 22  # scores of lists at a time: 16 MB, and up to 130 MB to sort them and open the best


class InvertedLists:
    """Approximate search over packed codes. ``build`` makes it; ids are row numbers of the table it was built from.

    Parameters
    ----------
    items : PackedTable
        The codes, sorted by list.
    ids : uint32 array (N,)
        For each row of ``items``, its row number in the original table.
    starts : int64 array (L + 1,)
        Where each list begins in ``items``, and N.
    centroids : float32 array (L, D)
        The mean of each list's decoded rows.
    """

    def __init__(self, items: PackedTable, ids: npt.NDArray[np.uint32], starts: Ints, centroids: Floats) -> None:
        self.items, self.ids, self.starts, self.centroids = items, ids, starts, centroids
        self._exact = Index(items)

    @classmethod
    def build(
        cls, items: PackedTable, *, lists: int | None = None, generator: np.random.Generator | None = None
    ) -> InvertedLists:
        """Sort items into lists.

        Parameters
        ----------
        items : PackedTable
            The codes to search, N rows.
        lists : int, optional
            How many lists to make, 1 to N. By default 2 sqrt(N). Lists that get no item are dropped.
        generator : numpy.random.Generator, optional
            Makes the random choices of k-means. The default gives the same lists every time.

        Returns
        -------
        InvertedLists

        Raises
        ------
        UserError
            If there are no items, ``lists`` is not from 1 to N, or scikit-learn is not installed.
        """
        check_packed(items)
        num = items.num_rows
        if not 0 < num < 1 << 32:
            raise UserError(f"lists hold from 1 to 2^32 - 1 items, got {num}; an empty catalogue needs no index")
        lists = min(num, round(2 * num**0.5)) if lists is None else lists
        check_count("lists", lists)
        if lists > num:
            raise UserError(f"lists must be at most the number of items, {num}, got {lists}")
        generator = generator or np.random.default_rng(0)
        sample = np.sort(generator.choice(num, min(num, SAMPLED * lists), replace=False))
        model = _fitted(items.take(sample).unpack().decode(), lists, generator)
        blocks = blocks_of(num, ROWS_AT_ONCE)
        owner = np.concatenate([model.predict(items.take(rows).unpack().decode()) for rows in blocks])
        counts = np.bincount(owner, minlength=lists)
        ids = np.argsort(owner, kind="stable").astype(np.uint32)
        starts = np.concatenate(([0], np.cumsum(counts[counts > 0])))
        return cls(items.take(ids), ids, starts, model.cluster_centers_[counts > 0])

    def __len__(self) -> int:
        return self.items.num_rows

    @property
    def lists(self) -> int:
        """Number of lists."""
        return len(self.centroids)

    @property
    def nbytes(self) -> int:
        """Bytes the index holds."""
        arrays = (self.items.planes, self.items.scale, self.items.offset, self.ids, self.starts, self.centroids)
        return sum(array.nbytes for array in arrays)

    def search(
        self,
        queries: Queries,
        k: int,
        *,
        probe: int = 8,
        seen: PerQuery | None = None,
        allow: npt.ArrayLike | PerQuery | None = None,
        deny: npt.ArrayLike | PerQuery | None = None,
        threads: int | None = None,
    ) -> Hits:
        """Find the k best items in the ``probe`` lists nearest to each query.

        Parameters
        ----------
        queries : PackedTable, CodeTable or float32 array (Q, D)
        k : int
        probe : int
            How many lists to open for each query. With at least ``self.lists``, nothing is missed. If the opened
            lists hold fewer than k items, a row ends in ids -1 and scores -inf.
        seen, allow, deny, threads : optional
            See ``SearchIndex.search``. If ``allow`` has a list for each query, all its items are ranked and ``probe``
            has no effect.

        Returns
        -------
        Hits
            Ids and scores (Q, k), best first. Ids are row numbers of the table the lists were built from.

        Raises
        ------
        UserError
            As ``SearchIndex.search``, and if ``probe`` is not a whole number of at least 1.
        """
        check_count("probe", probe)
        masks = {"seen": seen, "allow": allow, "deny": deny}
        return answered(self.items, lambda asked: self._best(asked, probe), queries, k, masks, threads)

    def recall(self, queries: Queries, k: int, *, probe: int = 8, threads: int | None = None) -> float:
        """Measure the share of the exact top k that is found, averaged over the queries.

        Parameters
        ----------
        queries, k, probe, threads
            As in ``search``.

        Returns
        -------
        float
            From 0 to 1, compared with a search that opens all lists.
        """
        found, exact = (self.search(queries, k, probe=p, threads=threads).ids for p in (probe, self.lists))
        if not len(exact):
            raise UserError("recall is measured over at least one query")
        kept = [np.isin(e[e >= 0], f).mean() for f, e in zip(found, exact, strict=True)]
        return float(np.mean(kept))

    def save(self, path: str | Path) -> None:
        """Write the index as one self-describing file (docs/reference/file-format.md); the file is whole or absent."""
        table, facts = self.items.to_file()
        lists: dict[str, npt.NDArray[Any]] = {"ids": self.ids, "starts": self.starts, "centroids": self.centroids}
        save_arrays(path, "lists", {**table, **lists}, facts)

    @classmethod
    def open(cls, path: str | Path) -> InvertedLists:
        """Open a saved index by memory map.

        Parameters
        ----------
        path : str or Path
            A file written by ``save``.

        Returns
        -------
        InvertedLists

        Raises
        ------
        FormatError
            If the file is missing, damaged or of another kind.
        """
        file = open_arrays(path, "lists")
        items = PackedTable.of_file(file)
        ids, starts = file.array("ids", "<u4", 1), file.array("starts", "<i8", 1)
        centroids = file.array("centroids", "<f4", 2)
        rises = len(starts) > 1 and starts[0] == 0 and starts[-1] == items.num_rows and not (np.diff(starts) < 0).any()
        if not rises:
            refuse(file.path, "starts", f"its lists do not cover its {items.num_rows} rows in order")
        if centroids.shape != (len(starts) - 1, items.dim) or not np.isfinite(centroids).all():
            refuse(file.path, "centroids", f"must be finite, {len(starts) - 1} of {items.dim} dims")
        named = np.zeros(items.num_rows, bool)
        named[ids[ids < items.num_rows]] = True
        if len(ids) != items.num_rows or not named.all():
            refuse(file.path, "ids", f"must name each of its {items.num_rows} rows once")
        return cls(items, ids, starts, centroids)

    def _best(self, question: Question, probe: int) -> Keys:
        excluded, allowed, banned = question.masks
        if allowed is not None:
            return best_of_allowed(question, self._exact, places=self._places)
        permitted = Masks(excluded, None, None if banned is None else banned[self.ids])
        question = question._replace(ids=self.ids, masks=permitted)
        size = max(1, BLOCK_PROMISES // self.lists)  # however many queries come at once, memory is that of a block
        blocks = blocks_of(len(question.queries.values), size)
        none = np.zeros((0, question.k), np.uint64)
        return np.concatenate([none, *(self._best_of(question.part(rows), probe) for rows in blocks)])

    def _best_of(self, question: Question, probe: int) -> Keys:
        """The keys of one block of queries."""
        lists = self._opened(question.queries, probe)
        return self._exact.best_in_ranges(question, np.stack((self.starts[lists], self.starts[lists + 1]), axis=2))

    @cached_property
    def _places(self) -> Ints:
        """The place of each item in the sorted table."""
        places = np.empty(len(self.ids), np.int64)
        places[self.ids] = np.arange(len(self.ids))
        return places

    def _opened(self, queries: Integers, probe: int) -> Ints:
        """The lists each query opens (Q, probe), the most promising first."""
        widths = np.asarray(queries.segments)
        scale, offset = (np.repeat(a, widths, axis=1) for a in (queries.scale, queries.offset))
        promise = (queries.values * scale + offset).astype(np.float32) @ self.centroids.T
        probe = min(probe, self.lists)
        lists = np.argpartition(-promise, probe - 1, axis=1)[:, :probe]
        order = np.argsort(-np.take_along_axis(promise, lists, axis=1), axis=1, kind="stable")
        return np.take_along_axis(lists, order, axis=1)


def _fitted(rows: Floats, lists: int, generator: np.random.Generator) -> Any:
    """k-means of the rows, by scikit-learn. One thread, since several add up their sums in any order."""
    with needed("building inverted lists"):
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

    seed = int(generator.integers(1 << 31))
    model = KMeans(lists, init="random", n_init=1, max_iter=ROUNDS, tol=0, random_state=seed, copy_x=False)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of fewer different rows than lists
        return model.fit(rows)
