"""The catalog: cards are found in order, and files are loaded, verified and counted."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest
from cards import CARD
from command_line import rectool

from rectoolkit.data import card as card_module
from rectoolkit.data import find_card, list_cards, load_dataset
from rectoolkit.errors import DataError, RecipeError

real_data = pytest.mark.skipif(
    not os.environ.get("RECTOOL_DATA"), reason="set RECTOOL_DATA to the folder that holds gowalla/ and lastfm/"
)
SHIPPED = {
    "alibaba",
    "amazon-book",
    "gowalla",
    "lastfm",
    "movielens-100k",
    "movielens-1m",
    "planted",
    "planted-1m",
    "planted-10m",
    "planted-100m",
    "yelp2018",
}
TRAIN, TEST = "0 1 2\n1 0\n", "0 0\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working folder with an empty cache; its datasets/ is the first place looked at."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RECTOOL_DATA", raising=False)
    (tmp_path / "datasets").mkdir()
    return tmp_path / "datasets"


def put(folder: Path, card: str | None = CARD, train: str = TRAIN, test: str = TEST) -> None:
    (folder / "mine").mkdir(parents=True, exist_ok=True)
    (folder / "mine" / "train.txt").write_text(train)
    (folder / "mine" / "test.txt").write_text(test)
    if card is not None:
        (folder / "mine.toml").write_text(card)


def test_every_shipped_card_is_complete(place):
    cards = list_cards()
    assert {card.name for card in cards} == SHIPPED
    for card in cards:
        assert card.description
        assert card.source
        assert card.licence
        assert bool(card.planted) == (card.format == "planted")
        if card.planted:  # states every setting, so that a new default changes no data
            written = card_module.tomllib.loads(card.path.read_text())["planted"]
            assert set(written) == set(type(card.planted).model_fields)
        elif card.name != "alibaba":  # whose source states none
            assert all(card.checksum(part) for part in card.files.named())


def test_a_card_of_ones_own_is_found(place):
    put(place)
    data = load_dataset("mine")
    assert (data.num_users, data.num_items) == (2, 3)
    assert data.train.pairs()[1].tolist() == [1, 2, 0]
    assert "mine" in {card.name for card in list_cards()}


def test_places_are_searched_in_order(place, tmp_path, monkeypatch):
    put(tmp_path / "cache" / "rectoolkit" / "datasets")
    assert find_card("mine").path.parts[-3:] == ("rectoolkit", "datasets", "mine.toml")
    load_dataset("mine")
    shared = tmp_path / "shared"
    put(shared, train="0 1 2\n1 1\n")
    monkeypatch.setenv("RECTOOL_DATA", str(shared))
    assert find_card("mine").path == shared / "mine.toml"
    assert load_dataset("mine").train.row(1).tolist() == [1]
    put(place, CARD.replace("two users", "the nearest"), train="0 1 2\n1 2\n")
    assert load_dataset("mine").train.row(1).tolist() == [2]
    assert [card.description for card in list_cards() if card.name == "mine"] == ["the nearest"]


def test_the_card_and_its_files_may_lie_in_different_places(place, tmp_path, monkeypatch):
    (place / "mine.toml").write_text(CARD)
    put(tmp_path / "shared", card=None)
    monkeypatch.setenv("RECTOOL_DATA", str(tmp_path / "shared"))
    assert load_dataset("mine").test.num_interactions == 1


def test_missing_files_say_where_was_looked_and_how_to_get_them(place, tmp_path):
    (place / "mine.toml").write_text(CARD)
    (place / "mine").mkdir()
    (place / "mine" / "train.txt").write_text(TRAIN)  # half of the files is not enough
    with pytest.raises(DataError) as caught:
        load_dataset("mine")
    cache = tmp_path / "cache" / "rectoolkit" / "datasets" / "mine"
    assert str(caught.value) == (
        f"the data set 'mine' is not on this machine: no folder with train.txt and test.txt among "
        f"datasets/mine, {cache}. Get it: the shop's log. Put the files into {cache}, "
        "or set RECTOOL_DATA to the folder that holds mine/"
    )


def test_an_unknown_name_gets_the_nearest(place):
    with pytest.raises(DataError, match=r"no card for a data set 'gowala'; did you mean 'gowalla'\?.*looked for"):
        load_dataset("gowala")
    for name in ("../gowalla", "/tmp/x", ".."):
        with pytest.raises(DataError, match=r"is not the name of a data set|no card for a data set"):
            load_dataset(name)


@pytest.mark.parametrize("given", [{}, {"name": "planted", "path": "x"}])
def test_exactly_one_of_name_and_path_is_given(given):
    with pytest.raises(DataError, match="exactly one of the two"):
        load_dataset(**given)


def test_an_unknown_format_and_a_path_that_is_not_there_are_refused(tmp_path):
    with pytest.raises(DataError, match="unknown format 'pear'; did you mean 'pairs'"):
        load_dataset(path=tmp_path, format="pear")
    with pytest.raises(DataError, match=r"nowhere: no such file or folder; give a folder with train\.txt"):
        load_dataset(path=tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"train\.txt: no such file"):
        load_dataset(path=tmp_path)


def test_odd_names_paths_and_shares_are_refused(place, tmp_path):
    for given in ({"name": "x" * 5000}, {"path": "x" * 5000}, {"name": "a\0b"}, {"path": "a\0b"}):
        with pytest.raises(DataError, match=r"no card|no such file or folder"):
            load_dataset(**given)
    put(place)
    with pytest.raises(RecipeError, match=r"dataset\.test_share: must be a number above 0 and below 1, got 1\.5"):
        load_dataset(path=place / "mine" / "train.txt", test_share=1.5)


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_wrong_checksum_shows_both(place, algorithm):
    hashed = getattr(hashlib, algorithm)
    right = {part: hashed(text.encode()).hexdigest() for part, text in (("train", TRAIN), ("test", TEST))}
    put(place, CARD + f'[{algorithm}]\ntrain = "{right["train"]}"\ntest = "{right["test"]}"\n')
    load_dataset("mine")
    put(place, card=None, train=TRAIN + "\n")
    with pytest.raises(DataError, match=r"Get it again: the shop's log$") as caught:
        load_dataset("mine")
    found = hashed((TRAIN + "\n").encode()).hexdigest()
    assert f"datasets/mine/train.txt: its {algorithm} is {found}, and not {right['train']} as" in str(caught.value)


def test_the_sha256_counts_before_the_md5(place):
    wrong = "0" * 32
    put(place, CARD + f'[md5]\ntrain = "{wrong}"\n[sha256]\ntrain = "{hashlib.sha256(TRAIN.encode()).hexdigest()}"\n')
    assert load_dataset("mine").train.num_interactions == 3


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ("0 1 2\n1\n", "2 train where 3 are right"),
        ("0 1 2\n", "1 users where 2 are right, 2 train where 3 are right"),
        ("0 1 2\n5 1\n", "6 users where 2 are right"),
        ("0 1\n1 7\n", "8 items where 3 are right, 2 train where 3 are right"),
    ],
)
def test_wrong_counts_show_both(place, train, expected):
    put(place, train=train)
    with pytest.raises(DataError) as caught:
        load_dataset("mine")
    assert str(caught.value) == f"the data set 'mine' is not what datasets/mine.toml describes: {expected}"


def test_offsets_are_taken_off_and_a_validation_part_is_loaded(place):
    card = CARD.replace("adjacency", "pairs").replace("[counts]", "[ids]\nfirst_user = 1\nfirst_item = 10\n[counts]")
    card = card.replace("users = 2", "users = 3").replace(
        'test = "test.txt"', 'test = "test.txt"\nvalidation = "valid.txt"'
    )
    put(place, card, "1\t11\n1\t12\n2\t10\n", "1\t10\n")
    (place / "mine" / "valid.txt").write_text("3\t11\n")
    data = load_dataset("mine")
    assert [part.keys().tolist() for part in data.parts().values()] == [[1, 2, 1 << 32], [0], [(2 << 32) + 1]]
    put(place, card, "1\t11\n1\t12\n2\t9\n", "1\t10\n")
    with pytest.raises(DataError, match=r"train.txt, line 3: user 2, item 9, but the card says .* items at 10"):
        load_dataset("mine")
    put(place, card, "1\t11\n1\t12\n2\t10\n", "1\t12\n")
    with pytest.raises(DataError, match=r"user 1, item 12 \(.*train.txt, line 2, .*test.txt, line 1\)"):
        load_dataset("mine")


def test_a_set_of_one_file_is_split_as_its_card_says(place):
    card = """name = "mine"\ndescription = ""\nformat = "ratings"\n[files]\nall = "u.data"\n[ids]\nfirst_user = 1
first_item = 1\n[counts]\nall = 100\nusers = 10\n[split]\ntest_share = 0.3\nseed = 4\n"""
    put(place, card)
    (place / "mine" / "u.data").write_text("".join(f"{u}\t{i}\t3\t0\n" for u in range(1, 11) for i in range(1, 11)))
    data = load_dataset("mine")
    assert (data.num_items, data.train.num_interactions, data.test.num_interactions) == (10, 70, 30)
    (place / "mine.toml").write_text(card.replace("all = 100", "all = 101"))
    with pytest.raises(DataError, match="100 all where 101 are right"):
        load_dataset("mine")


def test_a_planted_card_is_generated_and_checked(place):
    card = """name = "mine"\ndescription = ""\nformat = "planted"\n[planted]\nusers = 50\nitems = 40
interactions = 500\ncommunities = 5\n[counts]\nusers = 50\ntrain = 1\n"""
    (place / "mine.toml").write_text(card)
    with pytest.raises(DataError, match="train where 1 are right"):
        load_dataset("mine")
    (place / "mine.toml").write_text(card.replace("train = 1", ""))
    assert load_dataset("mine").num_items == 40


def test_show_recipe_checks_the_name_of_the_data(place):
    recipe = str(Path(__file__).parents[2] / "recipes" / "ste.toml")
    assert rectool("show", recipe)[0] == 0
    code, output = rectool("show", recipe, "--set", "dataset.name=gowala")
    assert code == 2
    assert "dataset.name: no card for a data set 'gowala'; did you mean 'gowalla'?" in output


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0 1\n1 2\n", 'look like pairs of user and item: --set dataset.format="pairs"'),
        ("0,1\n1,2\n", 'look like pairs of user and item: --set dataset.format="pairs"'),
        ("1::5::4::978300760\n1::6::3::978300761\n", 'look like ratings: --set dataset.format="ratings"'),
        ("1,5,4,978300760\n1,6,3,978300761\n", 'look like ratings: --set dataset.format="ratings"'),
        ("user,item\n1,6\n", "look like a table: rectool data import"),
        ("anna 4.5 2\nbob 3.5 1\n", "look like a table: rectool data import"),
    ],
)
def test_one_file_that_is_no_adjacency_list_is_not_taken_for_one(tmp_path, text, told):
    (tmp_path / "clicks.txt").write_text(text)
    with pytest.raises(DataError) as caught:
        load_dataset(path=tmp_path / "clicks.txt")
    assert told in str(caught.value)
    if "format=" in told:
        load_dataset(path=tmp_path / "clicks.txt", format=told.split('"')[1])


def test_one_file_that_is_an_adjacency_list_is_taken_for_one(tmp_path):
    (tmp_path / "rows.txt").write_text("0 1 2 3\n1 2 3 4\n2 1 3 4\n")
    assert load_dataset(path=tmp_path / "rows.txt", test_share=0.4).num_items == 5


def test_a_card_within_its_folder_moves_with_it(place):
    put(place, card=None)
    (place / "mine" / "card.toml").write_text(CARD)
    digest = load_dataset("mine").digest
    (place / "mine").rename(place.parent / "moved")
    with pytest.raises(RecipeError, match="name: must be the folder's name, 'moved', got 'mine'"):
        load_dataset(path="moved")
    (place.parent / "moved" / "card.toml").write_text(CARD.replace('"mine"', '"moved"'))
    assert load_dataset(path="moved").digest == digest
    assert load_dataset(path=place.parent / "moved").name == "moved"


def write(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def test_train_and_test_must_not_overlap(tmp_path):
    write(tmp_path / "train.txt", "0 1 2\n1 3 4\n")
    write(tmp_path / "test.txt", "1 5\n1 4 3\n0 7\n")
    with pytest.raises(DataError) as caught:
        load_dataset(path=tmp_path)
    train, test = tmp_path / "train.txt", tmp_path / "test.txt"
    assert str(caught.value) == (
        f"{test}: 2 of its 4 pairs are in {train} too, the first: user 1, item 3 ({train}, line 2, {test}, line 2); "
        "a pair may be in one part only: remove it from the other"
    )


def test_a_folder_of_files_is_loaded(tmp_path):
    write(tmp_path / "train.txt", "0 1 2\n1 3\n")
    write(tmp_path / "test.txt", "0 5\n4 0\n")
    write(tmp_path / "validation.txt", "1 6\n")
    data = load_dataset(path=str(tmp_path))
    assert (data.num_users, data.num_items, data.name) == (5, 7, tmp_path.name)
    assert data.validation is not None
    assert [part.pairs()[1].tolist() for part in (data.train, data.test, data.validation)] == [[1, 2, 3], [5, 0], [6]]
    assert data.summary()["users with test items only"] == 1


def test_a_single_file_is_split_by_its_seed(tmp_path):
    path = write(tmp_path / "clicks.csv", "".join(f"{u},{i}\n" for u in range(20) for i in range(10)))
    data = load_dataset(path=path, format="pairs", test_share=0.3, seed=1)
    assert (data.train.num_interactions, data.test.num_interactions) == (140, 60)
    assert data.digest == load_dataset(path=path, format="pairs", test_share=0.3, seed=1).digest
    assert data.digest != load_dataset(path=path, format="pairs", test_share=0.3, seed=2).digest


def test_raw_ids_are_refused_before_memory_is_taken(tmp_path):
    write(tmp_path / "train.txt", "0 1\n2000000000 2\n")
    write(tmp_path / "test.txt", "0 5\n")
    with pytest.raises(DataError, match="user ids run up to 2000000000 for 3 interactions; ids must count from 0"):
        load_dataset(path=tmp_path)
    with pytest.raises(DataError, match="user ids run up to 2000000000 for 2 interactions"):
        load_dataset(path=tmp_path / "train.txt", format="pairs")


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
