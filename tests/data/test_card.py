"""Cards: a valid card is read, and a faulty one reports all its faults."""

from __future__ import annotations

import pytest
from cards import CARD

from rectoolkit.data.card import SECTIONS, Card, Checksum, read_card
from rectoolkit.errors import DataError, RecipeError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mine.toml"


def test_a_card_says_what_its_file_says(path):
    digests = {"sha256": "a" * 64, "md5": "b" * 32}
    path.write_text(CARD + f'[sha256]\ntrain = "{digests["sha256"]}"\n[md5]\ntest = "{digests["md5"]}"\n')
    card = read_card(path)
    assert (card.name, card.format, card.source, card.licence) == ("mine", "adjacency", "the shop's log", "")
    assert card.files.named() == {"train": "train.txt", "test": "test.txt"}
    assert (card.counts.users, card.counts.all) == (2, None)
    assert card.checksum("train") == Checksum("sha256", digests["sha256"])
    assert card.checksum("test") == Checksum("md5", digests["md5"])
    assert card.checksum("validation") is None
    assert (card.planted, card.imported, card.rows.read, card.path) == (None, None, 0, path)


def test_every_section_has_a_field_of_its_own():
    assert set(SECTIONS) == set(Card.model_fields) - {"name", "description", "format", "source", "licence"}


def test_all_faults_of_a_card_come_at_once(path):
    path.write_text(
        'name = "other"\ndescription = 3\nformat = "adjacensy"\nlicense = "x"\nids = 3\n[files]\ntran = "a"\n'
        '[sha256]\ntrain = "12"\n[md5]\ntest = "12"\n[counts]\nusers = -1\nitems = "many"\n[planned]\nx = 1\n'
    )
    with pytest.raises(RecipeError) as caught:
        read_card(path)
    assert {fault.where for fault in caught.value.faults} == {
        "description",
        "license",
        "ids",
        "files.tran",
        "sha256.train",
        "md5.test",
        "counts.users",
        "counts.items",
        "planned",
    }
    message = str(caught.value)
    assert message.startswith(f"{path}:")
    assert "license: unknown key; did you mean 'licence'?" in message
    assert "files.tran: unknown key; did you mean 'train'?" in message
    assert "planned: unknown section; did you mean 'planted'?" in message


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"mine"', '"yours"', "name: must be the file's name, 'mine', got 'yours'"),
        ('"adjacency"', '"adjacensy"', "format: unknown format 'adjacensy'; did you mean 'adjacency'?"),
        ('"adjacency"', '"planted"', "planted: this section is required by format = 'planted'"),
        ('test = "test.txt"', "", "files: give either train and test, or all"),
        ('test = "test.txt"', 'all = "x"', "files: give either train and test, or all"),
        ("[files]", "[split]", "files: this section is required: train and test, or all"),
        ("[counts]", "[planted]", "planted.communities: this key is required"),
        ('format = "adjacency"\n', "", "format: this key is required"),
        ('"adjacency"', "adjacency", "not a TOML file: "),
    ],
)
def test_each_fault_of_a_card_names_the_file_and_the_key(path, old, new, expected):
    path.write_text(CARD.replace(old, new))
    with pytest.raises((DataError, RecipeError)) as caught:
        read_card(path)
    assert str(caught.value).startswith(f"{path}:")
    assert expected in str(caught.value)
