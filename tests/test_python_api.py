"""The Python API: the estimator, what the package exports, its document, and its types."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import rectoolkit
from rectoolkit import Estimator, Interactions, Run
from rectoolkit.data import from_frame
from rectoolkit.errors import DataError, FormatError, RecipeError, UserError

ROOT = Path(__file__).parent.parent
SMALL = {"encoder.dim": 16, "encoder.layers": 2, "train.epochs": 4, "sampler.batch": 256, "train.rate": 0.03}


def checkerboard(names: bool) -> pd.DataFrame:
    """40 users and items; a user has the items of its parity, but for its own number."""
    pairs = [(user, item) for user in range(40) for item in range(user % 2, 40, 2) if user != item]
    frame = pd.DataFrame(pairs, columns=["user", "item"])
    if names:
        frame["user"], frame["item"] = "u" + frame["user"].astype(str), "i" + frame["item"].astype(str)
    return frame.sample(frac=1, random_state=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Estimator:
    """Fitted to the checkerboard of names; kept in a folder."""
    settings = {**SMALL, "train.epochs": 30, "quantizer.bits": 4}
    return Estimator("ste", settings, folder=tmp_path_factory.mktemp("runs"), threads=1).fit(checkerboard(names=True))


def test_it_answers_with_what_the_data_calls_its_items(model: Estimator) -> None:
    hits = model.recommend([f"u{n}" for n in range(40)], k=1)
    right = sum(hits.ids[n, 0] == f"i{n}" for n in range(40))
    assert right >= 36
    assert model.recommend("u3", k=2).ids.shape == (1, 2)
    even = model.recommend(k=5, items=["i2", "i4", "i6"]).ids[0].tolist()
    assert all(int(item[1:]) % 2 == 0 for item in even)
    assert not set(even) & {"i2", "i4", "i6"}
    assert model.recommend(k=5, items=[["i2", "i4", "i6"], ["i1"]]).ids[0].tolist() == even
    alike = model.similar_items("i8", k=5).ids[0].tolist()
    assert "i8" not in alike
    assert all(int(item[1:]) % 2 == 0 for item in alike)
    assert model.recommend("u3", k=40).ids[0, -1] is None


def test_a_saved_one_opened_elsewhere_answers_the_same(model: Estimator, tmp_path: Path) -> None:
    path = model.save(tmp_path / "model")
    opened = Estimator.open(shutil.move(path, tmp_path / "moved"))
    for ask in (lambda m: m.recommend(["u3", "u4"], 7), lambda m: m.similar_items("i3", 7)):
        one, other = ask(model), ask(opened)
        assert one.ids.tolist() == other.ids.tolist()
        assert np.array_equal(one.scores, other.scores)
    ids = model.recommend(["u3", "u4"], 7).ids
    assert model.similar_items(ids[0], 3).ids.shape == (7, 3), "ids that come out go in again"
    assert model.recommend(items=ids[0], k=3).ids.shape == (1, 3)
    for asked in (np.array(["u3", "u4"], dtype=object), pd.Series(["u3", "u4"])):
        assert model.recommend(asked, 7).ids.tolist() == ids.tolist()
    assert opened.filled_recipe["quantizer"]["bits"] == 4
    assert Run.open(tmp_path / "moved").items.bits == 4
    assert model.save(tmp_path / "moved") == tmp_path / "moved"  # the same run, so nothing is to do
    with pytest.raises(FormatError, match="no such run folder"):
        Estimator.open(tmp_path / "model")


def test_a_run_outlives_the_estimator_it_is_of() -> None:
    frame = checkerboard(names=True)
    estimator = Estimator("mf", {"encoder.dim": 8, "train.epochs": 1}, threads=1)
    run = estimator.fit(frame).run
    first = run.path
    estimator.fit(frame.iloc[5:])
    del estimator
    gc.collect()
    assert run.recommend("u3", k=2).ids.shape == (1, 2)
    del run
    gc.collect()
    assert not first.exists()


def test_a_run_is_saved_whole_or_not_at_all(model: Estimator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, target = model.run, tmp_path / "deep" / "model"
    assert run.save(target) == target
    assert Run.open(target).recommend("u3", 7).ids.tolist() == run.recommend("u3", 7).ids.tolist()
    assert {file.name for file in target.iterdir()} == {f.name for f in run.path.iterdir() if f.name != ".lock"}
    stamp = (target / "metrics.json").stat().st_mtime_ns
    assert run.save(str(target)) == Run.open(target).save(target) == target
    assert (target / "metrics.json").stat().st_mtime_ns == stamp
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    environment = (target / "environment.json").read_bytes()
    (target / "environment.json").unlink()
    with pytest.raises(UserError, match="is not a copy of this run"):
        run.save(target)
    (target / "environment.json").write_bytes(environment)
    (target / "items.codes").write_bytes((target / "items.codes").read_bytes()[:-1])
    for taken in (tmp_path / "file", tmp_path / "empty", target):
        with pytest.raises(UserError, match="exists already and is not a copy of this run"):
            run.save(taken)

    def full(*arguments: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="no space left"):
        run.save(tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "empty", "file"]
    (tmp_path / "unfinished").mkdir()
    shutil.copy(run.path / "environment.json", tmp_path / "unfinished")
    with pytest.raises(FormatError, match="not finished"):
        Run(tmp_path / "unfinished").save(tmp_path / "other")


def test_integer_ids_with_gaps_come_back_as_they_were() -> None:
    frame = checkerboard(names=False)
    frame["item"] = frame["item"] * 1000 + 7
    hits = Estimator("mf", {"encoder.dim": 8, "train.epochs": 2}, threads=1).fit(frame).recommend([0, 1], k=40)
    assert set(hits.ids.ravel().tolist()) - {-1} <= {item * 1000 + 7 for item in range(40)}


def test_digits_that_are_strings_stay_strings() -> None:
    frame = checkerboard(names=False).astype(str)
    model = Estimator("mf", {"encoder.dim": 8, "train.epochs": 1}, threads=1).fit(frame)
    assert {type(item) for item in model.recommend("7", k=3).ids[0]} == {str}


def test_a_test_frame_is_measured_by_the_same_ids() -> None:
    frame = checkerboard(names=True)
    own = {"user": [f"u{n}" for n in range(40)], "item": [f"i{n}" for n in range(40)]}
    settings = {**SMALL, "train.epochs": 30, "quantizer.bits": 4}
    model = Estimator("ste", settings, threads=1).fit(frame, test=own)
    assert model.run.metrics["test_users"] == 40
    assert model.run.metrics["accuracy"]["recall@20"] > 0.9
    renamed = frame.rename(columns={"user": "who", "item": "what"})
    seen = {"who": ["u0", "new"], "what": ["i2", "i0"]}  # the first pair is in train
    run = (
        Estimator("mf", {"encoder.dim": 8, "train.epochs": 1}, threads=1)
        .fit(renamed, user="who", item="what", test=pd.DataFrame(seen))
        .run
    )
    assert (run.metrics["test_users"], run.seen.num_users) == (1, 41)


def test_ids_are_numbered_as_from_frame_numbers_them() -> None:
    """Object columns of numpy's integers, and strings of unequal lengths without an array as wide as the longest."""
    frame = {"user": np.array([np.int64(7), np.int64(2), np.int64(7)], object), "item": ["10", "x" * 1000, "9"]}
    run = Estimator("mf", {"encoder.dim": 4, "train.epochs": 1, "train.validation": 0}, threads=1).fit(frame).run
    whole, users, items = from_frame(pd.DataFrame(frame))
    assert run.user_ids is not None
    assert run.item_ids is not None
    assert run.user_ids.array().tolist() == users.array().tolist() == [2, 7]
    assert run.item_ids.array().tolist() == items.array().tolist() == ["10", "9", "x" * 1000]
    assert [one.tolist() for one in run.seen.pairs()] == [one.tolist() for one in whole.pairs()]


def test_interactions_are_taken_as_they_are_and_a_test_part_is_measured(checkerboard_rows: Interactions) -> None:
    test = Interactions.from_pairs(np.arange(40), np.arange(40), 40, 40)
    model = Estimator("mf", {"encoder.dim": 8, "train.epochs": 2}, threads=1).fit(checkerboard_rows, test=test)
    assert 0 <= model.run.metrics["accuracy"]["recall@20"] <= 1
    assert model.recommend([3], k=2).ids.dtype == np.int64
    untested = Estimator("mf", {"encoder.dim": 8, "train.epochs": 2}, threads=1).fit(checkerboard_rows)
    assert untested.run.metrics["accuracy"] == {}
    assert untested.run.metrics["queries_per_second"] > 0


@pytest.fixture
def checkerboard_rows() -> Interactions:
    frame = checkerboard(names=False)
    return Interactions.from_pairs(frame["user"].to_numpy(), frame["item"].to_numpy(), 40, 40)


def test_the_same_fit_again_is_reused_and_other_data_is_not(tmp_path: Path) -> None:
    frame = checkerboard(names=True)
    settings = {"encoder.dim": 8, "train.epochs": 1}
    first = Estimator("mf", settings, folder=tmp_path, threads=1).fit(frame).run.path
    stamp = (first / "metrics.json").stat().st_mtime_ns
    assert Estimator("mf", settings, folder=tmp_path, threads=1).fit(frame).run.path == first
    assert (first / "metrics.json").stat().st_mtime_ns == stamp
    assert Estimator("mf", settings, folder=tmp_path, threads=1).fit(frame.iloc[5:]).run.path != first


def test_what_cannot_be_done_is_told(model: Estimator) -> None:
    with pytest.raises(RecipeError, match=r"quantizer\.bits"):
        Estimator("hqgnn", {"quantizer.bits": 9}).fit(checkerboard(names=True))
    with pytest.raises(UserError, match="Did you mean 'hqgnn'"):
        Estimator("hqgn").fit(checkerboard(names=True))
    with pytest.raises(UserError, match="settings must be a dictionary"):
        Estimator("mf", ["encoder.dim=8"]).fit(checkerboard(names=True))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="not fitted"):
        Estimator("mf").recommend(1)
    with pytest.raises(UserError, match="user 'u400' is unknown: there are 40 users, none with this id"):
        model.recommend("u400")
    with pytest.raises(UserError, match="user '3' is unknown"):
        model.recommend(3)
    with pytest.raises(UserError, match="item 'x' is unknown"):
        model.similar_items("x")
    frame = checkerboard(names=True)
    with pytest.raises(DataError, match=r"no column 'who' \(it has: user, item\)"):
        Estimator("mf").fit(frame, user="who")
    for entries, told in (
        (["a", None], r"row 1: the user \(column 'user'\) is empty"),
        ([None, "a"], r"row 0: the user \(column 'user'\) is empty"),
        (["a", 1], "row 1: column 'user' mixes types, int after str"),
        ([1, "a"], "row 1: column 'user' mixes types, str after int"),
        ([1, 0.5], "holds double; ids are integers or text"),
        ([-1, 2], "is -1, which stands for a missing one"),
        ([2**70, 2], "beyond 64 bits"),
        (["a", "\ud800"], "surrogates not allowed"),
        ([True, False], "holds bool; ids are integers or text"),
    ):
        with pytest.raises(DataError, match=told):
            Estimator("mf").fit({"user": np.array(entries, object), "item": [1, 2]})
    with pytest.raises(DataError, match="so test must be too"):
        Estimator("mf").fit(Interactions.from_pairs([0], [0]), test={"user": [0], "item": [0]})
    with pytest.raises(DataError, match="must each be a column of integers or strings"):
        Estimator("mf").fit({"user": np.ones((2, 2), int), "item": [1, 2]})
    with pytest.raises(DataError, match="2 user ids against 3 item ids"):
        Estimator("mf").fit({"user": [1, 2], "item": [1, 2, 3]})
    with pytest.raises(DataError, match="holds double; ids are integers or text"):
        Estimator("mf").fit({"user": [0.5, 1.5], "item": [1, 2]})
    with pytest.raises(DataError, match="no interactions"):
        Estimator("mf").fit(Interactions.from_pairs([], [], 3, 3))


@pytest.mark.parametrize(
    "check",
    [
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_get_params_invariance",
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_set_params",
        "check_valid_tag_types",
    ],
)
def test_it_passes_the_checks_of_scikit_learn_that_need_no_matrix(check: str) -> None:
    from sklearn.utils import estimator_checks

    getattr(estimator_checks, check)("Estimator", Estimator())


def test_a_clone_has_the_same_arguments_and_is_not_fitted(model: Estimator, tmp_path: Path) -> None:
    from sklearn.base import clone
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(model)
    copy = clone(model)
    assert not hasattr(copy, "run_")
    assert copy.get_params() == model.get_params()
    assert copy.filled_recipe.digest == model.filled_recipe.digest
    for named in (Estimator(folder=tmp_path), Estimator(folder=str(tmp_path)), Estimator.open(model.run.path)):
        assert clone(named).get_params() == named.get_params()


def test_lists_are_settings_too() -> None:
    recipe = Estimator("hqgnn", {"evaluate.metrics": ["recall@10"]}).filled_recipe
    assert recipe["evaluate"]["metrics"] == ["recall@10"]


def test_settings_are_parameters() -> None:
    model = Estimator("hqgnn", {"quantizer.bits": 2, "seed": 5}, threads=1)
    assert model.get_params() == {**model.get_params(deep=False), "quantizer__bits": 2, "seed": 5}
    changed = Estimator().set_params(**model.get_params()).set_params(quantizer__bits=4, threads=2, seed=6)
    assert (changed.filled_recipe["quantizer"]["bits"], changed.filled_recipe.seed, changed.threads) == (4, 6, 2)
    assert (model.filled_recipe["quantizer"]["bits"], model.filled_recipe.seed) == (2, 5)
    with pytest.raises(ValueError, match="Invalid parameter 'thread'"):
        model.set_params(thread=1)
    assert repr(model) == "Estimator(settings={'quantizer.bits': 2, 'seed': 5}, threads=1)"


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, rectoolkit; dir(rectoolkit); sys.exit(bool({'numpy', 'torch', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    heavy = "{'torch', 'dgl', 'sklearn'}"
    code = f"import sys; from rectoolkit import Run, Index; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", [name for name in rectoolkit.__all__ if name != "__version__"])
def test_without_the_extras_a_name_imports_or_says_what_to_install(name: str) -> None:
    """What serving needs imports; the Estimator, which trains, ends in one line."""
    blocked = ["torch", "dgl", "pandas", "pyarrow", "sklearn", "scipy", "faiss", "matplotlib", "jinja2", "optuna"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked}))\n"
        "from rectoolkit import UserError\n"
        "try:\n"
        f"    from rectoolkit import {name}\n"
        "except UserError as error:\n"
        "    sys.exit(str(error))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if name == "Estimator":
        assert "rectoolkit.Estimator needs sklearn" in ran.stderr
        assert "pip install 'rectoolkit[train]'" in ran.stderr
    else:
        assert (ran.returncode, ran.stderr) == (0, "")


def test_an_estimator_ends_a_pipeline(tmp_path: Path) -> None:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    log = pd.DataFrame({"user": ["a", "a", "b", "b"], "item": [1, 2, 2, 3]})
    steps = FunctionTransformer(), Estimator("hqgnn", {"train.epochs": 1, "train.validation": 0}, folder=tmp_path)
    assert make_pipeline(*steps).fit(log)[-1].recommend(["a"], k=1).ids.tolist() == [[3]]


def test_every_name_that_is_promised_is_there() -> None:
    for name in rectoolkit.__all__:
        assert getattr(rectoolkit, name) is not None
        assert name in dir(rectoolkit)
    with pytest.raises(AttributeError, match="no attribute 'Estimater'"):
        _ = rectoolkit.Estimater


@pytest.mark.slow
def test_calls_as_users_write_them_are_typed() -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "tests/typed_calls.py"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    assert (ROOT / "rectoolkit" / "py.typed").exists()
