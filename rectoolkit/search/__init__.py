"""Search: code tables, and top-k over packed codes, float32 rows and inverted lists. Imports neither torch nor dgl.

``codes`` holds the tables, ``index`` the interface of every search. ``packed``, ``float32`` and ``inverted_lists``
implement it, the first and the last by ``kernels``. ``neighbours`` finds similar items, and ``fold_in`` makes rows of
new users.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from rectoolkit.search.codes import PackedTable
    from rectoolkit.search.index import SearchIndex


def open_index(items: PackedTable | npt.NDArray[np.float32]) -> SearchIndex:
    """The exact index over packed codes or float32 rows (N, D).

    This function alone chooses the class. A search on another device (a GPU) would be one more class with the
    ``search`` of ``SearchIndex``, chosen here.
    """
    from rectoolkit.search.codes import PackedTable
    from rectoolkit.search.float32 import FloatIndex
    from rectoolkit.search.packed import Index

    return Index(items) if isinstance(items, PackedTable) else FloatIndex(items)
