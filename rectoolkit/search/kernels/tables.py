"""The tables of a query for ``lookup``: bytes that bound its product with the codes of an item from above.

Where all items share one scale si > 0 and offset oi, the score of a query decoded to w is si <w, c> + oi (su sum + D
ou). Three 2-bit dims (or six 1-bit ones) of c have 64 values, whose sums of w c become bytes T = ceil((w c - least) /
step). So with S the sum of all lookups, and L of them,

    score <= slope * S + start,   slope = si step,   start = si (all least) + oi (su sum + D ou)

A step is the lattice of the query where it fits (su / 2, for codes on symmetric grids: then nothing is rounded), else
the widest range of a lookup in as many parts as its share of a byte allows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.search.kernels.lookup import HAS_LOOKUP, LOOKUP_WORDS, LOOKUPS, SUMS

if TYPE_CHECKING:
    import numpy.typing as npt

    from rectoolkit.search.codes import Integers, PackedTable

    Array = npt.NDArray[Any]

ROUNDED = 1e-5  # of a step, granted to what a grid's float32 offset is off its lattice


def aligned(shape: tuple[int, ...], kind: type) -> Array:
    """Zeros that begin at a cache line: a vector load across two lines takes twice as long."""
    size = math.prod(shape) * np.dtype(kind).itemsize
    room = np.zeros(size + 64, np.uint8)
    start = -room.__array_interface__["data"][0] % 64  # a tenth of the time of room.ctypes
    return room[start : start + size].view(kind).reshape(shape)


def has_tables(queries: Integers, items: PackedTable) -> bool:
    """Whether the items have rows that ``lookup`` takes, one positive scale and one offset."""
    whole = items.bits in LOOKUPS and items.dim in [64 * words for words in LOOKUP_WORDS]
    if not (HAS_LOOKUP and whole and len(queries.segments) == 1 and items.one_grid):
        return False
    return float(items.scale[0, 0]) > 0


def tables_of(queries: Integers, items: PackedTable) -> tuple[Array, Array, Array]:
    """The tables uint8 (Q, L, 64), ``slope`` and ``start`` float64 (Q, 2), and the margin float64 (Q) of rounding."""
    num, dim, bits = len(queries.values), items.dim, items.bits
    words, lookups, group = dim // 64, LOOKUPS[bits], 6 // bits
    most, top = 255 // -(-lookups // SUMS), (1 << bits) - 1
    weights = np.zeros((num, words, lookups * group))
    decoded = queries.scale * queries.values + queries.offset
    weights[:, :, :64] = decoded.reshape(num, words, 64)
    groups = weights.reshape(num, words * lookups, group)
    index = np.arange(64)
    bit = np.arange(bits)
    taken = (index >> (group * bit[:, None] + np.arange(group))[:, :, None]) & 1
    levels = np.tensordot(1 << bit, taken, 1)
    least = top * np.minimum(groups, 0).sum(axis=2, keepdims=True)
    widest = top * np.abs(groups).sum(axis=2).max(axis=1, initial=0.0)
    lattice = np.broadcast_to(np.abs(queries.scale[:, 0]) / 2, num)
    doubled = 2 * np.broadcast_to(queries.offset[:, 0], num)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = doubled / (2 * lattice)
        fits = (np.abs(steps - np.rint(steps)) < ROUNDED / 64) & (widest <= lattice * most * (1 + ROUNDED / 2))
    step = np.where(fits, lattice, widest / most)
    step = np.where(step > 0, step, 1.0)[:, None, None]
    sums = groups @ levels.astype(np.float64)
    tables = aligned(sums.shape, np.uint8)
    tables[:] = np.ceil((sums - least) / step - ROUNDED)
    scale, offset = float(items.scale[0, 0]), float(items.offset[0, 0])
    su, ou = queries.scale[:, 0], queries.offset[:, 0]
    rounding = words * lookups * ROUNDED * step[:, 0, 0]
    start = scale * (least.sum(axis=(1, 2)) + rounding) + offset * (su * queries.sums[:, 0] + dim * ou)
    magnitudes = np.abs(su) * np.abs(queries.values).sum(axis=1) + dim * np.abs(ou)
    margin = (scale * top + abs(offset)) * magnitudes * 2.0**-40
    return tables, np.stack((scale * step[:, 0, 0], start), axis=1), margin
