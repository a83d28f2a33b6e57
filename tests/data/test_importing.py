"""Imports: every format gives the same data, ids are kept, faults are named by place, kills leave no partial files."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from command_line import rectool

from rectoolkit.data import Imported, find_card, import_data, load_dataset, spool
from rectoolkit.data.ids import Ids
from rectoolkit.data.readers import rows, tables
from rectoolkit.errors import DataError, UserError
from rectoolkit.recipe import Recipe
from rectoolkit.runs.execute import RunOptions, execute
from rectoolkit.runs.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable

    Parts = Callable[..., dict[str, set[tuple[str, str]]]]
    Refused = Callable[..., str]

ROOT = Path(__file__).parents[2]


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


def test_every_format_gives_the_same_data(place: Path, parts_of: Parts) -> None:
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
    assert set().union(*parts_of("set0").values()) == expected
    card = find_card("set0")
    assert (card.rows.read, card.rows.below_rating, card.rows.kept) == (400, (frame.rating < 2).sum(), len(expected))


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


def test_latest_ones_are_held_out(place: Path, parts_of: Parts) -> None:
    frame = log(600).drop_duplicates(["user_id", "item_id"])
    frame.to_csv("log.csv", index=False)
    when = {(u, str(i)): t for u, i, t in zip(frame.user_id, frame.item_id, frame.timestamp, strict=True)}

    def imported(split: str, **more: object) -> dict[str, set[tuple[str, str]]]:
        name = split + "".join(map(str, more.values()))
        import_data("log.csv", name, Imported(split=split, **more))  # type: ignore[arg-type]
        return parts_of(name)

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


def test_a_given_split_is_kept_and_what_stands_in_two_parts_stays_in_the_earlier(place: Path, parts_of: Parts) -> None:
    Path("train.csv").write_text("user,item\na,1\na,2\nb,1\na,1\n")
    Path("more.csv").write_text("user,item\nb,3\n")
    Path("test.csv").write_text("user,item\na,3\na,2\nc,1\n")
    Path("valid.csv").write_text("user,item\nb,2\nb,1\n")
    card = import_data(["train.csv", "more.csv"], "mine", test="test.csv", validation="valid.csv")
    assert parts_of("mine") == {
        "train": {("a", "1"), ("a", "2"), ("b", "1"), ("b", "3")},
        "validation": {("b", "2")},
        "test": {("a", "3"), ("c", "1")},
    }
    assert (card.rows.repeated, card.rows.in_an_earlier_part, card.rows.kept) == (1, 2, 7)


def test_a_name_that_is_taken_is_reused_refused_or_replaced(place: Path) -> None:
    frame = log()
    frame.to_csv("log.csv", index=False)
    command = ("data", "import", "log.csv", "--name", "mine")
    assert rectool(*command).exit_code == 0
    long = f"{'a-long-name-' * 12}.csv"
    frame.to_csv(long, index=False)
    assert f"\nrows of {long}\n" in rectool("data", "import", long, "--name", "long").output  # in one line
    before = {path.name: path.stat().st_mtime_ns for path in Path("datasets/mine").iterdir()}
    assert "already holds this import" in rectool(*command).output
    assert {path.name: path.stat().st_mtime_ns for path in Path("datasets/mine").iterdir()} == before
    other = rectool(*command, "--k-core", 2)
    assert other.exit_code == 2
    assert (
        "'mine' was imported with other settings (k_core: 0, now 2); choose another name, or replace it: --replace"
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
    assert "datasets/own: exists, and is not an imported data set" in taken.output


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
    assert (unknown.exit_code, "user 'Zoe' is unknown: there are 36 users" in unknown.output) == (2, True)
    assert "Zoë" not in unknown.output  # another user's id
    assert rectool("export", folder, "--to", "out", "--format", "parquet,npy,codes").exit_code == 0
    items = pd.read_parquet("out/items.parquet")
    assert items.id.tolist() == (np.arange(25) * 5_000_000_000).tolist()
    assert pd.read_parquet("out/users.parquet").id.tolist() == np.load("out/users.ids.npy").tolist()
    assert Ids.load(Path("out/users.ids")).row("007") == run.user_ids.row("007")  # type: ignore[union-attr]
    whole = (folder / "users.ids").read_bytes()
    (folder / "users.ids").write_bytes(whole[:-30])
    assert "users.ids" in rectool("recommend", folder, "--user", "Zoë").output
    (folder / "users.ids").write_bytes(whole.replace(b"007", b"008"))
    assert "users.ids: its content has changed" in rectool("recommend", folder, "--user", "Zoë").output


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
    with pytest.raises(UserError, match="datasets: another import is running there"):
        import_data("log.csv", "mine")
    os.close(handle)
    import_data("log.csv", "mine")


LINES = "user_id,item_id,rating\na,1,5\nb,2,4\nc,3,1\n"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            "--min-rating 9",
            "x.csv: no interactions: 3 rows, of which 0 lack a value and 3 are rated below the threshold",
        ),
        ("--k-core 2", "the 2-core of these interactions is empty; the largest possible k is 1"),
        ("--min-rating nan", "--min-rating nan: must be a finite number"),
        ("--test-share nan", "--test-share nan: must be a finite number"),
        ("--split time", "no column has a time's usual name; name it with --time-column"),
        ("--rating-column rating", "has no effect without a threshold: give --min-rating"),
        ("--time-column rating", "the time column 'rating' has no effect on split 'random'"),
        ("--split leave-one-out", "the test part would be empty: 3 interactions of 3 users"),
        ("--name ../up", "'../up' is not a valid name"),
        ("--name gowalla", "'gowalla' is already the name of another data set"),
        ("--validation x.csv", "a validation source needs a test source too"),
        ("--test x.csv --split time", "with a test source the split is given"),
        ("--test x.csv", "split 'given'; pairs that are in an earlier part too are left out"),
    ],
)
def test_settings_that_cannot_work_are_refused(refused: Refused, options: str, told: str) -> None:
    assert told in refused("x.csv", LINES, options)


def test_a_damaged_import_is_made_again(place: Path) -> None:
    log().to_csv("log.csv", index=False)
    command = ("data", "import", "log.csv", "--name", "mine")
    assert rectool(*command).exit_code == 0
    right = content(Path("datasets/mine"))
    for file in ("train.bin", "items.ids"):
        whole = bytearray(right[file])
        whole[-70] ^= 1
        for damaged in (whole, whole[:20]):
            Path("datasets/mine", file).write_bytes(damaged)
            code, output = rectool("data", "show", "mine")
            assert (code, "Get it again: import log.csv again" in output) == (2, True)
            assert "imported in" in rectool(*command).output
            assert content(Path("datasets/mine")) == right
    for damaged in (right["card.toml"][:100], b""):
        Path("datasets/mine/card.toml").write_bytes(damaged)
        code, output = rectool(*command)
        assert (code, "the card is damaged: import the data again with --replace" in output) == (2, True)
        assert rectool(*command, "--replace").exit_code == 0
        assert content(Path("datasets/mine")) == right
    Path("datasets/mine/notes.txt").touch()
    Path("datasets/mine/card.toml").write_bytes(b"")
    assert "exists, and is not an imported data set" in rectool(*command, "--replace").output
