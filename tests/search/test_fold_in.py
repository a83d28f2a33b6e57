"""New users: their rows, their recommendations, and the requests that are refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from rectoolkit.cli import main
from rectoolkit.data import Dataset, Ids, Interactions
from rectoolkit.data.catalog import load_data
from rectoolkit.data.planted import Planted, generate
from rectoolkit.errors import FormatError, UserError
from rectoolkit.evaluation.metrics import parse
from rectoolkit.model.recommender import assemble
from rectoolkit.recipe import Recipe
from rectoolkit.recipe.registry import quantizers
from rectoolkit.runs.execute import RunOptions, execute
from rectoolkit.runs.run import Run
from rectoolkit.runs.split import split_of
from rectoolkit.search.codes import CodeTable, PackedTable
from rectoolkit.search.fold_in import Aggregation, FoldIn, RowGrid

RECIPES = Path(__file__).parents[2] / "recipes"
HIDDEN = 60


@pytest.fixture(scope="module")
def whole() -> Dataset:
    """400 planted users; the first 60 are hidden from every training below."""
    return generate(Planted(users=400, items=200, interactions=12_000, communities=8, communities_per_user=1))


@pytest.fixture(scope="module")
def hidden(whole: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hidden")
    for name, part in (("train", whole.train), ("test", whole.test)):
        rows = (" ".join(map(str, (user, *part.row(user).tolist()))) for user in range(HIDDEN, part.num_users))
        (folder / f"{name}.txt").write_text("\n".join(rows) + "\n")
    return folder


def trained(data: Path, runs: Path, recipe: str, *settings: str) -> Run:
    own = [f'dataset.path="{data}"', "sampler.batch=512", "train.epochs=12", "train.every=4", "train.rate=0.03"]
    return execute(Recipe.load(RECIPES / f"{recipe}.toml", [*own, *settings]), RunOptions(runs, threads=1))


def recall(whole: Dataset, ids: np.ndarray) -> float:
    users = np.arange(HIDDEN)
    hits = whole.test.contains(users[:, None], ids)
    return float(parse("recall@20").values(hits, whole.test.user_degrees[users]).mean())


def by_popularity(whole: Dataset) -> np.ndarray:
    order = np.argsort(-np.bincount(whole.train.items[whole.train.users >= HIDDEN], minlength=whole.num_items))
    return np.array([[i for i in order if i not in whole.train.row(user)][:20] for user in range(HIDDEN)])


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("lightgcn", ("encoder.dim=16",)),
        ("mf", ("encoder.dim=16",)),
        ("hqgnn", ("encoder.dim=32",)),
        ("ste", ("encoder.dim=16", "quantizer.bits=4")),
        ("itq", ("encoder.dim=32",)),
        ("graphsage", ("encoder.dim=16",)),
        ("bigear", ("encoder.dim=32", "encoder.layers=1", "loss.l2=0.0001")),
    ],
)
def test_hidden_users_are_served_far_better_than_by_popularity(
    whole: Dataset, hidden: Path, tmp_path: Path, recipe: str, settings: tuple[str, ...]
) -> None:
    run = trained(hidden, tmp_path, recipe, *settings)
    hits = run.recommend(k=20, items=[whole.train.row(user).tolist() for user in range(HIDDEN)])
    assert recall(whole, hits.ids) > 1.3 * recall(whole, by_popularity(whole))
    for user, ids in enumerate(hits.ids):
        assert not set(ids.tolist()) & set(whole.train.row(user).tolist())


def test_graphsage_gives_the_rows_of_its_own_embed_users(whole: Dataset, hidden: Path, tmp_path: Path) -> None:
    lists = [whole.train.row(user).tolist() for user in range(5)]
    for number, settings in enumerate(((), ("encoder.user_ids=true", "encoder.normalize=true"))):
        run = trained(hidden, tmp_path / str(number), "graphsage", "encoder.dim=8", "train.epochs=1", *settings)
        recipe = Recipe.load(run.path / "recipe.toml")
        encoder = assemble(recipe, split_of(recipe, load_data(recipe["dataset"])).train).model
        encoder.load_state_dict(torch.load(run.path / "model.pt", weights_only=True))
        exact = encoder.eval().encoder.embed_users(lists).numpy()
        np.testing.assert_allclose(run.embed(lists), exact, rtol=1e-3, atol=1e-4 * np.abs(exact).max())


@pytest.mark.parametrize("name", quantizers.names())
def test_rows_are_coded_as_the_quantizer_codes_them(name: str, tiny: Interactions) -> None:
    """The fold-in codes a row exactly as the quantizer does, for every quantizer."""
    for settings in ({}, {"scale": "row"}):
        schema = quantizers.schema(name)
        if not set(settings) <= set(schema.model_fields):
            continue
        supply = {"dim": 32, "segments": (16, 16), "generator": torch.Generator().manual_seed(1)}
        quantizer = quantizers.build(name, {**schema().model_dump(), **settings}, supply)
        rows = torch.randn(300, 32, generator=torch.Generator().manual_seed(2)) * 0.1
        quantizer.calibrate(rows)
        quantizer.progress = 1.0
        quantizer.eval().finish(rows, rows)
        table = quantizer.encode(rows)
        if not isinstance(table, CodeTable):
            continue
        users, targets = PackedTable.pack(table), quantizer.target(rows).detach().numpy()
        degrees, grid = np.ones(300, np.int64), quantizer.row_grid()
        fold = FoldIn.fit(Aggregation(), _pairs(300), degrees, (users, users), targets, targets, grid)
        again = fold.coded(targets, users)
        assert (again.codes == table.codes).mean() > 0.999
        np.testing.assert_allclose(again.scale, table.scale, rtol=2**-8 if grid else 0.5)
        assert again.scale.shape == table.scale.shape
        assert PackedTable.pack(again).halved == users.halved


def _pairs(number: int) -> Interactions:
    return Interactions.from_pairs(np.arange(number), np.arange(number), number, number)


def test_the_map_is_the_ridge_regression(tiny: Interactions) -> None:
    random = np.random.default_rng(0)
    items, targets = (random.normal(size=(n, 6)).astype(np.float32) for n in (25, 40))
    fold = FoldIn.fit(Aggregation(0.5), tiny, tiny.item_degrees, (targets, items), targets, targets)
    features, known = [], [user for user in range(40) if len(tiny.row(user))]
    for user in known:
        row = [items[item] / np.sqrt(tiny.item_degrees[item]) for item in tiny.row(user).tolist()]
        features.append(np.sum(row, axis=0) / np.sqrt(len(row)))
    x = np.array(features, np.float64)
    ridge = 1e-3 * np.trace(x.T @ x) / 6
    expected = np.linalg.inv(x.T @ x + ridge * np.eye(6)) @ x.T @ targets[known]
    np.testing.assert_allclose(fold.map, expected, rtol=1e-3, atol=1e-5)
    lists = [tiny.row(known[3]).astype(np.int64)]
    np.testing.assert_allclose(fold.rows(lists, items, tiny.item_degrees)[0], x[3] @ expected, rtol=1e-3, atol=1e-4)


def test_one_user_and_several_are_asked_alike(small_run: Path, small_float_run: Path) -> None:
    for path in (small_run, small_float_run):
        run = Run.open(path)
        several = run.recommend(k=5, items=[[3, 17, 25], [4]])
        one = run.recommend(k=5, items=[25, 17, 3, 3])
        assert one.ids.tolist() == several.ids[:1].tolist()
        assert not set(one.ids[0].tolist()) & {3, 17, 25}
        assert set(run.recommend(k=90, items=[3, 17], include_seen=True).ids[0].tolist()) == set(range(90))
    float_query = Run.open(small_run).recommend(k=5, items=[3, 17, 25], float_query=True)
    assert not np.array_equal(float_query.scores, Run.open(small_run).recommend(k=5, items=[3, 17, 25]).scores)


def test_the_command_folds_in_without_torch(small_run: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from rectoolkit.cli import main\n"
        f"main(['recommend', {str(small_run)!r}, '--items', '3,17,25', '-k', '4', '--json'], standalone_mode=False)\n"
        "assert not {'torch', 'dgl', 'numba'} & set(sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    answer = json.loads(ran.stdout)
    assert answer["from_items"] == [3, 17, 25]
    assert answer["items"] == Run.open(small_run).recommend(k=4, items=[3, 17, 25]).ids[0].tolist()
    plain = CliRunner().invoke(main, ["recommend", str(small_run), "--items", "3,17", "--items", "4"]).output
    assert [line.split(":")[0] for line in plain.splitlines()] == ["from items 3,17", "from items 4"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--items", "3,900"], "item 900 is unknown: this run's items are 0 to 89"),
        (["--items", "3,-1"], "item -1 is unknown"),
        (["--items", "3,x"], "item 'x': this run's items are integers of 64 bits"),
        (["--items", ""], "items must be one or more integer ids"),
        (["--items", ","], "items must be one or more integer ids"),
        (["--items", "3", "--user", "1"], "--user and --items"),
        (["--items", "3", "--rescore", "20"], "rescore is for users of the run"),
        ([], "got none"),
    ],
)
def test_what_is_no_new_user_is_refused(small_run: Path, arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(main, ["recommend", str(small_run), *arguments])
    assert (result.exit_code, told in result.output) == (2, True), result.output


def test_items_that_nobody_had_say_nothing(small_run: Path, tmp_path: Path) -> None:
    fold = Run.open(small_run).fold_in
    degrees = np.array([0, 3, 0])
    items = np.eye(3, fold.map.shape[0], dtype=np.float32)
    one, two, none = (np.array(rows) for rows in ([1], [0, 1], [0, 2]))
    assert np.array_equal(fold.rows([two], items, degrees), fold.rows([one], items, degrees))
    for ids, name in ((None, "0"), (Ids.of(["a", "b", "c"]), "a")):
        with pytest.raises(UserError, match=f"item {name}: no user had any of these items in training"):
            fold.rows([none], items, degrees, ids)


@pytest.fixture(scope="module")
def layered(hidden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose encoder makes users from items in steps, each row of codes with a scale of its own."""
    settings = ("encoder.dim=8", "train.epochs=1", "encoder.layers=2", "quantizer.name=itq", "quantizer.scale=row")
    return trained(hidden, tmp_path_factory.mktemp("layered"), "graphsage", *settings).path


@pytest.mark.parametrize(
    ("field", "array", "told"),
    [
        ("map", np.zeros((9, 8), np.float32), r"a map of \(9, 8\) where its tables ask for \(8, 8\)"),
        ("map", np.zeros((8, 9), np.float32), r"a map of \(8, 9\)"),
        ("reach", np.zeros(0, np.float32), "0 of the users' scales and 0 of their offsets where there are 1"),
        ("reach", np.zeros(2, np.float32), "2 of the users' scales and 0 of their offsets where there are 1"),
        ("low", np.zeros(2, np.float32), "1 of the users' scales and 2 of their offsets where there are 1"),
        ("rows", np.zeros((7, 8), np.float32), "7 item rows of layer 1 where there are 200 items"),
        ("own", np.zeros((8, 4), np.float32), r"weights of \(8, 4\) for a user's own row at layer 1"),
        ("own", np.zeros((0, 0), np.float32), r"weights of \(0, 0\) for a user's own row at layer 1"),
    ],
)
def test_what_does_not_go_with_the_tables_is_refused(
    layered: Path, tmp_path: Path, field: str, array: np.ndarray, told: str
) -> None:
    target = shutil.copytree(layered, tmp_path / "run")
    fold, metrics = Run.open(layered).fold_in, json.loads((layered / "metrics.json").read_text())
    how = fold.aggregation
    if field == "map":
        fold = replace(fold, map=array)
    elif field in ("reach", "low"):
        fold = replace(fold, grid=replace(fold.grid, **{field: array}))
    else:
        fold = replace(fold, aggregation=replace(how, steps=(how.steps[0], replace(how.steps[1], **{field: array}))))
    fold.save(target / "fold_in.bin")
    (target / "metrics.json").write_text(json.dumps({**metrics, "crc32": {}}))
    with pytest.raises(FormatError, match=rf"fold_in\.bin: {told}"):
        Run.open(target).recommend(items=[3])


def test_one_user_with_a_scale_of_its_own_fits_its_grid() -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(1, 16, generator=generator)
    written = {**quantizers.schema("ste")().model_dump(), "bits": 4, "scale": "row"}
    quantizer = quantizers.build("ste", written, {"dim": 16, "segments": (16,), "generator": generator})
    quantizer.calibrate(rows)
    users, grid = PackedTable.pack(quantizer.eval().encode(rows)), quantizer.row_grid()
    targets = quantizer.target(rows).detach().numpy()
    fold = FoldIn.fit(Aggregation(), _pairs(1), np.ones(1, np.int64), (users, users), targets, targets, grid)
    assert fold.misfit(users, users) == ""
    assert "scales" in replace(fold, grid=RowGrid(np.ones(2, np.float32))).misfit(users, users)


def test_a_map_of_other_items_is_refused(small_run: Path, tmp_path: Path) -> None:
    target = shutil.copytree(small_run, tmp_path / "run")
    fold, metrics = Run.open(small_run).fold_in, json.loads((small_run / "metrics.json").read_text())
    replace(fold, map=fold.map[:-1]).save(target / "fold_in.bin")
    (target / "metrics.json").write_text(json.dumps({**metrics, "crc32": {}}))
    with pytest.raises(FormatError, match=r"fold_in\.bin: a map of"):
        Run.open(target).recommend(items=[3])


def test_a_run_of_an_earlier_release_says_what_it_lacks(small_run: Path, tmp_path: Path) -> None:
    target = shutil.copytree(small_run, tmp_path / "run")
    (target / "fold_in.bin").unlink()
    assert Run.open(target).recommend(3, 5).ids.shape == (1, 5)
    with pytest.raises(FormatError, match=r"fold_in\.bin: no such file; a run of an earlier release"):
        Run.open(target).recommend(items=[3])
    (target / "fold_in.bin").write_bytes((small_run / "fold_in.bin").read_bytes()[:-30])
    with pytest.raises(FormatError, match=r"fold_in\.bin"):
        Run.open(target).recommend(items=[3])
