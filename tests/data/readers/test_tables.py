"""Tables: csv, tsv, .inter, parquet and frames are read whole, or refused with file, line and remedy."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pandas as pd
import pytest

from rectoolkit.data import from_frame, import_data
from rectoolkit.data.card import Imported
from rectoolkit.data.readers import tables
from rectoolkit.data.readers.sources import open_source
from rectoolkit.errors import DataError

HEADER = "user_id,item_id,rating\n"
LINES = HEADER + "a,1,5\nb,2,4\nc,3,1\n"
PAIRS = {("a", "1"), ("b", "2"), ("c", "3"), ("a", "4")}
HALF = "--test-share 0.6"


@pytest.mark.parametrize(
    ("file", "content", "options"),
    [
        ("log.csv", LINES + "a,4,5", ""),
        ("LOG.CSV", LINES + "a,4,5\n", ""),
        ("log.csv", f"\n\n{LINES}\n\na,4,5\n\n", ""),
        ("log.csv", f"sep=,\n{LINES}a,4,5\n", ""),
        ("log.csv", f"SEP=;\n{LINES}a,4,5\n".replace(",", ";"), "--separator ;"),
        ("log.csv", (LINES + "a,4,5\n").replace("\n", "\r"), ""),
        ("log.csv", (LINES + "a,4,5\n").replace("\n", "\r\n"), ""),
        ("log.csv", '"user_id","item_id","rating"\n"a","1",5\n"b","2",5\n"c","3",5\n"a","4",5\n', ""),
        ("log.tsv", '"user_id"\t"item_id"\n"a"\t"1"\n"b"\t"2"\n"c"\t"3"\n"a"\t"4"\n', ""),
        ("log.inter", '"user_id:token"\t"item_id:token"\n"a"\t"1"\n"b"\t"2"\n"c"\t"3"\n"a"\t"4"\n', ""),
        ("log.csv", (LINES + "a,4,5\n").replace(",", " "), "--separator space"),
        ("log.csv", "a,1\nb,2\n\nc,3\na,4\n", "--columns user,item"),
        ("log.csv", '"user\nid",item_id\na,1\nb,2\nc,3\na,4\n', ""),
        (
            "log.csv",
            'user,note,item\na,"x,\n""y""",1\nb,,2\nc,"\n\n",3\na,z,4\n',
            "",
        ),
    ],
)
def test_a_table_is_read_however_it_is_written(imported, parts_of, file, content, options):
    imported(file, content, f"{options} {HALF}")
    assert set().union(*parts_of().values()) == PAIRS


@pytest.mark.parametrize(
    ("file", "content", "options", "told"),
    [
        (
            "x.csv",
            LINES,
            "--user-column usr_id",
            "x.csv: there is no column 'usr_id' for the user; did you mean 'user_id'?",
        ),
        (
            "x.csv",
            "who,item\na,1\n",
            "",
            "no column has a user's usual name; name it with --user-column; there are 'who'",
        ),
        ("x.csv", "user,item,movie_id\na,1,2\n", "", "several columns could be the item: 'item', 'movie_id'; name one"),
        ("x.csv", "user,user,item\na,1,2\n", "", "several columns could be the user: 'user', 'user'; name one"),
        (
            "x.csv",
            "a;b\n1;2\n",
            "",
            "x.csv, line 1: 'a;b' is one column, where ',' separates them; give --separator ';'",
        ),
        (
            "x.csv",
            "\na\tb\n1\t2\n",
            "",
            "x.csv, line 2: 'a\tb' is one column, where ',' separates them; give --separator tab",
        ),
        (
            "x.tsv",
            "user item\na 1\n",
            "",
            "'user item' is one column, where '\\t' separates them; give --separator space",
        ),
        ("x.csv", "1::2::3::4\n", "--columns user,item", "where ',' separates them; give --format ratings"),
        ("x.csv", "sep=;\na;b\n", "", "x.csv: its first line says that ';' separates columns; give --separator"),
        ("x.csv", LINES, "--columns a,b,c", "line 1: 'user_id,item_id,rating' is a header; leave --columns out"),
        ("x.csv", "1,2,3\n", "--columns user,item", "x.csv, line 1: '1,2,3' has 3 columns, but 2 names were given"),
        ("x.inter", "user_id:token\tid:token\n1\t2\n", "", "name it with --item-column; there are 'user_id', 'id'"),
        ("x.csv", "1,2\n3,4\n", "", "line 1: '1,2' holds numbers instead of column names"),
        ("x.csv", LINES + "d,4\ne,5,5\n", "", "x.csv, line 5: 'd,4' has 2 columns instead of 3"),
        ("x.csv", LINES + 'd,"4\n4",5\nd,4,5,6\n', "", "x.csv, line 7: 'd,4,5,6' has 4 columns instead of 3"),
        ("x.csv", LINES + 'd,"4,5\ne,5,5\n', "", "line 5: 'd,\"4,5' has 2 columns instead of 3; it opens a quote that"),
        (
            "x.tsv",
            'user\titem\n"a\t1\nb"\t2\n',
            "",
            "x.tsv, line 2: the user (column 'user') is 'a\\t1\\nb', which holds a control",
        ),
        ("x.csv", HEADER, "", "x.csv: no interactions: 0 rows"),
        ("x.csv", HEADER.rstrip(), "", "x.csv: no interactions: 0 rows"),
        ("x.csv", "", "", "x.csv: the file is empty"),
        ("x.csv", "\n\n", "", "x.csv: the file is empty"),
        (
            "x.dat",
            LINES,
            "",
            "x.dat: its name does not tell its format; give --format: csv, tsv, inter, parquet, adjac",
        ),
        ("x.csv", LINES, "--format pqrquet", "unknown format 'pqrquet'; did you mean 'parquet'?"),
        ("x.parquet", LINES, "", "x.parquet: not a complete parquet file"),
        ("x.csv", LINES, "--separator ::", "must be one ASCII character, or tab; for :: give --format ratings"),
        ("x.csv", LINES, "--separator §", "must be one ASCII character"),
        ("x.csv", LINES + "\0" * 40, "", "x.csv, line 5: a NUL byte"),
    ],
)
def test_a_fault_of_a_table_is_named_by_its_place(refused, file, content, options, told):
    assert told in refused(file, content, options)


def test_the_place_of_a_row_counts_quoted_line_breaks(refused):
    log = 'user,item,text,rating\na,1,"two\nlines",4\na,2,ok,5\n\nb,1,ok,great\n'
    assert "x.csv, line 6: the rating (column 'rating') is 'great'" in refused("x.csv", log, "--min-rating 2")


def test_quoted_line_breaks_may_stand_where_a_piece_ends(imported, parts_of, monkeypatch):
    monkeypatch.setattr(tables, "PIECE", 64)
    rows = [(f"u{n % 7}", f"i{n % 11}") for n in range(200)]
    log = "user,item,text\n" + "".join(f'{user},{item},"a\n"", b\n\n"\n' for user, item in rows)
    imported("log.csv", log)
    assert set().union(*parts_of().values()) == set(rows)


def test_a_quote_that_is_never_closed_is_refused_without_reading_on(refused, monkeypatch):
    monkeypatch.setattr(tables, "PIECE", 1000)
    told = refused("x.csv", LINES + 'd,"4,5\n' + "e,5,5\n" * 1000)
    assert "x.csv, line 5: 'd,\"4,5': field larger than field limit (1000); does the line open a quote" in told


def test_options_that_have_no_effect_are_refused(place):
    frame = pd.DataFrame({"user": ["a", "b"], "item": [1, 2]})
    frame.to_parquet("x.parquet")
    for asked, told in (
        ({"separator": ";"}, "--separator has no effect"),
        ({"encoding": "latin-1"}, "--encoding has no effect"),
        ({"columns": ["user", "item"]}, "--columns has no effect"),
    ):
        for source in ("x.parquet", frame):
            with pytest.raises(DataError, match=told):
                import_data(source, "mine", Imported(**asked))


def test_a_path_that_is_not_a_file_is_refused(place):
    Path("folder").mkdir()
    with pytest.raises(DataError, match=r"x\.csv: no such file"):
        open_source("x.csv", Imported())
    with pytest.raises(DataError, match="folder: is a folder; name the files in it"):
        open_source("folder", Imported())


@pytest.mark.parametrize(
    ("users", "told"),
    [
        (["a", "b", 3], "the frame, row 2: column 'user' mixes types, int after str; make it text: frame['user'].ast"),
        ([ipaddress.ip_address(n) for n in range(3)], "the frame: column 'user' holds IPv4Address; make it text"),
        ([Path("a"), Path("b"), Path("c")], "the frame: column 'user' holds PosixPath; make it text"),
        ([1 + 2j, 2j, 3j], "the frame: column 'user' holds complex"),
        ([("a", 1), ("b", 2), ("c", 3)], "the frame: column 'user' holds tuple"),
        ([2**64, 1, 2], "the frame: column 'user' holds an integer beyond 64 bits; write such ids as strings"),
        (["\ud800", "b", "c"], "the frame: column 'user' holds text that is not Unicode"),
        (pd.period_range("2024", periods=3, freq="D"), "column 'user' holds "),
        (pd.interval_range(0, 3), "column 'user' holds "),
    ],
)
def test_a_frame_column_that_is_not_ids_is_refused(users, told):
    frame = pd.DataFrame(
        {"user": pd.Series(users, dtype=None if isinstance(users, pd.Index) else object), "item": [1, 2, 3]}
    )
    with pytest.raises(DataError) as caught:
        from_frame(frame)
    assert told in str(caught.value)


def test_what_is_not_a_frame_is_refused():
    with pytest.raises(DataError, match="a path or a pandas frame is needed, got dict"):
        from_frame({"user": [1]})
