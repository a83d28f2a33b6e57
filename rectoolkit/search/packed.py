"""Top-k by inner product over packed codes: exact, in bounded memory, the same whichever method runs.

The score of a query and an item is ``codes.dot`` (float64 in its stated order) rounded to float32, and the ranking
compares the *rounded* scores, so that what a caller sees as equal is treated as equal. Among equal scores the
lower ``mix(item id)`` comes first, mix being the 32-bit finaliser of MurmurHash3. Ties are everywhere (64 one-bit
dims have 65 distinct scores) and data sets often number items by popularity or by time: ties broken by the id
itself would let that leak into the metrics. Being a bijection, the mix leaves no tie undecided.

Score and mix together are one unsigned 64-bit *key*: the high half orders as the score does, the low half holds
the complement of the mix. Better is simply larger, and 0 is kept for "not rankable". Three methods give the same
keys, bit for bit:

- ``reference``: unpack a block of items, ``codes.dot``, keep the k largest keys. Slow and plain.
- ``numpy``: the same with products straight from the planes; answers a query at once, with nothing to compile.
- ``fast``: the compiled kernels of ``search.kernels``, loaded once there is enough work to repay loading them.

Float queries against coded items (asymmetric) are put on a fixed-point grid first (``codes.Integers.of_floats``).
This module imports neither torch nor dgl, and numba only with the kernels.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from rectoolkit.errors import UserError
from rectoolkit.search import codes
from rectoolkit.search.codes import CodeTable, Integers, PackedTable
from rectoolkit.search.kernels import plain
from rectoolkit.search.kernels.order import ids_of, mix, order_keys, scores_of, unmix
from rectoolkit.search.kernels.plain import Question, Seen

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float32]
    Keys = npt.NDArray[np.uint64]
    Queries = PackedTable | CodeTable | Floats

__all__ = [
    "METHODS", "Hits", "Index", "Method", "Rescore", "answered", "available_cores", "check_count", "compiled_kernels",
    "mix", "order_keys", "unmix",
]  # fmt: skip

Method = Literal["fast", "numpy", "reference"]
METHODS: tuple[Method, ...] = ("fast", "numpy", "reference")
QUERIES_AT_ONCE = 1 << 14  # 8 MB of integers at 64 dims
MOST_ITEMS = 1 << 32  # an id fills half a key


class Rescore(NamedTuple):
    """Re-ranking by float vectors: the best ``candidates`` by codes are ranked again by float inner products.

    ``queries`` float32 (Q, D'), ``items`` float32 (N, D'); only the candidates' rows of ``items`` are read, so it
    may be a memory map. The scores returned are then the float ones, and the result is no longer that of codes.
    """

    queries: Floats
    items: Floats
    candidates: int


@dataclass(frozen=True)
class Hits:
    """The answer to Q queries: ``ids`` int64 (Q, k) and ``scores`` float32 (Q, k), best first.

    Where fewer than k items can be ranked, a row ends in ids -1 and scores -inf.
    """

    ids: Ints
    scores: Floats


class Index:
    """Search over the packed codes of N items; item ids are row numbers 0..N-1."""

    def __init__(self, items: PackedTable) -> None:
        check_packed(items)
        if items.num_rows >= MOST_ITEMS:
            raise UserError(f"an index holds fewer than 2^32 items, got {items.num_rows}; split the catalogue")
        self.items = items
        self._bounds: Any = None

    @classmethod
    def open(cls, path: str | Path) -> Index:
        """The index of a saved table, memory-mapped: processes on one machine share its pages.

        Raises FormatError where the file is missing, cut short, damaged, or of another kind or version.
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
        seen: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
        allow: npt.ArrayLike | None = None,
        deny: npt.ArrayLike | None = None,
        rescore: Rescore | None = None,
        threads: int | None = None,
        method: Method = "fast",
    ) -> Hits:
        """The k items of largest inner product for each of Q queries, best first.

        ``queries``: a PackedTable or CodeTable of the items' dims and segments (its bits may differ), or float32
        (Q, D). ``seen``: a CSR pair (indptr (Q + 1), item ids) of items excluded query by query. ``allow`` and
        ``deny``: item ids for all queries; with both, an item must be allowed and not denied. ``rescore``: rank the
        best few again by float vectors. ``threads``: None for all cores this process may use. All methods give the
        same hits. Raises UserError where k < 1 or k >= 2^32, dims or segments differ, a query is NaN, infinite or
        beyond float32, or an id lies outside 0..N-1.
        """
        if method not in METHODS:
            raise UserError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
        masks: dict[str, Any] = {"seen": seen, "allow": allow, "deny": deny}
        if rescore is not None:
            return self._rescored(queries, k, rescore, **masks, threads=threads, method=method)
        return answered(self.items, lambda question: self._best(question, method), queries, k, **masks, threads=threads)

    def _best(self, question: Question, method: Method) -> Keys:
        if method == "fast":
            kernels = compiled_kernels(
                len(question.queries.values) * len(self) * max(1, self.items.dim * self.items.bits)
            )
            self._bounds = self._bounds or (kernels and kernels.Bounds(self.items))
            if kernels is not None and kernels.serves(question.queries, self._bounds):
                keys: Keys = kernels.best_keys(_allowed_only(question), self._bounds)
                return keys
            method = "numpy"
        return plain.best_keys(question, plain.unpacked if method == "reference" else plain.without_unpacking)

    def _rescored(self, queries: Queries, k: int, rescore: Rescore, **settings: Any) -> Hits:
        check_count("k", k)
        if not isinstance(rescore, Rescore):
            raise UserError(f"rescore must be a Rescore(queries, items, candidates), got {type(rescore).__name__}")
        check_count("rescore.candidates", rescore.candidates)
        if rescore.candidates < k:
            raise UserError(f"rescore.candidates ({rescore.candidates}) must be at least k ({k})")
        found = self.search(queries, max(1, min(rescore.candidates, len(self))), **settings)
        return _rescore(found, rescore, len(self), k)


def answered(
    items: PackedTable,
    answer: Callable[[Question], Keys],
    queries: Queries,
    k: int,
    *,
    seen: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    allow: npt.ArrayLike | None = None,
    deny: npt.ArrayLike | None = None,
    threads: int | None = None,
) -> Hits:
    """Check what is asked of ``items`` (see ``Index.search``) and let ``answer`` find the best keys, block by block."""
    check_count("k", k)
    if k >= MOST_ITEMS:
        raise UserError(f"k must be less than 2^32, which no index holds, got {k}")
    if threads is not None:
        check_count("threads", threads)
    asked, num = _checked(queries, items)
    excluded = None if seen is None else _seen(seen, num, items.num_rows)
    banned = _banned(items.num_rows, allow, deny)
    kept = min(int(k), max(1, items.num_rows))
    keys = np.zeros((num, kept), np.uint64)
    for rows in plain.blocks_of(num, QUERIES_AT_ONCE):
        part = None if excluded is None else Seen(excluded.indptr[rows.start : rows.stop + 1], excluded.items)
        integers = _integers(asked, rows, items.segments)
        cores = int(threads or available_cores())
        keys[rows] = answer(Question(integers, items, None, kept, part, banned, cores))
    ids, scores = np.full((num, int(k)), -1), np.full((num, int(k)), -np.inf, np.float32)
    ids[:, :kept], scores[:, :kept] = ids_of(keys), scores_of(keys)
    return Hits(ids, scores)


@dataclass
class _Kernels:
    """The compiled kernels, once loaded, and the work in bits that was answered by numpy before."""

    module: Any = None
    absent: bool = False
    work: float = 0.0


_LOADED = _Kernels()
ENOUGH_WORK = 3e9  # bits of items times queries: about as long in numpy (0.6 s) as loading compiled kernels takes


def compiled_kernels(work: float) -> Any:
    """The kernels' module, or None while numpy is quicker or where numba is not installed."""
    _LOADED.work += work
    if _LOADED.module is None and not _LOADED.absent and _LOADED.work >= ENOUGH_WORK:
        try:
            from rectoolkit.search.kernels import search
        except ImportError as error:
            _LOADED.absent = True
            warnings.warn(
                f"searching with numpy alone, many times slower, because numba cannot be imported ({error}): "
                "pip install numba",
                stacklevel=6,
            )
        else:
            _LOADED.module = search
    return _LOADED.module


def _allowed_only(question: Question) -> Question:
    """The same question of the items not banned alone, where they are few enough to copy (an eighth at most)."""
    if question.banned is None:
        return question
    left = question.items.num_rows - int(question.banned.sum())
    if left * 8 > question.items.num_rows:
        return question
    ids = np.flatnonzero(~question.banned)
    return replace(question, items=question.items.take(ids), ids=ids, banned=None)


def _rescore(found: Hits, rescore: Rescore, num_items: int, k: int) -> Hits:
    queries, items = np.asarray(rescore.queries), rescore.items
    if queries.ndim != 2 or len(queries) != len(found.ids) or items.shape != (num_items, queries.shape[1]):
        raise UserError(
            f"rescore: queries must be float32 ({len(found.ids)}, D) and items ({num_items}, D) of the same D, "
            f"got {queries.shape} and {items.shape}"
        )
    _check_finite(queries, "rescore: queries")
    ids, scores = np.full((len(queries), k), -1), np.full((len(queries), k), -np.inf, np.float32)
    for row, (query, candidates) in enumerate(zip(queries.astype(np.float64), found.ids, strict=True)):
        candidates = candidates[candidates >= 0]
        exact = np.asarray(items[candidates], np.float64) @ query
        best = np.sort(order_keys(exact[None], mix(candidates))[0])[::-1][:k]
        ids[row, : len(best)] = unmix(~best.astype(np.uint32))
        order = np.argsort(candidates)
        scores[row, : len(best)] = exact[order][np.searchsorted(candidates[order], ids[row, : len(best)])]
    return Hits(ids, scores)


def available_cores() -> int:
    """How many cores this process may use."""
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _checked(queries: Queries, items: PackedTable) -> tuple[Queries, int]:
    """The queries, which fit the items, and how many they are."""
    if isinstance(queries, (PackedTable, CodeTable)):
        try:
            codes.check_comparable(queries, items)
        except ValueError as error:
            raise UserError(str(error)) from None
        return queries, queries.num_rows
    rows = np.asarray(queries)
    if rows.ndim != 2 or rows.shape[1] != items.dim or not np.issubdtype(rows.dtype, np.floating):
        raise UserError(
            f"float queries must be float32 of shape (Q, {items.dim}), the items' dims, got {rows.dtype} {rows.shape}; "
            "coded queries come as a CodeTable or PackedTable"
        )
    _check_finite(rows, "queries")
    if rows.size and float(np.abs(rows).max()) > float(np.finfo(np.float32).max):
        raise UserError(f"queries: a value of {np.abs(rows).max():.3g} is beyond float32, in which scores are; rescale")
    return rows, len(rows)


def _integers(queries: Queries, rows: slice, segments: tuple[int, ...]) -> Integers:
    if isinstance(queries, np.ndarray):
        return Integers.of_floats(queries[rows], segments)
    part = queries.take(rows)
    return Integers.of(part.unpack() if isinstance(part, PackedTable) else part)


def _check_finite(rows: npt.NDArray[Any], name: str) -> None:
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise UserError(f"{name}: row {bad[0]} holds NaN or infinity ({len(bad)} such rows); pass finite values")


def check_packed(items: object) -> None:
    """Raise UserError unless ``items`` is a PackedTable."""
    if not isinstance(items, PackedTable):
        raise UserError(f"an index is made of a PackedTable, got {type(items).__name__}; FloatIndex takes float rows")


def check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise UserError(f"{name} must be a whole number of at least 1, got {value!r}")


def _array(values: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise UserError(f"{name} must be one row of integer item ids: {error}") from None


def _ids(values: npt.ArrayLike, num_items: int, name: str) -> Ints:
    ids = _array(values, name)
    if ids.ndim != 1 or (len(ids) and not np.issubdtype(ids.dtype, np.integer)):
        raise UserError(f"{name} must be one row of integer item ids, got {ids.dtype} of shape {ids.shape}")
    if len(ids) and (ids.min() < 0 or ids.max() >= num_items):
        wrong = ids[(ids < 0) | (ids >= num_items)][0]
        right = f"ids are 0 to {num_items - 1}" if num_items else "the catalogue is empty"
        raise UserError(f"{name} names item {wrong}, but {right}")
    return ids.astype(np.int64)


def _banned(num_items: int, allow: npt.ArrayLike | None, deny: npt.ArrayLike | None) -> npt.NDArray[np.bool_] | None:
    if allow is None and deny is None:
        return None
    banned = np.zeros(num_items, bool)
    if allow is not None:
        banned[:] = True
        banned[_ids(allow, num_items, "allow")] = False
    if deny is not None:
        banned[_ids(deny, num_items, "deny")] = True
    return banned


def _seen(pair: tuple[npt.ArrayLike, npt.ArrayLike], num_queries: int, num_items: int) -> Seen:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise UserError(f"seen must be a pair (indptr, item ids), got {type(pair).__name__}")
    indptr, items = _array(pair[0], "seen"), _ids(pair[1], num_items, "seen")
    ends_well = indptr.shape == (num_queries + 1,) and np.issubdtype(indptr.dtype, np.integer)
    indptr = indptr.astype(np.int64) if ends_well else indptr  # of unsigned numbers no difference is below 0
    if not ends_well or indptr[0] != 0 or indptr[-1] != len(items) or (np.diff(indptr) < 0).any():
        raise UserError(
            f"seen must be (indptr, item ids) with {num_queries + 1} ascending indptr from 0 to the {len(items)} ids, "
            "one row per query"
        )
    owner = np.repeat(np.arange(num_queries), np.diff(indptr))
    inner = owner[1:] == owner[:-1]
    if (items[1:] < items[:-1])[inner].any():
        items = items[np.lexsort((items, owner))]
    return Seen(indptr, items)
