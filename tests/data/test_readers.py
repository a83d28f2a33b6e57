"""Files of interactions: right ones are read whole, wrong ones end in one message with file, line and remedy."""

from __future__ import annotations

import os
import random
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rectoolkit.data import load_dataset
from rectoolkit.data.interactions import Interactions
from rectoolkit.data.readers import words
from rectoolkit.data.readers.words import SHAPES, read_pairs
from rectoolkit.errors import DataError
from rectoolkit.recipe.settings import FORMATS

real_data = pytest.mark.skipif(
    not os.environ.get("RECTOOL_DATA"), reason="set RECTOOL_DATA to the folder that holds gowalla/ and lastfm/"
)


def write(folder: Path, content: str | bytes, name: str = "train.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(folder: Path, content: str | bytes, format: str = "adjacency") -> list[tuple[int, int]]:
    keys = read_pairs(write(folder, content), format).keys
    return [(int(key) >> 32, int(key) & 0xFFFFFFFF) for key in keys]


def refusal(folder: Path, content: str | bytes, format: str = "adjacency") -> str:
    with pytest.raises(DataError) as caught:
        read(folder, content, format)
    message = str(caught.value)
    assert message.startswith(str(folder / "train.txt"))
    assert "\n" not in message
    return message.removeprefix(str(folder / "train.txt"))


def test_every_format_that_a_recipe_may_name_has_a_reader():
    assert tuple(SHAPES) == FORMATS


ROWS = st.dictionaries(st.integers(0, 40), st.sets(st.integers(0, 99), max_size=12), max_size=20)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, gap=st.sampled_from([" ", "\t", "  "]), end=st.sampled_from(["\n", "\r\n", " \n", "\n\n"]))
def test_what_is_written_is_read(tmp_path, rows, gap, end):
    expected = sorted((user, item) for user, items in rows.items() for item in items)
    lines = [gap.join(map(str, [user, *items])) for user, items in rows.items()]
    for content in (end.join(lines), end.join(lines) + end):
        if not expected:
            assert "holds no interactions" in refusal(tmp_path, content)
            continue
        assert read(tmp_path, content) == expected
        file = read_pairs(tmp_path / "train.txt", "adjacency")
        assert (file.num_users, file.num_items) == (max(rows) + 1, max(item for _, item in expected) + 1)


@pytest.mark.parametrize("block", [1, 2, 3, 5, 17, 64])
def test_blocks_of_any_size_give_the_same(tmp_path, monkeypatch, block):
    monkeypatch.setattr(words, "BLOCK", block)
    assert read(tmp_path, "0 1 22 333\r\n\r\n10 4\n3\n2 55 1") == [(0, 1), (0, 22), (0, 333), (2, 1), (2, 55), (10, 4)]
    assert refusal(tmp_path, "0 1\n1 2\n2 3 x4 5\n").startswith(", line 3: 'x4' is not an integer id")
    assert refusal(tmp_path, "0 1\n\n2 3\n0 1\n").startswith(", line 4: item 1 of user 0 stands a second time")


def test_a_user_may_stand_on_two_lines_and_without_items(tmp_path):
    assert read(tmp_path, "1 5\n0\n1 4\n") == [(1, 4), (1, 5)]
    assert read_pairs(write(tmp_path, "1 5\n7\n"), "adjacency").num_users == 8


def test_the_largest_id_is_read(tmp_path):
    assert read(tmp_path, f"0 {2**31 - 2}") == [(0, 2**31 - 2)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", ": the file holds no interactions; a line is `user item item ...`"),
        ("\n \n", ": the file holds no interactions"),
        ("0\n1\n", ": the file holds no interactions"),
        ("0 1\n1 two\n", ", line 2: 'two' is not an integer id; a line is `user item item ...`: integer ids from 0"),
        ("0 1\n1 2.5\n", ", line 2: '2.5' is not an integer id"),
        ("0 1\n1 +2\n", ", line 2: '+2' is not an integer id"),
        ("0,1\n", ", line 1: '0,1' is not an integer id"),
        ("0 1_0\n", ", line 1: '1_0' is not an integer id"),
        ("user item\n0 1\n", ", line 1: 'user' is not an integer id"),
        ("0 1\n1 -2\n", ", line 2: negative id '-2'; ids run from 0 to 2147483646"),
        ("0 1\n\n5 2147483647\n", ", line 3: id '2147483647' is too large: ids run from 0 to 2147483646"),
        ("0 1\n2147483647 5\n", ", line 2: id '2147483647' is too large"),
        ("0 99999999999999999999999999\n", ", line 1: id '99999999999999999999999999' is too large"),
        ("0 " + "9" * 9999, f", line 1: id '{'9' * 40}...' is too large"),
        ("0 1 2\n3 4\n0 2\n", ", line 3: item 2 of user 0 stands a second time (first on line 1); each pair stands"),
        ("0 1\n3 4 5 4\n", ", line 2: item 4 of user 3 stands a second time (first on the same line)"),
        (b"0 1\n1 2\0 3\n", ", line 2: a NUL byte; the file is damaged"),
        ("0 1\n1 2\n".encode("utf-16"), ", line 1: the file begins with a byte order mark"),
        ("0 1\n".encode("utf-8-sig"), ", line 1: the file begins with a byte order mark"),
        ("0 1\n1 2\n".encode("utf-16-le"), ", line 1: a NUL byte; the file is damaged, binary or UTF-16"),
        ("0 1\n1 ٣\n", ", line 2: byte 0xd9 in "),
        (b"\x1f\x8b\x08\0\0", ", line 1: a gzip file; unpack it first"),
        ("0 1\r1 2\r", ", line 1: a carriage return without a line feed"),
    ],
)
def test_a_wrong_adjacency_list_is_refused(tmp_path, content, expected):
    assert refusal(tmp_path, content).startswith(expected)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.txt: no such file"):
        read_pairs(tmp_path / "nothing.txt", "adjacency")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_pairs(tmp_path, "adjacency")


def test_a_binary_file_without_line_ends_is_refused_at_its_first_block(tmp_path, monkeypatch):
    monkeypatch.setattr(words, "BLOCK", 16)
    assert refusal(tmp_path, b"0 1 2 3 4 5 6 7 8 9" + b"\xfe" * 10_000).startswith(", line 1: byte 0xfe in '9")


@pytest.mark.parametrize("gap", ["\t", " ", ",", ", "])
def test_pairs_are_read_and_repetitions_merged(tmp_path, gap):
    lines = [(0, 5), (1, 4), (0, 5), (0, 2)]
    file = read_pairs(write(tmp_path, "\n".join(f"{u}{gap}{i}" for u, i in lines)), "pairs")
    assert Interactions.from_keys(file.keys, 2, 6).pairs()[1].tolist() == [2, 5, 4]
    assert file.repeated == 1


def test_ratings_of_both_movielens_forms_are_read(tmp_path):
    assert read(tmp_path, "196\t242\t3\t881250949\n186\t302\t3\t891717742\n", "ratings") == [(186, 302), (196, 242)]
    assert read(tmp_path, "1::1193::5::978300760\n", "ratings") == [(1, 1193)]


@pytest.mark.parametrize(
    ("content", "format", "expected"),
    [
        ("0 1\n0 1 2\n", "pairs", ", line 2: 3 columns where 2 are right; a line is `user item`"),
        ("0 1\n\n7\n", "pairs", ", line 3: 1 columns where 2 are right"),
        ("\n \n", "pairs", ": the file holds no interactions; a line is `user item`"),
        ("0\t1.5\n", "pairs", ", line 1: '1.5' is not an integer id"),
        ("1::2::3\n", "ratings", ", line 1: 3 columns where 4 are right"),
    ],
)
def test_wrong_pairs_are_refused(tmp_path, content, format, expected):
    assert refusal(tmp_path, content, format).startswith(expected)


def test_train_and_test_must_not_overlap(tmp_path):
    write(tmp_path, "0 1 2\n1 3 4\n")
    write(tmp_path, "1 5\n1 4 3\n0 7\n", "test.txt")
    with pytest.raises(DataError) as caught:
        load_dataset(path=tmp_path)
    train, test = tmp_path / "train.txt", tmp_path / "test.txt"
    assert str(caught.value) == (
        f"{test}: 2 of its 4 pairs are in {train} too, the first: user 1, item 3 ({train}, line 2, {test}, line 2); "
        "a pair may be in one part only: remove it from the other"
    )


def test_a_folder_of_files_is_loaded(tmp_path):
    write(tmp_path, "0 1 2\n1 3\n")
    write(tmp_path, "0 5\n4 0\n", "test.txt")
    write(tmp_path, "1 6\n", "validation.txt")
    data = load_dataset(path=str(tmp_path))
    assert (data.num_users, data.num_items, data.name) == (5, 7, tmp_path.name)
    assert data.validation is not None
    assert [part.pairs()[1].tolist() for part in (data.train, data.test, data.validation)] == [[1, 2, 3], [5, 0], [6]]
    assert data.summary()["users with test items only"] == 1


def test_a_single_file_is_split_by_its_seed(tmp_path):
    path = write(tmp_path, "".join(f"{u},{i}\n" for u in range(20) for i in range(10)), "clicks.csv")
    data = load_dataset(path=path, format="pairs", test_share=0.3, seed=1)
    assert (data.train.num_interactions, data.test.num_interactions) == (140, 60)
    assert data.digest == load_dataset(path=path, format="pairs", test_share=0.3, seed=1).digest
    assert data.digest != load_dataset(path=path, format="pairs", test_share=0.3, seed=2).digest


def test_raw_ids_are_refused_before_memory_is_taken(tmp_path):
    write(tmp_path, "0 1\n2000000000 2\n")
    write(tmp_path, "0 5\n", "test.txt")
    with pytest.raises(DataError, match="user ids run up to 2000000000 for 3 interactions; ids must count from 0"):
        load_dataset(path=tmp_path)
    with pytest.raises(DataError, match="user ids run up to 2000000000 for 2 interactions"):
        load_dataset(path=tmp_path / "train.txt", format="pairs")


def attempt(path: Path, format: str) -> str | None:
    """The message of a refusal, or None where the file is read; any other exception is the test's failure."""
    try:
        load_dataset(path=path, format=format)
    except DataError as error:
        return str(error)
    return None


def test_mutated_files_are_read_or_refused_and_nothing_else(tmp_path):
    chance = random.Random(7)
    whole = "".join(f"{u} {' '.join(map(str, range(u, 3 * u + 2)))}\n" for u in range(12)).encode()
    kept = 0
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(chance.randrange(1, 5)):
            at = chance.randrange(len(content))
            match chance.randrange(4):
                case 0:
                    content[at] = chance.randrange(256)
                case 1:
                    del content[at : at + chance.randrange(1, 20)]
                case 2:
                    content[at:at] = bytes(chance.choice(b"0123456789 \n\r\t-.,\0\xff") for _ in range(5))
                case 3:
                    content = content[: at + 1]
        path = write(tmp_path, bytes(content))
        for format in SHAPES:
            message = attempt(path, format)
            kept += message is None
            assert message is None or (message.startswith(str(path)) and "\n" not in message)
    assert 30 < kept < 600


def test_memory_is_the_pairs_and_a_block(tmp_path):
    """17 bytes a pair at the peak (the blocks' keys, the keys of all, one mask) and some megabytes for a block."""
    row = " ".join(map(str, range(1000)))
    path = write(tmp_path, "".join(f"{user} {row}\n" for user in range(2000)))
    tracemalloc.start()
    try:
        assert len(read_pairs(path, "adjacency").keys) == 2_000_000
        assert tracemalloc.get_traced_memory()[1] < 20 * 2_000_000 + 20e6
    finally:
        tracemalloc.stop()


@real_data
def test_gowalla_loads_fast_and_whole():
    start = time.perf_counter()
    data = load_dataset("gowalla")
    assert time.perf_counter() - start < 2  # 0.13 s on a quiet machine
    assert (data.train.num_interactions, data.test.num_interactions) == (810_128, 217_242)
    first = np.array((Path(os.environ["RECTOOL_DATA"]) / "gowalla/train.txt").read_text().split("\n")[0].split(), int)
    assert data.train.row(first[0]).tolist() == sorted(first[1:].tolist())


@real_data
def test_lastfm_keeps_its_gaps():
    data = load_dataset("lastfm")
    odd = data.summary()
    assert (odd["users"], odd["items"], odd["train"], odd["test"]) == (1892, 4489, 42_135, 10_533)
    assert (odd["users with test items only"], odd["test items never in train"]) == (2, 13)
