"""What the index runs on: ``order`` the keys it compares, ``plain`` the methods in numpy, ``search`` the fast one.

``search`` needs numba. It takes what a filter asks with from ``plan`` (``tables`` and ``small`` for two of them) and
shares out the loops of ``scan`` among threads. They are made of ``tiles`` (items taken apart), ``products``, ``lookup``
and ``matrices`` (the filters' products) and ``exact`` (what passes), and these of LLVM IR by ``machine``.
"""
