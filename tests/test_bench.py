"""The benchmark runs at a small size, measures what it says, and leaves out what is not installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from rectoolkit import bench as module
from rectoolkit.bench import BASELINE, bench, bench_tables, evaluation, main, quantize, show
from rectoolkit.errors import UserError


def test_a_small_run_measures_everyone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(
        ["--items", "3000", "--bits", "1,8", "--rounds", "2", "--batch", "8", "--json", str(tmp_path / "figures.json")]
    )
    figures = json.loads((tmp_path / "figures.json").read_text())
    rows = {row["name"]: row for row in figures["rows"]}
    assert {"rectoolkit 1 bit", "rectoolkit 8 bit", "rectoolkit 8 bit, float query"} <= set(rows)
    assert rows["rectoolkit 8 bit"]["recall"] > 0.9 > rows["rectoolkit 1 bit"]["recall"] > 0.2
    assert rows["rectoolkit 1 bit"]["bytes_per_item"] < 8.1
    assert all(row["batch_ms"] > 0 and row["p99_ms"] >= row["p50_ms"] > 0 for row in rows.values())
    if BASELINE in rows:
        assert rows[BASELINE]["recall"] == 1
        assert rows[BASELINE]["batch_ratio"] == 1
    assert "rectoolkit 1 bit" in capsys.readouterr().out


def test_absent_libraries_are_left_out_with_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("faiss", "usearch", "usearch.index", "torch"):
        monkeypatch.setitem(sys.modules, name, None)
    report = bench(500, 16, [2], batch=4, rounds=1)
    assert {row.name for row in report.rows} == {"rectoolkit 2 bit", "rectoolkit 2 bit, float query"}
    show(report)
    assert "pip install faiss-cpu" in capsys.readouterr().out


def test_the_codes_of_a_run_are_measured_against_its_floats() -> None:
    random = np.random.default_rng(0)
    floats = tuple(random.standard_normal((n, 32), np.float32) for n in (40, 700))
    users, items = (quantize(f, 4) for f in floats)
    report = bench_tables(users, items, (floats[0], floats[1]), others=False, rounds=1, batch=8, k=20)
    assert report.items == 700
    assert 0.6 < report.rows[0].recall <= 1
    assert bench_tables(users, items, others=False, rounds=1).rows[0].recall > 0.9


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_grid_of_each_width_is_the_best_of_its_neighbours(bits: int) -> None:
    values = np.random.default_rng(0).standard_normal((20_000, 8), np.float32)
    table = quantize(values, bits).unpack()
    error = np.square(table.decode() - values).mean()
    middle = np.float32(((1 << bits) - 1) / 2)
    for factor in (0.9, 1.1):
        step = table.scale[0, 0] * np.float32(factor)
        codes = np.clip(np.floor(values / step) + (1 << bits) // 2, 0, (1 << bits) - 1)
        assert np.square((codes - middle) * step - values).mean() > error


def test_a_plot_is_written_or_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = bench(200, 16, [1], batch=2, rounds=1, others=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match="pip install matplotlib"):
        module.plot(report, tmp_path / "plot.png")
    monkeypatch.undo()
    pytest.importorskip("matplotlib")
    module.plot(report, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size > 1000


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(UserError, match="bits 1 to 8"):
        bench(100, 8, [9])


def test_a_small_evaluation_is_timed() -> None:
    assert evaluation(200, 300, 16, rounds=1)["rectoolkit 1 bit"] > 0
