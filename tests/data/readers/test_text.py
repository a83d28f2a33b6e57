"""Decoding: a file gives the same pairs, or the same message, whether it is given by path or imported."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import zipfile
from pathlib import Path

import pyarrow
import pytest

from rectoolkit.data import Imported, import_data, load_dataset
from rectoolkit.data.readers import text
from rectoolkit.data.readers.text import TextFile
from rectoolkit.data.readers.words import read_pairs
from rectoolkit.errors import DataError

ROWS = b"7 10 11\n8 10 12\n9 13\n"
PAIRS = {(7, 10), (7, 11), (8, 10), (8, 12), (9, 13)}
LOG = "user_id,item_id\nana,x\nben,x\nana,y\n"


def packed(name: str, content: bytes = ROWS) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, name) as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def zipped(content: bytes = ROWS) -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr("a.txt", content)
    return file.getvalue()


def by_path(path: Path) -> set[tuple[int, int]]:
    return {(int(key) >> 32, int(key) & 0xFFFFFFFF) for key in read_pairs(path, "adjacency").keys}


def by_import(path: Path) -> set[tuple[int, int]]:
    import_data(path, "mine", Imported(format="adjacency", test_share=0.5), overwrite=True)
    data = load_dataset("mine")
    assert data.user_ids is not None
    assert data.item_ids is not None
    users, items = data.user_ids.array(), data.item_ids.array()
    parts = (part.pairs() for part in data.parts().values())
    return {pair for one in parts for pair in zip(users[one[0]].tolist(), items[one[1]].tolist(), strict=True)}


@pytest.mark.parametrize("door", [by_path, by_import])
@pytest.mark.parametrize(
    "content",
    [
        ROWS,
        ROWS.rstrip(),
        b"\n \n" + ROWS,
        codecs.BOM_UTF8 + ROWS,
        ROWS.replace(b"\n", b"\r\n"),
        ROWS.replace(b"\n", b"\r"),
        ROWS.replace(b"\n", b"\r\n", 1),
        ROWS.replace(b" ", b"\t"),
        gzip.compress(ROWS),
        gzip.compress(ROWS[:5]) + gzip.compress(codecs.BOM_UTF8[:0] + ROWS[5:]),
        bz2.compress(ROWS),
        packed("zstd", codecs.BOM_UTF8 + ROWS),
        packed("lz4"),
    ],
)
def test_both_doors_read_the_same_pairs(place, door, content):
    Path("rows.txt").write_bytes(content)
    assert door(Path("rows.txt")) == PAIRS


@pytest.mark.parametrize("door", [by_path, by_import])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (ROWS.decode().encode("utf-16"), "rows.txt: begins with the byte order mark of UTF-16; save the file as UTF-8"),
        (ROWS.decode().encode("utf-32"), "rows.txt: begins with the byte order mark of UTF-32; save the file as UTF-8"),
        (ROWS.decode().encode("utf-16-le"), "rows.txt, line 1: a NUL byte; the file is damaged, binary, or UTF-16"),
        (ROWS + b"1 2\0\n", "rows.txt, line 4: a NUL byte"),
        (ROWS.replace(b"\n", b"\r") + b"1 2\0\n", "rows.txt, line 4: a NUL byte"),
        (ROWS + b"1 2\xff\n", "rows.txt, line 4: byte 0xff is not utf-8; save the file as UTF-8, or import it with"),
        (ROWS.replace(b"\n", b"\r") + b"1 \xe9 2\n", "rows.txt, line 4: byte 0xe9 is not utf-8"),
        (ROWS + b"1 2\x0b3\n", "rows.txt, line 4: a control character (0x0b), where words are separated by spaces"),
        (ROWS + "1 2\u00a03\n".encode(), "rows.txt, line 4: a no-break space (U+00A0), where words are separated by"),
        (ROWS + "1 2\ufeff3\n".encode(), "rows.txt, line 4: a zero width no-break space (U+FEFF)"),
        (zipped(), "rows.txt: this is a zip archive or an Excel workbook; unpack it, or save the sheet as csv"),
        (lzma.compress(ROWS), "rows.txt: this is an xz file; unpack it"),
        (b"PAR1\x15\x04\x15", "rows.txt: this is a parquet file; import it with --format parquet"),
        (gzip.compress(ROWS)[:-12], "rows.txt: damaged gzip file: "),
        (packed("zstd")[:-4], "rows.txt: damaged zstd file: "),
    ],
)
def test_both_doors_refuse_with_the_same_words(place, door, content, told):
    Path("rows.txt").write_bytes(content)
    with pytest.raises(DataError) as caught:
        door(Path("rows.txt"))
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (LOG.encode("utf-16"), "utf-16"),
        (LOG.encode("utf-16-be"), "utf-16-be"),
        (codecs.BOM_UTF16_LE + LOG.encode("utf-16-le"), "utf-16-le"),
        (LOG.encode("utf-32"), "UTF-32"),
        (LOG.encode("utf-8-sig"), "utf_8_sig"),
        (LOG.encode("cp1252"), "cp1252"),
        (LOG.replace("\n", "\r\n").encode("utf-16"), "utf-16"),
    ],
)
def test_other_encodings_are_read_when_they_are_named(imported, parts_of, content, encoding):
    imported("log.csv", content, f"--encoding {encoding} --test-share 0.5")
    assert set().union(*parts_of().values()) == {("ana", "x"), ("ben", "x"), ("ana", "y")}


@pytest.mark.parametrize(
    ("content", "encoding", "told"),
    [
        (LOG.encode("utf-16"), "utf-8", "begins with the byte order mark of UTF-16; save the file as UTF-8, or import"),
        (LOG.encode("utf-8-sig"), "latin-1", "begins with the byte order mark of UTF-8"),
        (LOG.encode("utf-16")[:-1], "utf-16", "log.csv, line 4: byte 0x0a is not utf-16"),
        (LOG.encode("utf-16")[:-3], "utf-16", "log.csv, line 4: byte 0x79 is not utf-16"),
        (LOG.encode("utf-16-le") + b"\x00\xd8\x20\x00", "utf-16-le", "log.csv, line 5: byte 0x00 is not utf-16-le"),
        (LOG.encode() + b"\x81,x\n", "cp1252", "log.csv, line 5: byte 0x81 is not cp1252"),
        (
            LOG.encode() + "é,x\n".encode("latin-1"),
            "utf-8",
            "log.csv, line 5: byte 0xe9 is not utf-8; save the file as",
        ),
        (LOG.encode("utf-16-le"), "utf-16", "log.csv: has no byte order mark; give --encoding utf-16-le or utf-16-be"),
        (LOG.encode("utf-32"), "utf-16", "log.csv: begins with the byte order mark of UTF-32"),
        (b"user,item,t\xeft\na,1,2\n", "utf-8", "log.csv, line 1: byte 0xef is not utf-8"),
        (LOG.encode(), "utf8000", "unknown encoding 'utf8000'; common ones are utf-8, latin-1"),
        (LOG.encode(), "hex", "unknown encoding 'hex'"),
    ],
)
def test_what_is_not_text_in_the_encoding_is_refused_by_its_line(refused, content, encoding, told):
    assert told in refused("log.csv", content, f"--encoding {encoding}")


def test_a_wrong_byte_in_a_column_that_is_not_read_does_no_harm(imported, parts_of):
    log = b"user_id,item_id,text\nana,x,\xff\nana,y,ok\n"
    imported("log.csv", log, "--test-share 0.5")
    assert set().union(*parts_of().values()) == {("ana", "x"), ("ana", "y")}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_pieces_of_any_size_give_the_same_text(tmp_path, size, encoding):
    written = "é 1\r\n2\r3 \r\n\n4"
    path = tmp_path / "a.txt"
    path.write_bytes(written.encode("utf-8-sig" if encoding == "utf-8" else encoding))
    right = re.sub("\r\n|\r", "\n", written).encode()
    assert b"".join(TextFile(path, encoding).pieces(size)) == right
    assert b"".join(TextFile(path, encoding).pieces(size, check=True)) == right
    blocks = list(TextFile(path, encoding).lines(size))
    assert b"".join(block for _, block in blocks) == right + b"\n"
    for number, block in blocks:
        assert right.split(b"\n")[number - 1] == block.split(b"\n")[0]


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"nothing\.txt: no such file"):
        read_pairs(tmp_path / "nothing.txt", "adjacency")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_pairs(tmp_path, "adjacency")


def test_a_file_without_line_ends_is_refused_at_its_first_piece(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    path.write_bytes(b"0 1 2 3 4 5 6 7 8 9" + b"\xfe" * 10_000)
    pieces = TextFile(path).lines(16)
    monkeypatch.setattr(text, "_with_line_feeds", lambda piece: pytest.fail("read on") if b"\xfe" in piece else piece)
    with pytest.raises(DataError, match=r"a\.bin, line 1: byte 0xfe is not utf-8"):
        list(pieces)
