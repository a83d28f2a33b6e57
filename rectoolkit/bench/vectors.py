"""The vectors that ``rectool bench`` searches: random ones, ones drawn around centres, or those of a run."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rectoolkit.errors import UserError
from rectoolkit.search.codes import CodeTable, PackedTable
from rectoolkit.search.packed import compiled_kernels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

MAX_QUERIES = 1024  # of a run's users
SPREAD = 0.7  # standard deviation around a centre; that of the centres is 0.714, so that both matter alike


@dataclass
class Vectors:
    """Float vectors of both sides, and their codes by label.

    ``mixes_dims``: a dim of a code depends on several dims of its vector, so float queries cannot be multiplied with
    the codes.
    """

    queries: Floats
    items: Floats
    coded: dict[str, tuple[PackedTable, PackedTable]]
    mixes_dims: bool = False


def random_vectors(queries: int, items: int, dim: int, bits: Sequence[int], seed: int = 0) -> Vectors:
    """Standard normal vectors with their codes at each of ``bits``. They are the hardest case for few bits."""
    random = np.random.default_rng(seed)
    asked, stored = (random.standard_normal((n, dim), np.float32) for n in (queries, items))
    return Vectors(asked, stored, {f"{b} bit": (quantize(asked, b), quantize(stored, b)) for b in bits})


def clustered_vectors(queries: int, items: int, dim: int, centres: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Queries and items drawn around common centres, as trained embeddings are; around 0 if ``centres`` is 0."""
    random = np.random.default_rng(seed)
    stored, asked = (random.standard_normal((n, dim), np.float32) for n in (items, queries))
    if centres:
        middle = random.standard_normal((centres, dim), np.float32) * np.float32((1 - SPREAD**2) ** 0.5)
        for vectors in (stored, asked):
            vectors *= np.float32(SPREAD)
            vectors += middle[random.integers(0, centres, len(vectors))]
    return asked, stored


def trained_vectors(
    users: PackedTable, items: PackedTable, floats: tuple[Floats, Floats] | None = None, mixes_dims: bool = False
) -> Vectors:
    """The codes of a run beside ``floats`` (users, items) of it, or beside their own decoded values without any."""
    chosen = np.random.default_rng(0).permutation(users.num_rows)[:MAX_QUERIES]
    users = users.take(chosen)
    asked = users.unpack().decode() if floats is None else np.asarray(floats[0])[chosen]
    stored = items.unpack().decode() if floats is None else np.array(floats[1])
    return Vectors(asked, stored, {f"{items.bits} bit": (users, items)}, mixes_dims)


def quantize(vectors: Floats, bits: int) -> PackedTable:
    """Codes of standard normal vectors, on the uniform grid with the least squared error for that width."""
    step = {1: 1.596, 2: 0.996, 3: 0.586, 4: 0.335, 5: 0.188, 6: 0.104, 7: 0.0569, 8: 0.0308}[bits]
    levels = 1 << bits
    codes = np.clip(np.floor(vectors / np.float32(step)) + levels // 2, 0, levels - 1).astype(np.uint8)
    scale = np.full((1, 1), step, np.float32)
    return PackedTable.pack(CodeTable(codes, scale, -scale * np.float32((levels - 1) / 2), bits))


def check_sizes(bits: Sequence[int], *sizes: int) -> None:
    """Raise UserError if a size is out of range."""
    if not bits or min(*sizes, *bits) < 1 or max(bits) > 8:
        raise UserError("items, dim, k, batch and rounds must be at least 1, and bits 1 to 8")


def load_kernels() -> None:
    """Load the compiled kernels, or numpy would be timed. Raises UserError if numba is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if compiled_kernels(math.inf) is None:
            raise UserError("rectool bench measures the compiled kernels, which need numba: pip install numba")
