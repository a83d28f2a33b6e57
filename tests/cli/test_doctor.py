"""``rectool doctor``: it reports what is installed, and the command that installs what is missing."""

from __future__ import annotations

import sys

import pytest
import torch
from click.testing import CliRunner
from command_line import rectool

from rectoolkit.cli import main
from rectoolkit.cli.doctor import OPTIONAL, TRAINING, examine
from rectoolkit.errors import EXTRAS
from rectoolkit.search.kernels.compiling import INSTRUCTION_SET


def test_the_report_names_versions_threads_devices_and_instructions() -> None:
    findings = {finding.name: finding.value for finding in examine()}
    assert findings["torch"] == torch.__version__
    assert findings["torch threads"] == str(torch.get_num_threads())
    assert findings["devices"].startswith("cpu")
    assert {"vnni512": "VNNI", "vnni256": "VNNI", "avx2": "AVX2"}.get(INSTRUCTION_SET, "plain") in findings[
        "search kernels"
    ]
    assert set(OPTIONAL) <= set(findings)
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0, result.output
    for name in findings:
        assert name in result.output


def test_what_is_missing_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0
    assert "pip install 'rectoolkit[tune]'" in result.output
    monkeypatch.setitem(sys.modules, "sklearn", None)
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    assert "WRONG: cannot be imported" in result.output
    assert "pip install 'rectoolkit[train]'" in result.output


def test_an_installation_for_serving_alone_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in TRAINING.values():
        monkeypatch.setitem(sys.modules, module, None)
    result = rectool("doctor")
    assert result.exit_code == 0
    assert "missing; rectool run needs them: pip install 'rectoolkit[train]'" in result.output


def test_every_optional_extra_is_one_that_the_package_declares() -> None:
    from pathlib import Path

    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    declared = text.split("[project.optional-dependencies]")[1].split("[project.scripts]")[0]
    for package, (module, _) in OPTIONAL.items():
        line = next(line for line in declared.splitlines() if line.startswith(f"{EXTRAS[module]} = "))
        assert package in line
