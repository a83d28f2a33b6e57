"""Fixtures for all tests: small interactions with known answers, and real ones if given."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from rectoolkit.data import Interactions
from rectoolkit.data.planted import Planted, generate

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs without it
torch.set_num_threads(1)  # the tensors here are tiny: threads that wait for one another cost more than they give


def checkerboard_of(size: int) -> Interactions:
    """``size`` users and items; a user likes the items of its parity, but its own number is withheld."""
    users, items = np.nonzero((np.arange(size)[:, None] + np.arange(size)) % 2 == 0)
    kept = users != items
    return Interactions.from_pairs(users[kept], items[kept], size, size)


@pytest.fixture(scope="session")
def checkerboard() -> Interactions:
    """40 users and items; the right first recommendation for user n is item n."""
    return checkerboard_of(40)


@pytest.fixture(scope="session")
def tiny() -> Interactions:
    """200 random interactions of 40 users and 25 items; the last user and the last item have none."""
    draws = np.random.default_rng(7)
    return Interactions.from_pairs(draws.integers(0, 39, 200), draws.integers(0, 24, 200), 40, 25)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data sets that RECTOOL_DATA names."""
    folder = os.environ.get("RECTOOL_DATA")
    if not folder:
        pytest.skip("needs real data: set RECTOOL_DATA to the folder that holds gowalla/train.txt")
    return Path(folder)


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.txt and test.txt of 150 planted users and 90 items."""
    folder = tmp_path_factory.mktemp("data") / "mine"
    folder.mkdir()
    data = generate(Planted(users=150, items=90, interactions=3000, communities=10, communities_per_user=2))
    for name, part in (("train", data.train), ("test", data.test)):
        rows = (" ".join(map(str, (user, *part.row(user).tolist()))) for user in range(part.num_users))
        (folder / f"{name}.txt").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def small_run(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: 2-bit codes of 16 dims, one epoch over ``small_data``."""
    return _run(small_data, tmp_path_factory, "ste", "quantizer.bits=2")


@pytest.fixture(scope="session")
def small_float_run(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without a quantizer."""
    return _run(small_data, tmp_path_factory, "lightgcn")


def _run(data: Path, factory: pytest.TempPathFactory, recipe: str, *settings: str) -> Path:
    from rectoolkit.recipe import Recipe
    from rectoolkit.runs.execute import RunOptions, execute

    sizes = ["encoder.dim=16", "encoder.layers=2", "sampler.batch=256", "train.epochs=1"]
    path = Path(__file__).parent.parent / "recipes" / f"{recipe}.toml"
    loaded = Recipe.load(path, [f'dataset.path="{data}"', *sizes, *settings])
    return execute(loaded, RunOptions(factory.mktemp("runs"), threads=1)).path
