"""What the index runs on: ``order`` the keys it compares, ``plain`` the methods in numpy, ``search`` the fast one.

``search`` needs numba: it takes its filters' figures from ``plan`` and shares out the loops of ``scan``,
which are made of the vector operations in ``vectors`` and ``machine``.
"""
