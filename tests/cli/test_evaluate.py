"""``rectool evaluate``: a finished run measured with other metrics."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import rectool

from rectoolkit.data.catalog import load_dataset
from rectoolkit.runs.run import Run


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
