"""The growth benchmark runs each size in its own process, and samplers hold each pair once."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from growth import Grown, measure
from measure import main

from rectoolkit.data.planted import Planted, generate
from rectoolkit.errors import UserError
from rectoolkit.recipe.registry import samplers


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
    unknown = CliRunner().invoke(main, ["growth", "planted", "no-such-data"])
    assert (unknown.exit_code, "no-such-data" in unknown.output, "peak, MB" in unknown.output) == (2, True, False)


def test_what_was_measured_before_a_failure_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "figures.json"

    def measured(name: str, told: Callable[[str], None], **settings: object) -> Grown:
        told(f"{name}: batch 1 of 2")
        if name == "planted-1m":
            raise UserError("planted-1m: the measuring process ended with -9")
        return Grown(name, 10, 5, 2, 5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5)

    monkeypatch.setattr("growth.measure", measured)
    result = CliRunner().invoke(main, ["growth", "planted", "planted-1m", "--json", str(path)])
    assert result.exit_code == 2
    assert "peak, MB" in result.output
    assert [row["dataset"] for row in json.loads(path.read_text())] == ["planted"]


def test_the_measuring_process_tells_of_every_batch(capfd: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []
    grown = measure("planted", told.append, steps=3, dim=4, layers=1, threads=1)
    assert told == ["planted: loading", *(f"planted: batch {number} of 3" for number in (1, 2, 3))]
    assert grown.steps == 3
    with pytest.raises(UserError, match="planted: the measuring process ended with 1; see above"):
        measure("planted", told.append, steps=3, layers=-1)
    said = capfd.readouterr().err
    assert said == "error: recipe: encoder.layers: must be a whole number from 0 to 16, got -1\n"


MOST_BYTES = {"uniform": 13, "hard": 13, "popularity": 21, "shared": 9, "in_batch": 9}


@pytest.mark.parametrize(("name", "most"), MOST_BYTES.items())
def test_bytes_a_sampler_holds_beside_train(name: str, most: int) -> None:
    train = generate(Planted(users=300, items=900, interactions=60000, communities=5, communities_per_user=2)).train
    given = {"train": train, "generator": np.random.default_rng(0)}
    sampler = samplers.build(name, samplers.check(name, {}, "sampler")[0], given)
    next(iter(sampler))  # some of it is made for the first batch
    parts = [*vars(sampler).values(), *vars(getattr(sampler, "unseen", train)).values()]
    arrays = {id(value): value for part in parts for value in (part if isinstance(part, tuple) else (part,))}
    held = sum(array.nbytes for array in arrays.values() if isinstance(array, np.ndarray) and array is not train.items)
    assert held < most * train.num_interactions


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a peak is the process's own anyway")
def test_the_peak_is_not_the_parents() -> None:
    ballast = np.ones(150_000_000)  # 1.2 GB
    grown = measure("planted", lambda what: None, steps=3, dim=4, layers=1, threads=1)
    assert grown.load_mb < ballast.nbytes / 1e6 / 2
