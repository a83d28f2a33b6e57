"""Checksums: what the bytes of a file come to, and whether that is what a card says."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from rectoolkit.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


class Checksum(NamedTuple):
    """What a file must come to: ``digest``, in hex, by that ``algorithm`` of hashlib."""

    algorithm: str
    digest: str

    def fault(self, path: Path) -> str:
        """What the file at ``path`` comes to instead, in words; empty where it is right."""
        found = digest_of(path, self.algorithm)
        return "" if found == self.digest else f"its {self.algorithm} is {found}, and not {self.digest}"


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    return digest_of(path, "sha256")


def digest_of(path: Path, algorithm: str) -> str:
    """What that algorithm of hashlib makes of a file, in hex. Raises DataError for a file that cannot be read."""
    hasher = hashlib.new(algorithm, usedforsecurity=False)
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                hasher.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return hasher.hexdigest()
