"""Two small recipes and their runs, compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import rectool

from rectoolkit.compare.figures import Comparison, compare_runs
from rectoolkit.compare.plan import make_plan
from rectoolkit.data.planted import Planted, generate

RECIPE = """
name = "{name}"
seed = 5
[dataset]
path = "{data}"
[encoder]
name = "lightgcn"
dim = 8
layers = 1
[quantizer]
name = "{quantizer}"
[loss]
name = "bpr"
[sampler]
name = "uniform"
batch = 256
[train]
rate = 0.02
epochs = 2
[evaluate]
metrics = ["recall@10", "ndcg@10"]
"""


def write_adjacency(folder: Path) -> Path:
    folder.mkdir()
    data = generate(Planted(users=120, items=70, interactions=2400, communities=8, communities_per_user=2))
    for name, part in (("train", data.train), ("test", data.test)):
        rows = (" ".join(map(str, (user, *part.row(user).tolist()))) for user in range(part.num_users))
        (folder / f"{name}.txt").write_text("\n".join(rows) + "\n")
    return folder


def write_recipe(place: Path, name: str, quantizer: str, data: Path) -> Path:
    path = place / f"{name}.toml"
    path.write_text(RECIPE.format(name=name, quantizer=quantizer, data=data))
    return path


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, two recipes on it, and their runs over two seeds, made by one command with its files in ``out``."""
    place = tmp_path_factory.mktemp("compare")
    data = write_adjacency(place / "data")
    recipes = [write_recipe(place, "coded", "ste", data), write_recipe(place, "floats", "float32", data)]
    result = rectool(
        *("compare", *recipes, "--seeds", 2, "--jobs", 2, "--threads", 1, "--device", "cpu"),
        *("--baseline", "coded", "--runs", place / "runs", "--out", place / "out"),
    )
    assert result.exit_code == 0, result.output
    assert "4 runs of 2 recipes: 0 finished before, 4 to do" in result.output
    return place


@pytest.fixture(scope="session")
def compared(place: Path) -> Comparison:
    plan = make_plan([place / "coded.toml", place / "floats.toml"], seeds=2, baseline="coded", runs=place / "runs")
    return compare_runs(plan, place / "runs")
