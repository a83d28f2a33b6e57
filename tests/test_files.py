"""Files are written whole or not at all, and hostile headers are read as they say, or refused by file and field."""

from __future__ import annotations

import copy
import json
import math
import os
import random
import re
import struct
import subprocess
import sys
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rectoolkit.data import Ids, Interactions
from rectoolkit.errors import FormatError, UserError
from rectoolkit.files import (
    MAGIC,
    VERSION,
    alone,
    atomic_write,
    check_whole,
    checksum,
    is_taken,
    new_folder,
    open_arrays,
    remove_parts,
    save_arrays,
)  # fmt: skip
from rectoolkit.search.codes import CodeTable, PackedTable
from rectoolkit.search.inverted_lists import InvertedLists

MUTATIONS = int(os.environ.get("RECTOOL_MUTATIONS", "600"))  # of each file; 5000 in a thorough pass
HOSTILE: list[Any] = [
    -1, 0, 1, 2, 3, 7, 63, 64, 128, 2**31, 2**48, 2**62, 2**64, 10**30, -(2**63), 1.0, 64.5, float("nan"), float("inf"),
    True, None, "", "planes", "|u1", "<f4", "<f8", ">f4", "<U4", "|O", "|V8", "<M8[s]", "f4,f4", "kaputt", "x" * 3000,
    [], [0], [64], [1, 1], [-1, 5], [2**40, 2**40, 2**40], [[1]], {}, {"name": "planes"},
]  # fmt: skip


def table(rows: int = 5, dim: int = 19, bits: int = 3) -> PackedTable:
    draws = np.random.default_rng(0)
    values = draws.integers(0, 1 << bits, (rows, dim), dtype=np.uint8)
    affine = draws.random((2, rows, 2), np.float32)
    return PackedTable.pack(CodeTable(values, affine[0], affine[1], bits, (7, dim - 7)))


def with_header(header: Any, body: bytes) -> bytes:
    """A file of that header, whose checksum is right, and that body."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    raw += b" " * (-(len(raw) + 20) % 64)
    return MAGIC + struct.pack("<III", VERSION, len(raw), zlib.crc32(raw)) + raw + body


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = struct.unpack("<III", data[8:20])[1]
    return json.loads(data[20 : 20 + length]), data[20 + length :]


def mutated(header: dict[str, Any], draws: random.Random) -> Any:
    """The header with one to three of its values, at any depth, replaced, moved, doubled or taken out."""
    header = copy.deepcopy(header)
    for _ in range(draws.randint(1, 3)):
        at: Any = header
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = draws.choice(keys)
            if isinstance(at[key], dict | list) and at[key] and draws.random() < 0.8:
                at = at[key]
                continue
            change = draws.randrange(5)
            if change == 0:
                del at[key]
            elif change == 1 and isinstance(at, list):
                at.append(copy.deepcopy(at[key]))
            elif change == 2 and type(at[key]) is int:
                at[key] += draws.choice([-64, -1, 1, 64])
            elif change == 3:
                other = draws.choice(keys)
                at[key], at[other] = at[other], at[key]
            else:
                at[key] = copy.deepcopy(draws.choice(HOSTILE))
            break
    return header


def assert_as_described(packed: PackedTable, data: bytes) -> None:
    """The opened file is as docs/reference/file-format.md describes, and its arrays do not overlap."""
    header, body = split(data)
    assert (packed.dim, packed.bits, list(packed.segments)) == (header["dim"], header["bits"], header["segments"])
    ends = []
    for array in header["arrays"]:
        size = math.prod(array["shape"]) * np.dtype(array["dtype"]).itemsize
        assert 0 <= array["start"] <= array["start"] + size <= len(body)
        ends.append((array["start"], array["start"] + size))
        if array["name"] in ("planes", "scale", "offset"):
            part = body[array["start"] : array["start"] + size]
            assert getattr(packed, array["name"]).tobytes() == part
    ends = sorted(pair for pair in ends if pair[0] < pair[1])
    assert all(ends[n][1] <= ends[n + 1][0] for n in range(len(ends) - 1))
    assert packed.unpack().decode().shape == (packed.num_rows, header["dim"])


def test_mutated_headers_are_read_as_they_say_or_refused(tmp_path: Path) -> None:
    path, draws = tmp_path / "items.codes", random.Random(1)
    table().save(path)
    header, body = split(path.read_bytes())
    read, told = 0, []
    for _ in range(4 * MUTATIONS):
        data = with_header(mutated(header, draws), body)
        path.write_bytes(data)
        try:
            packed = PackedTable.load(path)
        except FormatError as error:
            told.append(str(error))
            continue
        assert_as_described(packed, data)
        read += 1
    assert all(str(path) in message for message in told)
    assert 0 < read < 2 * MUTATIONS, "some mutations are harmless, most are not"


def test_mutated_bytes_of_a_header_are_refused_or_read_as_they_say(tmp_path: Path) -> None:
    path, draws = tmp_path / "items.codes", random.Random(2)
    table().save(path)
    data = path.read_bytes()
    header, body = split(data)
    text = json.dumps(header).encode()
    for _ in range(2 * MUTATIONS):
        raw = bytearray(text)
        for _ in range(draws.randint(1, 4)):
            raw[draws.randrange(len(raw))] = draws.choice([draws.randrange(256), *b'0123456789-.e"[]{},:'])
        changed = with_header(bytes(raw), body)
        path.write_bytes(changed)
        try:
            packed = PackedTable.load(path)
        except FormatError:
            continue
        assert_as_described(packed, changed)


@pytest.mark.filterwarnings("ignore:overflow")
def test_mutated_lists_search_or_are_refused(tmp_path: Path) -> None:
    path, draws = tmp_path / "items.lists", random.Random(3)
    built = InvertedLists.build(table(40), lists=6)
    built.save(path)
    header, body = split(path.read_bytes())
    queries = table(3)
    for number in range(2 * MUTATIONS):
        changed = bytearray(body)
        if number % 2:
            changed[draws.randrange(len(changed))] ^= 1 << draws.randrange(8)
        path.write_bytes(with_header(header if number % 2 else mutated(header, draws), bytes(changed)))
        try:
            lists = InvertedLists.open(path)
        except FormatError:
            continue
        assert sorted(lists.ids.tolist()) == list(range(len(lists)))
        assert np.isfinite(lists.centroids).all()
        if lists.items.segments == queries.segments:
            hits = lists.search(queries, 5, probe=2)
            assert ((hits.ids >= -1) & (hits.ids < 40)).all()


def test_mutated_interactions_and_ids_are_read_as_they_say_or_refused(tmp_path: Path) -> None:
    path, draws, read, told = tmp_path / "any", random.Random(4), 0, []
    pairs = Interactions.from_pairs([0, 0, 1, 2], [3, 1, 0, 2])
    for content in (pairs, Ids.of([3, 5, 70]), Ids.of(["a", "bc", "é"])):
        content.save(path)
        header, body = split(path.read_bytes())
        for _ in range(MUTATIONS):
            path.write_bytes(with_header(mutated(header, draws), body))
            try:
                again: Any = type(content).load(path)
            except FormatError as error:
                told.append(str(error))
                continue
            read += 1
            if isinstance(content, Interactions):
                assert (again.indptr.dtype, again.items.dtype, len(again.indptr)) == ("<i8", "<i4", again.num_users + 1)
            else:
                rows = again.values if again.values is not None else again.ends
                assert (rows.dtype, rows.ndim, len(again)) == ("<i8", 1, len(rows))
    assert all(str(path) in message for message in told)
    assert 0 < read < 2 * MUTATIONS


def test_texts_that_end_elsewhere_are_no_ids(tmp_path: Path) -> None:
    path = tmp_path / "items.ids"
    text, ends = np.frombuffer(b"abc", np.uint8), np.array([1, 4], np.int64)
    for arrays, told in (
        ({"text": text, "ends": ends}, "ends at byte 4 of 3"),
        ({"text": text, "ends": ends[:0]}, "ends at byte 0 of 3"),
        ({"text": text, "ends": ends.astype(np.int32)}, "field 'ends'"),
        ({"values": text}, "field 'values'"),
        ({"values": ends, "ends": ends}, "holds values, ends"),
        ({}, "holds nothing"),
    ):
        save_arrays(path, "ids", arrays, {})
        with pytest.raises(FormatError, match=told):
            Ids.load(path)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"bits": 2}, "bits"),
        ({"bits": "3"}, "bits"),
        ({"bits": True}, "bits"),
        ({"dim": 25, "segments": [7, 18]}, "planes must be uint8"),
        ({"dim": -1}, "dim"),
        ({"segments": [7, 13]}, "segments"),
        ({"segments": [20, -1]}, "segments"),
        ({"bytes": 10**30}, "bytes"),
        ({"arrays": 5}, "arrays"),
        ({"arrays.0.shape": [-5, 3, 3]}, "arrays[0].shape"),
        ({"arrays.0.shape": [5, 3, 2**62]}, "arrays[0].shape"),
        ({"arrays.0.shape": [5, 3, 2**40]}, "arrays[0]"),
        ({"arrays.0.shape": [5.0, 3, 3]}, "arrays[0].shape"),
        ({"arrays.0.dtype": "|O"}, "arrays[0].dtype"),
        ({"arrays.0.dtype": ">u2"}, "arrays[0].dtype"),
        ({"arrays.1.dtype": "<i4"}, "scale"),
        ({"arrays.1.start": 0}, "overlap"),
        ({"arrays.1.start": -64}, "arrays[1].start"),
        ({"arrays.1.start": 65}, "arrays[1].start"),
        ({"arrays.1.start": 2**40}, "arrays[1]"),
        ({"arrays.1.name": "planes"}, "arrays[1].name"),
        ({"arrays.1.name": None}, "arrays[1].name"),
        ({"arrays.1.name": "scales"}, "holds no 'scale'"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    path = tmp_path / "items.codes"
    table().save(path)
    header, body = split(path.read_bytes())
    for where, value in change.items():
        *steps, last = [int(step) if step.isdigit() else step for step in where.split(".")]
        at: Any = header
        for step in steps:
            at = at[step]
        at[last] = value
    path.write_bytes(with_header(header, body))
    with pytest.raises(FormatError, match=re.escape(field)) as raised:
        PackedTable.load(path)
    assert str(path) in str(raised.value)


def test_a_header_that_says_it_is_huge_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "items.codes"
    path.write_bytes(MAGIC + struct.pack("<III", VERSION, 2**32 - 1, 0) + b"{}")
    with pytest.raises(FormatError, match="cut short"):
        PackedTable.load(path)
    path.write_bytes(with_header(b"[" * 100_000, b""))
    with pytest.raises(FormatError, match="not JSON"):
        PackedTable.load(path)


def test_lists_that_repeat_an_item_or_lead_nowhere_are_refused(tmp_path: Path) -> None:
    path, good = tmp_path / "items.lists", InvertedLists.build(table(40), lists=6)
    ids, centroids = good.ids.copy(), good.centroids.copy()
    ids[3], centroids[2, 1] = ids[4], np.nan
    for wrong, field in (
        (InvertedLists(good.items, ids, good.starts, good.centroids), "ids"),
        (InvertedLists(good.items, good.ids[:-1], good.starts, good.centroids), "ids"),
        (InvertedLists(good.items, good.ids, good.starts[::-1], good.centroids), "starts"),
        (InvertedLists(good.items, good.ids, good.starts, centroids), "centroids"),
        (InvertedLists(good.items, good.ids, good.starts, centroids[:, 1:]), "centroids"),
    ):
        wrong.save(path)
        with pytest.raises(FormatError, match=f"field '{field}'"):
            InvertedLists.open(path)


@pytest.mark.parametrize(
    "array", [np.zeros(3, bool), np.zeros((1, 1, 1, 1), np.uint8), np.zeros(2, ">i4"), np.array([None])]
)
def test_what_no_reader_would_take_is_not_written(tmp_path: Path, array: Any) -> None:
    with pytest.raises(ValueError, match="'planes' must be of"):
        save_arrays(tmp_path / "x", "any", {"planes": array}, {})
    assert not list(tmp_path.iterdir())


def test_a_flipped_bit_is_seen_in_little_time(tmp_path: Path) -> None:
    """A million items of 64 dims at 8 bits: well under a second, or opening a run would no longer be cheap."""
    path = tmp_path / "body.codes"
    save_arrays(path, "any", {"planes": np.zeros((1_000_000, 8, 8), np.uint8)}, {})
    written = checksum(path)
    begun = time.perf_counter()
    check_whole(path, written)
    assert time.perf_counter() - begun < 0.5
    with open(path, "r+b") as file:
        file.seek(40_000_000)
        file.write(b"\x01")
    assert open_arrays(path, "any").arrays["planes"].any()
    with pytest.raises(FormatError, match="checksum differs"):
        check_whole(path, written)


def test_a_file_or_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path, folder = tmp_path / "a.txt", tmp_path / "new" / "folder"
    path.write_bytes(b"before")
    with suppress(KeyError), atomic_write(path) as file:
        file.write(b"half")
        raise KeyError
    with suppress(KeyError), new_folder(folder) as part:
        (part / "a").touch()
        raise KeyError
    assert path.read_bytes() == b"before"
    assert sorted(found.name for found in tmp_path.rglob("*")) == ["a.txt", "new"]
    with atomic_write(path) as file, new_folder(folder) as part:
        file.write(b"after")
        (part / "a").touch()
    assert path.read_bytes() == b"after"
    assert (folder / "a").exists()
    mask = os.umask(0)
    os.umask(mask)
    assert (path.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o666 & ~mask, 0o777 & ~mask)
    with pytest.raises(UserError, match="exists already"), new_folder(folder) as part:
        (part / "b").touch()
    assert [found.name for found in folder.iterdir()] == ["a"]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".a.txt.x7.part").touch()
    (tmp_path / "a.txt").touch()
    remove_parts(tmp_path)
    assert [found.name for found in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_one_process_at_a_time(tmp_path: Path, kind: str) -> None:
    path = tmp_path if kind == "folder" else tmp_path / "lock"
    program = (
        "import sys; from rectoolkit.files import alone\n"
        "with alone(sys.argv[1], 'busy'): print('in', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        assert is_taken(path) == (kind == "file")  # of a folder it cannot be asked
        with pytest.raises(UserError, match="busy"), alone(path, "busy"):
            pass
        other.kill()
    assert not is_taken(path)
    with alone(path, "busy"):
        pass
