"""Index: exact top-k search by inner product over packed codes.

Scores are those of ``codes.dot``, rounded to float32. Three methods give the same hits, bit for bit:

- ``reference``: unpack a block of items, multiply by ``codes.dot``, keep the k best. Slow and simple.
- ``numpy``: the same with products straight from the bit-planes. It answers a query at once, with nothing to compile.
- ``fast``: the compiled kernels of ``search.kernels``, loaded once there is enough work to repay loading them.

Float queries against coded items (asymmetric search) are put on a fixed-point grid first
(``codes.Integers.of_floats``). Memory is bounded: queries and items go through in blocks. This module imports neither
torch nor dgl, and numba only with the kernels.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rectoolkit.errors import UserError
from rectoolkit.search import codes
from rectoolkit.search.codes import CodeTable, Integers, PackedTable
from rectoolkit.search.index import (
    MOST_ITEMS,
    Hits,
    Masks,
    Rescore,
    available_cores,
    blocks_of,
    check_asked,
    check_count,
    check_finite,
    checked_masks,
    checked_rows,
    no_hits,
)  # fmt: skip
from rectoolkit.search.kernels import numpy_search
from rectoolkit.search.kernels.numpy_search import Question
from rectoolkit.search.keys import ids_of, mix, order_keys, scores_of, unmix

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from rectoolkit.search.index import Lists, PerQuery, Queries

    Ints = npt.NDArray[np.int64]
    Keys = npt.NDArray[np.uint64]

Method = Literal["fast", "numpy", "reference"]
METHODS: tuple[Method, ...] = ("fast", "numpy", "reference")
QUERIES_AT_ONCE = 1 << 14  # 8 MB of integers at 64 dims
ROWS_AT_ONCE = 1 << 20  # allowed by query, copied: 64 MB of 8-bit codes of 64 dims


class Index:
    """Exact search over the packed codes of N items. Item ids are row numbers 0..N-1.

    Parameters
    ----------
    items : PackedTable
        The codes to search, N rows of D dims.

    Raises
    ------
    UserError
        If ``items`` is not a PackedTable or holds 2^32 rows or more.
    """

    def __init__(self, items: PackedTable) -> None:
        check_packed(items)
        if items.num_rows >= MOST_ITEMS:
            raise UserError(f"an index holds fewer than 2^32 items, got {items.num_rows}; split the catalogue")
        self.items = items
        self._bounds: Any = None

    @classmethod
    def open(cls, path: str | Path) -> Index:
        """Open the index of a saved table by memory map, so that processes on one machine share its pages.

        Parameters
        ----------
        path : str or Path
            A file written by ``PackedTable.save``.

        Returns
        -------
        Index

        Raises
        ------
        FormatError
            If the file is missing, cut short, damaged, or of another kind or version.
        """
        return cls(PackedTable.load(path))

    def __len__(self) -> int:
        return self.items.num_rows

    @property
    def nbytes(self) -> int:
        """Bytes the index holds: planes, scales and offsets. Searching adds only bounded working memory."""
        return self.items.planes.nbytes + self.items.scale.nbytes + self.items.offset.nbytes

    def search(
        self,
        queries: Queries,
        k: int,
        *,
        seen: PerQuery | None = None,
        allow: npt.ArrayLike | PerQuery | None = None,
        deny: npt.ArrayLike | PerQuery | None = None,
        rescore: Rescore | None = None,
        threads: int | None = None,
        method: Method = "fast",
    ) -> Hits:
        """Find the k items with the largest inner product for each query.

        Parameters
        ----------
        queries : PackedTable, CodeTable or float32 array (Q, D)
        k : int
        seen, allow, deny, threads : optional
            See ``SearchIndex.search``.
        rescore : Rescore, optional
            Rank the best items again by float vectors.
        method : {"fast", "numpy", "reference"}
            How to search. All methods give the same hits.

        Returns
        -------
        Hits
            Ids and scores (Q, k), best first.

        Raises
        ------
        UserError
            As ``SearchIndex.search``, and if ``method`` or ``rescore`` cannot be used.
        """
        if method not in METHODS:
            raise UserError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
        masks = {"seen": seen, "allow": allow, "deny": deny}
        if rescore is not None:
            return self._rescored(queries, k, rescore, **masks, threads=threads, method=method)
        return answered(self.items, lambda asked: self._best(asked, method), queries, k, masks, threads)

    def _best(self, question: Question, method: Method) -> Keys:
        if question.masks.allowed is not None:
            return best_of_allowed(question, self, method)
        kernels = self._kernels(question, len(question.queries.values) * len(self), method)
        if kernels is None:
            return numpy_search.best_keys(question, _product(method))
        keys: Keys = kernels.best_keys(_allowed_only(question), self._bounds)
        return keys

    def best_in_ranges(self, question: Question, ranges: Ints, method: Method = "fast") -> Keys:
        """The best keys where each query ranks only the rows from first to last of its ``ranges`` (Q, P, 2).

        The items of ``question`` must be rows of this index.
        """
        kernels = self._kernels(question, int(np.diff(ranges).sum()), method)
        if kernels is None:
            return numpy_search.best_keys_in_ranges(question, ranges, _product(method))
        keys: Keys = kernels.keys_in_ranges(question, self._bounds, ranges)
        return keys

    def _kernels(self, question: Question, pairs: int, method: Method) -> Any:
        """The compiled kernels, if they can rank so many pairs of query and item and are worth loading."""
        if method != "fast":
            return None
        kernels = compiled_kernels(float(pairs) * max(1, self.items.dim * self.items.bits))
        self._bounds = self._bounds or (kernels and kernels.Bounds(self.items))
        return kernels if kernels is not None and kernels.serves(question.queries, self._bounds) else None

    def _rescored(self, queries: Queries, k: int, rescore: Rescore, **settings: Any) -> Hits:
        check_count("k", k)
        if not isinstance(rescore, Rescore):
            raise UserError(f"rescore must be a Rescore(queries, items, candidates), got {type(rescore).__name__}")
        check_count("rescore.candidates", rescore.candidates)
        if rescore.candidates < k:
            raise UserError(f"rescore.candidates ({rescore.candidates}) must be at least k ({k})")
        found = self.search(queries, max(1, min(rescore.candidates, len(self))), **settings)
        return _rescore(found, rescore, len(self), k)


def compile_kernels() -> None:
    """Compile every kernel that this processor can use, into numba's cache on disk.

    A service calls it when it is installed or started, so that no request waits for the compiler. Tiny catalogues are
    searched in every way that leads to a kernel of its own.
    """
    _LOADED.work = ENOUGH_WORK
    rows, dim = 300, 64
    for bits in (1, 2, 8):
        for grids in (1, rows):
            items = _any_table(rows, dim, bits, grids)
            index = Index(items)
            for num in (1, 9):
                for queries in (items.take(range(num)), items.take(range(num)).unpack().decode()):
                    index.search(queries, 5)
                    index.search(queries, 5, allow=(np.arange(num + 1) * 3, np.tile([1, 2, 3], num)))


def _any_table(rows: int, dim: int, bits: int, grids: int) -> PackedTable:
    """A table of some codes, symmetric about zero."""
    codes = (np.arange(rows * dim).reshape(rows, dim) % 2**bits).astype(np.uint8)
    scale = np.ones((grids, 1), np.float32)
    return PackedTable.pack(CodeTable(codes, scale, -scale * (2**bits - 1) / 2, bits))


def answered(
    items: PackedTable,
    answer: Callable[[Question], Keys],
    queries: Queries,
    k: int,
    given: dict[str, Any],
    threads: int | None,
) -> Hits:
    """Check the arguments of ``SearchIndex.search`` and let ``answer`` find the keys of each block."""
    check_asked(k, threads)
    asked, num = _checked(queries, items)
    kept = min(int(k), max(1, items.num_rows))
    masks = checked_masks(num, items.num_rows, **given)
    ids, scores = no_hits(num, int(k), items.num_rows)
    keys = np.zeros((num, kept), np.uint64)
    for rows in _blocks(num, masks.allowed):
        integers = _integers(asked, rows, items.segments)
        cores = int(threads or available_cores())
        keys[rows] = answer(Question(integers, items, None, kept, masks.part(rows), cores))
    ids[:, :kept], scores[:, :kept] = ids_of(keys), scores_of(keys)
    return Hits(ids, scores)


def _blocks(num: int, allowed: Lists | None) -> list[slice]:
    """All queries in blocks, which bound the memory of a search."""
    if allowed is None:
        return blocks_of(num, QUERIES_AT_ONCE)
    ends = np.arange(ROWS_AT_ONCE, allowed.indptr[-1], ROWS_AT_ONCE)
    starts = {*range(0, num, QUERIES_AT_ONCE), *np.searchsorted(allowed.indptr, ends).tolist()}
    return [slice(*pair) for pair in pairwise(sorted({*starts, num}))]


def best_of_allowed(question: Question, index: Index, method: Method = "fast", places: Ints | None = None) -> Keys:
    """The best keys where each query has a list of allowed items. ``places`` are the items' rows in ``index``.

    The rows of all lists are copied one after another, and each query ranks its own range of them.
    """
    excluded, allowed, banned = question.masks
    assert allowed is not None
    ids, ends = allowed.pairs()[1].astype(np.uint32), allowed.indptr - allowed.indptr[0]
    if not len(ids):
        return np.zeros((len(ends) - 1, question.k), np.uint64)
    masks = Masks(excluded, None, None if banned is None else banned[ids])
    items = index.items.take(ids if places is None else places[ids])
    ranges = np.stack((ends[:-1], ends[1:]), axis=1)[:, None]
    return index.best_in_ranges(question._replace(items=items, ids=ids, masks=masks), ranges, method)


@dataclass
class _Kernels:
    """The compiled kernels, once loaded, and the work in bits that was answered by numpy before."""

    module: Any = None
    absent: bool = False
    work: float = 0.0


_LOADED = _Kernels()
ENOUGH_WORK = 3e9  # bits of items times queries: about as long in numpy (0.6 s) as loading compiled kernels takes


def compiled_kernels(work: float) -> Any:
    """The module of compiled kernels, or None while numpy is quicker or if numba is not installed."""
    _LOADED.work += work
    if _LOADED.module is None and not _LOADED.absent and _LOADED.work >= ENOUGH_WORK:
        try:
            from rectoolkit.search.kernels import compiled_search
        except ImportError as error:
            _LOADED.absent = True
            warnings.warn(
                f"searching with numpy alone, many times slower, because numba cannot be imported ({error}): "
                "pip install numba",
                stacklevel=7,
            )
        else:
            _LOADED.module = compiled_search
    return _LOADED.module


def _allowed_only(question: Question) -> Question:
    """The same question about only the items that are not banned, if they are few enough to copy (an eighth)."""
    banned = question.masks.banned
    if banned is None or (len(banned) - int(banned.sum())) * 8 > len(banned):
        return question
    ids = np.flatnonzero(~banned)
    return question._replace(items=question.items.take(ids), ids=ids, masks=question.masks._replace(banned=None))


def _rescore(found: Hits, rescore: Rescore, num_items: int, k: int) -> Hits:
    queries, items = np.asarray(rescore.queries), rescore.items
    if queries.ndim != 2 or len(queries) != len(found.ids) or items.shape != (num_items, queries.shape[1]):
        raise UserError(
            f"rescore: queries must be float32 ({len(found.ids)}, D) and items ({num_items}, D) of the same D, "
            f"got {queries.shape} and {items.shape}"
        )
    check_finite(queries, "rescore: queries")
    ids, scores = no_hits(len(queries), k, num_items)
    for row, (query, candidates) in enumerate(zip(queries.astype(np.float64), found.ids, strict=True)):
        candidates = candidates[candidates >= 0]
        exact = np.asarray(items[candidates], np.float64) @ query
        best = np.sort(order_keys(exact[None], mix(candidates))[0])[::-1][:k]
        ids[row, : len(best)] = unmix(~best.astype(np.uint32))
        order = np.argsort(candidates)
        scores[row, : len(best)] = exact[order][np.searchsorted(candidates[order], ids[row, : len(best)])]
    return Hits(ids, scores)


def _checked(queries: Queries, items: PackedTable) -> tuple[Queries, int]:
    """Check that the queries fit the items. Returns them and their number."""
    if isinstance(queries, (PackedTable, CodeTable)):
        codes.check_comparable(queries, items)
        return queries, queries.num_rows
    rows = checked_rows(queries, items.dim)
    return rows, len(rows)


def _integers(queries: Queries, rows: slice, segments: tuple[int, ...]) -> Integers:
    if isinstance(queries, np.ndarray):
        return Integers.of_floats(queries[rows], segments)
    part = queries.take(rows)
    return Integers.of(part.unpack() if isinstance(part, PackedTable) else part)


def check_packed(items: object) -> None:
    """Raise UserError unless ``items`` is a PackedTable."""
    if not isinstance(items, PackedTable):
        raise UserError(f"an index is made of a PackedTable, got {type(items).__name__}; FloatIndex takes float rows")


def _product(method: Method) -> numpy_search.Product:
    return numpy_search.unpacked if method == "reference" else numpy_search.without_unpacking
