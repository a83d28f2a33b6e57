"""The benchmark runs at a small size, measures what it says, and leaves out what is not installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from rectoolkit.bench import exact
from rectoolkit.bench.contestants import BASELINE
from rectoolkit.bench.exact import bench_random, measure
from rectoolkit.bench.report import exact_table, plot
from rectoolkit.bench.vectors import quantize, trained_vectors
from rectoolkit.cli import main
from rectoolkit.errors import UserError


def rectool_bench(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["bench", *map(str, arguments)])
    assert "Traceback" not in result.output
    return result.exit_code, result.output


@pytest.mark.slow
def test_a_small_run_measures_everyone(tmp_path: Path) -> None:
    code, output = rectool_bench(
        "--items", 3000, "--bits", "1,8", "--rounds", 2, "--batch", 8, "--json", tmp_path / "figures.json"
    )
    assert code == 0, output
    figures = json.loads((tmp_path / "figures.json").read_text())
    rows = {row["name"]: row for row in figures["rows"]}
    assert {"rectoolkit 1 bit", "rectoolkit 8 bit", "rectoolkit 8 bit, float query"} <= set(rows)
    assert rows["rectoolkit 8 bit"]["recall"] > 0.9 > rows["rectoolkit 1 bit"]["recall"] > 0.2
    assert rows["rectoolkit 1 bit"]["bytes_per_item"] < 8.1
    assert all(row["batch_ms"] > 0 and row["p99_ms"] >= row["p50_ms"] > 0 for row in rows.values())
    if BASELINE in rows:
        assert rows[BASELINE]["recall"] == 1
        assert max(row["batch_ratio"] for name, row in rows.items() if name.startswith(BASELINE)) == 1
        floats = [row for row in rows.values() if row["bits"] == 32]
        assert max(row["single_float_ratio"] for row in floats) == 1
    assert all(row["rounds"] == 2 and row["batch_spread"] >= 0 for row in rows.values())
    assert "rectoolkit 1 bit" in output


def test_the_command_measures_a_run(small_run: Path, tmp_path: Path) -> None:
    code, output = rectool_bench(
        small_run, "--only-ours", "--rounds", 1, "-k", 10, "--batch", 4, "--json", tmp_path / "figures.json"
    )
    assert code == 0, output
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["items"], figures["dim"], figures["k"], figures["batch"]) == (90, 16, 10, 4)
    assert [row["name"] for row in figures["rows"]] == ["rectoolkit 2 bit", "rectoolkit 2 bit, float query"]


def test_the_command_refuses_what_cannot_be_measured(
    small_run: Path, small_float_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "measure", None)
    for arguments, told in (
        ((small_run, "--items", 10), "--items is for random vectors"),
        ((small_run, "--bits", "2"), "--bits is for random vectors"),
        ((small_run, "--approximate"), "--approximate is for random vectors"),
        (("--approximate", "--plot", "a.svg"), "leave --plot out"),
        (("--approximate", "--bits", "9"), "bits 1 to 8"),
        (("--lists", 9), "--lists is for --approximate"),
        ((small_float_run,), "quantizer is float32"),
        ((tmp_path / "none",), "no such run folder"),
        (("--bits", "1,two"), "--bits must be whole numbers"),
        (("--bits", "0"), "bits 1 to 8"),
        (("--bits", ","), "bits 1 to 8"),
        (("--items", 0), "--items"),
        (("--plot", "figure.bmp"), ".svg, .png, .pdf"),
        (("--json", tmp_path / "none" / "figures.json"), "no folder"),
    ):
        code, output = rectool_bench(*arguments)
        assert (code, told in output) == (2, True), output


def test_absent_libraries_are_left_out_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("faiss", "usearch", "usearch.index", "torch"):
        monkeypatch.setitem(sys.modules, name, None)
    report = bench_random(500, 16, [2], batch=4, rounds=1)
    assert {row.name for row in report.rows} == {"rectoolkit 2 bit", "rectoolkit 2 bit, float query"}
    assert any("pip install faiss-cpu" in note for note in exact_table(report).notes)


def test_the_codes_of_a_run_are_measured_against_its_floats() -> None:
    random = np.random.default_rng(0)
    floats = tuple(random.standard_normal((n, 32), np.float32) for n in (40, 700))
    users, items = (quantize(f, 4) for f in floats)
    report = measure(trained_vectors(users, items, (floats[0], floats[1])), others=False, rounds=1, batch=8, k=20)
    assert report.items == 700
    assert 0.6 < report.rows[0].recall <= 1
    assert measure(trained_vectors(users, items), others=False, rounds=1).rows[0].recall > 0.9


def test_a_float_query_is_measured_only_where_codes_stand_for_its_dims() -> None:
    random = np.random.default_rng(0)
    floats = tuple(random.standard_normal((n, 32), np.float32) for n in (40, 700))
    rotation = np.linalg.qr(random.standard_normal((32, 32)))[0].astype(np.float32)
    for turned, names in ((False, ["rectoolkit 1 bit", "rectoolkit 1 bit, float query"]), (True, ["rectoolkit 1 bit"])):
        users, items = (quantize(f @ rotation if turned else f, 1) for f in floats)
        vectors = trained_vectors(users, items, (floats[0], floats[1]), mixes_dims=turned)
        report = measure(vectors, others=False, rounds=1, batch=8, k=20)
        assert [row.name for row in report.rows] == names


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
    report = bench_random(200, 16, [1], batch=2, rounds=1, others=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"pip install 'rectoolkit\[report\]'"):
        plot(report, tmp_path / "plot.png")
    monkeypatch.undo()
    pytest.importorskip("matplotlib")
    plot(report, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size > 1000


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(UserError, match="bits 1 to 8"):
        bench_random(100, 8, [9])


def test_lists_are_measured_beside_the_exact_scan(tmp_path: Path) -> None:
    code, output = rectool_bench(
        "--approximate", "--items", 2000, "--dim", 16, "--bits", "4", "-k", 5, "--batch", 6, "--rounds", 1,
        "--json", tmp_path / "figures.json",
    )  # fmt: skip
    assert code == 0, output
    assert "building the lists, clustered" in output
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert [(row["data"], row["probe"]) for row in rows[:4]] == [("clustered", p) for p in (None, 1, 4, 16)]
    assert {row["data"] for row in rows} == {"clustered", "random"}
    assert rows[0]["recall"] == 1
    assert all(0 <= row["recall"] <= 1 and row["p50_ms"] > 0 and row["batch_ms"] > 0 for row in rows)
