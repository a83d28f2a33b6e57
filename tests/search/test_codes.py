"""Packed codes: packing is exact, products equal those of the decoded values, and files are whole or refused."""

from __future__ import annotations

import doctest
import multiprocessing
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectoolkit.errors import FormatError
from rectoolkit.files import save_arrays
from rectoolkit.search import codes
from rectoolkit.search.codes import CodeTable, Integers, PackedTable, dot, from_halves

DIMS = (1, 7, 64, 97)
FORMAT_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "file-format.md"


def table(
    rows: int, dim: int, bits: int, seed: int = 0, segments: tuple[int, ...] = (), per_row: bool = False
) -> CodeTable:
    random = np.random.default_rng(seed)
    shape = (rows if per_row else 1, len(segments) or 1)
    values = random.integers(0, 1 << bits, (rows, dim), dtype=np.uint8)
    scale = random.random(shape, np.float32) + np.float32(0.1)
    return CodeTable(values, scale, random.standard_normal(shape, np.float32), bits, segments)


def same(left: PackedTable, right: PackedTable) -> bool:
    arrays = ((getattr(left, name), getattr(right, name)) for name in ("planes", "scale", "offset"))
    return left.segments == right.segments and all(np.array_equal(a, b) for a, b in arrays)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("dim", DIMS)
def test_unpack_undoes_pack(bits: int, dim: int) -> None:
    for rows in (0, 1, 65):
        original = table(rows, dim, bits)
        again = PackedTable.pack(original).unpack()
        assert np.array_equal(again.codes, original.codes)
        assert again.segments == original.segments
        assert again.bits == bits


def test_the_worked_example_of_the_docstring() -> None:
    assert doctest.testmod(codes).attempted
    assert not doctest.testmod(codes).failed


def test_no_rows_may_be_taken() -> None:
    for per_row in (False, True):
        whole = table(5, 9, 3, per_row=per_row)
        for one in (whole, PackedTable.pack(whole)):
            assert one.take([]).num_rows == 0
            assert one.take([]).dim == 9


@pytest.mark.parametrize("bits", range(1, 9))
def test_scales_of_two_bytes_lose_nothing(bits: int, tmp_path: Path) -> None:
    random = np.random.default_rng(bits)
    halves = random.integers(0, 1 << 16, (65, 2)).astype(np.uint16) & 0xBFFF  # either sign, up to 2, zeros too
    halves[::9] = 0
    short = (np.float32(-1.2345678).view(np.uint32) & np.uint32(0xFFFFFF00)).view(np.float32)  # 16 significant bits
    for multiple in (np.float32(-((1 << bits) - 1) / 2), np.float32(0), short):
        scale = from_halves(halves)
        multiples = np.array([[multiple, -multiple / 4]], np.float32)
        whole = table(65, 97, bits, segments=(30, 67))
        whole = CodeTable(whole.codes, scale, scale * multiples, bits, (30, 67))
        packed = PackedTable.pack(whole)
        assert packed.halved
        assert packed.bytes_per_row == bits * 13 + 2 * 2 + 2 * 4 / 65
        packed.save(tmp_path / "table")
        for one in (
            packed,
            PackedTable.load(tmp_path / "table"),
            packed.take(np.arange(65)),
            packed.take(slice(0, 65)),
        ):
            assert same(one, packed)
            again = one.unpack()
            assert np.array_equal(again.scale, whole.scale)
            assert np.array_equal(again.offset, whole.offset)
            assert np.array_equal(again.decode(), whole.decode())
        assert np.array_equal(packed.take([3]).unpack().decode(), whole.take([3]).decode())
    own = scale * random.random((65, 1), np.float32)
    for longer, offset in ((scale * np.float32(1.001), scale), (scale, scale + 1), (scale, own)):
        other = PackedTable.pack(CodeTable(whole.codes, longer, offset, bits, (30, 67)))
        assert not other.halved
        assert np.array_equal(other.unpack().offset, offset)


def test_scales_of_two_bytes_must_fit_and_be_finite() -> None:
    planes, offset = np.zeros((3, 1, 1), np.uint8), np.ones((1, 1), np.float32)
    for scale, message in (
        (np.zeros((2, 1), np.uint16), "shapes"),
        (np.array([[0x7F80], [0x8001], [0]], np.uint16), "infinity"),
    ):
        with pytest.raises(ValueError, match=message):
            PackedTable(planes, 8, scale, offset)
    with pytest.raises(ValueError, match="shapes"):
        PackedTable(planes, 8, np.ones((3, 1), np.uint16), np.ones((3, 1), np.float32))


@pytest.mark.parametrize("bits", range(1, 9))
def test_dot_is_the_product_of_the_decoded_rows(bits: int) -> None:
    for segments in ((97,), (1, 32, 64)):
        users, items = table(5, 97, bits, 1, segments, True), table(9, 97, 9 - bits, 2, segments)
        decoded = users.decode().astype(np.float64) @ items.decode().astype(np.float64).T
        np.testing.assert_allclose(dot(users, items), decoded, rtol=1e-4, atol=1e-3)
        floats = np.random.default_rng(3).standard_normal((4, 97)).astype(np.float32)
        expected = floats.astype(np.float64) @ items.decode().astype(np.float64).T
        np.testing.assert_allclose(dot(floats, items), expected, rtol=1e-5, atol=1e-4)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 7, 64, 97, 256]))
@settings(max_examples=25, deadline=None)
def test_products_of_floats_do_not_depend_on_the_order_of_dims(seed: int, dim: int) -> None:
    random = np.random.default_rng(seed)
    rows = (random.standard_normal((3, dim)) * 10.0 ** random.integers(-20, 20)).astype(np.float32)
    items, order = table(50, dim, 8, seed), random.permutation(dim)
    shuffled = CodeTable(items.codes[:, order], items.scale, items.offset, 8)
    assert np.array_equal(dot(rows, items), dot(rows[:, order], shuffled))


def test_fixed_point_keeps_floats_of_like_size_whole() -> None:
    rows = np.random.default_rng(0).uniform(0.1, 1, (20, 64)).astype(np.float32)
    integers = Integers.of_floats(rows, (64,))
    assert np.array_equal(integers.values * integers.scale, rows.astype(np.float64))


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 33])
def test_a_saved_table_opens_as_it_was(tmp_path: Path, rows: int, per_row: bool) -> None:
    packed = PackedTable.pack(table(rows, 97, 3, 0, (30, 67), per_row))
    packed.save(tmp_path / "items.codes")
    again = PackedTable.load(tmp_path / "items.codes")
    assert same(packed, again)
    assert not rows or not again.planes.flags.owndata


def header_length(data: bytes) -> int:
    return 20 + struct.unpack("<III", data[8:20])[1]


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "items.codes"
    PackedTable.pack(table(50, 64, 2)).save(path)
    data = path.read_bytes()
    ends = [*range(header_length(data)), *np.random.default_rng(0).integers(header_length(data), len(data), 50)]
    for end in ends:
        path.write_bytes(data[: int(end)])
        with pytest.raises(FormatError, match=re.escape(str(path))):
            PackedTable.load(path)


def test_a_damaged_header_is_refused_byte_by_byte(tmp_path: Path) -> None:
    path = tmp_path / "items.codes"
    PackedTable.pack(table(5, 64, 2)).save(path)
    data = path.read_bytes()
    for place in range(header_length(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x21]) + data[place + 1 :])
        with pytest.raises(FormatError):
            PackedTable.load(path)


def test_other_kinds_and_versions_say_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "items.codes"
    packed = PackedTable.pack(table(5, 64, 2))
    packed.save(path)
    data = path.read_bytes()
    path.write_bytes(data[:8] + struct.pack("<I", 7) + data[12:])
    with pytest.raises(FormatError, match="version 7; this release reads 1"):
        PackedTable.load(path)
    path.write_bytes(b"\x93NUMPY" + data[6:])
    with pytest.raises(FormatError, match="not a file of packed codes"):
        PackedTable.load(path)
    save_arrays(path, "interactions", {"planes": packed.planes}, {})
    with pytest.raises(FormatError, match="holds interactions, not codes"):
        PackedTable.load(path)
    with pytest.raises(FormatError, match="no such file"):
        PackedTable.load(tmp_path / "absent.codes")
    with pytest.raises(FormatError, match="is a folder"):
        PackedTable.load(tmp_path)


def _sum_of_planes(path: str) -> int:
    return int(PackedTable.load(path).planes.sum())


def test_two_processes_share_a_mapped_file(tmp_path: Path) -> None:
    path = tmp_path / "items.codes"
    packed = PackedTable.pack(table(1000, 64, 2))
    packed.save(path)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_sum_of_planes, [str(path)] * 2) == [int(packed.planes.sum())] * 2


def test_a_file_replaced_while_mapped_keeps_its_old_content(tmp_path: Path) -> None:
    path = tmp_path / "items.codes"
    first, second = (PackedTable.pack(table(1000, 64, 2, seed)) for seed in (1, 2))
    first.save(path)
    mapped = PackedTable.load(path)
    second.save(path)
    assert same(mapped, first)
    assert same(PackedTable.load(path), second)


def test_tables_that_contradict_themselves_are_refused() -> None:
    small = np.zeros((2, 3), np.uint8)
    one = np.ones((1, 1), np.float32)
    with pytest.raises(ValueError, match="2 bits end at 3"):
        CodeTable(small + np.uint8(4), bits=2)
    with pytest.raises(ValueError, match="bits must be 1 to 8"):
        CodeTable(small, bits=9)
    with pytest.raises(ValueError, match="do not add up to 3 dims"):
        CodeTable(small, segments=(1, 1), scale=np.ones((1, 2), np.float32), offset=np.ones((1, 2), np.float32))
    with pytest.raises(ValueError, match="scale must be float32"):
        CodeTable(small, scale=one.astype(np.float64))
    with pytest.raises(ValueError, match="offset holds NaN"):
        CodeTable(small, offset=one * np.nan)
    with pytest.raises(ValueError, match=r"planes must be uint8 \(N, bits, 1\) for 3 dims"):
        PackedTable(np.zeros((2, 1, 2), np.uint8), 3)


def test_the_worked_file_of_the_format_page(tmp_path: Path) -> None:
    dump = re.search(r"```hexdump\n(.*?)```", FORMAT_PAGE.read_text(), re.DOTALL)
    assert dump is not None
    lines = [line[10:58] for line in dump[1].splitlines()]
    PackedTable.pack(CodeTable(np.array([[1, 2, 3], [0, 3, 0]], np.uint8), bits=2)).save(tmp_path / "worked.codes")
    written = (tmp_path / "worked.codes").read_bytes()
    assert bytes.fromhex("".join(lines)) == written
