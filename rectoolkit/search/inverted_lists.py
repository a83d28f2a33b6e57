"""Approximate top-k for catalogues of tens of millions: inverted lists over packed codes.

The items are sorted into lists by k-means on their decoded values. A query looks into the ``probe`` lists whose
centroids have the largest inner product with it, which is the mean score of a list's items, and ranks the items found
there exactly, by the kernels of the exact index. So the scores and the order among those items are exact, and what
can be missed are good items in lists that were not opened; ``recall`` measures how many. With all lists opened the
hits are those of ``Index``, ties included.

The cost of a query is one product with all centroids and probe / lists of a full scan, so the gain grows with the
catalogue: an exact scan of a million one-bit items takes half a millisecond and hardly needs this, one of fifty million
does. Items that form no clusters (random codes) cannot be found by lists; trained embeddings do form them. In memory
the lists add 4 bytes an item and the float32 centroids.

k-means is a few lines of numpy on a sample of 64 items a list: ten rounds over a million items take seconds, and
the same generator gives the same lists everywhere.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.errors import UserError
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
BLOCK_SCORES = 1 << 24  # 64 MB of float32 products at a time
BLOCK_PROMISES = 1 << 22  # scores of lists at a time: 16 MB, and up to 130 MB of what is sorted and opened from them


class ApproximateIndex:
    """Search in the lists nearest to a query. Hits name the items by their row numbers in the table that was built.

    ``items`` the table sorted by list, ``ids`` uint32 (N) its rows' numbers before, ``starts`` int64 (L + 1) where each
    list begins, ``centroids`` float32 (L, D).
    """

    def __init__(self, items: PackedTable, ids: npt.NDArray[np.uint32], starts: Ints, centroids: Floats) -> None:
        self.items, self.ids, self.starts, self.centroids = items, ids, starts, centroids
        self._exact = Index(items)

    @classmethod
    def build(
        cls, items: PackedTable, *, lists: int | None = None, generator: np.random.Generator | None = None
    ) -> ApproximateIndex:
        """Sort ``items`` into at most ``lists`` lists (by default twice the square root of their number).

        Raises UserError of an empty catalogue and where ``lists`` is not from 1 to the number of items.
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
        centroids = _cluster(items.take(sample).unpack().decode(), lists, generator)
        owner = np.concatenate(
            [_nearest(items.take(rows).unpack().decode(), centroids) for rows in blocks_of(num, 1 << 17)]
        )
        counts = np.bincount(owner, minlength=lists)
        ids = np.argsort(owner, kind="stable").astype(np.uint32)
        starts = np.concatenate(([0], np.cumsum(counts[counts > 0])))
        return cls(items.take(ids), ids, starts, centroids[counts > 0])

    def __len__(self) -> int:
        return self.items.num_rows

    @property
    def lists(self) -> int:
        """How many lists there are."""
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
        """The share of the exact top k that is found, averaged over the queries; measured, against all lists."""
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
    def open(cls, path: str | Path) -> ApproximateIndex:
        """A saved index, memory-mapped. Raises FormatError where it is missing, damaged or of another kind."""
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
        question = replace(question, ids=self.ids, masks=permitted)
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
        """Where each item stands in the sorted table."""
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


def _cluster(rows: Floats, lists: int, generator: np.random.Generator) -> Floats:
    """Centroids (lists, D) of the rows by k-means; a list that runs empty begins anew at a row drawn at random."""
    centroids = rows[generator.choice(len(rows), lists, replace=False)]
    for _ in range(ROUNDS):
        owner = _nearest(rows, centroids)
        counts = np.bincount(owner, minlength=lists)
        first, filled = np.cumsum(counts) - counts, counts > 0
        sums = np.add.reduceat(rows[np.argsort(owner, kind="stable")], first[filled], axis=0)
        centroids = rows[generator.integers(0, len(rows), lists)]
        centroids[filled] = sums / counts[filled, None].astype(np.float32)
    return centroids


def _nearest(rows: Floats, centroids: Floats) -> Ints:
    """The number of the centroid nearest to each row."""
    half = np.square(centroids).sum(axis=1) / 2
    block = max(1, BLOCK_SCORES // len(centroids))
    parts = [(rows[part] @ centroids.T - half).argmax(axis=1) for part in blocks_of(len(rows), block)]
    return np.concatenate(parts)
