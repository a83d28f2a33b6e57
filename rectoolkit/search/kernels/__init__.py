"""The compiled search over packed codes, and the same search in numpy. Read the files in this order:

- ``numpy_search``: the reference, and a search with numpy alone. The only file here that does not need numba.
- ``compiled_search``: the entry of the compiled search. It chooses a scan, prepares the queries, and shares the items
  out among threads.
- ``queries``: the queries as a scan takes them: small integers with a proven error bound, and working memory.
- ``scan``: the compiled loops over the items, one for each way to multiply. Each estimates the scores of 64 items
  (a tile) from above and passes on those that may belong to the best k.
- ``exact``: the exact score of the items that pass, and the heap of the best k.
- ``tiles``: 64 packed items as words, bytes and sums of codes.
- ``products``, ``lookup``, ``matrices``: the products of a tile and the queries, by bytes or bit-planes, by table
  lookup (1 and 2 bits), and by bit matrices (2 to 8 bits).
- ``compiling``: how numba compiles and caches all this, which instructions the processor has, and pieces of LLVM IR.

All methods give the same hits, bit for bit.
"""
