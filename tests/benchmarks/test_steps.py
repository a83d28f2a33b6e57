"""The training benchmark: all trainers have the same loss and gradient, and the command runs."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from measure import main
from steps import PHASES, bench_training
from trainers import Sizes, Trainer, gradient, trainers

from rectoolkit.data import Dataset, Interactions
from rectoolkit.data.planted import Planted, generate

SIZES = Sizes(dim=8, layers=3, batch=256, l2=0.1)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return generate(Planted(users=120, items=80, interactions=2500, communities=8, communities_per_user=2))


@pytest.fixture(scope="module")
def everyone(dataset: Dataset) -> list[Trainer]:
    return trainers(dataset.train, SIZES, True, [])


def test_all_have_the_same_loss_and_gradient(everyone: list[Trainer]) -> None:
    assert len(everyone) == (5 if find_spec("torch_geometric") else 3)
    for batch, _ in zip(everyone[0].draw(), range(3), strict=False):
        value, expected = gradient(everyone[0], batch)
        assert expected.abs().max() > 0
        for trainer in everyone[1:]:
            near = 2e-2 if "bfloat16" in trainer.name else 1e-5
            other, found = gradient(trainer, batch)
            assert other == pytest.approx(value, rel=near)
            torch.testing.assert_close(found, expected, rtol=0, atol=near * float(expected.abs().max()))


def test_all_stay_together_over_steps(dataset: Dataset) -> None:
    everyone = [t for t in trainers(dataset.train, SIZES, True, []) if "bfloat16" not in t.name]
    batches = list(everyone[0].draw())
    losses = [[trainer.step(batch) for batch in batches] for trainer in everyone]
    np.testing.assert_allclose(losses, np.broadcast_to(losses[0], np.shape(losses)), rtol=1e-4)


def test_everyone_draws_an_epoch_of_pairs_from_train(everyone: list[Trainer], dataset: Dataset) -> None:
    train: Interactions = dataset.train
    for trainer in everyone:
        batches = list(trainer.draw())
        assert sum(len(batch.users) for batch in batches) == train.num_interactions
        for batch in batches:
            assert train.contains(batch.users.numpy(), batch.positives.numpy()).all()
            if "PyG" not in trainer.name:
                assert not train.contains(batch.users[:, None].numpy(), batch.negatives.numpy()).any()


def test_the_command_prints_tables_and_writes_figures(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    words = "steps --dataset planted --dim 4 --layers 1 --rounds 1 --steps 1 --threads 1 --only-ours --json"
    result = CliRunner().invoke(main, [*words.split(), str(path)])
    assert result.exit_code == 0, result.output
    figures = json.loads(path.read_text())
    assert [row["name"] for row in figures["rows"]] == ["rectoolkit, float32", "rectoolkit, bfloat16"]
    assert figures["rows"][0]["ratio"] == 1
    for part in figures["breakdowns"]:
        assert list(part["parts"]) == list(PHASES)
        assert all(milliseconds > 0 for milliseconds in part["parts"].values())
        assert part["limit_ms"] > 0
    assert "limit / propagation" in result.output
    assert CliRunner().invoke(main, ["steps", "--json", str(tmp_path / "none" / "x.json")]).exit_code == 2


def test_without_pyg_a_line_says_so(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    report = bench_training(dataset, SIZES, rounds=1, steps=1, threads=1, whole_epochs=True)
    assert report.skipped == ["torch_geometric is not installed, so it is left out: pip install torch_geometric"]
    assert [row.steps for row in report.rows] == [report.batches] * 3


def test_an_epoch_of_one_batch_is_taken_apart_too(dataset: Dataset) -> None:
    sizes = Sizes(dim=4, layers=1, batch=dataset.train.num_interactions)
    report = bench_training(dataset, sizes, rounds=1, steps=1, threads=1, others=False)
    assert report.batches == 1
    for part in report.breakdowns:
        assert np.isfinite(list(part.parts.values())).all()
