"""Queries as small integers whose products bound the scores where all items share one scale and offset.

A query decoded to w is step * q + centre + error, with q of signed bytes and |error| <= e. With C the sum of an item's
codes, between the least and the largest of the catalogue (``Bounds.sums``), and P = <q, c>,

    score <= si (step P + (centre + e) C) + oi (su sum + D ou) <= slope * P + start

so that P alone is compared, with one integer. Codes on a grid that is symmetric about 0 are odd multiples of su / 2:
up to 7 bits neither centre nor error is left, and at 8 a centre of su / 2 is, which takes half the spread of C.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.search.kernels.matrices import HAS_MATRICES, MATRIX_BITS

if TYPE_CHECKING:
    import numpy.typing as npt

    from rectoolkit.search.codes import Integers, PackedTable

    Array = npt.NDArray[Any]


def has_matrices(queries: Integers, items: PackedTable) -> bool:
    """Whether the items have rows that ``matrices`` takes, one positive scale and one offset."""
    whole = items.dim == 64 and items.bits in MATRIX_BITS
    if not (HAS_MATRICES and whole and len(queries.segments) == 1 and items.one_grid):
        return False
    return float(items.scale[0, 0]) > 0


def line_of(queries: Integers, items: PackedTable, sums: tuple[int, int]) -> tuple[Array, Array, Array]:
    """q int8 (Q, D), ``slope`` and ``start`` float64 (Q, 2), and the margin float64 (Q) of rounding.

    ``sums`` are the least and the largest sum of an item's codes.
    """
    num, dim = queries.values.shape
    su, ou = (np.broadcast_to(a[:, 0], num) for a in (queries.scale, queries.offset))
    decoded = su[:, None] * queries.values + ou[:, None]
    largest = np.abs(decoded).max(axis=1, initial=0.0)
    size = np.where(su == 0, 1.0, np.abs(su))
    best = np.zeros((num, dim), np.int8)
    step, start, slack = np.ones(num), np.zeros(num), np.full(num, np.inf)
    for candidate, centre in (
        (size / 2, np.zeros(num)),
        (size, ou + su * 128),
        (np.where(largest > 0, largest / 127, 1.0), np.zeros(num)),
    ):
        if (slack <= step).all():
            break  # a unit of the product at most: nothing to better
        if (largest > 128 * candidate + np.abs(centre)).all():
            continue
        near = np.rint((decoded - centre[:, None]) / candidate[:, None])
        error = np.abs(decoded - centre[:, None] - near * candidate[:, None]).max(axis=1, initial=0.0) * (1 + 1e-9)
        low, high = centre - error, centre + error
        loose = np.maximum(high * sums[0], high * sums[1])
        loose[np.abs(near + 0.5).max(axis=1, initial=0.0) > 127.5] = np.inf
        lost = loose - np.minimum(low * sums[0], low * sums[1])
        better = lost < slack
        best[better] = near[better].astype(np.int8)
        step, start, slack = (
            np.where(better, new, old) for new, old in ((candidate, step), (loose, start), (lost, slack))
        )
    scale, offset = float(items.scale[0, 0]), float(items.offset[0, 0])
    start = scale * start + offset * (su * queries.sums[:, 0] + dim * ou)
    magnitudes = np.abs(su) * np.abs(queries.values).sum(axis=1) + dim * np.abs(ou)
    margin = (scale * ((1 << items.bits) - 1) + abs(offset)) * magnitudes * 2.0**-40
    return best, np.stack((scale * step, start), axis=1), margin
