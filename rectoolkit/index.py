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
- ``fast``: the compiled kernels of ``rectoolkit.kernels``, loaded once there is enough work to repay loading them.

Float queries against coded items (asymmetric) are put on a fixed-point grid first (``codes.Integers.of_floats``).
This module imports neither torch nor dgl, and numba only with the kernels.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from rectoolkit import codes
from rectoolkit.codes import CodeTable, Integers, PackedTable
from rectoolkit.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float32]
    Keys = npt.NDArray[np.uint64]
    Queries = PackedTable | CodeTable | Floats
    Product = Callable[[Integers, PackedTable], npt.NDArray[np.float64]]

Method = Literal["fast", "numpy", "reference"]
METHODS: tuple[Method, ...] = ("fast", "numpy", "reference")
QUERY_BLOCK, ITEM_BLOCK = 256, 4096  # 8 MB per float64 temporary of the numpy methods


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


class Seen(NamedTuple):
    """Items excluded query by query, as CSR: those of query q are ``items[indptr[q]:indptr[q + 1]]``, sorted."""

    indptr: Ints
    items: Ints


@dataclass(frozen=True)
class Question:
    """One checked call of ``search``: what every method answers. ``ids`` are those of the rows of ``items``."""

    queries: Integers
    items: PackedTable
    ids: Ints | None
    k: int
    seen: Seen | None
    banned: npt.NDArray[np.bool_] | None
    threads: int


class Index:
    """Search over the packed codes of N items; item ids are row numbers 0..N-1."""

    def __init__(self, items: PackedTable) -> None:
        if items.num_rows >= 1 << 32:
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
        same hits. Raises UserError where k < 1, dims or segments differ, a query is NaN or infinite, or an id
        lies outside 0..N-1.
        """
        if method not in METHODS:
            raise UserError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
        if rescore is not None:
            masks = {"seen": seen, "allow": allow, "deny": deny}
            return self._rescored(queries, k, rescore, **masks, threads=threads, method=method)
        question = self._question(queries, k, seen, allow, deny, threads)
        return _hits(self._best(question, method))

    def _question(
        self,
        queries: Queries,
        k: int,
        seen: tuple[npt.ArrayLike, npt.ArrayLike] | None,
        allow: npt.ArrayLike | None,
        deny: npt.ArrayLike | None,
        threads: int | None,
    ) -> Question:
        _check_count("k", k)
        if threads is not None:
            _check_count("threads", threads)
        integers = _integers(queries, self.items)
        banned = _banned(len(self), allow, deny)
        checked = None if seen is None else _seen(seen, len(integers.values), len(self))
        return Question(integers, self.items, None, int(k), checked, banned, int(threads or available_cores()))

    def _best(self, question: Question, method: Method) -> Keys:
        if method == "fast":
            kernels = _kernels(len(question.queries.values) * len(self) * max(1, self.items.dim * self.items.bits))
            if kernels is not None and self.items.dim < kernels.MOST_DIMS:
                self._bounds = self._bounds or kernels.Bounds(self.items)
                keys: Keys = kernels.best_keys(_allowed_only(question), self._bounds)
                return keys
            method = "numpy"
        return _best_keys(question, method)

    def _rescored(self, queries: Queries, k: int, rescore: Rescore, **settings: Any) -> Hits:
        _check_count("k", k)
        _check_count("rescore.candidates", rescore.candidates)
        if rescore.candidates < k:
            raise UserError(f"rescore.candidates ({rescore.candidates}) must be at least k ({k})")
        found = self.search(queries, rescore.candidates, **settings)
        return _rescore(found, rescore, len(self), k)


def mix(ids: npt.ArrayLike) -> npt.NDArray[np.uint32]:
    """The finaliser of MurmurHash3 (fmix32), a bijection on 32-bit numbers: the order of items of equal score."""
    h = np.array(ids).astype(np.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h ^= h >> np.uint32(shift)
        h *= np.uint32(factor)
    h ^= h >> np.uint32(16)
    return h


def unmix(mixed: npt.ArrayLike) -> npt.NDArray[np.uint32]:
    """The ids that ``mix`` gave; its inverse."""
    h = np.array(mixed).astype(np.uint32)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x7ED1B41D)
    h ^= (h >> np.uint32(13)) ^ (h >> np.uint32(26))
    h *= np.uint32(0xA5CB9243)
    h ^= h >> np.uint32(16)
    return h


def order_keys(scores: npt.NDArray[np.float64], mixed: npt.NDArray[np.uint32]) -> Keys:
    """The keys (Q, N) of scores (Q, N) and mixed ids (N): larger is better, none is 0."""
    rounded = scores.astype(np.float32) + np.float32(0)  # -0 becomes +0: they are equal and must tie
    raw = rounded.view(np.uint32)
    ordered = raw ^ np.where(raw >> 31, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
    return np.asarray((ordered.astype(np.uint64) << np.uint64(32)) | ~mixed)


@dataclass
class _Kernels:
    """The compiled kernels, once loaded, and the work in bits that was answered by numpy before."""

    module: Any = None
    absent: bool = False
    work: float = 0.0


_LOADED = _Kernels()
ENOUGH_WORK = 3e9  # bits of items times queries: about as long in numpy (0.6 s) as loading compiled kernels takes


def _kernels(work: float) -> Any:
    """The kernels' module, or None while numpy is quicker or where numba is not installed."""
    _LOADED.work += work
    if _LOADED.module is None and not _LOADED.absent and _LOADED.work >= ENOUGH_WORK:
        try:
            from rectoolkit import kernels
        except ImportError as error:
            _LOADED.absent = True
            warnings.warn(
                f"searching with numpy alone, many times slower, because numba cannot be imported ({error}): "
                "pip install numba",
                stacklevel=4,
            )
        else:
            _LOADED.module = kernels
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


def _hits(keys: Keys) -> Hits:
    ordered = (keys >> np.uint64(32)).astype(np.uint32)
    raw = ordered ^ np.where(ordered >> 31, np.uint32(0x80000000), np.uint32(0xFFFFFFFF))
    empty = keys == 0
    scores = np.where(empty, np.float32(-np.inf), raw.view(np.float32))
    return Hits(np.where(empty, -1, unmix(~keys.astype(np.uint32)).astype(np.int64)), scores)


def _best_keys(question: Question, method: Method) -> Keys:
    """The k best keys of each query, descending, 0 where there are none: uint64 (Q, k)."""
    num_queries = len(question.queries.values)
    best = np.zeros((num_queries, question.k), np.uint64)
    for queries in _blocks(num_queries, QUERY_BLOCK):
        kept = np.zeros((queries.stop - queries.start, 0), np.uint64)
        for keys in _block_keys(question, queries, without_unpacking if method == "numpy" else unpacked):
            kept = _largest(np.concatenate((kept, keys), axis=1), question.k)
        kept.sort(axis=1)
        best[queries, : kept.shape[1]] = kept[:, ::-1]
    return best


def _block_keys(question: Question, queries: slice, product: Product) -> Iterator[Keys]:
    asked = question.queries
    scale, offset = (a if len(a) == 1 else a[queries] for a in (asked.scale, asked.offset))
    block = Integers(asked.values[queries], asked.sums[queries], scale, offset, asked.segments)
    size = max(ITEM_BLOCK, ITEM_BLOCK * 8 // max(1, len(block.values)))
    for rows in _blocks(question.items.num_rows, size):
        ids = np.arange(rows.start, rows.stop)
        scores = product(block, question.items.take(rows))
        keys = order_keys(scores, mix(ids if question.ids is None else question.ids[ids]))
        if question.banned is not None:
            keys[:, question.banned[rows]] = 0
        if question.seen is not None:
            indptr = question.seen.indptr[queries.start : queries.stop + 1]
            items = question.seen.items[indptr[0] : indptr[-1]]
            owner = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
            inside = (items >= rows.start) & (items < rows.stop)
            keys[owner[inside], items[inside] - rows.start] = 0
        yield keys


def unpacked(queries: Integers, items: PackedTable) -> npt.NDArray[np.float64]:
    """Scores (Q, N) of a block by unpacking it: ``codes.dot`` itself."""
    return codes.dot_integers(queries, Integers.of(items.unpack()))


def without_unpacking(queries: Integers, items: PackedTable) -> npt.NDArray[np.float64]:
    """The same scores from the planes themselves, for a few queries; more share the unpacking.

    One query of 8 bits against a million items of 64 dims: 0.2 s by popcount, 0.6 s by tables, 1.1 s unpacked.
    """
    if len(queries.values) > 4 or len(queries.segments) > 1:
        return unpacked(queries, items)
    coded = bool(((queries.values >= 0) & (queries.values <= 255)).all())
    product = (_popcounts if coded and items.planes.shape[2] % 8 == 0 else _byte_tables)(queries.values, items)
    result = np.zeros_like(product)
    used = np.packbits(np.arange(items.planes.shape[2] * 8) < items.dim, bitorder="little")  # a file may hold more
    sums = np.bitwise_count(items.planes & used).sum(axis=2, dtype=np.float64) @ 2.0 ** np.arange(items.bits)
    scale, offset = items.scale.astype(np.float64), items.offset.astype(np.float64)
    known = Integers(np.zeros((items.num_rows, 0)), sums[:, None], scale, offset, items.segments)
    codes.add_segment(result, product, 0, queries, known)
    return result


def _popcounts(values: npt.NDArray[np.float64], items: PackedTable) -> npt.NDArray[np.float64]:
    """Integer products (Q, N) of coded queries: the sum over pairs of planes of 2^(i + j) times a popcount."""
    padded = np.zeros((len(values), items.planes.shape[2] * 8), np.uint8)
    padded[:, : items.dim] = values
    planes_of = (padded[:, None] >> np.arange(8, dtype=np.uint8)[:, None]) & 1
    masks = np.packbits(planes_of, axis=2, bitorder="little").view(np.uint64)
    product = np.zeros((len(values), items.num_rows))
    for plane in range(items.bits):
        words = np.ascontiguousarray(items.planes[:, plane]).view(np.uint64).T
        for word, column in enumerate(np.ascontiguousarray(words)):
            for row in range(len(values)):
                total = np.zeros(items.num_rows, np.uint16)  # 64 * 255 at most
                for bit in np.flatnonzero(masks[row, :, word]):
                    total += np.bitwise_count(column & masks[row, bit, word]).astype(np.uint16) << np.uint16(bit)
                product[row] += total * 2.0**plane
    return product


def _byte_tables(values: npt.NDArray[np.float64], items: PackedTable) -> npt.NDArray[np.float64]:
    """Integer products (Q, N) of any queries: one table of 256 partial sums for each byte of a plane."""
    width = items.planes.shape[2]
    bit_of = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.float64)
    padded = np.zeros((len(values), width * 8))
    padded[:, : items.dim] = values
    tables = np.einsum("qwd,vd->qwv", padded.reshape(-1, width, 8), bit_of)
    product = np.zeros((len(padded), items.num_rows))
    for plane in range(items.bits):
        for byte in range(width):
            column = items.planes[:, plane, byte]
            for row, table in enumerate(tables[:, byte] * 2.0**plane):
                product[row] += table[column]
    return product


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


def _largest(keys: Keys, k: int) -> Keys:
    if keys.shape[1] <= k:
        return keys
    return np.partition(keys, keys.shape[1] - k, axis=1)[:, keys.shape[1] - k :]


def _blocks(total: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def available_cores() -> int:
    """How many cores this process may use."""
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _integers(queries: Queries, items: PackedTable) -> Integers:
    if isinstance(queries, PackedTable):
        queries = queries.unpack()
    if isinstance(queries, CodeTable):
        try:
            codes.check_comparable(queries, items)
        except ValueError as error:
            raise UserError(str(error)) from None
        return Integers.of(queries)
    rows = np.asarray(queries)
    if rows.ndim != 2 or rows.shape[1] != items.dim or not np.issubdtype(rows.dtype, np.floating):
        raise UserError(
            f"float queries must be float32 of shape (Q, {items.dim}), the items' dims, got {rows.dtype} {rows.shape}; "
            "coded queries come as a CodeTable or PackedTable"
        )
    _check_finite(rows, "queries")
    return Integers.of_floats(rows, items.segments)


def _check_finite(rows: npt.NDArray[Any], name: str) -> None:
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise UserError(f"{name}: row {bad[0]} holds NaN or infinity ({len(bad)} such rows); pass finite values")


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise UserError(f"{name} must be a whole number of at least 1, got {value!r}")


def _ids(values: npt.ArrayLike, num_items: int, name: str) -> Ints:
    ids = np.asarray(values)
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
    indptr, items = np.asarray(pair[0]), _ids(pair[1], num_items, "seen")
    ends_well = indptr.shape == (num_queries + 1,) and np.issubdtype(indptr.dtype, np.integer)
    if not ends_well or indptr[0] != 0 or indptr[-1] != len(items) or (np.diff(indptr) < 0).any():
        raise UserError(
            f"seen must be (indptr, item ids) with {num_queries + 1} ascending indptr from 0 to the {len(items)} ids, "
            "one row per query"
        )
    indptr = indptr.astype(np.int64)
    owner = np.repeat(np.arange(num_queries), np.diff(indptr))
    inner = owner[1:] == owner[:-1]
    if (items[1:] < items[:-1])[inner].any():
        items = items[np.lexsort((items, owner))]
    return Seen(indptr, items)
