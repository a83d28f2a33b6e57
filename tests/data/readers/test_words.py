"""Lines of words: adjacency lists, pairs and ratings are read whole, or refused with file, line and remedy."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rectoolkit.data import load_dataset
from rectoolkit.data.interactions import Interactions
from rectoolkit.data.readers import words
from rectoolkit.data.readers.words import SHAPES, read_pairs
from rectoolkit.errors import DataError
from rectoolkit.recipe.settings import FORMATS


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
    assert refusal(tmp_path, "0 1\n\n2 3\n0 1\n").startswith(", line 4: item 1 of user 0 is repeated")


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
        ("0 1\n1 two\n", ", line 2: 'two' is not an integer id; import files with other ids (rectool data import); a"),
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
        ("0 1 2\n3 4\n0 2\n", ", line 3: item 2 of user 0 is repeated (first on line 1); an adjacency list"),
        ("0 1\n3 4 5 4\n", ", line 2: item 4 of user 3 is repeated (first on the same line)"),
        ("0 1\n1 ٣\n", ", line 2: '٣' is not an integer id"),
        ("# a comment\n0 1\n", ", line 1: '#' is not an integer id"),
    ],
)
def test_a_wrong_adjacency_list_is_refused(tmp_path, content, expected):
    assert refusal(tmp_path, content).startswith(expected)


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
        ("0 1\n0 1 2\n", "pairs", ", line 2: 3 columns instead of 2; a line is `user item`, separated by a tab"),
        ("0 1\n\n7\n", "pairs", ", line 3: 1 column instead of 2"),
        ("\n \n", "pairs", ": the file holds no interactions; a line is `user item`"),
        ("0\t1.5\n", "pairs", ", line 1: '1.5' is not an integer id"),
        ("1::2::3\n", "ratings", ", line 1: 3 columns instead of 4"),
    ],
)
def test_wrong_pairs_are_refused(tmp_path, content, format, expected):
    assert refusal(tmp_path, content, format).startswith(expected)


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


@pytest.mark.parametrize(
    ("file", "content", "options", "expected"),
    [
        (
            "rows.txt",
            "Zoë a b c\n\n7 c d\nempty\n7 a c a\n",
            "--format adjacency",
            {("Zoë", "a"), ("Zoë", "b"), ("Zoë", "c"), ("7", "a"), ("7", "c"), ("7", "d")},
        ),
        (
            "rows.txt",
            "a:b,c d e\n1 2;3 d\n",
            "--format adjacency",
            {("a:b,c", "d"), ("a:b,c", "e"), ("1", "2;3"), ("1", "d")},
        ),
        ("log", "ana x\nana\ty\nben,x\nana, y\n", "--format pairs", {("ana", "x"), ("ana", "y"), ("ben", "x")}),
        (
            "r.dat",
            "1::7::5::9\n1::8::1::9\n1::9::4::7\n",
            "--format ratings --min-rating 4",
            {("1", "7"), ("1", "9")},
        ),
        ("u.data", "1\t7\t4.5\t978\n1\t8\t3.5\t979\n", "--format ratings", {("1", "7"), ("1", "8")}),
    ],
)
def test_words_of_any_kind_are_imported(place, imported, parts_of, file, content, options, expected):
    imported(file, content, f"{options} --test-share 0.5")
    assert set().union(*parts_of().values()) == expected


def test_an_import_of_ratings_may_be_split_by_time(imported, parts_of):
    imported("r.dat", "1::7::5::978\n1::8::1::979\n1::9::4::977\n", "--format ratings --split leave-one-out")
    assert parts_of()["test"] == {("1", "8")}


@pytest.mark.parametrize(
    ("content", "options", "told"),
    [
        (
            "# user item\n1 2\n3 4 5\n",
            "",
            "rows.txt, line 1: '#' begins a comment; remove the line; a line is",
        ),
        ("%%MatrixMarket\n1 2\n3 4 5\n", "", "line 1: '%%MatrixMarket' begins a comment"),
        ("\nuser_id item_id\na b\nc d e\n", "", "rows.txt, line 2: 'user_id item_id' is a header; remove the line"),
        ("from to\n1 2\n3 4 5\n", "", "rows.txt, line 1: 'from to' is a header; remove the line"),
        ("a,1,5\nb,2,4\n", "", "rows.txt: its lines look like a table, not an adjacency list"),
        ("1 5 4 978300760\n1 6 3 978300761\n", "", "rows.txt: its lines look like ratings, not an adjacency list"),
        ("a b\n", "--separator ;", "rows.txt: --separator has no effect on this format; leave it out"),
        ("a b\n", "--columns u,i", "rows.txt: --columns has no effect on this format"),
        ("a b\n", "--user-column usr", "there is no column 'usr' for the user; did you mean 'user'?"),
    ],
)
def test_an_adjacency_list_that_is_not_one_is_not_imported(refused, content, options, told):
    assert told in refused("rows.txt", content, f"--format adjacency {options}")


@pytest.mark.parametrize("format", ["pairs", "ratings"])
def test_an_import_refuses_lines_of_another_width_as_a_path_does(refused, tmp_path, format):
    content = "1 2\n1 2 3\n" if format == "pairs" else "1 2 3 4\n1 2 3\n"
    told = refused("train.txt", content, f"--format {format}").removeprefix("error: train.txt").strip()
    assert refusal(tmp_path, content, format) == told
