"""Search with numpy alone: the reference, and products straight from the bit-planes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rectoolkit.search import codes
from rectoolkit.search.codes import Integers, PackedTable
from rectoolkit.search.index import Masks, blocks_of
from rectoolkit.search.keys import mix, order_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]
    Keys = npt.NDArray[np.uint64]
    Product = Callable[[Integers, PackedTable], npt.NDArray[np.float64]]

QUERY_BLOCK, ITEM_BLOCK = 256, 4096  # 8 MB per float64 temporary


class Question(NamedTuple):
    """Checked queries and the items to rank for them, for every method.

    ``ids`` are those of the rows of ``items``, None where they are the row numbers. ``masks`` name items by their
    ids, but for ``banned``, which has an entry for each row of ``items``.
    """

    queries: Integers
    items: PackedTable
    ids: Ints | npt.NDArray[np.uint32] | None
    k: int
    masks: Masks
    threads: int

    def part(self, rows: slice) -> Question:
        """The same question for some of its queries."""
        if rows == slice(0, len(self.queries.values)):
            return self
        return self._replace(queries=self.queries.take(rows), masks=self.masks.part(rows))


def best_keys(question: Question, product: Product) -> Keys:
    """The k best keys of each query, descending, 0 where there are none: uint64 (Q, k)."""
    num_queries = len(question.queries.values)
    best = np.zeros((num_queries, question.k), np.uint64)
    for queries in blocks_of(num_queries, QUERY_BLOCK):
        kept = np.zeros((queries.stop - queries.start, 0), np.uint64)
        for keys in _block_keys(question.part(queries), product):
            kept = _largest(np.concatenate((kept, keys), axis=1), question.k)
        kept.sort(axis=1)
        best[queries, : kept.shape[1]] = kept[:, ::-1]
    return best


def best_keys_in_ranges(question: Question, ranges: Ints, product: Product) -> Keys:
    """``best_keys`` where each query ranks only the rows from first to last of its ``ranges`` (Q, P, 2)."""
    best = np.zeros((len(ranges), question.k), np.uint64)
    for query, opened in enumerate(ranges):
        rows = np.concatenate([np.arange(first, last) for first, last in opened])
        ids = rows if question.ids is None else question.ids[rows]
        excluded, _, banned = question.masks.part(slice(query, query + 1))
        left_out = np.zeros(len(rows), bool) if banned is None else banned[rows]
        if excluded is not None:
            left_out |= np.isin(ids, excluded.pairs()[1])
        queries, masks = question.queries.take(slice(query, query + 1)), Masks(None, None, left_out)
        one = question._replace(queries=queries, items=question.items.take(rows), ids=ids, masks=masks)
        best[query] = best_keys(one, product)[0]
    return best


def _block_keys(block: Question, product: Product) -> Iterator[Keys]:
    excluded, _, banned = block.masks
    if excluded is not None:
        assert block.ids is None, "excluded items are looked for by row number"
        owner, items = excluded.pairs()
    size = max(ITEM_BLOCK, ITEM_BLOCK * 8 // max(1, len(block.queries.values)))
    for rows in blocks_of(block.items.num_rows, size):
        ids = np.arange(rows.start, rows.stop)
        scores = product(block.queries, block.items.take(rows))
        keys = order_keys(scores, mix(ids if block.ids is None else block.ids[ids]))
        if banned is not None:
            keys[:, banned[rows]] = 0
        if excluded is not None:
            inside = (items >= rows.start) & (items < rows.stop)
            keys[owner[inside], items[inside] - rows.start] = 0
        yield keys


def unpacked(queries: Integers, items: PackedTable) -> npt.NDArray[np.float64]:
    """Scores (Q, N) of a block by unpacking it and ``codes.dot``."""
    return codes.dot_integers(queries, Integers.of(items.unpack()))


def without_unpacking(queries: Integers, items: PackedTable) -> npt.NDArray[np.float64]:
    """The same scores straight from the planes, for up to four queries. More queries share the unpacking."""
    if len(queries.values) > 4 or len(queries.segments) > 1:
        return unpacked(queries, items)
    coded = bool(((queries.values >= 0) & (queries.values <= 255)).all())
    product = (_popcounts if coded and items.planes.shape[2] % 8 == 0 else _byte_tables)(queries.values, items)
    result = np.zeros_like(product)
    used = np.packbits(
        np.arange(items.planes.shape[2] * 8) < items.dim, bitorder="little"
    )  # a file may set unused bits
    sums = np.bitwise_count(items.planes & used).sum(axis=2, dtype=np.float64) @ 2.0 ** np.arange(items.bits)
    scale, offset = (a.astype(np.float64) for a in items.affine())
    known = Integers(np.zeros((items.num_rows, 0)), sums[:, None], scale, offset, items.segments)
    codes.add_segment(result, product, 0, queries, known)
    return result


def _popcounts(values: npt.NDArray[np.float64], items: PackedTable) -> npt.NDArray[np.float64]:
    """Integer products (Q, N) of coded queries: over pairs of planes, the sum of 2^(i + j) times a popcount."""
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
    """Integer products (Q, N) of any queries, by a table of 256 partial sums for each byte of a plane."""
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


def _largest(keys: Keys, k: int) -> Keys:
    if keys.shape[1] <= k:
        return keys
    return np.partition(keys, keys.shape[1] - k, axis=1)[:, keys.shape[1] - k :]
