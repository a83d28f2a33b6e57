"""The contestants of ``rectool bench``: each has a row of figures to fill in and a function that searches."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.search.packed import Index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from rectoolkit.bench.vectors import Vectors
    from rectoolkit.search.codes import PackedTable

    Search = Callable[[slice], npt.NDArray[Any]]

BASELINE = "faiss FlatIP float32"


@dataclass
class Row:
    """The figures of one contestant: bytes per item, recall of float32's top k, milliseconds per query.

    ``batch_ms`` is measured in batches, ``p50_ms`` and ``p99_ms`` one query at a time. ``ratio`` is the speed relative
    to faiss FlatIP at its better number of threads, ``float_ratio`` relative to the fastest float32 search of this run.
    ``spread`` is the interquartile range of the times over their median.
    """

    name: str
    bits: int
    bytes_per_item: float
    recall: float = 0.0
    batch_ms: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    batch_ratio: float = 0.0
    single_ratio: float = 0.0
    batch_float_ratio: float = 0.0
    single_float_ratio: float = 0.0
    rounds: int = 0
    batch_spread: float = 0.0
    single_spread: float = 0.0


def contestants(vectors: Vectors, k: int, threads: int, others: bool, skipped: list[str]) -> list[tuple[Row, Search]]:
    """All contestants. For each library that is not installed, a line is added to ``skipped``."""
    ours = list(_ours(vectors, k, threads))
    if not others:
        return ours
    floats = [*_faiss(vectors, k, threads, skipped), *_torch(vectors, k, threads, skipped)]
    return [*floats, *ours, *_usearch(vectors, k, threads, skipped)]


def _ours(vectors: Vectors, k: int, threads: int) -> Iterator[tuple[Row, Search]]:
    for label, (users, items) in vectors.coded.items():
        index = Index(items)
        size = index.nbytes / max(1, len(index))

        def coded(rows: slice, index: Index = index, users: PackedTable = users) -> npt.NDArray[Any]:
            return index.search(users.take(rows), k, threads=threads).ids

        def floats(rows: slice, index: Index = index) -> npt.NDArray[Any]:
            return index.search(vectors.queries[rows], k, threads=threads).ids

        yield Row(f"rectoolkit {label}", items.bits, size), coded
        if not vectors.mixes_dims:
            yield Row(f"rectoolkit {label}, float query", items.bits, size), floats


def _faiss(vectors: Vectors, k: int, threads: int, skipped: list[str]) -> Iterator[tuple[Row, Search]]:
    faiss = library("faiss", "faiss-cpu", skipped)
    if faiss is None:
        return
    dim, product = vectors.items.shape[1], faiss.METRIC_INNER_PRODUCT
    quantizer = faiss.ScalarQuantizer
    indexes = {
        BASELINE: (32, faiss.IndexFlatIP(dim)),
        "faiss SQ8": (8, faiss.IndexScalarQuantizer(dim, quantizer.QT_8bit, product)),
        "faiss SQ4": (4, faiss.IndexScalarQuantizer(dim, quantizer.QT_4bit, product)),
    }
    for name, (bits, index) in indexes.items():
        index.train(vectors.items[:100_000])
        index.add(vectors.items)

        def search(rows: slice, index: Any = index, threads: int = threads) -> npt.NDArray[Any]:
            faiss.omp_set_num_threads(threads)
            found: npt.NDArray[Any] = index.search(vectors.queries[rows], k)[1]
            return found

        yield Row(name, bits, index.code_size), search
        if name == BASELINE and threads > 1:
            yield Row(f"{name}, 1 thread", bits, index.code_size), partial(search, threads=1)
    signs = [np.packbits(v > 0, axis=1) for v in (vectors.queries, vectors.items)]
    binary = faiss.IndexBinaryFlat(8 * signs[1].shape[1])
    binary.add(signs[1])

    def near(rows: slice) -> npt.NDArray[Any]:
        faiss.omp_set_num_threads(threads)
        found: npt.NDArray[Any] = binary.search(signs[0][rows], k)[1]
        return found

    yield Row("faiss BinaryFlat", 1, binary.code_size), near


def _torch(vectors: Vectors, k: int, threads: int, skipped: list[str]) -> Iterator[tuple[Row, Search]]:
    torch = library("torch", "torch", skipped)
    if torch is None:
        return
    torch.set_num_threads(threads)
    queries, items = (torch.from_numpy(np.ascontiguousarray(v)) for v in (vectors.queries, vectors.items))

    def search(rows: slice) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = torch.topk(queries[rows] @ items.T, k).indices.numpy()
        return found

    yield Row("torch matmul + topk", 32, items.shape[1] * 4.0), search


def _usearch(vectors: Vectors, k: int, threads: int, skipped: list[str]) -> Iterator[tuple[Row, Search]]:
    usearch = library("usearch.index", "usearch", skipped)
    if usearch is None:
        return
    largest = max(np.abs(vectors.items).max(), np.abs(vectors.queries).max(), 1e-30)
    eight = [np.rint(v / largest * 127).astype(np.int8) for v in (vectors.queries, vectors.items)]
    signs = [np.packbits(v > 0, axis=1) for v in (vectors.queries, vectors.items)]
    kinds = {"i8": (8, eight, usearch.MetricKind.IP), "b1": (1, signs, usearch.MetricKind.Hamming)}
    for name, (bits, (queries, items), metric) in kinds.items():

        def search(rows: slice, q: Any = queries, i: Any = items, metric: Any = metric) -> npt.NDArray[Any]:
            keys: npt.NDArray[Any] = usearch.search(i, q[rows], k, metric, exact=True, threads=threads).keys
            return keys.reshape(-1, k)

        yield Row(f"usearch exact {name}", bits, float(items.shape[1])), search


def library(module: str, package: str, skipped: list[str]) -> Any:
    """The module, or None and a line in ``skipped`` that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        skipped.append(f"{package} is not installed, so it is left out: pip install {package}")
        return None
