"""FloatIndex: exact top-k search by inner product over float32 rows, which packed codes are compared with.

Blocks of queries meet all items in one BLAS product. Then the k best are taken by the keys of ``search.keys`` (float32
score, then mixed id), so that ties fall as they do among codes. Memory is one block of scores. All products are
computed whatever the masks leave out.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import ThreadpoolController

from rectoolkit.errors import FormatError, UserError
from rectoolkit.search.codes import CodeTable, PackedTable
from rectoolkit.search.index import Hits, blocks_of, check_asked, checked_masks, checked_rows, no_hits
from rectoolkit.search.keys import mix, order_keys

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from rectoolkit.search.index import Masks, PerQuery, Queries

    Floats = npt.NDArray[np.float32]
    Ints = npt.NDArray[np.int64]

BLOCK_SCORES = 1 << 24  # 64 MB of float32 scores at a time


class FloatIndex:
    """Exact search over N float32 rows. Item ids are row numbers 0..N-1.

    Parameters
    ----------
    items : float32 array (N, D)

    Raises
    ------
    UserError
        If ``items`` is not such an array.
    """

    def __init__(self, items: Floats) -> None:
        if not isinstance(items, np.ndarray):
            raise UserError(f"items must be a float32 array (N, D), got {type(items).__name__}")
        if items.ndim != 2 or items.dtype != np.float32:
            raise UserError(f"items must be a float32 array (N, D), got {items.dtype} {items.shape}")
        self.items = items

    @classmethod
    def open(cls, path: str | Path) -> FloatIndex:
        """Open the index of a float32 ``.npy`` file by memory map. Raises FormatError if it is not one."""
        return cls(open_embeddings(path))

    def __len__(self) -> int:
        return len(self.items)

    @property
    def nbytes(self) -> int:
        """Bytes the index holds."""
        return self.items.nbytes

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
        """Find the k items with the largest inner product for each query; see ``SearchIndex.search``.

        Coded queries are decoded first. ``threads`` limits those of BLAS; None leaves them as they are.
        """
        check_asked(k, threads)
        rows = self._rows(queries)
        masks = checked_masks(len(rows), len(self), seen, allow, deny)
        with nullcontext() if threads is None else _blas().limit(limits=threads, user_api="blas"):
            return self._search(rows, k, masks)

    def _rows(self, queries: Queries) -> Floats:
        dim = self.items.shape[1]
        if isinstance(queries, PackedTable):
            queries = queries.unpack()
        if not isinstance(queries, CodeTable):
            return checked_rows(queries, dim)
        if queries.dim != dim:
            raise UserError(f"queries of {queries.dim} dims cannot be compared with items of {dim} dims")
        return queries.decode()

    def _search(self, queries: Floats, k: int, masks: Masks) -> Hits:
        ids, scores = no_hits(len(queries), k, len(self))
        block = max(1, BLOCK_SCORES // max(1, len(self)))
        for rows in blocks_of(len(queries), block):
            product = queries[rows] @ self.items.T
            excluded, allowed, banned = masks.part(rows)
            if banned is not None:
                product[:, banned] = -np.inf
            if allowed is not None:
                left_out = np.ones(product.shape, bool)
                left_out[allowed.pairs()] = False
                product[left_out] = -np.inf
            if excluded is not None:
                product[excluded.pairs()] = -np.inf
            ids[rows], scores[rows] = _top(product, k)
        return Hits(ids, scores)


def open_embeddings(path: str | Path) -> Floats:
    """Open the float32 rows of a ``.npy`` file by memory map. Raises FormatError if it is missing or damaged."""
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file") from None
    except (ValueError, EOFError, OSError) as error:
        raise FormatError(f"{path}: not a whole .npy file of float32 embeddings ({error}); train again") from None
    if rows.ndim != 2 or rows.dtype != np.float32:
        raise FormatError(f"{path}: holds {rows.dtype} {rows.shape}, not float32 (N, D)")
    return np.asarray(rows)


@cache
def _blas() -> ThreadpoolController:
    """numpy's BLAS, found once: looking through the loaded libraries takes as long as a search."""
    return ThreadpoolController()


def _top(product: Floats, k: int) -> tuple[Ints, Floats]:
    """Ids and scores of the k best of each row by key. Missing ones are -1 and -inf."""
    num_items = product.shape[1]
    ids = np.full((len(product), k), -1, np.int64)
    scores = np.full((len(product), k), -np.inf, np.float32)
    wide = min(num_items, k + 16)  # a few more than k, so that most ties at the edge are broken without a full sort
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
