"""Checks of row numbers: one validator for every table, index, mask and run that takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.errors import UserError

if TYPE_CHECKING:
    import numpy.typing as npt


def row_numbers(values: Any, count: int, name: str, thing: str = "row", dims: int | None = 1) -> npt.NDArray[np.int64]:
    """The row numbers 0 to ``count`` - 1 that a caller passes as ``name``, int64 of ``dims`` dims (None: any shape).

    numpy itself takes -1 for the last row and booleans for a mask. Raises UserError for negative, fractional, boolean
    and missing numbers, for those of ``count`` or more, and for another shape. ``thing`` is the kind of the rows for
    messages, such as item.
    """
    try:
        rows: npt.NDArray[Any] = np.asarray(values)
    except ValueError as error:  # lists of unequal lengths
        raise UserError(f"{name} must be one row of integer {thing} ids: {error}") from None
    if (dims is not None and rows.ndim != dims) or (rows.size and rows.dtype.kind not in "iu"):
        raise UserError(f"{name} must be one row of integer {thing} ids, got {rows.dtype} of shape {rows.shape}")
    if rows.size and (rows.min() < 0 or rows.max() >= count):
        wrong = rows[(rows < 0) | (rows >= count)].flat[0]
        right = f"ids are 0 to {count - 1}" if count else f"there are no {thing}s"
        raise UserError(f"{name} names {thing} {wrong}, but {right}")
    return rows.astype(np.int64, copy=False)
