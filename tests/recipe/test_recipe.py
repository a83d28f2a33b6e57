"""Recipes: filled in, checked, and all faults reported at once with their place."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from rectoolkit.errors import RecipeError, UserError
from rectoolkit.recipe import Recipe
from rectoolkit.recipe.files import read_toml, shipped_recipes, tomllib
from rectoolkit.recipe.registry import quantizers
from rectoolkit.recipe.settings import ORDER

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.toml"))
HQGNN = ROOT / "recipes" / "hqgnn.toml"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT / "recipes")))
def test_every_shipped_recipe_states_what_differs_from_the_defaults_and_no_more(path: Path) -> None:
    recipe = Recipe.load(path)
    assert tomllib.loads(path.read_text()) == recipe.stated()
    assert recipe.description
    for told in re.findall(r"(?:rectoolkit|recipes|docs)/[\w/.]+", recipe.description):
        assert (ROOT / told).is_file(), told
    folder = path.parent.name
    assert recipe.name == (path.stem if folder == "recipes" else f"{folder}-{path.stem}")


def test_a_shipped_teacher_is_the_run_of_a_shipped_recipe() -> None:
    """A shipped recipe and its teacher name the same data, so that the teacher's run is that of its own recipe."""
    taught = [recipe for recipe in map(Recipe.load, RECIPES) if "teacher" in recipe["loss"]]
    assert taught
    for recipe in taught:
        teacher = Recipe.load(recipe["loss"]["teacher"])
        assert teacher["quantizer"]["name"] == "float32"
        assert teacher["dataset"] == recipe["dataset"], recipe.name
        assert recipe["train"]["validation"] == 0, "else the teacher would be given this recipe's seed"


def test_gowallas_recipes_run_on_other_data_by_one_override() -> None:
    for path in sorted((ROOT / "recipes" / "gowalla").glob("*.toml")):
        there, here = Recipe.load(path), Recipe.load(path, ["dataset.name=yelp2018"])
        assert here["dataset"] == {**there["dataset"], "name": "yelp2018"}
        assert {**here.sections, "dataset": {}} == {**there.sections, "dataset": {}}
        assert there.expect
        assert not here.expect, "no figures without a run"


def test_a_filled_recipe_loads_to_itself(tmp_path: Path) -> None:
    recipe = Recipe.load(HQGNN, ["quantizer.bits=3", "seed=5"])
    (tmp_path / "again.toml").write_text(recipe.toml())
    again = Recipe.load(tmp_path / "again.toml")
    assert again.as_dict() == recipe.as_dict()
    assert again.digest == recipe.digest


def test_the_digest_follows_what_bears_on_the_run_and_nothing_else() -> None:
    recipe = Recipe.load(HQGNN)
    assert Recipe.load(HQGNN, ["description=other"]).digest == recipe.digest
    for override in ("seed=1", "quantizer.bits=2", "train.epochs=3", "name=other", "loss.l2=0.5"):
        assert Recipe.load(HQGNN, [override]).digest != recipe.digest, override


def test_a_new_setting_with_a_default_leaves_the_digest_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Recipe.load(HQGNN, ["quantizer.bits=2"])

    class More(quantizers.schema("gste")):  # type: ignore[misc]
        """The settings of a later release."""

        later: Annotated[float, Field(gt=0, description="a new setting")] = 0.5

    monkeypatch.setitem(quantizers._settings, "gste", More)
    after = Recipe.load(HQGNN, ["quantizer.bits=2"])
    assert after["quantizer"] == {**before["quantizer"], "later": 0.5}
    assert after.digest == before.digest
    assert Recipe.load(HQGNN, ["quantizer.bits=2", "quantizer.later=0.7"]).digest != before.digest


def test_the_digest_does_not_depend_on_the_order_of_keys_nor_on_defaults_that_are_written(tmp_path: Path) -> None:
    recipe = Recipe.load(HQGNN)
    turned = {
        key: dict(reversed(value.items())) if isinstance(value, dict) else value
        for key, value in reversed(recipe.as_dict().items())
    }
    assert Recipe.check(turned).digest == Recipe.check(recipe.stated()).digest == recipe.digest
    assert Recipe.check(turned).stated() == recipe.stated()
    assert replace(recipe, seed=5).digest == Recipe.load(HQGNN, ["seed=5"]).digest


def test_all_faults_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(
        'name = "bad"\nsed = 3\n[encoder]\nname = "lightgcm"\n[quantizer]\nname = "gste"\nbits = 9\nevrey = 2\n'
        '[loss]\nname = "bpr"\n[sampler]\nname = "uniform"\n[evaluate]\nmetrics = ["recal@20"]\n'
    )
    with pytest.raises(RecipeError) as raised:
        Recipe.load(path)
    message = str(raised.value)
    assert message.startswith(str(path))
    for part in (
        "line 2, sed: unknown key; did you mean 'seed'",
        "line 4, encoder.name: unknown encoder 'lightgcm'; did you mean 'lightgcn'",
        "line 7, quantizer.bits: must be a whole number from 1 to 8, got 9",
        "line 8, quantizer.evrey: unknown key; did you mean 'every'",
        "line 14, evaluate.metrics: unknown metric 'recal'; did you mean 'recall'",
        "dataset: write either name",
    ):
        assert part in message, part
    assert len(raised.value.faults) == 6


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("quantizer.bit=2", "did you mean 'bits'"),
        ("quantiser.bits=2", "did you mean 'quantizer'"),
        ("quantizer.bits", "section.key=value"),
        ("bits=2", "section.key=value"),
        ("quantizer.bits=two", "got 'two'"),
        ("quantizer.name=gst", "did you mean 'gste'"),
        ("train.rate=nan", "finite"),
        ("dataset.name=", "either name"),
        ("quantizer.curvature=exact", ""),
    ],
)
def test_overrides_reach_existing_keys_only(override: str, told: str) -> None:
    if told:
        with pytest.raises(RecipeError, match=told):
            Recipe.load(HQGNN, [override])
    else:
        Recipe.load(HQGNN, [override])


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("quantizer.bits=2.5", "must be a whole number from 1 to 8, got 2.5"),
        ("quantizer.momentum=1", "must be a number of at least 0 and below 1, got 1"),
        ("train.rate=0", "must be a number above 0, got 0"),
        ("train.rate=inf", "must be finite, a number above 0, got inf"),
        ("train.optimizer=sdg", "must be 'adam', 'adagrad' or 'sgd', got 'sdg'"),
        ("evaluate.metrics=recall@20", "must be a list of strings in quotes with at least 1 of them, got 'recall@20'"),
        ("evaluate.metrics=[]", "must be a list of strings in quotes with at least 1 of them, got []"),
        ('evaluate.metrics=["recall@20", 3]', "entry 2 of the list must be a string, got 3"),
        ("plugins=mine", "must be a list of strings in quotes, got 'mine'"),
        (
            "name=Mine",
            "must be a string of up to 64 lower-case letters, digits, '-' or '_', starting with a letter or digit",
        ),
        ("seed=-1", "must be a whole number of at least 0 and below 9223372036854775808, got -1"),
        ("description=3", "must be a string, got 3"),
        ("dataset.path=[1]", "must be a string, got [1]"),
    ],
)
def test_what_is_wrong_is_told_in_plain_words(override: str, told: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(f"--set {override.partition('=')[0]}: {told}")):
        Recipe.load(HQGNN, [override])


@pytest.mark.parametrize(
    ("given_value", "value"),
    [
        (["recall@10"], ["recall@10"]),
        (("recall@10", "ndcg@5"), ["recall@10", "ndcg@5"]),
        (np.array(["recall@10"]), ["recall@10"]),
    ],
)
def test_lists_are_set_from_python(given_value: Any, value: list[str]) -> None:
    for recipe in (
        Recipe.load(HQGNN, {"evaluate.metrics": given_value}),
        Recipe.load(HQGNN).with_settings({"evaluate.metrics": given_value}),
    ):
        assert recipe["evaluate"]["metrics"] == value


def test_numpys_numbers_and_paths_are_set_from_python() -> None:
    settings = {
        "quantizer.bits": np.int64(2),
        "train.rate": np.float32(0.5),
        "quantizer.hash_layer": np.bool_(True),
        "dataset.path": PurePosixPath("a") / 'b "c" [1]',
        "description": "two\nlines",
        "seed": np.array(7),
    }
    recipe = Recipe.load(HQGNN).with_settings(settings)
    assert recipe["quantizer"] | {"bits": 2, "hash_layer": True} == recipe["quantizer"]
    assert recipe["dataset"]["path"] == 'a/b "c" [1]'
    assert (recipe["train"]["rate"], recipe.description, recipe.seed) == (0.5, "two\nlines", 7)
    assert Recipe.load(HQGNN).with_settings({"train.rate": 0.5}).notes == ()


@pytest.mark.parametrize("value", [None, {"a": 1}, {1}, object(), [None], b"x", 1j])
def test_values_that_toml_has_not_are_refused(value: object) -> None:
    with pytest.raises(UserError, match=r"^seed: .* must be a string, number, boolean, or a list of these$"):
        Recipe.load(HQGNN).with_settings({"seed": value})


def test_faults_of_settings_from_python_name_the_key() -> None:
    with pytest.raises(RecipeError) as told:
        Recipe.load(HQGNN).with_settings({"quantizer.bits": 9, "quantiser.bits": 1, "bits": 2})
    assert [fault.where for fault in told.value.faults] == ["quantiser.bits", "bits", "quantizer.bits"]


def test_a_folder_takes_the_place_of_a_card_and_the_other_way_round(tmp_path: Path) -> None:
    mine = Recipe.load(HQGNN, ["dataset.path=here"])
    assert (mine["dataset"]["name"], mine["dataset"]["path"]) == ("", "here")
    (tmp_path / "mine.toml").write_text(mine.toml())
    assert Recipe.load(tmp_path / "mine.toml", ["dataset.name=planted"])["dataset"]["path"] == ""


def test_what_a_recipe_promises_is_for_its_own_settings() -> None:
    tuned = "recipes/lastfm/lightgcn.toml"
    assert Recipe.load(tuned).expect
    assert not Recipe.load(tuned, ["train.epochs=2"]).expect
    assert not Recipe.load(tuned).with_settings({"seed": 7}).expect


@pytest.mark.parametrize("setting", ["patience=3", "held=last", "monitor=recall@20"])
def test_a_setting_of_validation_without_any_is_noted(setting: str) -> None:
    key = setting.partition("=")[0]
    told = f"train.{key} has no effect without train.validation"
    assert told in Recipe.load(HQGNN, [f"train.{setting}", "train.validation=0"]).notes
    assert told not in Recipe.load(HQGNN, [f"train.{setting}"]).notes


def test_another_component_drops_what_it_does_not_know_and_says_so() -> None:
    recipe = Recipe.load(HQGNN, ["quantizer.name=float32"])
    assert recipe["quantizer"] == {"name": "float32"}
    assert any("not for quantizer 'float32'" in note and "extent = 'deviation'" in note for note in recipe.notes)
    kept = Recipe.load(HQGNN, ["quantizer.name=ste", "quantizer.bits=4"])
    assert kept["quantizer"]["bits"] == 4
    assert kept["quantizer"]["extent"] == Recipe.load(HQGNN)["quantizer"]["extent"]
    filled = Recipe.load(HQGNN).with_settings({"quantizer.name": "float32"})
    assert (filled.stated(), filled.notes) == (recipe.stated(), recipe.notes)


def test_a_loss_without_closed_form_is_refused_for_exact_curvature() -> None:
    with pytest.raises(RecipeError, match=r"quantizer.curvature: loss 'hinge' has no closed form.*hutchinson"):
        Recipe.load(HQGNN, ["loss.name=hinge"])
    Recipe.load(HQGNN, ["loss.name=hinge", "quantizer.curvature=hutchinson"])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"name = ", "not TOML"),
        (b"\xff\xfe", "not UTF-8"),
        (b"name = 'x'\nname = 'y'", "not TOML"),
        (None, "no such file"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, content: bytes | None, told: str) -> None:
    path = tmp_path / "r.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=told):
        Recipe.load(path)
    with pytest.raises(UserError, match="is a folder"):
        Recipe.load(tmp_path)


def test_a_plugin_that_cannot_be_imported_is_a_fault_of_the_recipe() -> None:
    with pytest.raises(RecipeError, match="cannot import 'no_such_module_anywhere'"):
        Recipe.load(HQGNN, ['plugins=["no_such_module_anywhere"]'])


def test_a_plugin_that_is_found_but_fails_is_not_said_to_lie_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "fails_when_imported.py").write_text("import no_such_module_anywhere")
    (tmp_path / "own.toml").write_text(HQGNN.read_text())
    with pytest.raises(RecipeError, match="No module named 'no_such_module_anywhere'") as told:
        Recipe.load(tmp_path / "own.toml", ['plugins=["fails_when_imported"]'])
    assert "must lie in" not in str(told.value)


def test_recipes_of_the_package_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("recipes/hqgnn.toml", "recipes/hqgnn", "hqgnn.toml", "hqgnn", Path("hqgnn")):
        assert Recipe.load(name).name == "hqgnn"
    assert Recipe.load("gowalla/hqgnn-1bit").name == "gowalla-hqgnn-1bit"
    assert set(shipped_recipes()) == {str(path.relative_to(ROOT / "recipes").with_suffix("")) for path in RECIPES}
    (tmp_path / "hqgnn").mkdir()
    assert Recipe.load("hqgnn").name == "hqgnn"
    (tmp_path / "hqgnn.toml").write_text(HQGNN.read_text().replace('name = "hqgnn"', 'name = "mine"', 1))
    assert Recipe.load("hqgnn.toml").name == "mine"


def test_an_unknown_name_says_where_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("hqgn", "recipes/hqgn.toml"):
        with pytest.raises(UserError) as told:
            Recipe.load(name)
        assert str(told.value) == (
            "No recipe named 'hqgn'. Did you mean 'hqgnn'? Run `rectool list recipes` to see all."
        )
    with pytest.raises(UserError, match=r"^No recipe named 'zzzzzzzz'\. Run `rectool list recipes` to see all\.$"):
        Recipe.load("zzzzzzzz")
    with pytest.raises(UserError, match=r"^mine\.toml: no such file"):
        Recipe.load("mine.toml")
    for wrong in (3, None, b"hqgnn"):
        with pytest.raises(UserError, match="by the path of a file or by name"):
            Recipe.load(wrong)  # type: ignore[arg-type]


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_mutated_recipe_loads_or_is_refused_and_nothing_else(data: st.DataObject) -> None:
    written, _ = read_toml(HQGNN)
    for _ in range(data.draw(st.integers(1, 4))):
        section = data.draw(st.sampled_from([*ORDER, "", "expect", "zzz"]))
        target = written if not section else written.setdefault(section, {})
        if not isinstance(target, dict):
            continue
        key = data.draw(st.sampled_from([*target, "unknown", "name"]))
        if data.draw(st.booleans()):
            target[key] = data.draw(VALUES)
        else:
            target.pop(key, None)
    try:
        recipe = Recipe.check(written)
    except UserError:
        return
    assert Recipe.check(recipe.as_dict()).digest == recipe.digest


@pytest.mark.parametrize("filled", [False, True])
def test_another_component_takes_over_the_settings_both_have(tmp_path: Path, filled: bool) -> None:
    """Defaults included: one bit stays one bit, three layers three, however much of it the file states."""
    path = HQGNN
    if filled:
        path = tmp_path / "filled.toml"
        path.write_text(Recipe.load(HQGNN).toml())
    rounded = Recipe.load(path, ["quantizer.name=round"])
    assert rounded["quantizer"]["bits"] == 1
    assert "dropped, not for quantizer 'round'" in rounded.notes[0]
    assert "curvature" not in rounded.notes[0], "a default that does not apply is not worth a note"
    assert Recipe.load(path, ["encoder.name=graphsage"])["encoder"]["layers"] == 3
    assert Recipe.load(path, ["quantizer.bits=4", "quantizer.name=round"])["quantizer"]["bits"] == 4
