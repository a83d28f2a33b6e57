"""Search over float32 embeddings, asked as ``Index`` is: what packed codes are compared with.

Blocks of queries meet all items in one BLAS product, then the k best are taken by the keys of
``rectoolkit.search.packed`` (float32 score, then mixed id), so that ties fall as they do among codes. Memory is one
block of scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from rectoolkit.errors import FormatError, UserError
from rectoolkit.search.packed import Hits, check_count, mix, order_keys

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from rectoolkit.search.codes import PackedTable

    Floats = npt.NDArray[np.float32]
    Ints = npt.NDArray[np.int64]

BLOCK_SCORES = 1 << 24  # 64 MB of float32 scores at a time


class FloatIndex:
    """Exact top-k by inner product over float32 rows (N, D)."""

    def __init__(self, items: Floats) -> None:
        if items.ndim != 2 or items.dtype != np.float32:
            raise ValueError(f"items must be float32 (N, D), got {items.dtype} {items.shape}")
        self.items = items

    @classmethod
    def open(cls, path: str | Path) -> FloatIndex:
        """The index of a float32 ``.npy`` file, memory-mapped; FormatError where it is not one."""
        return cls(open_embeddings(path))

    def __len__(self) -> int:
        return len(self.items)

    @property
    def nbytes(self) -> int:
        """Bytes the index holds."""
        return self.items.nbytes

    def search(
        self, queries: Floats, k: int, *, seen: tuple[Ints, Ints] | None = None, threads: int | None = None
    ) -> Hits:
        """The k items of largest inner product for each row of ``queries`` (Q, D), without its ``seen`` (CSR).

        ``threads`` bounds those of BLAS; None leaves them as they are. Raises UserError for what cannot be asked.
        """
        check_count("k", k)
        if threads is not None:
            check_count("threads", threads)
        queries = self._checked(queries)
        if seen is not None:
            seen = _checked_seen(seen, len(queries), len(self))
        with threadpool_limits(threads, "blas"):
            return self._search(queries, k, seen)

    def _checked(self, queries: Floats) -> Floats:
        dim = self.items.shape[1]
        if not isinstance(queries, np.ndarray):
            raise UserError(f"queries must be a float32 array (Q, {dim}), got {type(queries).__name__}")
        if queries.ndim != 2 or queries.shape[1] != dim or not np.issubdtype(queries.dtype, np.floating):
            raise UserError(f"queries must be float32 (Q, {dim}), got {queries.dtype} {queries.shape}")
        if not np.isfinite(queries).all():
            raise UserError("queries hold NaN or infinity; pass finite values")
        return queries

    def _search(self, queries: Floats, k: int, seen: tuple[Ints, Ints] | None) -> Hits:
        ids = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        block = max(1, BLOCK_SCORES // max(1, len(self)))
        for start in range(0, len(queries), block):
            rows = slice(start, min(start + block, len(queries)))
            product = queries[rows] @ self.items.T
            if seen is not None:
                indptr = seen[0][rows.start : rows.stop + 1]
                owner = np.repeat(np.arange(len(product)), np.diff(indptr))
                product[owner, seen[1][indptr[0] : indptr[-1]]] = -np.inf
            ids[rows], scores[rows] = _top(product, k)
        return Hits(ids, scores)


def open_embeddings(path: str | Path) -> Floats:
    """The float32 rows of a ``.npy`` file by memory map. Raises FormatError where it is missing or damaged."""
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file") from None
    except (ValueError, EOFError, OSError) as error:
        raise FormatError(f"{path}: not a whole .npy file of float32 embeddings ({error}); train again") from None
    if rows.ndim != 2 or rows.dtype != np.float32:
        raise FormatError(f"{path}: holds {rows.dtype} {rows.shape}, not float32 (N, D)")
    return np.asarray(rows)


def share_dims(codes: PackedTable, rows: Floats) -> bool:
    """Whether codes stand for ``rows`` dim by dim, so that a float row can be multiplied with codes directly.

    Some quantizers rotate or project a row first (itq, rotate_sign, bgch, hashgnn). It shows in the correlation of
    decoded and float values: from about 0.6 up where each dim has its code, about 0 elsewhere.
    """
    if codes.dim != rows.shape[1]:
        return False
    sample = np.linspace(0, codes.num_rows - 1, min(codes.num_rows, 1000)).astype(np.int64)
    values = [part - part.mean(axis=0) for part in (codes.take(sample).unpack().decode(), rows[sample])]
    sizes = np.linalg.norm(values[0]) * np.linalg.norm(values[1])
    return bool((values[0] * values[1]).sum() > 0.3 * sizes)


def _checked_seen(seen: tuple[Ints, Ints], num_queries: int, num_items: int) -> tuple[Ints, Ints]:
    """The CSR pair, if it is one: a row of item ids for each query."""
    try:
        indptr, items = (np.asarray(part) for part in seen)
        fits = indptr.shape == (num_queries + 1,) and indptr[0] == 0 and indptr[-1] == len(items)
        whole = all(np.issubdtype(part.dtype, np.integer) or not len(part) for part in (indptr, items))
        fits = fits and whole and items.ndim == 1 and not (np.diff(indptr) < 0).any()
        fits = fits and (not len(items) or bool(items.min() >= 0 and items.max() < num_items))
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise UserError(
            f"seen must be (indptr, item ids): {num_queries + 1} ascending indptr from 0 on, and a row of ids below "
            f"{num_items} for each query"
        )
    return indptr, items.astype(np.int64)


def _top(product: Floats, k: int) -> tuple[Ints, Floats]:
    """The k best of each row by key; unrankable ones are -1 and -inf."""
    num_items = product.shape[1]
    ids = np.full((len(product), k), -1, np.int64)
    scores = np.full((len(product), k), -np.inf, np.float32)
    wide = min(num_items, k + 16)  # a few more than k: most ties at the edge are then broken without a full sort
    if not wide:
        return ids, scores
    near = np.argpartition(product, num_items - wide, axis=1)[:, num_items - wide :]
    values = np.take_along_axis(product, near, axis=1)
    last = np.partition(values, wide - min(k, wide), axis=1)[:, wide - min(k, wide)]
    tied = np.flatnonzero(values.min(axis=1) == last) if wide < num_items else np.zeros(0, np.int64)
    for row in tied:  # items as good as the k-th may have been left out: rank all of them by key
        by_key = order_keys(product[row].astype(np.float64), mix(np.arange(num_items)))
        near[row] = np.argpartition(by_key, num_items - wide)[num_items - wide :]
        values[row] = product[row, near[row]]
    keys = order_keys(values.astype(np.float64), mix(near))
    best = np.argsort(keys, axis=1)[:, ::-1][:, :k]
    width = best.shape[1]
    scores[:, :width] = np.take_along_axis(values, best, axis=1)
    ids[:, :width] = np.where(np.isneginf(scores[:, :width]), -1, np.take_along_axis(near, best, axis=1))
    return ids, scores
