"""Code tables: integer codes with their affine map, and their packed form, which is stored and searched.

A code table holds N rows (users or items) of D integers from 0 to 2^bits - 1, and the affine map
``value = scale * code + offset``. Scale and offset are float32: one pair for the whole table or one for each row, and
one for each segment, since encoders that concatenate layers may give each layer's dims a grid of their own.

A packed row is ``bits`` bit-planes, least significant first. A plane is ceil(D / 8) bytes, with dim d in bit d mod 8 of
byte d // 8 and zeros in unused bits. Three dims of two bits, codes [1, 2, 3]:

    >>> table = CodeTable(np.array([[1, 2, 3]], np.uint8), bits=2)
    >>> PackedTable.pack(table).planes.tolist()      # plane 0: bits 1, 0, 1 -> 5; plane 1: bits 0, 1, 1 -> 6
    [[[5], [6]]]

Planes serve every width from 1 to 8 bits with one layout, keep rows byte-aligned, and let a kernel multiply two tables
by AND and popcount. A single stream of bits would do none of this. Planes cost up to 7 bits each where D is not a
multiple of 8.

If each row's scale is a bfloat16 number and all offsets of a segment are the same multiple of their scales, a packed
row keeps two bytes per segment instead of eight. ``pack`` detects this and loses nothing. The multiple must have at
most 16 significant bits, so that its product with the scale's 8 is exact in float32.

The inner product of two affine codes needs no decoding. For a segment of d dims, with integer sums C of the codes:

    <u, i> = s_u s_i <c_u, c_i> + s_u o_i C_u + o_u s_i C_i + d o_u o_i

The item sum C_i does not cancel in a ranking unless the grid is symmetric about 0. ``dot`` is the reference for every
faster search. The file format is docs/reference/file-format.md. This module imports neither torch nor dgl.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.checks import row_numbers
from rectoolkit.errors import FormatError, UserError
from rectoolkit.files import open_arrays, refuse, save_arrays

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from rectoolkit.files import ArrayFile

    Codes = npt.NDArray[np.uint8]
    Halves = npt.NDArray[np.uint16]
    Floats = npt.NDArray[np.float32]


HALF_MAGNITUDE = np.uint16(0x7FFF)  # all but the sign of a bfloat16


def _one(value: float) -> Any:
    return field(default_factory=lambda: np.full((1, 1), value, np.float32))


@dataclass(frozen=True)
class CodeTable:
    """Integer codes and the affine map that decodes them: ``value = scale * code + offset``.

    Parameters
    ----------
    codes : uint8 array (N, D)
        Codes from 0 to 2^bits - 1.
    scale, offset : float32 array (N or 1, S)
        The affine map, for each row or for all rows, and for each of S segments.
    bits : int
        Bits of a code, 1 to 8.
    segments : tuple of int, optional
        How many dims each segment has. They add up to D. By default there is one segment.

    Raises
    ------
    UserError
        If shapes, types or ranges do not fit.
    """

    codes: Codes
    scale: Floats = _one(1.0)
    offset: Floats = _one(0.0)
    bits: int = 8
    segments: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_arrays(codes=self.codes, scale=self.scale, offset=self.offset)
        if self.codes.ndim != 2 or self.codes.dtype != np.uint8:
            raise UserError(f"codes must be uint8 (N, D), got {self.codes.dtype} {self.codes.shape}")
        object.__setattr__(self, "segments", tuple(self.segments) or (self.codes.shape[1],))
        _check_affine(self, self.scale, self.offset)
        if self.codes.size and int(self.codes.max()) >= 1 << self.bits:
            raise UserError(f"codes reach {self.codes.max()}, but {self.bits} bits end at {(1 << self.bits) - 1}")

    @property
    def num_rows(self) -> int:
        """Number of rows N."""
        return int(self.codes.shape[0])

    @property
    def dim(self) -> int:
        """Number of dims D."""
        return int(self.codes.shape[1])

    def decode(self) -> Floats:
        """Return the values ``scale * codes + offset``, float32 (N, D), rounded after each of the two operations."""
        widths = np.asarray(self.segments)
        scale, offset = np.repeat(self.scale, widths, axis=1), np.repeat(self.offset, widths, axis=1)
        return self.codes.astype(np.float32) * scale + offset

    def sums(self) -> npt.NDArray[np.int64]:
        """Return the sum of each row's codes by segment, int64 (N, S)."""
        return _segment_sums(self.codes.astype(np.int64), self.segments)

    def take(self, rows: npt.ArrayLike | slice) -> CodeTable:
        """Return a table of these rows (row numbers or a slice), in this order. A slice copies nothing.

        Raises UserError for rows that do not exist.
        """
        chosen = _rows(rows, self.num_rows)
        scale, offset = (a if len(a) == 1 else a[chosen] for a in (self.scale, self.offset))
        return CodeTable(self.codes[chosen], scale, offset, self.bits, self.segments)


@dataclass(frozen=True)
class PackedTable:
    """A code table as bit-planes, which is what files hold and indexes search. ``pack`` makes it.

    Parameters
    ----------
    planes : uint8 array (N, bits, ceil(D / 8))
        The bits of the codes, least significant plane first.
    dim : int
        Number of dims D.
    scale : float32 array (N or 1, S), or uint16 array (N, S)
        As in CodeTable, or the upper halves of float32 numbers (bfloat16).
    offset : float32 array (N or 1, S)
        As in CodeTable, or, if ``scale`` is uint16, (1, S) in units of a row's scale.
    segments : tuple of int, optional
        How many dims each segment has. By default there is one segment.

    Raises
    ------
    UserError
        If shapes, types or ranges do not fit.
    """

    planes: Codes
    dim: int
    scale: npt.NDArray[Any] = _one(1.0)
    offset: Floats = _one(0.0)
    segments: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_arrays(planes=self.planes, scale=self.scale, offset=self.offset)
        if self.planes.ndim != 3 or self.planes.dtype != np.uint8 or self.planes.shape[2] != -(-self.dim // 8):
            raise UserError(
                f"planes must be uint8 (N, bits, {-(-self.dim // 8)}) for {self.dim} dims, "
                f"got {self.planes.dtype} {self.planes.shape}"
            )
        object.__setattr__(self, "segments", tuple(self.segments) or (self.dim,))
        if not self.halved:
            _check_affine(self, self.scale, self.offset)
            return
        shapes = (self.num_rows, len(self.segments)), (1, len(self.segments))
        if (self.scale.shape, self.offset.shape) != shapes:
            found = f"{self.scale.shape} and {self.offset.shape}"
            raise UserError(
                f"a scale of two bytes and its offset must be of shapes {shapes[0]} and {shapes[1]}, got {found}"
            )
        largest = (self.scale & HALF_MAGNITUDE).max(axis=0, initial=0, keepdims=True)
        _check_affine(self, from_halves(largest), self.offset)

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return int(self.planes.shape[1])

    @property
    def halved(self) -> bool:
        """Whether a row's scale takes two bytes and its offset is a multiple of it."""
        return self.scale.dtype == np.uint16

    @property
    def one_grid(self) -> bool:
        """Whether all rows share one scale and one offset."""
        return not self.halved and len(self.scale) == len(self.offset) == 1

    def affine(self, rows: slice = slice(None)) -> tuple[Floats, Floats]:
        """Return scale and offset of these rows, float32 (n or 1, S) each, as CodeTable has them."""
        if not self.halved:
            scale, offset = (a if len(a) == 1 else a[rows] for a in (self.scale, self.offset))
            return scale, offset
        scale = from_halves(self.scale[rows])
        return scale, scale * self.offset

    @property
    def num_rows(self) -> int:
        """Number of rows N."""
        return int(self.planes.shape[0])

    @property
    def bytes_per_row(self) -> float:
        """Bytes one row takes in memory: its planes and its share of scales and offsets."""
        affine = self.scale.nbytes + self.offset.nbytes
        return float(self.planes.shape[1] * self.planes.shape[2] + affine / max(1, self.num_rows))

    @classmethod
    def pack(cls, table: CodeTable) -> PackedTable:
        """Pack a CodeTable. Returns a PackedTable with the same codes."""
        width = -(-table.dim // 8)
        planes = np.empty((table.num_rows, table.bits, width), np.uint8)
        for bit in range(table.bits):
            planes[:, bit] = np.packbits((table.codes >> bit) & 1, axis=1, bitorder="little")
        scale, offset = _halves(table) or (table.scale, table.offset)
        return cls(planes, table.dim, scale, offset, table.segments)

    def unpack(self) -> CodeTable:
        """Return the CodeTable: the inverse of ``pack``."""
        codes = np.zeros((self.num_rows, self.dim), np.uint8)
        for bit in range(self.bits):
            codes |= np.unpackbits(self.planes[:, bit], axis=1, count=self.dim, bitorder="little") << bit
        return CodeTable(codes, *self.affine(), self.bits, self.segments)

    def take(self, rows: npt.ArrayLike | slice) -> PackedTable:
        """Return a table of these rows (row numbers or a slice), in this order. A slice copies nothing.

        Raises UserError for rows that do not exist.
        """
        chosen = _rows(rows, self.num_rows)
        offset = self.offset if len(self.offset) == 1 else self.offset[chosen]
        scale = self.scale[chosen] if self.halved or len(self.scale) > 1 else self.scale
        return PackedTable(self.planes[chosen], self.dim, scale, offset, self.segments)

    def save(self, path: str | Path) -> None:
        """Write the table as one self-describing file (docs/reference/file-format.md), atomically."""
        save_arrays(path, "codes", *self.to_file())

    def to_file(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """Return the arrays and the facts of its file."""
        arrays: dict[str, npt.NDArray[Any]] = {"planes": self.planes, "scale": self.scale, "offset": self.offset}
        return arrays, {"dim": self.dim, "bits": self.bits, "segments": list(self.segments)}

    @classmethod
    def load(cls, path: str | Path) -> PackedTable:
        """Open a saved table by memory map. Only the header is read until rows are used.

        Parameters
        ----------
        path : str or Path
            A file written by ``save``.

        Returns
        -------
        PackedTable

        Raises
        ------
        FormatError
            If the file is missing, cut short, damaged, or of another kind or version.
        """
        return cls.of_file(open_arrays(path, "codes"))

    @classmethod
    def of_file(cls, file: ArrayFile) -> PackedTable:
        """The table in an opened file. Raises FormatError if its fields do not fit one another."""
        dim, segments = file.count("dim", 1), file.counts("segments")
        planes = file.array("planes", "|u1", 3)
        halved = "scale" in file.arrays and file.arrays["scale"].dtype == np.uint16
        scale, offset = file.array("scale", "<u2" if halved else "<f4", 2), file.array("offset", "<f4", 2)
        if file.count("bits", 1) != planes.shape[1]:
            refuse(file.path, "bits", f"{file.facts['bits']}, but the planes hold {planes.shape[1]}")
        try:
            return cls(planes, dim, scale, offset, segments)
        except ValueError as error:
            raise FormatError(f"{file.path}: the header does not describe a code table: {error}") from None


@dataclass(frozen=True)
class Integers:
    """Rows as exact integers with their affine map, made of codes or of float rows, for ``dot`` to multiply.

    ``values`` float64 (N, D) holding integers, ``sums`` float64 (N, S) of them by segment, ``scale`` and
    ``offset`` float64 (N or 1, S).
    """

    values: npt.NDArray[np.float64]
    sums: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]
    segments: tuple[int, ...]

    def take(self, rows: slice) -> Integers:
        """These rows, without copying."""
        scale, offset = (a if len(a) == 1 else a[rows] for a in (self.scale, self.offset))
        return Integers(self.values[rows], self.sums[rows], scale, offset, self.segments)

    @classmethod
    def of(cls, table: CodeTable) -> Integers:
        """The codes of a table."""
        scale, offset = table.scale.astype(np.float64), table.offset.astype(np.float64)
        return cls(table.codes.astype(np.float64), table.sums().astype(np.float64), scale, offset, table.segments)

    @classmethod
    def of_floats(cls, rows: npt.NDArray[Any], segments: tuple[int, ...]) -> Integers:
        """Put float rows (N, D) on fixed-point grids of their own, so that their products with codes are exact.

        A row whose largest magnitude is below 2^e becomes integers times 2^(e-f), f = min(32, 44 - bits of D). At 64
        dims, components down to 2^-8 of the largest keep all 24 bits of a float32. A sum of D products with 8-bit
        codes stays below 2^53, so it is the same in whatever order it is added.
        """
        rows = rows.astype(np.float64)
        digits = min(32, 44 - int(rows.shape[1]).bit_length())
        exponent = np.frexp(np.abs(rows).max(axis=1, initial=0.0))[1] - digits
        values = np.rint(np.ldexp(rows, -exponent[:, None]))
        scale = np.repeat(np.ldexp(1.0, exponent)[:, None], len(segments), axis=1)
        return cls(values, _segment_sums(values, segments), scale, np.zeros((1, len(segments))), segments)


def dot(queries: CodeTable | Floats, items: CodeTable) -> npt.NDArray[np.float64]:
    """Inner products of the decoded rows (Q, N) in float64: the reference that every faster search equals.

    Products are integers up to the last step. Then the formula in the docstring of this module applies in its order of
    terms, segment by segment, so the result does not depend on how a kernel blocks the work. Float queries (Q, D) are
    first rounded to the grid of ``Integers.of_floats``.
    """
    if isinstance(queries, np.ndarray):
        return dot_integers(Integers.of_floats(queries, items.segments), Integers.of(items))
    check_comparable(queries, items)
    return dot_integers(Integers.of(queries), Integers.of(items))


def dot_integers(queries: Integers, items: Integers) -> npt.NDArray[np.float64]:
    """``dot`` of rows that are already integers."""
    result = np.zeros((len(queries.values), len(items.values)))
    start = 0
    for segment, width in enumerate(queries.segments):
        dims = slice(start, start + width)
        add_segment(result, queries.values[:, dims] @ items.values[:, dims].T, segment, queries, items)
        start += width
    return result


def add_segment(
    result: npt.NDArray[np.float64], product: npt.NDArray[np.float64], segment: int, queries: Integers, items: Integers
) -> None:
    """Add to ``result`` (Q, N) the affine product of one segment, given its integer ``product`` (Q, N)."""
    width = queries.segments[segment]
    su, ou, user = (a[:, segment, None] for a in (queries.scale, queries.offset, queries.sums))
    si, oi, item = (a[None, :, segment] for a in (items.scale, items.offset, items.sums))
    result += ((su * si) * product + (su * user) * oi) + ((ou * si) * item + (width * ou) * oi)


def check_comparable(queries: CodeTable | PackedTable, items: CodeTable | PackedTable) -> None:
    """Raise UserError unless the two tables have the same dims and segments (their bits may differ)."""
    if (queries.dim, queries.segments) != (items.dim, items.segments):
        raise UserError(
            f"queries of {queries.dim} dims in segments {queries.segments} cannot be compared with items of "
            f"{items.dim} dims in segments {items.segments}"
        )


def ranks_by_hamming(scale: npt.NDArray[Any], offset: npt.NDArray[Any], items: PackedTable) -> bool:
    """Whether one-bit queries on the grids ``scale`` and ``offset`` (Q or 1, S) rank items by Hamming distance.

    They do if there is one segment, the queries' grids are symmetric about 0 and the items share one scale > 0.
    """
    if items.bits > 1 or len(items.segments) > 1 or not items.one_grid:
        return False
    symmetric = bool((offset * 2 == -scale).all() and (scale > 0).all())
    return symmetric and float(items.scale[0, 0]) > 0


def _rows(rows: npt.ArrayLike | slice, count: int) -> Any:
    return rows if isinstance(rows, slice) else row_numbers(rows, count, "rows")


def _segment_sums(values: npt.NDArray[Any], segments: tuple[int, ...]) -> npt.NDArray[Any]:
    if not values.shape[1]:
        return np.zeros((len(values), len(segments)), values.dtype)
    return np.asarray(np.add.reduceat(values, np.cumsum((0, *segments[:-1])), axis=1))


def from_halves(halves: Halves) -> Floats:
    """bfloat16 numbers, given as the upper halves of float32 numbers, as float32."""
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)


def two_bytes(scale: Floats, offset: Floats) -> tuple[Floats, Floats]:
    """Scales rounded to bfloat16, and their offsets as multiples of them that pack in two bytes a row.

    ``offset`` must be the same multiple of ``scale`` in every row, but for its rounding; zeros stay zeros.
    """
    raw = np.ascontiguousarray(scale, np.float32).view(np.uint32)
    rounded = ((raw + np.uint32(0x7FFF) + ((raw >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    multiple = _multiple(scale, offset)
    short = ((multiple.view(np.uint32) + np.uint32(0x80)) & np.uint32(0xFFFFFF00)).view(np.float32)
    return rounded, rounded * short


def _halves(table: CodeTable) -> tuple[Halves, Floats] | None:
    """Scale and offset in two bytes a row and segment, where that loses nothing."""
    scale, offset = np.ascontiguousarray(table.scale), table.offset
    raw = scale.view(np.uint32)
    if len(scale) < 2 or (raw & np.uint32(0xFFFF)).any():
        return None
    multiple = _multiple(scale, offset)
    if not np.isfinite(multiple).all() or not (scale * multiple == offset).all():
        return None
    return (raw >> np.uint32(16)).astype(np.uint16), multiple


def _multiple(scale: Floats, offset: Floats) -> Floats:
    """The offset over the scale in the row of the largest scale, by segment, (1, S); 0 where all are 0."""
    largest = np.abs(scale).argmax(axis=0)[None]
    own = np.take_along_axis(np.broadcast_to(offset, scale.shape), largest, axis=0)
    divisor = np.take_along_axis(scale, largest, axis=0)
    return np.divide(own, divisor, out=np.zeros_like(own), where=divisor != 0)


def _check_arrays(**arrays: object) -> None:
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise UserError(f"{name} must be a numpy array, got {type(array).__name__}")


def _check_affine(table: CodeTable | PackedTable, scale: Floats, offset: Floats) -> None:
    if not 1 <= table.bits <= 8:
        raise UserError(f"bits must be 1 to 8, got {table.bits}")
    if sum(table.segments) != table.dim or (min(table.segments) < 1 and table.dim):
        raise UserError(f"segments {table.segments} do not add up to {table.dim} dims")
    allowed: Sequence[tuple[int, int]] = [(rows, len(table.segments)) for rows in (1, table.num_rows)]
    for name, array in (("scale", scale), ("offset", offset)):
        if array.dtype != np.float32 or array.shape not in allowed:
            shapes = f"{allowed[0]} or {allowed[1]}"
            raise UserError(f"{name} must be float32 of shape {shapes}, got {array.dtype} {array.shape}")
        if not np.isfinite(array).all():
            raise UserError(f"{name} holds NaN or infinity")
