"""Ranking keys: the score and the tie-break of an item as one number.

A ranking compares scores *rounded* to float32, so that scores which a caller sees as equal are equal. Among equal
scores the item with the lower ``mix(id)`` comes first, where mix is the 32-bit finaliser of MurmurHash3. Ties are
everywhere, since 64 one-bit dims have 65 distinct scores, and data sets often number items by popularity or time. Ties
broken by the id itself would leak that into the metrics. The mix is a bijection, so it leaves no tie undecided.

A key is an unsigned 64-bit number. Its high half orders as the score does, its low half holds the complement of the
mix. The larger key ranks first, and 0 stands for "no item".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Keys = npt.NDArray[np.uint64]


def mix(ids: npt.ArrayLike) -> npt.NDArray[np.uint32]:
    """Hash ids with the finaliser of MurmurHash3 (fmix32), a bijection on 32-bit numbers."""
    h = np.array(ids).astype(np.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h ^= h >> np.uint32(shift)
        h *= np.uint32(factor)
    h ^= h >> np.uint32(16)
    return h


def unmix(mixed: npt.ArrayLike) -> npt.NDArray[np.uint32]:
    """Return the ids of their hashes: the inverse of ``mix``."""
    h = np.array(mixed).astype(np.uint32)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x7ED1B41D)
    h ^= (h >> np.uint32(13)) ^ (h >> np.uint32(26))
    h *= np.uint32(0xA5CB9243)
    h ^= h >> np.uint32(16)
    return h


def order_keys(scores: npt.NDArray[np.float64], mixed: npt.NDArray[np.uint32]) -> Keys:
    """The keys (Q, N) of scores (Q, N) and mixed ids (N). Larger is better, and none is 0."""
    rounded = scores.astype(np.float32) + np.float32(0)  # -0 becomes +0: they are equal and must tie
    raw = rounded.view(np.uint32)
    ordered = raw ^ np.where(raw >> 31, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
    return np.asarray((ordered.astype(np.uint64) << np.uint64(32)) | ~mixed)


def scores_of(keys: Keys) -> npt.NDArray[np.float32]:
    """The scores of keys, -inf of the key 0."""
    ordered = (keys >> np.uint64(32)).astype(np.uint32)
    raw = ordered ^ np.where(ordered >> 31, np.uint32(0x80000000), np.uint32(0xFFFFFFFF))
    return np.where(keys == 0, np.float32(-np.inf), raw.view(np.float32))


def ids_of(keys: Keys) -> npt.NDArray[np.int64]:
    """The item ids of keys, -1 of the key 0."""
    return np.where(keys == 0, -1, unmix(~keys.astype(np.uint32)).astype(np.int64))
