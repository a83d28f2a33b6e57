"""When one bit ranks by Hamming distance: asked by the kernels and by the export to faiss. Needs numpy alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

    from rectoolkit.search.codes import PackedTable


def ranks_by_hamming(scale: npt.NDArray[Any], offset: npt.NDArray[Any], items: PackedTable) -> bool:
    """Whether scores of one-bit queries on the grids ``scale`` and ``offset`` (Q or 1, S) fall with the distance alone.

    So they do where there is one segment, the queries' grids are symmetric about 0 and the items share one scale > 0.
    """
    if items.bits > 1 or len(items.segments) > 1 or not items.one_grid:
        return False
    symmetric = bool((offset * 2 == -scale).all() and (scale > 0).all())
    return symmetric and float(items.scale[0, 0]) > 0
