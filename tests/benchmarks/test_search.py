"""The search benchmarks for developers run at a small size."""

from __future__ import annotations

from click.testing import CliRunner
from full_ranking import evaluation
from limits import bandwidth, instructions
from measure import main


def test_a_small_evaluation_is_timed() -> None:
    assert min(evaluation(200, 300, 16, rounds=1).values()) > 0


def test_the_limits_are_measured_beside_the_search() -> None:
    result = CliRunner().invoke(main, ["limits", "--items", "2000", "--rounds", "1", "--threads", "1"])
    assert result.exit_code == 0, result.output
    for bits in (1, 2, 4, 8):
        assert f"rectoolkit {bits} bit, float query" in result.output
    assert "bytes read per second" in result.output
    assert bandwidth(1, 1 << 20) > 0
    assert all(rate > 0 for rate in instructions(1).values())
