"""The identity of a run: the run is reused without torch if nothing changed, and refused if anything did."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Answer, rectool

from rectoolkit.errors import UserError
from rectoolkit.recipe import Recipe
from rectoolkit.runs.execute import RunOptions, execute
from rectoolkit.runs.layout import LAYOUT
from rectoolkit.training.callbacks import Callback

ROOT = Path(__file__).parents[2]
STE = ROOT / "recipes" / "ste.toml"
PLUGIN = (
    "from rectoolkit.model.encoders.base import Encoder\n"
    "from rectoolkit.model.encoders.settings import EncoderSettings\n"
    "from rectoolkit.recipe.registry import encoders\n"
    '@encoders.register("beside", EncoderSettings)\nclass Beside(Encoder):\n'
    "    def forward(self):\n        return self.graph.split(self.embedding)\n"
)


def small(data: Path) -> list[str]:
    return [f'dataset.path="{data}"', "encoder.dim=16", "encoder.layers=2", "sampler.batch=256", "train.epochs=1"]


def options(settings: list[str]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


@pytest.fixture(scope="module")
def made(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that ``rectool run`` made of ``ste.toml`` and ``small``."""
    runs = tmp_path_factory.mktemp("runs")
    result = rectool("run", STE, *options(small(small_data)), "--runs", runs, "--threads", 1)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    stages = [n for n, line in enumerate(lines) if line.endswith(" ...")]
    assert [lines[n].split()[0] for n in stages] == ["loading", "building", "measuring"]
    assert next(n for n, line in enumerate(lines) if line.startswith("epoch 1")) > stages[1]
    (folder,) = runs.iterdir()
    return folder


def without_torch(*arguments: object) -> str:
    code = (
        "import sys; from rectoolkit.cli import main\n"
        f"main({list(map(str, arguments))!r}, standalone_mode=False)\n"
        "assert not {'torch', 'dgl', 'numba'} & set(sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_same_command_again_prints_its_table_without_torch(made: Path, small_data: Path) -> None:
    output = without_torch("run", STE, *options(small(small_data)), "--runs", made.parent)
    for part in ("finished before", made.name, "recall@20", "queries per second"):
        assert part in output, part


def test_a_run_folder_stands_for_its_recipe(made: Path, tmp_path: Path) -> None:
    first = rectool("run", made)
    assert first.exit_code == 0, first.output
    assert "finished before" in first.output
    assert "finished before" in without_torch("run", made)
    assert [path.name for path in made.parent.iterdir()] == [made.name]
    renamed = tmp_path / "best"
    shutil.copytree(made, renamed)
    result = rectool("run", renamed)
    assert result.exit_code == 2
    assert f"names the run {made.name}" in result.output


def test_an_unfinished_run_folder_is_gone_on_with(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / made.name
    shutil.copytree(made, copy)
    (copy / "metrics.json").unlink()
    (copy / "items.codes").unlink()
    result = rectool("run", copy, "--threads", 1)
    assert result.exit_code == 0, result.output
    assert "epoch 1/1" in result.output
    assert (copy / "items.codes").read_bytes() == (made / "items.codes").read_bytes()


def test_a_folder_begun_on_something_else_is_refused(made: Path, small_data: Path, tmp_path: Path) -> None:
    copy = tmp_path / made.name
    shutil.copytree(made, copy)
    kept = json.loads((copy / "environment.json").read_text())
    for changes, told in (
        ({"data": {**kept["data"], "digest": "0" * 64}}, "begun on other interactions of the data set"),
        ({"digest": "0" * 64}, "begun with another recipe"),
        ({"order": "0" * 64}, "train lines in another order"),
        ({"layout": 1}, f"written by an earlier release (layout 1, this release reads {LAYOUT}); run its recipe again"),
        ({"layout": 99}, "written by another release (layout 99"),
    ):
        (copy / "environment.json").write_text(json.dumps({**kept, **changes}))
        refused = rectool("run", STE, *options(small(small_data)), "--runs", tmp_path)
        assert (refused.exit_code, told in " ".join(refused.output.split())) == (2, True), refused.output


def test_a_folder_of_an_earlier_layout_names_the_command_that_makes_it_again(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / made.name
    shutil.copytree(made, copy)
    environment = json.loads((copy / "environment.json").read_text())
    (copy / "environment.json").write_text(json.dumps({**environment, "layout": 1}))
    for command in (("run", copy), ("recommend", copy, "--user", 1), ("evaluate", copy)):
        refused = rectool(*command)
        again = f"run its recipe again: rectool run {copy / 'recipe.toml'} --runs {tmp_path}"
        assert (refused.exit_code, again in " ".join(refused.output.split())) == (2, True), refused.output
    assert "outdated" in rectool("runs", "--runs", tmp_path).output
    assert rectool("run", copy / "recipe.toml", "--runs", tmp_path / "new", "--threads", 1).exit_code == 0


def test_a_run_that_python_made_is_found_by_the_command(small_run: Path) -> None:
    assert "finished before" in without_torch("run", small_run)


def test_the_order_of_the_train_lines_counts_where_the_split_goes_by_it(small_data: Path, tmp_path: Path) -> None:
    """Every line reversed: the same interactions, and another validation part where the last items validate."""
    data = tmp_path / "data"
    shutil.copytree(small_data, data)
    lines = [line.split() for line in (data / "train.txt").read_text().splitlines()]

    def run(held: str) -> Answer:
        return rectool("run", STE, *options([*small(data), f"train.held={held}"]), "--runs", tmp_path / "runs")

    assert [run(held).exit_code for held in ("last", "random")] == [0, 0]
    (data / "train.txt").write_text("\n".join(" ".join(row) for row in reversed(lines)) + "\n")
    assert "finished before" in run("last").output, "where a user's line stands is no matter"
    (data / "train.txt").write_text("\n".join(" ".join([row[0], *row[:0:-1]]) for row in lines) + "\n")
    assert "finished before" in run("random").output
    refused = run("last")
    assert (refused.exit_code, "train lines in another order" in " ".join(refused.output.split())) == (2, True)
    for metrics in (tmp_path / "runs").glob("*/metrics.json"):
        metrics.unlink()
    assert (run("random").exit_code, run("last").exit_code) == (0, 2), "nor is an unfinished one gone on with"


def distilled(data: Path, teacher: Path | str, *changes: str) -> Recipe:
    return Recipe.load(STE, [*small(data), "loss.name=distill", f'loss.teacher="{teacher}"', *changes])


def test_a_teacher_trained_again_is_another_run(small_data: Path, small_float_run: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(small_float_run, teacher)
    recipe, around = distilled(small_data, teacher), RunOptions(tmp_path / "runs", threads=1)
    first = execute(recipe, around).path
    assert execute(recipe, around).path == first
    np.save(teacher / "items.npy", np.load(teacher / "items.npy")[::-1])
    metrics = json.loads((teacher / "metrics.json").read_text())
    (teacher / "metrics.json").write_text(json.dumps({**metrics, "crc32": {}}))
    with pytest.raises(UserError, match=r"begun with another content of .*items\.npy"):
        execute(recipe, around)
    (first / "metrics.json").unlink()
    with pytest.raises(UserError, match="another content"):  # nor is an unfinished one gone on with
        execute(recipe, around)


def test_a_teacher_of_another_split_is_refused(small_data: Path, small_float_run: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(small_data, data)
    lines = (data / "test.txt").read_text().splitlines()
    (data / "test.txt").write_text("\n".join(lines[1:]) + "\n")
    with pytest.raises(UserError, match=r"loss\.teacher: .*another split"):
        execute(distilled(data, small_float_run), RunOptions(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_a_teacher_that_has_seen_the_validation_part_is_refused(
    small_data: Path, small_float_run: Path, tmp_path: Path
) -> None:
    """Its lists leave out what the taught run trains on, so what it holds out would stand on top of them."""
    around = RunOptions(tmp_path / "runs", threads=1)
    with pytest.raises(
        UserError, match=r"loss\.teacher: .* --set seed=7 --set train\.validation=0\.2 --set train\.held="
    ):
        execute(distilled(small_data, small_float_run, "train.validation=0.2", "seed=7"), around)
    assert not (tmp_path / "runs").exists()
    sizes = [*small(small_data), "train.validation=0.2", "seed=7"]
    teacher = execute(Recipe.load(STE.with_name("lightgcn.toml"), sizes), around)
    run = execute(distilled(small_data, teacher.path, "train.validation=0.2", "seed=7"), around)
    assert run.metrics["accuracy"]


def test_a_teacher_that_is_damaged_or_coded_is_refused(small_data: Path, small_float_run: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(small_float_run, teacher)
    np.save(teacher / "items.npy", np.load(teacher / "items.npy")[::-1])
    with pytest.raises(UserError, match=r"items\.npy: its content has changed since it was written"):
        execute(distilled(small_data, teacher), RunOptions(tmp_path / "runs", threads=1))
    coded = execute(Recipe.load(STE, small(small_data)), RunOptions(tmp_path / "coded", threads=1)).path
    with pytest.raises(UserError, match=r"loss\.teacher: .* is a run of \d-bit codes"):
        execute(distilled(small_data, coded), RunOptions(tmp_path / "runs"))


def test_a_teacher_that_held_out_by_another_order_of_lines_is_refused(small_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(small_data, data)
    sizes, around = ["train.validation=0.2", "train.held=last"], RunOptions(tmp_path / "runs", threads=1)
    teacher = execute(Recipe.load(STE.with_name("lightgcn.toml"), [*small(data), *sizes]), around).path
    assert execute(distilled(data, teacher, *sizes), around).metrics["accuracy"]
    lines = [line.split() for line in (data / "train.txt").read_text().splitlines()]
    (data / "train.txt").write_text("\n".join(" ".join([row[0], *row[:0:-1]]) for row in lines) + "\n")
    with pytest.raises(UserError, match=r"loss\.teacher: .*on the train file as it is now with --set seed="):
        execute(distilled(data, teacher, *sizes), RunOptions(tmp_path / "others", threads=1))


def test_features_edited_make_another_run(small_data: Path, tmp_path: Path) -> None:
    features = tmp_path / "features.npy"
    np.save(features, np.eye(90, 4, dtype=np.float32))
    sizes = [*small(small_data), "encoder.name=graphsage", f'encoder.features="{features}"']
    recipe, around = Recipe.load(STE, sizes), RunOptions(tmp_path / "runs", threads=1)
    assert execute(recipe, around).path == execute(recipe, around).path
    np.save(features, 2 * np.load(features))
    with pytest.raises(UserError, match=r"begun with another content of 'encoder\.features'"):
        execute(recipe, around)


class Stages(Callback):
    """Keeps the stages that it hears of, and the number of epochs."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.epochs = 0

    def stage(self, what: str) -> None:
        self.told.append(what)

    def epoch(self, row: dict[str, Any]) -> None:
        self.epochs += 1


@pytest.fixture
def teacher(small_data: Path, tmp_path: Path) -> Path:
    """The recipe of a small float32 model, on data that a taught run replaces by its own."""
    path = tmp_path / "teacher.toml"
    path.write_text(Recipe.load("lightgcn", [*small(small_data)[1:], "dataset.name=planted", "seed=3"]).toml())
    return path


def test_a_teacher_named_by_its_recipe_is_trained_first(small_data: Path, teacher: Path, tmp_path: Path) -> None:
    runs, stages = tmp_path / "runs", Stages()
    around = RunOptions(runs, threads=1, callbacks=(stages,))
    run = execute(distilled(small_data, teacher, "train.validation=0"), around)
    assert stages.told[1:3] == [f"training the teacher: {teacher}", f"training the teacher: {teacher}, epoch 1 of 1"]
    assert stages.told[3].startswith("building the model on ")
    assert stages.epochs == 1, "the teacher's epochs are not the run's"
    taught, trained = sorted(runs.iterdir(), key=lambda folder: "lightgcn" in folder.name)
    assert taught == run.path
    made = Recipe.load(trained / "recipe.toml")
    assert (made["dataset"]["path"], made.seed) == (str(small_data), 3), "the run's data, the teacher's seed"
    again = execute(distilled(small_data, trained, "train.validation=0"), replace(around, runs=tmp_path / "others"))
    assert (again.path / "users.codes").read_bytes() == (run.path / "users.codes").read_bytes()
    stages.told.clear()
    execute(distilled(small_data, teacher, "train.validation=0", "seed=1"), around)
    assert not [told for told in stages.told if "teacher" in told], "trained once"


def test_a_teacher_holds_out_the_validation_part_of_the_run(small_data: Path, teacher: Path, tmp_path: Path) -> None:
    around = RunOptions(tmp_path / "runs", threads=1)
    execute(distilled(small_data, teacher, "train.validation=0.2", "seed=7"), around)
    made = Recipe.load(next((tmp_path / "runs").glob("lightgcn-*/recipe.toml")))
    assert (made.seed, made["train"]["validation"]) == (7, 0.2)


def test_a_finished_run_needs_its_teacher_no_more(
    small_data: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the teacher's run nor its recipe, and from any folder."""
    by_recipe = execute(distilled(small_data, teacher, "train.validation=0"), RunOptions(tmp_path / "runs", threads=1))
    trained = next((tmp_path / "runs").glob("lightgcn-*"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "folder")
    by_folder = execute(distilled(small_data, "folder", "train.validation=0"), RunOptions(Path("runs"), threads=1))
    for gone in (trained, tmp_path / "folder"):
        shutil.rmtree(gone)
    teacher.unlink()
    (tmp_path / "elsewhere").mkdir()
    for run in (by_recipe, by_folder):
        folder = tmp_path / "runs" / run.path.name
        monkeypatch.chdir(tmp_path)
        assert "finished before" in rectool("run", folder).output
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert "finished before" in rectool("run", folder).output
        shutil.move(tmp_path / "runs", tmp_path / "elsewhere" / "runs")
        assert "finished before" in rectool("run", Path("runs") / run.path.name).output
        shutil.move(tmp_path / "elsewhere" / "runs", tmp_path / "runs")


def test_a_changed_recipe_of_the_teacher_is_noticed(small_data: Path, teacher: Path, tmp_path: Path) -> None:
    around = RunOptions(str(tmp_path / "runs"), threads=1)
    execute(distilled(small_data, teacher, "train.validation=0"), around)
    teacher.write_text(Recipe.load(teacher, ["train.rate=0.5"]).toml())
    with pytest.raises(UserError, match="begun with another recipe of its teacher"):
        execute(distilled(small_data, teacher, "train.validation=0"), around)


def test_a_changed_default_is_noticed(made: Path, small_data: Path, tmp_path: Path) -> None:
    """The digest leaves defaults out, so a folder also keeps the filled recipe it was begun with."""
    copy = tmp_path / made.name
    shutil.copytree(made, copy)
    filled = (copy / "recipe.toml").read_text()
    key, changed = 'held = "random"', 'held = "last"'
    assert key in filled
    (copy / "recipe.toml").write_text(filled.replace(key, changed))
    refused = rectool("run", STE, *options(small(small_data)), "--runs", tmp_path)
    assert refused.exit_code == 2
    assert "begun with another default of train.held" in " ".join(refused.output.split())
    (copy / "recipe.toml").write_text(filled.replace(key, ""))  # as of a release that had no such setting
    assert "finished before" in rectool("run", STE, *options(small(small_data)), "--runs", tmp_path).output


def test_a_teacher_is_named_in_one_way(small_data: Path) -> None:
    first, second = (distilled(small_data, name).folder_name for name in ("./runs/t/", "runs/t"))
    assert first == second


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"quantizer.name": "gste", "quantizer.bits": 2}, "makes 2-bit codes"),
        ({"loss.name": "distill", "loss.teacher": "lightgcn"}, "has a teacher itself"),
    ],
)
def test_a_recipe_that_cannot_teach_is_refused_before_training(
    small_data: Path, teacher: Path, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    teacher.write_text(Recipe.load(teacher, changes).toml())
    with pytest.raises(UserError, match=rf"loss\.teacher: the recipe .* {told}"):
        execute(distilled(small_data, teacher), RunOptions(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_runs_of_a_comparison_train_their_teacher_once(small_data: Path, teacher: Path, tmp_path: Path) -> None:
    """Three at a time: two runs that need the teacher, and the teacher's own."""
    paths = []
    for seed in (1, 2):
        paths.append(tmp_path / f"taught-{seed}.toml")
        paths[-1].write_text(distilled(small_data, teacher, "train.validation=0", f"seed={seed}").toml())
    own = tmp_path / "own.toml"
    own.write_text(Recipe.load(teacher, [f'dataset.path="{small_data}"']).toml())
    compared = rectool("compare", *paths, own, "--jobs", 3, "--threads", 1, "--runs", tmp_path / "runs")
    assert compared.exit_code == 0, compared.output
    (trained,) = (tmp_path / "runs").glob("lightgcn-*")
    assert len(json.loads((trained / "environment.json").read_text())["sessions"]) == 1


def test_a_missing_teacher_is_told_before_a_comparison_begins(small_data: Path, tmp_path: Path) -> None:
    from rectoolkit.compare.plan import make_plan

    changes = [*small(small_data), "loss.name=distill", "loss.teacher=nowhere"]
    with pytest.raises(
        UserError, match=r"ste, seed \d+: loss\.teacher: 'nowhere' is neither a recipe nor a run folder \(no users\.npy"
    ):
        make_plan([STE], changes)


def test_a_plugin_may_lie_beside_its_recipe(small_data: Path, tmp_path: Path) -> None:
    """Run from another folder, by the processes of ``compare`` too."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    (home / "beside.py").write_text(PLUGIN)
    text = 'plugins = ["beside"]\n' + STE.read_text()
    (home / "mine.toml").write_text(text)
    settings = [*small(small_data)[:1], "encoder.name=beside", "encoder.dim=8", "train.epochs=1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "rectoolkit", "compare", "../home/mine.toml", *options(settings)]
    ran = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    assert len(list((elsewhere / "runs").iterdir())) == 1
    (elsewhere / "beside.py").write_text(PLUGIN + "# the working folder comes first, as it does for python\n")
    ran = subprocess.run(
        [sys.executable, "-m", "rectoolkit", "run", "../home/mine.toml", *options(settings)],
        cwd=elsewhere, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "another version of the plugin 'beside'" in ran.stderr
