"""Growth is measured in processes of their own, and samplers hold each pair once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from rectoolkit.cli import main
from rectoolkit.data.planted import Planted, generate
from rectoolkit.registry import samplers


def test_the_command_measures_a_whole_epoch(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    words = ["growth", "planted", "--steps", "4", "--dim", "4", "--layers", "1", "--threads", "1", "--json", str(path)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    (row,) = json.loads(path.read_text())
    assert row["steps"] == 4
    assert 3 * row["batch"] < row["interactions"] <= 4 * row["batch"]
    assert 0 < row["load_mb"] <= row["build_mb"] <= row["peak_mb"]
    assert row["epoch_seconds"] > 0
    assert "peak, MB" in result.output
    assert CliRunner().invoke(main, ["growth", "no-such-data"]).exit_code == 2


@pytest.mark.parametrize(("name", "most"), [("uniform", 13), ("hard", 13), ("popularity", 21), ("shared", 5)])
def test_bytes_a_sampler_holds_beside_train(name: str, most: int) -> None:
    train = generate(Planted(users=300, items=900, interactions=60000, communities=5, communities_per_user=2)).train
    sampler = samplers.build(name, samplers.check(name, {}, "sampler")[0], {"train": train, "generator": None})
    arrays = {
        id(value): value for value in [*vars(sampler).values(), *vars(getattr(sampler, "unseen", train)).values()]
    }
    held = sum(array.nbytes for array in arrays.values() if isinstance(array, np.ndarray) and array is not train.items)
    assert held < most * train.num_interactions
