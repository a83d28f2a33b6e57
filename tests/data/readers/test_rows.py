"""Rows checked: ids, ratings, times and missing values, whatever source they come from."""

from __future__ import annotations

import pandas as pd
import pytest

from rectoolkit.data import find_card, from_frame, import_data
from rectoolkit.data.readers.rows import MISSING, usual
from rectoolkit.errors import DataError

LINES = "user_id,item_id,rating\na,1,5\nb,2,4\nc,3,1\n"


@pytest.mark.parametrize(
    ("content", "options", "told"),
    [
        (
            LINES + "\n,4,5\n",
            "",
            "x.csv, line 6: the user (column 'user_id') is empty; correct the row, or leave out all",
        ),
        (LINES + "d,-1,5\n", "", "x.csv, line 5: the item (column 'item_id') is '-1', which stands for a missing"),
        (LINES + "d,-7,5\n", "", "the items' ids are integers, and 1 of them negative, such as -7; ids are int"),
        (LINES + "d,NaN,5\n", "", "x.csv, line 5: the item (column 'item_id') is 'NaN', which stands for"),
        (LINES + "d,4,good\n", "--min-rating 3", "x.csv, line 5: the rating (column 'rating') is 'good'; it must"),
        (LINES + "d,4,\n", "--min-rating 3", "x.csv, line 5: the rating (column 'rating') is missing"),
        (LINES + "d,4,NA\n", "--min-rating 3", "x.csv, line 5: the rating (column 'rating') is missing"),
        (
            LINES + "d\x07,4,5\n",
            "",
            "x.csv, line 5: the user (column 'user_id') is 'd\\x07', which holds a control char",
        ),
        (
            LINES + '"d\nd",4,5\n',
            "",
            "x.csv, line 5: the user (column 'user_id') is 'd\\nd', which holds a control char",
        ),
        (LINES + " a,4,5\n", "", "the users' ids hold 'a' with and without spaces around it; remove the spaces"),
        (LINES + " d,4,5\nd ,5,5\n", "", "the users' ids hold 'd' with and without spaces around it"),
    ],
)
def test_a_faulty_row_is_named_by_its_place(refused, content, options, told):
    assert told in refused("x.csv", content, options)


@pytest.mark.parametrize("word", MISSING)
def test_words_for_missing_values_are_refused_or_left_out(refused, imported, parts_of, word):
    log = f"user,item,rating\na,1,5\n{word},2,5\na,2,{word}\na,3,5\n{word},1,1\na,4,1\na,5,5\n"
    assert "the user (column 'user') is" in refused("x.csv", log)
    imported("x.csv", log, "--min-rating 2 --drop-missing --test-share 0.5")
    assert set().union(*parts_of().values()) == {("a", "1"), ("a", "3"), ("a", "5")}
    counts = find_card("mine").rows
    assert (counts.read, counts.missing, counts.below_rating, counts.kept) == (7, 3, 1, 3)
    assert parts_of()["train"], "the ids of rows left out are not counted"
    assert find_card("mine").counts.items == 3


@pytest.mark.parametrize(
    ("users", "told"),
    [
        (
            [1, None, 3],
            "row 2: column 'user' has no user (NaN), and a missing value makes a column of integers a column",
        ),
        ([1.5, 2.0, 3.0], "column 'user' holds double; ids are integers or text"),
        ([4, -1, 3], "row 2: the user (column 'user') is -1, which stands for a missing one"),
        (pd.to_datetime(["2024-01-01"] * 3), "column 'user' holds timestamp"),
    ],
)
def test_columns_of_wrong_types_are_named(place, users, told):
    pd.DataFrame({"user": users, "item": [1, 2, 3]}).to_parquet("x.parquet")
    with pytest.raises(DataError) as caught:
        import_data("x.parquet", "mine")
    assert told in str(caught.value)


def test_all_sources_write_ids_alike(place):
    pd.DataFrame({"user": ["1", "2"], "item": [1, 2]}).to_csv("a.csv", index=False)
    pd.DataFrame({"user": [1, 2], "item": [1, 2]}).to_parquet("b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet: its column 'user' holds int64, an earlier source's large_string"):
        import_data(["a.csv", "b.parquet"], "mine")


@pytest.mark.parametrize(
    "end", ["", "T10:00:00Z", " 10:00:00", " 10:00:00.5", " 10:00:00.123456789", " 10:00:00 UTC", " 10:00:00.25 UTC"]
)
def test_dates_are_times(imported, parts_of, end):
    dates = {("a", 1): "2024-05-01", ("a", 2): "2024-05-03", ("a", 3): "2024-05-02", ("b", 1): "2024-04-30"}
    log = "user,item,date\n" + "".join(f"{user},{item},{date}{end}\n" for (user, item), date in dates.items())
    imported("log.csv", log + f"b,2,2024-05-04{end}\n", "--split leave-one-out")
    assert parts_of()["test"] == {("a", "2"), ("b", "2")}


def test_a_time_of_another_form_is_named(refused):
    log = "user,item,date\na,1,2024-05-01\na,2,2024-05-03\na,3,yesterday\n"
    told = refused("x.csv", log, "--split leave-one-out")
    assert "x.csv, line 4: the time (column 'date') is 'yesterday'; it must be a number or a date such as" in told


def test_the_types_of_a_frame_are_kept():
    frame = pd.DataFrame({"who": ["b", "a", "b", "a"], "what": [3, 10, 3, 2], "stars": [5, 4, 1, 1]})
    whole, users, items = from_frame(frame, "who", "what")
    assert (users.array().tolist(), items.array().tolist()) == (["a", "b"], [2, 3, 10])
    assert [one.tolist() for one in whole.pairs()] == [[0, 0, 1], [0, 2, 1]]
    for strings in (frame.astype({"who": str, "what": str}), frame.astype({"who": str, "what": "string[pyarrow]"})):
        _, users, _ = from_frame(strings, "what", "who")
        assert users.array().tolist() == ["10", "2", "3"]  # strings stay strings
    liked, _, items = from_frame(frame, "who", "what", rating="stars", min_rating=4)
    assert (liked.num_interactions, items.array().tolist()) == (2, [3, 10])


def test_usual_names_are_found_in_any_case_and_punctuation():
    assert usual("user", ["User-ID", "userid2", "USER_ID", "who"]) == ["User-ID", "USER_ID"]
    assert usual("time", ["unixReviewTime", "rating"]) == ["unixReviewTime"]
