"""The interface of every search: ``SearchIndex`` and the ``Hits`` it returns.

Three classes implement it: ``Index`` over packed codes, ``FloatIndex`` over float32 rows, and ``InvertedLists``, which
is approximate. Their arguments (k, threads, float queries, and the masks seen, allow and deny) are checked here, once
for all.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from rectoolkit.checks import row_numbers
from rectoolkit.errors import UserError

if TYPE_CHECKING:
    import numpy.typing as npt

    from rectoolkit.search.codes import CodeTable, PackedTable

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float32]
    Queries = PackedTable | CodeTable | Floats
    PerQuery = tuple[npt.ArrayLike, npt.ArrayLike]

MOST_ITEMS = 1 << 32  # an id fills half a key
MOST_EMPTY = 1 << 26  # hits of searches deeper than the catalogue: 800 MB


@dataclass(frozen=True)
class Hits:
    """The items found for Q queries, best first.

    Where fewer than k items can be returned, a row ends in ids -1 and scores -inf.

    Attributes
    ----------
    ids : int64 array (Q, k)
        Item ids: row numbers of the table that was searched.
    scores : float32 array (Q, k)
        Inner products of the query and these items.
    """

    ids: Ints
    scores: Floats


class Rescore(NamedTuple):
    """Rank the best items by codes again, by float inner products.

    The returned scores are then the float ones, and the order is no longer that of the codes.

    Attributes
    ----------
    queries : float32 array (Q, D')
        Float rows of the queries. D' need not be the number of dims of the codes.
    items : float32 array (N, D')
        Float rows of the items. It may be a memory map, since only the candidates' rows are read.
    candidates : int
        How many items to find by codes for each query and rank again.
    """

    queries: Floats
    items: Floats
    candidates: int


class SearchIndex(Protocol):
    """Top-k search by inner product over the rows of an item table."""

    def __len__(self) -> int:
        """Return the number of items N."""

    @property
    def nbytes(self) -> int:
        """Bytes the index holds."""

    def search(
        self,
        queries: Queries,
        k: int,
        *,
        seen: PerQuery | None = None,
        allow: npt.ArrayLike | PerQuery | None = None,
        deny: npt.ArrayLike | PerQuery | None = None,
        threads: int | None = None,
    ) -> Hits:
        """Find the k items with the largest inner product for each query.

        Items with equal scores are ordered by a hash of their id, so that ids numbered by popularity do not leak into
        the ranking. The hits are those of a search without masks, less the items that the masks leave out.

        Parameters
        ----------
        queries : PackedTable, CodeTable or float32 array (Q, D)
            Q queries with the dims (and, if coded, the segments) of the items. Bits may differ.
        k : int
            How many items to return for each query.
        seen : (indptr, ids), optional
            Items each query must not get, in compressed form: those of query q are ``ids[indptr[q]:indptr[q + 1]]``.
        allow, deny : item ids (n,), bool array (N,) or (indptr, ids), optional
            Items to keep, and items to leave out: ids or a mask for all queries, or a list for each query in the form
            of ``seen``. An item must be allowed, not denied and not seen.
        threads : int, optional
            How many threads to use. By default all cores this process may use.

        Returns
        -------
        Hits
            Ids and scores (Q, k), best first.

        Raises
        ------
        UserError
            If k or threads is not a whole number of at least 1, the queries do not fit the items, a query holds NaN or
            infinity, or a mask names an item outside 0..N-1.

        Notes
        -----
        A search costs O(Q N D). ``seen`` and ``deny`` add a lookup for each item that would otherwise be returned. An
        ``allow`` for all queries that keeps at most an eighth of the items costs O(Q n D) for n allowed items, after
        O(N) to find them. An ``allow`` by query costs O(n D) for the n ids in all its lists. ``FloatIndex``
        computes all products whatever the masks leave out.
        """


class Lists(NamedTuple):
    """A list of item ids for each query, sorted: those of query q are ``items[indptr[q]:indptr[q + 1]]``."""

    indptr: Ints
    items: Ints

    def part(self, rows: slice) -> Lists:
        """The lists of some of the queries. ``indptr`` need not begin at 0 then."""
        return Lists(self.indptr[rows.start : rows.stop + 1], self.items)

    def pairs(self) -> tuple[Ints, Ints]:
        """The number of the query and the item id of each entry."""
        owner = np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))
        return owner, self.items[self.indptr[0] : self.indptr[-1]]


class Masks(NamedTuple):
    """Checked ``seen``, ``allow`` and ``deny`` of a search.

    ``excluded``: items each query must not get. ``allowed``: the only items each query may get, each once.
    ``banned`` bool (N,): items that no query may get. Each is None where it filters nothing.
    """

    excluded: Lists | None
    allowed: Lists | None
    banned: npt.NDArray[np.bool_] | None

    def part(self, rows: slice) -> Masks:
        """The masks of some of the queries."""
        if self.excluded is None and self.allowed is None:
            return self
        excluded, allowed = (None if lists is None else lists.part(rows) for lists in (self.excluded, self.allowed))
        return Masks(excluded, allowed, self.banned)


def checked_masks(
    num_queries: int,
    num_items: int,
    seen: PerQuery | None = None,
    allow: npt.ArrayLike | PerQuery | None = None,
    deny: npt.ArrayLike | PerQuery | None = None,
) -> Masks:
    """Check the masks given to ``SearchIndex.search``. Raises UserError."""
    excluded = None if seen is None else _lists(seen, num_queries, num_items, "seen")
    allowed, banned = None, None
    if _is_per_query(allow):
        allowed = _each_once(_lists(allow, num_queries, num_items, "allow"))
    elif allow is not None:
        banned = ~_mask(allow, num_items, "allow")
    if _is_per_query(deny):
        denied = _lists(deny, num_queries, num_items, "deny")
        excluded = denied if excluded is None else _joined(excluded, denied)
    elif deny is not None:
        denied_by_all = _mask(deny, num_items, "deny")
        banned = denied_by_all if banned is None else banned | denied_by_all
    return Masks(excluded, allowed, banned)


def blocks_of(total: int, size: int) -> list[slice]:
    """0 to ``total`` in slices of ``size``."""
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def check_count(name: str, value: object) -> None:
    """Raise UserError unless ``value`` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise UserError(f"{name} must be a whole number of at least 1, got {value!r}")


def no_hits(num_queries: int, k: int, num_items: int) -> tuple[Ints, Floats]:
    """Ids and scores (Q, k) of hits that hold no item yet.

    Raises UserError where most of them would stay empty, because k is beyond the catalogue, and take gigabytes.
    """
    if k > num_items and num_queries * k > MOST_EMPTY:
        raise UserError(
            f"k must be at most {num_items}, the number of items, for {num_queries} queries at once, got {k}"
        )
    return np.full((num_queries, k), -1), np.full((num_queries, k), -np.inf, np.float32)


def check_asked(k: object, threads: object) -> None:
    """Raise UserError unless ``k`` and, where given, ``threads`` are counts that a search can use."""
    check_count("k", k)
    if isinstance(k, (int, np.integer)) and k >= MOST_ITEMS:
        raise UserError(f"k must be less than 2^32, because no index holds more items, got {k}")
    if threads is not None:
        check_count("threads", threads)


def checked_rows(queries: Floats, dim: int) -> Floats:
    """Float queries (Q, ``dim``) as an array. Raises UserError where they are not finite float rows of that width."""
    rows = np.asarray(queries)
    if rows.ndim != 2 or rows.shape[1] != dim or not np.issubdtype(rows.dtype, np.floating):
        raise UserError(
            f"float queries must be float32 of shape (Q, {dim}), the items' dims, got {rows.dtype} {rows.shape}; "
            "coded queries come as a CodeTable or PackedTable"
        )
    check_finite(rows, "queries")
    if rows.size and float(np.abs(rows).max()) > float(np.finfo(np.float32).max):
        raise UserError(f"queries: a value of {np.abs(rows).max():.3g} is beyond float32, which holds scores; rescale")
    return rows


def check_finite(rows: npt.NDArray[Any], name: str) -> None:
    """Raise UserError where a row holds NaN or infinity."""
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise UserError(f"{name}: row {bad[0]} holds NaN or infinity ({len(bad)} such rows); pass finite values")


def available_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_per_query(filtered: object) -> bool:
    """Whether ``allow`` or ``deny`` is a pair (indptr, ids). A tuple of two numbers is two ids."""
    return isinstance(filtered, tuple) and len(filtered) == 2 and not any(np.isscalar(part) for part in filtered)


def _lists(pair: Any, num_queries: int, num_items: int, name: str) -> Lists:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise UserError(f"{name} must be a pair (indptr, item ids), got {type(pair).__name__}")
    items = row_numbers(pair[1], num_items, name, "item")
    indptr = row_numbers(pair[0], 1 << 62, f"{name}: indptr", "place")
    if len(indptr) != num_queries + 1 or indptr[0] != 0 or indptr[-1] != len(items) or (np.diff(indptr) < 0).any():
        raise UserError(
            f"{name} must be (indptr, item ids) with {num_queries + 1} ascending indptr from 0 to the {len(items)} "
            "ids, one list for each query"
        )
    owner = np.repeat(np.arange(num_queries), np.diff(indptr))
    if (items[1:] < items[:-1])[owner[1:] == owner[:-1]].any():
        items = items[np.lexsort((items, owner))]
    return Lists(*(np.require(part, None, ("C", "W")) for part in (indptr, items)))  # numba compiles anew for others


def _each_once(lists: Lists) -> Lists:
    owner, items = lists.pairs()
    kept = np.ones(len(items), bool)
    kept[1:] = (items[1:] != items[:-1]) | (owner[1:] != owner[:-1])
    return Lists(np.concatenate(([0], np.cumsum(kept)))[lists.indptr], items[kept])


def _joined(first: Lists, second: Lists) -> Lists:
    owner, items = (np.concatenate(parts) for parts in zip(first.pairs(), second.pairs(), strict=True))
    return Lists(first.indptr + second.indptr, items[np.lexsort((items, owner))])


def _mask(values: Any, num_items: int, name: str) -> npt.NDArray[np.bool_]:
    """The items that ids or a mask name, as a mask (N,)."""
    if _is_mask(values):
        given = np.array(values)  # a copy: numba compiles anew for a read-only array
        if given.shape == (num_items,):
            return given
        raise UserError(f"{name}: a boolean mask needs an entry for each of the {num_items} items, got {given.shape}")
    mask = np.zeros(num_items, bool)
    mask[row_numbers(values, num_items, name, "item")] = True
    return mask


def _is_mask(values: Any) -> bool:
    with suppress(ValueError):  # lists of unequal lengths
        return np.asarray(values).dtype == bool
    return False
