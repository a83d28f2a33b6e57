"""Imports: every format gives the same data, ids come back, faults are named by place, a kill leaves nothing half."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import rectool
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rectoolkit.data import Imported, Interactions, find_card, from_frame, import_data, load_dataset, spool
from rectoolkit.data.ids import Ids
from rectoolkit.data.k_core import k_core
from rectoolkit.data.readers import rows, tables
from rectoolkit.errors import DataError, UserError
from rectoolkit.recipe import Recipe
from rectoolkit.runs.execute import RunOptions, execute
from rectoolkit.runs.run import Run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, whose datasets/ is where imports go."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RECTOOL_DATA", raising=False)
    return tmp_path


def log(size: int = 400, seed: int = 1) -> pd.DataFrame:
    """A click log with repetitions; users are texts of several scripts and items integers beyond int32."""
    draws = np.random.default_rng(seed)
    names = np.array([*(f"user {n}" for n in range(30)), "007", "Zoë", "名前", "-x", "1e3", "0"])
    return pd.DataFrame(
        {
            "user_id": draws.choice(names, size),
            "item_id": draws.integers(0, 25, size) * 5_000_000_000,
            "rating": draws.integers(1, 6, size),
            "timestamp": draws.permutation(size) + 1_700_000_000,
        }
    )


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def pairs(name: str) -> dict[str, set[tuple[str, str]]]:
    """Each part of a data set in the ids of its source."""
    data = load_dataset(name)
    assert data.user_ids is not None
    assert data.item_ids is not None
    users, items = data.user_ids.array().astype(str), data.item_ids.array().astype(str)
    return {
        part: set(zip(users[one.pairs()[0]].tolist(), items[one.pairs()[1]].tolist(), strict=True))
        for part, one in data.parts().items()
    }


def test_every_format_gives_the_same_data(place: Path) -> None:
    frame = log()
    frame.to_csv("log.csv", index=False)
    frame.to_csv("log.tsv", index=False, sep="\t")
    frame.to_csv("log.inter", index=False, sep="\t")
    header, body = Path("log.inter").read_text().split("\n", 1)
    assert header == "user_id\titem_id\trating\ttimestamp"
    Path("log.inter").write_text(f"user_id:token\titem_id:token\trating:float\ttimestamp:float\n{body}")
    frame.to_parquet("log.parquet", index=False)
    frame.astype({"user_id": "category"}).to_parquet("category.parquet", index=False)
    Path("log.csv.gz").write_bytes(gzip.compress(Path("log.csv").read_bytes()))
    Path("bom.csv").write_bytes(b"\xef\xbb\xbf" + Path("log.csv").read_bytes().replace(b"\n", b"\r\n"))
    frame.to_csv("wide.csv", index=False, encoding="utf-16")
    frame.to_csv("bare.csv", index=False, header=False, sep=";")
    asked = {"min_rating": 2.0, "split": "user-time"}
    for number, (source, more) in enumerate(
        (
            ("log.csv", {}),
            ("log.tsv", {}),
            ("log.inter", {}),
            ("log.parquet", {}),
            ("category.parquet", {}),
            ("log.csv.gz", {}),
            ("bom.csv", {}),
            ("wide.csv", {"encoding": "utf-16"}),
            ("bare.csv", {"separator": ";", "columns": ["user", "item", "rating", "time"]}),
            (frame, {}),
        )
    ):
        import_data(source, f"set{number}", Imported(**asked, **more))
        for file in ("train.bin", "test.bin", "users.ids", "items.ids"):
            assert Path(f"datasets/set{number}/{file}").read_bytes() == Path(f"datasets/set0/{file}").read_bytes(), (
                source
            )
    kept = frame[frame.rating >= 2].drop_duplicates(["user_id", "item_id"])
    expected = set(zip(kept.user_id, kept.item_id.astype(str), strict=True))
    assert set().union(*pairs("set0").values()) == expected
    card = find_card("set0")
    assert (card.rows.read, card.rows.below_rating, card.rows.kept) == (400, (frame.rating < 2).sum(), len(expected))


def test_adjacency_lists_of_any_ids(place: Path) -> None:
    Path("rows.txt").write_text("Zoë a b c\n\n7 c d\nempty\n7 a c a\n")
    import_data("rows.txt", "mine", Imported(format="adjacency", test_share=0.5))
    assert set().union(*pairs("mine").values()) == {("Zoë", x) for x in "abc"} | {("7", x) for x in "acd"}
    assert find_card("mine").rows.repeated == 2


def test_neither_the_order_of_rows_nor_the_size_of_pieces_changes_a_byte(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = log(3000)
    frame.to_csv("a.csv", index=False)
    frame[::-1].to_csv("b.csv", index=False)
    asked = Imported(k_core=3, split="leave-one-out", validation_share=0.1)
    import_data("a.csv", "a", asked)
    monkeypatch.setattr(spool, "BUCKET", 100)
    monkeypatch.setattr(spool, "MERGE", 10)
    monkeypatch.setattr(rows, "CHUNK", 70)
    monkeypatch.setattr(tables, "PIECE", 1000)
    import_data("b.csv", "b", asked)
    for file in ("train.bin", "validation.bin", "test.bin", "users.ids", "items.ids"):
        assert Path("datasets/a", file).read_bytes() == Path("datasets/b", file).read_bytes()
    assert find_card("a").rows == find_card("b").rows


def test_from_frame_gives_the_interactions_and_what_the_frame_calls_them() -> None:
    frame = pd.DataFrame({"who": ["b", "a", "b", "a"], "what": [3, 10, 3, 2], "stars": [5, 4, 1, 1]})
    whole, users, items = from_frame(frame, "who", "what")
    assert (users.array().tolist(), items.array().tolist()) == (["a", "b"], [2, 3, 10])
    assert [one.tolist() for one in whole.pairs()] == [[0, 0, 1], [0, 2, 1]]
    _, users, _ = from_frame(frame.astype({"who": str, "what": str}), "what", "who")
    assert users.array().tolist() == ["10", "2", "3"]  # strings stay strings
    liked, _, items = from_frame(frame, "who", "what", rating="stars", min_rating=4)
    assert (liked.num_interactions, items.array().tolist()) == (2, [3, 10])


def test_latest_ones_are_held_out(place: Path) -> None:
    frame = log(600).drop_duplicates(["user_id", "item_id"])
    frame.to_csv("log.csv", index=False)
    when = {(u, str(i)): t for u, i, t in zip(frame.user_id, frame.item_id, frame.timestamp, strict=True)}

    def imported(split: str, **more: object) -> dict[str, set[tuple[str, str]]]:
        name = split + "".join(map(str, more.values()))
        import_data("log.csv", name, Imported(split=split, **more))  # type: ignore[arg-type]
        return pairs(name)

    latest = frame.loc[frame.groupby("user_id").timestamp.idxmax()]
    several = frame.user_id.value_counts()[lambda count: count > 1].index
    latest = latest[latest.user_id.isin(several)]
    assert imported("leave-one-out")["test"] == set(zip(latest.user_id, latest.item_id.astype(str), strict=True))
    parts = imported("time", test_share=0.3, validation_share=0.2)
    assert max(when[p] for p in parts["train"]) < min(when[p] for p in parts["validation"])
    assert max(when[p] for p in parts["validation"]) < min(when[p] for p in parts["test"])
    assert len(parts["test"]) == pytest.approx(0.3 * len(frame), abs=1)
    parts = imported("user-time", test_share=0.25)
    for user in several:
        test, train = ([when[p] for p in parts[part] if p[0] == user] for part in ("test", "train"))
        assert train
        assert not test or max(train) < min(test)
    assert len(parts["test"]) == pytest.approx(0.25 * len(frame), rel=0.15)


def test_dates_are_times(place: Path) -> None:
    lines = ["user,item,date", "a,1,2024-05-01", "a,2,2024-05-03", "a,3,2024-05-02", "b,1,2024-04-30", "b,2,2024-05-04"]
    Path("log.csv").write_text("\n".join(lines) + "\n")
    import_data("log.csv", "mine", Imported(split="leave-one-out"))
    assert pairs("mine")["test"] == {("a", "2"), ("b", "2")}
    lines = [line + "T10:00:00Z" if number else line for number, line in enumerate(lines)]
    Path("zone.csv").write_text("\n".join(lines) + "\n")
    import_data("zone.csv", "zone", Imported(split="leave-one-out"))
    assert pairs("zone") == pairs("mine")


def test_a_given_split_is_kept_and_what_stands_in_two_parts_stays_in_the_earlier(place: Path) -> None:
    Path("train.csv").write_text("user,item\na,1\na,2\nb,1\na,1\n")
    Path("more.csv").write_text("user,item\nb,3\n")
    Path("test.csv").write_text("user,item\na,3\na,2\nc,1\n")
    Path("valid.csv").write_text("user,item\nb,2\nb,1\n")
    card = import_data(["train.csv", "more.csv"], "mine", test="test.csv", validation="valid.csv")
    assert pairs("mine") == {
        "train": {("a", "1"), ("a", "2"), ("b", "1"), ("b", "3")},
        "validation": {("b", "2")},
        "test": {("a", "3"), ("c", "1")},
    }
    assert (card.rows.repeated, card.rows.in_an_earlier_part, card.rows.kept) == (1, 2, 7)


@settings(max_examples=40, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1), st.integers(2, 4))
def test_the_core_is_the_largest_part_with_k_of_each(given_pairs: set[tuple[int, int]], k: int) -> None:
    left = set(given_pairs)
    while True:
        few = {p for p in left if any(sum(q[side] == p[side] for q in left) < k for side in (0, 1))}
        if not few:
            break
        left -= few
    users, items = zip(*given_pairs, strict=True)
    whole = Interactions.from_pairs(users, items, 10, 10)
    if not left:
        with pytest.raises(DataError, match=r"the largest k is \d"):
            k_core(whole.indptr, whole.items, 10, k)
        return
    core = k_core(whole.indptr, whole.items, 10, k)
    kept = {
        p for p, keep in zip(zip(*(x.tolist() for x in whole.pairs()), strict=True), core.pairs, strict=True) if keep
    }
    assert kept == left
    assert np.flatnonzero(core.users).tolist() == sorted({user for user, _ in left})
    assert np.flatnonzero(core.items).tolist() == sorted({item for _, item in left})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(st.sets(st.integers(0, 2**62)), st.sets(st.text(st.characters(codec="utf-8"), min_size=1, max_size=9)))
)
def test_ids_are_found_and_given_back(tmp_path: Path, wanted: set[int | str]) -> None:
    ordered = sorted(wanted, key=lambda one: one if isinstance(one, int) else one.encode())
    Ids.of(ordered).save(tmp_path / "ids")
    ids = Ids.load(tmp_path / "ids")
    assert ids.take(range(len(ids))) == ordered
    assert [ids.row(one) for one in ordered] == list(range(len(ordered)))
    for other in (-1, "no such id at all"):
        with pytest.raises(DataError, match="is unknown"):
            ids.row(other)
    mask = np.arange(len(ids)) % 2 == 0
    assert ids.kept(mask).take(range(int(mask.sum()))) == ordered[::2]


LINES = "user_id,item_id,rating\na,1,5\nb,2,4\nc,3,1\n"


@pytest.mark.parametrize(
    ("file", "text", "options", "told"),
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
        ("x.csv", "a;b\n1;2\n", "", "x.csv, line 1: 'a;b' is one column, where ',' separates them; give --separator ';'"),
        ("x.csv", LINES, "--columns a,b,c", "line 1: 'user_id,item_id,rating' is a header; leave --columns out"),
        ("x.csv", "1,2,3\n", "--columns user,item", "x.csv, line 1: '1,2,3' has 3 columns, but 2 names were given"),
        ("x.inter", "user_id:token\tid:token\n1\t2\n", "", "name it with --item-column; there are 'user_id', 'id'"),
        ("x.csv", "1,2\n3,4\n", "", "line 1: '1,2' holds numbers instead of column names"),
        ("x.csv", LINES + "d,4\ne,5,5\n", "", "x.csv, line 5: 'd,4' has 2 columns instead of 3"),
        ("x.csv", LINES + 'd,"4,5\ne,5,5\n', "", "x.csv, line 5: 'd,\"4,5' has 2 columns instead of 3; it opens a quote that closes on line 6"),
        ("x.csv", LINES + "\n,4,5\n", "", "x.csv, line 6: the user (column 'user_id') is empty; correct the row"),
        (
            "x.csv",
            LINES + "d,-1,5\n",
            "",
            "x.csv, line 5: the item (column 'item_id') is '-1', which stands for a missing",
        ),
        (
            "x.csv",
            LINES + "d,-7,5\n",
            "",
            "the items' ids are integers, and 1 of them negative, such as -7; ids are int",
        ),
        ("x.csv", LINES + "d,NaN,5\n", "", "x.csv, line 5: the item (column 'item_id') is 'NaN', which stands for"),
        (
            "x.csv",
            LINES + "d,4,good\n",
            "--min-rating 3",
            "x.csv, line 5: the rating (column 'rating') is 'good'; it must",
        ),
        ("x.csv", LINES + "d,4,\n", "--min-rating 3", "x.csv, line 5: the rating (column 'rating') is missing"),
        ("x.csv", LINES, "--min-rating 9", "no interactions: 3 rows, of which 0 miss a value and 3 are rated below"),
        (
            "x.csv",
            LINES,
            "--k-core 2",
            "no user and item are left in the 2-core of these interactions; the largest k is 1",
        ),
        ("x.csv", LINES, "--min-rating nan", "--min-rating nan: must be a finite number"),
        ("x.csv", LINES, "--test-share nan", "--test-share nan: must be a finite number"),
        ("x.csv", LINES, "--split time", "no column has a time's usual name; name it with --time-column"),
        ("x.csv", LINES, "--rating-column rating", "has no effect without a threshold: give --min-rating"),
        ("x.csv", LINES, "--time-column rating", "the time column 'rating' has no effect on split 'random'"),
        ("x.csv", LINES, "--split leave-one-out", "the test part would be empty: 3 interactions of 3 users"),
        ("x.csv", "user_id,item_id\n", "", "x.csv: no interactions: 0 rows"),
        ("x.csv", "", "", "x.csv: the file is empty"),
        (
            "x.dat",
            LINES,
            "",
            "x.dat: its name does not tell its format; give --format: csv, tsv, inter, parquet, adjac",
        ),
        ("x.csv", LINES, "--format pqrquet", "unknown format 'pqrquet'; did you mean 'parquet'?"),
        ("x.parquet", LINES, "", "x.parquet: not a complete parquet file"),
        ("x.csv", LINES + "\0" * 40, "", "x.csv, line 5: a NUL byte"),
        ("x.csv", LINES.encode("utf-16"), "", "begins with the byte order mark of UTF-16; save the file as UTF-8, or import it with --encoding utf-16"),
        ("x.csv", LINES.encode() + "é,4,5\n".encode("latin-1"), "", "x.csv, line 5: byte 0xe9 is not utf-8; save"),
        ("x.csv", LINES, "--encoding utf8000", "unknown encoding 'utf8000'"),
        ("x.csv", LINES, "--separator ::", "must be one ASCII character, or tab; for :: give --format ratings"),
        ("x.txt", b"a b\nc \xe9\n", "--format adjacency", "x.txt, line 2: byte 0xe9 is not utf-8; save the file as UTF-8"),
        ("x.csv", LINES, "--name ../up", "'../up' cannot name a data set"),
        ("x.csv", LINES, "--name gowalla", "'gowalla' is the name of another data set already"),
        ("x.csv", LINES, "--validation x.csv", "a validation source needs a test source too"),
        ("x.csv", LINES, "--test x.csv --split time", "with a test source the split is given"),
        ("x.csv", LINES, "--test x.csv", "split 'given'; what stands in an earlier part too is left out"),
    ],
)
def test_a_fault_is_named_by_its_place(place: Path, file: str, text: str | bytes, options: str, told: str) -> None:
    Path(file).write_bytes(text if isinstance(text, bytes) else text.encode())
    result = rectool("data", "import", file, *(() if "--name" in options else ("--name", "mine")), *options.split())
    assert result.exit_code == 2, result.output
    assert told in result.output
    assert not Path("datasets").exists() or not list(Path("datasets").iterdir())


def test_columns_of_wrong_kinds_are_named(place: Path) -> None:
    for user, told in (
        ([1, None, 3], "row 2: column 'user' has no user (NaN), and a missing value makes a column of integers"),
        ([1.5, 2.0, 3.0], "column 'user' holds double; ids are integers or text"),
        ([4, -1, 3], "row 2: the user (column 'user') is -1, which stands for a missing one"),
        (pd.to_datetime(["2024-01-01"] * 3), "column 'user' holds timestamp"),
    ):
        pd.DataFrame({"user": user, "item": [1, 2, 3]}).to_parquet("x.parquet")
        with pytest.raises(DataError) as caught:
            import_data("x.parquet", "mine")
        assert told in str(caught.value)
    with pytest.raises(DataError, match=r"the frame, row 2: column 'user' mixes types, int after str"):
        from_frame(pd.DataFrame({"user": pd.Series(["a", "b", 3], dtype=object), "item": [1, 2, 3]}))
    with pytest.raises(DataError, match="a path or a pandas frame is needed, got dict"):
        from_frame({"user": [1]})
    pd.DataFrame({"user": ["1", "2"], "item": [1, 2]}).to_csv("a.csv", index=False)
    pd.DataFrame({"user": [1, 2], "item": [1, 2]}).to_parquet("b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet: its column 'user' holds int64, an earlier source's large_string"):
        import_data(["a.csv", "b.parquet"], "mine")


def test_rows_without_a_value_can_be_left_out(place: Path) -> None:
    Path("x.csv").write_text("user,item,rating\na,1,5\n,2,5\na,2,\na,3,5\nnull,1,1\na,4,1\na,5,5\n")
    result = rectool(
        "data", "import", "x.csv", "--name", "mine", "--min-rating", 2, "--drop-missing", "--test-share", 0.5
    )
    assert result.exit_code == 0, result.output
    assert set().union(*pairs("mine").values()) == {("a", "1"), ("a", "3"), ("a", "5")}
    counts = find_card("mine").rows
    assert (counts.read, counts.missing, counts.below_rating, counts.kept) == (7, 3, 1, 3)


def test_a_name_that_is_taken_is_reused_refused_or_replaced(place: Path) -> None:
    frame = log()
    frame.to_csv("log.csv", index=False)
    command = ("data", "import", "log.csv", "--name", "mine")
    assert rectool(*command).exit_code == 0
    long = f"{'a-long-name-' * 12}.csv"
    frame.to_csv(long, index=False)
    assert f"\nrows of {long}\n" in rectool("data", "import", long, "--name", "long").output  # in one line
    before = {path.name: path.stat().st_mtime_ns for path in Path("datasets/mine").iterdir()}
    assert "holds just this import already" in rectool(*command).output
    assert {path.name: path.stat().st_mtime_ns for path in Path("datasets/mine").iterdir()} == before
    other = rectool(*command, "--k-core", 2)
    assert other.exit_code == 2
    assert (
        "'mine' was imported otherwise (k_core: 0, now 2); choose another name, or replace it: --replace"
        in other.output
    )
    frame[:300].to_csv("log.csv", index=False)
    assert "the content of the sources" in rectool(*command).output
    assert rectool(*command, "--replace").exit_code == 0
    assert find_card("mine").rows.read == 300
    Path("datasets/mine/test.bin").unlink()
    assert rectool(*command).exit_code == 0
    Path("datasets/own").mkdir()
    taken = rectool("data", "import", "log.csv", "--name", "own")
    assert "datasets/own: is there, and is no imported data set" in taken.output


KILLED = """
import os, signal, sys
from rectoolkit.data import Imported, import_data, importing, spool
spool.BUCKET, where = 500, sys.argv[1]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def step(doing, rows):
    doing == where and die()
if where == "card":
    importing.write_text = die
elif where == "ids":
    importing.Ids = None
    from rectoolkit.data.ids import Ids
    Ids.save = die
elif where == "bucket":
    spool.Spool._bucket = die
elif where in ("away", "name"):
    renames, rename = [], os.rename
    def count(a, b):
        renames.append(rename(a, b))
        len(renames) == (1 if where == "away" else 2) and die()
    os.rename = count
import_data("log.csv", "mine", Imported(k_core=2, seed=5), overwrite=True, watcher=step)
"""


@pytest.mark.parametrize("where", ["reading", "sorting", "bucket", "splitting", "ids", "card", "away", "name"])
def test_kill_9_and_the_same_command_give_the_same_bytes(place: Path, where: str) -> None:
    log(2000).to_csv("log.csv", index=False)
    asked = Imported(k_core=2, seed=5)
    import_data("log.csv", "mine", asked)
    expected = content(Path("datasets/mine"))
    import_data("log.csv", "mine", Imported(k_core=3), overwrite=True)  # what the killed import was to replace
    older = content(Path("datasets/mine"))
    killed = subprocess.run([sys.executable, "-c", KILLED, where], check=False, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    if where == "away":
        with pytest.raises(DataError, match="no card for a data set 'mine'"):
            find_card("mine")
    else:
        assert content(Path("datasets/mine")) == (expected if where == "name" else older)
    import_data("log.csv", "mine", asked, overwrite=True)
    assert content(Path("datasets/mine")) == expected
    assert [path.name for path in Path("datasets").iterdir()] == ["mine"]


def test_a_run_answers_with_the_ids_of_the_source_wherever_it_lies(place: Path) -> None:
    frame = log(1500)
    frame.to_csv("log.csv", index=False)
    import_data("log.csv", "mine")
    sizes = ["encoder.dim=16", "sampler.batch=256", "train.epochs=1", "dataset.name=mine"]
    made = execute(Recipe.load(ROOT / "recipes" / "ste.toml", sizes), RunOptions(Path("runs"), threads=1))
    folder = made.path.rename("moved")
    Path("datasets").rename("elsewhere")
    run = Run.open(folder)
    mine = {str(item) for item in frame.item_id[frame.user_id == "Zoë"]}
    result = rectool("recommend", folder, "--user", "Zoë", "-k", 3, "--json")
    assert result.exit_code == 0, result.output
    hits = run.recommend(["Zoë", "007"], 25)
    assert str(hits.ids[0, :3].tolist()) in result.output
    assert {str(item) for item in hits.ids[0]} - {"-1"} <= {str(5_000_000_000 * n) for n in range(25)}
    seen = {str(run.item_ids[item]) for item in run.seen.row(run.user_ids.row("Zoë"))}  # type: ignore[index,union-attr]
    assert seen <= mine
    assert not seen & {str(item) for item in hits.ids[0]}
    unknown = rectool("recommend", folder, "--user", "Zoe")
    assert (unknown.exit_code, "user 'Zoe' is unknown: there are 36, such as Zoë" in unknown.output) == (2, True)
    assert rectool("export", folder, "--to", "out", "--format", "parquet,npy,codes").exit_code == 0
    items = pd.read_parquet("out/items.parquet")
    assert items.id.tolist() == (np.arange(25) * 5_000_000_000).tolist()
    assert pd.read_parquet("out/users.parquet").id.tolist() == np.load("out/users.ids.npy").tolist()
    assert Ids.load(Path("out/users.ids")).row("007") == run.user_ids.row("007")  # type: ignore[union-attr]
    whole = (folder / "users.ids").read_bytes()
    (folder / "users.ids").write_bytes(whole[:-30])
    assert "users.ids" in rectool("recommend", folder, "--user", "Zoë").output
    (folder / "users.ids").write_bytes(whole.replace(b"007", b"008"))
    assert "users.ids: its bytes are not those" in rectool("recommend", folder, "--user", "Zoë").output


def test_other_ids_over_the_same_interactions_are_other_data(place: Path) -> None:
    frame = log()
    import_data(frame, "one")
    import_data(frame.assign(user_id=frame.user_id + "!"), "two")
    one, two = load_dataset("one"), load_dataset("two")
    assert one.train.keys().tolist() == two.train.keys().tolist()
    assert one.digest != two.digest
    assert load_dataset(path="datasets/one").digest == one.digest


def test_one_import_at_a_time_in_a_place(place: Path) -> None:
    import fcntl

    log().to_csv("log.csv", index=False)
    Path("datasets").mkdir()
    handle = os.open("datasets", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="datasets: another import is at work there"):
        import_data("log.csv", "mine")
    os.close(handle)
    import_data("log.csv", "mine")
