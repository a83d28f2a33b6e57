"""``rectool evaluate``: a finished run measured with other metrics."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import rectool

from rectoolkit.data.catalog import load_dataset
from rectoolkit.runs.run import Run

PLUGIN = '''
from rectoolkit.evaluation.metrics import AccuracyMetric, metrics

@metrics.register("found")
class Found(AccuracyMetric):
    """Whether any test item is found."""

    def values(self, hits, relevant):
        return hits.any(1) * 1.0
'''


def test_a_run_is_measured_again_from_its_codes(small_run: Path, small_data: Path, tmp_path: Path) -> None:
    run, dataset = Run.open(small_run), load_dataset(path=small_data)
    found = json.loads(rectool("evaluate", run.path, "--metrics", "ndcg@20,recall@3", "--json").output)
    assert found["ndcg@20"] == run.metrics["accuracy"]["ndcg@20"]
    test, shares = dataset.test, []
    for user in np.flatnonzero(test.user_degrees).tolist():
        wanted = set(test.row(user).tolist())
        shares.append(len(wanted & set(run.recommend(user, 3).ids[0].tolist())) / len(wanted))
    assert found["recall@3"] == pytest.approx(np.mean(shares))
    wrong = rectool("evaluate", run.path, "--metrics", "recal@3")
    assert (wrong.exit_code, "did you mean 'recall'" in wrong.output) == (2, True)
    other = shutil.copytree(run.path, tmp_path / "other")
    (other / "environment.json").write_text((other / "environment.json").read_text().replace(dataset.digest, "0" * 64))
    assert "trained on other interactions" in rectool("evaluate", other).output


def test_a_run_brings_the_plugins_that_define_its_metrics(small_run: Path, tmp_path: Path) -> None:
    """In a process of its own each time, since a plugin is imported once."""
    run = shutil.copytree(small_run, tmp_path / "run")
    recipe = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(recipe.replace("plugins = []", 'plugins = ["found_metric"]'))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def found(metrics: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "rectoolkit", "evaluate", str(run), "--json", "--metrics", metrics]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    missing = found("found@5")
    assert missing.returncode == 2
    assert "unknown metric 'found'" in missing.stderr
    assert "cannot import 'found_metric'" in missing.stderr
    assert found("recall@5").returncode == 0, "the codes need no plugin"
    (tmp_path / "found_metric.py").write_text(PLUGIN)
    done = found("found@5,hit@5")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert values["found@5"] == values["hit@5"]
