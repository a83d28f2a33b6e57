"""Calls as a user writes them, checked by mypy --strict (tests/test_python_api.py); nothing here is run.

A wrong call carries an ignore of its error, so that types which become loose are found too: mypy then reports the
ignore as unused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from typing_extensions import assert_type

import rectoolkit
from rectoolkit import CodeTable, Estimator, Hits, Index, Interactions, PackedTable, Recipe, Run, RunOptions
from rectoolkit.runs.execute import execute


def fitted(frame: pd.DataFrame, train: Interactions) -> Estimator:
    model = Estimator("hqgnn", {"quantizer.bits": 2}, folder=Path("runs"), threads=1)
    assert_type(model.fit(frame, user="who", item="what"), Estimator)
    assert_type(model.fit({"user": [1, 2], "item": ["a", "b"]}), Estimator)
    model.fit(train, test=train)
    model.fit(frame, test={"user": [1], "item": ["a"]})
    model.fit(3)  # type: ignore[arg-type]
    Estimator("hqgnn", threads="1")  # type: ignore[arg-type]
    return model


def asked(model: Estimator, run: Run) -> npt.NDArray[np.int64]:
    hits = model.recommend(["ada", "grace"], k=10)
    assert_type(hits, Hits)
    assert_type(model.recommend(items=[3, 17]), Hits)
    assert_type(model.similar_items("a"), Hits)
    assert_type(model.save("model"), Path)
    assert_type(Estimator.open("model"), Estimator)
    assert_type(run.recommend([7, 8], 10, rescore=100), Hits)
    assert_type(run.recommend(k=5, items=[[3], [4, 5]]), Hits)
    assert_type(run.similar_items(3), Hits)
    assert_type(run.save("copy"), Path)
    assert_type(run.seen, Interactions)
    run.recommend(7.5)  # type: ignore[arg-type]
    run.recommend([7], k="10")  # type: ignore[arg-type]
    return hits.ids


def served(codes: CodeTable) -> Hits:
    packed = PackedTable.pack(codes)
    index = Index.open("items.codes")
    assert_type(index.search(packed, 5, allow=[1, 2], method="numpy"), Hits)
    index.search(packed, 5, method="slow")  # type: ignore[arg-type]
    return index.search(np.zeros((1, 8), np.float32), 5)


def run_of(path: str) -> Run:
    recipe = Recipe.load(path, ["train.epochs=2"]).with_settings({"encoder.dim": 16})
    assert_type(recipe.digest, str)
    assert_type(rectoolkit.__version__, str)
    return execute(recipe, RunOptions(Path("runs"), threads=1))
