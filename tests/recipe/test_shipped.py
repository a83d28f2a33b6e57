"""Every shipped recipe trains, packs, evaluates and is opened again; the first losses of the default are pinned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rectoolkit.recipe import Recipe
from rectoolkit.runs.execute import RunOptions, execute
from rectoolkit.runs.run import Run
from rectoolkit.search.codes import PackedTable
from rectoolkit.search.float32 import open_embeddings

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
HQGNN = Path(__file__).parents[2] / "recipes" / "hqgnn.toml"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_from_end_to_end(path: Path, small_data: Path, tmp_path: Path) -> None:
    recipe = Recipe.load(path, [f'dataset.path="{small_data}"', "train.epochs=2", "sampler.batch=512"])
    run = Run.open(execute(recipe, RunOptions(tmp_path, threads=1)).path)
    bits = recipe["quantizer"].get("bits", 32)
    assert run.metrics["bits"] == bits
    assert all(0 <= value <= 1 for value in run.metrics["accuracy"].values())
    assert run.recommend([0, 1], 5).ids.min() >= 0
    if isinstance(run.items, PackedTable):
        assert run.items.bits == bits
        width = open_embeddings(run.path / "items.npy").shape[1]
        assert run.metrics["bytes_per_item"] < width * bits / 8 + 8 * len(run.items.segments) + 1


@pytest.mark.slow
def test_codes_learn_what_popularity_and_chance_do_not(tmp_path: Path) -> None:
    """On the embedded data: 1-bit codes above popularity and an untrained encoder, float32 above 1-bit codes."""
    short = ["train.epochs=12", "train.every=12", "train.rate=2e-2"]
    trained = execute(Recipe.load(HQGNN, short), RunOptions(tmp_path, threads=1)).metrics["accuracy"]
    untrained = execute(
        Recipe.load(HQGNN, ["train.epochs=1", "train.rate=1e-12", "train.validation=0"]),
        RunOptions(tmp_path, threads=1),
    ).metrics["accuracy"]
    real = execute(Recipe.load(HQGNN.with_name("lightgcn.toml"), short), RunOptions(tmp_path, threads=1)).metrics[
        "accuracy"
    ]
    from rectoolkit.data.catalog import load_dataset
    from rectoolkit.evaluation.evaluate import evaluate

    data = load_dataset("planted")
    popularity = data.train.item_degrees.astype(np.float32)[:, None]
    users = np.ones((data.num_users, 1), np.float32)
    popular = evaluate(users, popularity, data.train, data.test, ["recall@20"]).means
    assert untrained["recall@20"] < 0.5 * popular["recall@20"]
    assert trained["recall@20"] > 1.3 * popular["recall@20"]
    assert real["recall@20"] > 1.2 * trained["recall@20"]


def test_the_first_losses_and_delta_are_as_they_were(small_data: Path, tmp_path: Path) -> None:
    """Golden figures: a change here is a change of the method, to be meant and written in docs/notes/log.md."""
    recipe = Recipe.load(HQGNN, [f'dataset.path="{small_data}"', "train.epochs=3", "sampler.batch=512"])
    run = execute(recipe, RunOptions(tmp_path, threads=1))
    rows = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in rows] == pytest.approx(GOLDEN_LOSSES, rel=1e-4)
    assert rows[0]["quantizer"]["items"]["delta"] == pytest.approx(GOLDEN_DELTA, rel=1e-3)


GOLDEN_LOSSES = [0.6911744, 0.6817238, 0.6774022]
GOLDEN_DELTA = 0.001066465
