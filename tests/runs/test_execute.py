"""The run folder: made, reused, resumed after kill -9, refused if incomplete; and the commands that use it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from command_line import rectool

from rectoolkit.data.catalog import load_data
from rectoolkit.errors import FormatError, UserError
from rectoolkit.recipe import Recipe
from rectoolkit.runs.execute import RunOptions, execute
from rectoolkit.runs.run import Run
from rectoolkit.runs.split import split_of
from rectoolkit.runs.store import locked
from rectoolkit.search.codes import PackedTable

ROOT = Path(__file__).parents[2]
HQGNN = str(ROOT / "recipes" / "hqgnn.toml")
SMALL = ["encoder.dim=16", "encoder.layers=2", "sampler.batch=256", "train.epochs=6", "quantizer.bits=2"]


@pytest.fixture(scope="module")
def settings(small_data: Path) -> list[str]:
    return [f'dataset.path="{small_data}"', *SMALL]


@pytest.fixture(scope="module")
def finished(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    runs = tmp_path_factory.mktemp("runs")
    return execute(Recipe.load(HQGNN, settings), RunOptions(runs, threads=1))


def options(settings: list[str]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def test_a_finished_run_holds_what_it_says(finished: Run) -> None:
    metrics = finished.metrics
    assert metrics["bits"] == 2
    assert metrics["bytes_per_item"] == pytest.approx(2 * 16 / 8 + 8 / 90)
    assert metrics["float32"]["bytes_per_item"] == 64
    assert set(metrics["accuracy"]) == {"recall@20", "ndcg@20", "recall@50", "ndcg@50"}
    assert isinstance(finished.items, PackedTable)
    values = finished.per_user()
    assert values.means == pytest.approx(metrics["accuracy"])
    assert len(values.users) == metrics["test_users"]
    log = [json.loads(line) for line in (finished.path / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in log] == [1, 2, 3, 4, 5, 6]
    assert {"delta", "trace", "quantization_error", "clipped", "entropy", "dead"} <= set(log[0]["quantizer"]["items"])
    assert not (finished.path / "checkpoint.pt").exists()


def test_codes_are_the_quantized_real_rows(finished: Run) -> None:
    """The saved codes are those trained: decoding is within half a step of the clipped real rows."""
    for side in ("users", "items"):
        table = getattr(finished, side).unpack()
        real = np.load(finished.path / f"{side}.npy")
        low, step = table.offset[0, 0], table.scale[0, 0]
        clipped = np.clip(real, low, low + 3 * step)
        assert np.abs(table.decode() - clipped).max() <= step / 2 * 1.001


def test_the_same_recipe_again_reuses_the_run(finished: Run, settings: list[str]) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in finished.path.iterdir() if path.name != ".lock"}
    again = execute(Recipe.load(HQGNN, settings), RunOptions(finished.path.parent))
    assert again.path == finished.path
    assert {path.name: path.stat().st_mtime_ns for path in again.path.iterdir() if path.name != ".lock"} == before


def test_what_a_recipe_promises_stands_beside_what_is_reached(finished: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "promising.toml"
    recipe.write_text((finished.path / "recipe.toml").read_text() + '[expect]\n"recall@50" = 0.4321\n')
    printed = rectool("run", recipe, "--runs", finished.path.parent).output
    assert "best epoch" in printed
    row = next(line for line in printed.splitlines() if "recall@50" in line)
    assert "0.4321" in row
    assert "0.4321" not in rectool("run", recipe, "--set", "seed=2023", "--runs", finished.path.parent).output


def test_recommendations_leave_out_what_was_seen(finished: Run) -> None:
    hits = finished.recommend([3, 5], 20)
    for user, ids in zip((3, 5), hits.ids, strict=True):
        assert not set(ids.tolist()) & set(finished.seen.row(user).tolist())
    everything = finished.recommend(3, 90, include_seen=True)
    assert sorted(everything.ids[0].tolist()) == list(range(90))
    with pytest.raises(UserError, match="user 150 is unknown: this run's users are 0 to 149"):
        finished.recommend(150)


@pytest.mark.parametrize("name", ["users.codes", "items.codes", "metrics.json", "environment.json", "seen.bin"])
def test_a_file_cut_short_is_told_by_name(finished: Run, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "run"
    subprocess.run(["cp", "-r", str(finished.path), str(copy)], check=True)
    (copy / name).write_bytes((copy / name).read_bytes()[:-30])
    result = rectool("recommend", copy, "--user", 1) if name != "metrics.json" else None
    if result is not None:
        assert result.exit_code == 2, result.output
        assert name in result.output
    else:
        with pytest.raises(FormatError, match=r"metrics\.json"):
            _ = Run.open(copy).metrics


@pytest.mark.parametrize("name", ["users.codes", "metrics.json", "environment.json", "seen.bin", "items.npy"])
def test_a_damaged_run_is_made_again_by_the_same_command(
    finished: Run, settings: list[str], tmp_path: Path, name: str
) -> None:
    target = tmp_path / finished.path.name
    shutil.copytree(finished.path, target)
    (target / name).write_bytes((target / name).read_bytes()[:-30])
    again = execute(Recipe.load(HQGNN, settings), RunOptions(tmp_path, threads=1))
    assert again.metrics["accuracy"] == finished.metrics["accuracy"]
    assert (again.path / "users.codes").read_bytes() == (finished.path / "users.codes").read_bytes()


@pytest.mark.parametrize("name", ["users.codes", "items.codes", "users.npy", "seen.bin", "per_user.bin"])
def test_a_flipped_bit_is_told_by_name(finished: Run, tmp_path: Path, name: str) -> None:
    target = tmp_path / "run"
    shutil.copytree(finished.path, target)
    content = bytearray((target / name).read_bytes())
    content[-70] ^= 4
    (target / name).write_bytes(content)
    run = Run.open(target)
    with pytest.raises(FormatError, match=rf"{name}: .*(checksum|describe)"):
        _ = run.users, run.items, run.seen, run.per_user(), run.float_rows()


def test_missing_codes_are_never_replaced_by_floats(finished: Run, tmp_path: Path) -> None:
    target = tmp_path / "run"
    shutil.copytree(finished.path, target)
    (target / "users.codes").unlink()
    with pytest.raises(FormatError, match=r"users\.codes: no such file"):
        Run.open(target).recommend(1)


def test_a_validation_file_selects_and_is_left_out_of_the_ranking(small_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(small_data, data)
    rows = [line.split() for line in (data / "train.txt").read_text().splitlines()]
    (data / "train.txt").write_text("\n".join(" ".join(row[:-1]) for row in rows if len(row) > 2) + "\n")
    held = {int(row[0]): int(row[-1]) for row in rows if len(row) > 2}
    (data / "validation.txt").write_text("\n".join(f"{user} {item}" for user, item in held.items()) + "\n")
    recipe = Recipe.load(HQGNN, [f'dataset.path="{data}"', *SMALL, "train.epochs=2"])
    run = execute(recipe, RunOptions(tmp_path / "runs", threads=1))
    log = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    assert "validation" in log[0]
    users = sorted(held)
    hits = run.recommend(users, 90)
    for user, ids in zip(users, hits.ids, strict=True):
        assert held[user] not in ids
    parts = split_of(recipe, load_data(recipe["dataset"]))
    assert parts.train.num_interactions + len(held) == parts.seen.num_interactions


def test_data_that_leaves_nothing_to_do_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("".join(f"{user} {user % 7}\n" for user in range(30)))
    settings = [f"dataset.path={tmp_path / 'pairs.txt'}", "dataset.format=pairs", "train.epochs=1"]
    result = rectool("run", HQGNN, *options(settings), "--runs", tmp_path / "runs")
    assert result.exit_code == 2, result.output
    assert "no user has a test item" in result.output
    assert not (tmp_path / "runs").exists()


def test_a_changed_plugin_is_not_taken_for_the_old_one(small_data: Path, tmp_path: Path) -> None:
    source = (
        "from rectoolkit.model.encoders.base import Encoder\n"
        "from rectoolkit.model.encoders.settings import EncoderSettings\n"
        "from rectoolkit.recipe.registry import encoders\n"
        '@encoders.register("mine", EncoderSettings)\nclass Mine(Encoder):\n'
        "    def forward(self):\n        return self.graph.split(self.embedding)\n"
    )
    settings = [f'dataset.path="{small_data}"', 'plugins=["mine"]', "encoder.name=mine", "train.epochs=1"]
    command = [sys.executable, "-m", "rectoolkit", "run", HQGNN, *options(settings), "--quiet"]
    (tmp_path / "mine.py").write_text(source)
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    (tmp_path / "mine.py").write_text(source + "# changed\n")
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert "another version of the plugin 'mine'" in second.stderr


@pytest.mark.parametrize("users", [[], [1.5], [[1, 2]], ["a"], True])
def test_recommend_refuses_what_are_no_users(finished: Run, users: object) -> None:
    with pytest.raises(UserError, match="integer ids"):
        finished.recommend(users)  # type: ignore[arg-type]


def test_a_depth_beyond_the_catalogue_ends_at_its_last_item(finished: Run) -> None:
    assert finished.recommend(1, 10**12).ids.shape == (1, 90)


def test_what_is_no_run_is_refused(tmp_path: Path, finished: Run) -> None:
    for arguments, told in (
        (("recommend", tmp_path / "none", "--user", 1), "no such run folder"),
        (("recommend", tmp_path, "--user", 1), "not a run folder"),
    ):
        result = rectool(*arguments)
        assert result.exit_code == 2
        assert told in result.output
    other = tmp_path / "other"
    subprocess.run(["cp", "-r", str(finished.path), str(other)], check=True)
    environment = json.loads((other / "environment.json").read_text())
    (other / "environment.json").write_text(json.dumps({**environment, "layout": 99}))
    assert "layout 99" in rectool("recommend", other, "--user", 1).output


def test_changed_data_is_refused(small_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(small_data, data)
    settings = [f'dataset.path="{data}"', *SMALL, "train.epochs=1"]
    execute(Recipe.load(HQGNN, settings), RunOptions(tmp_path / "runs"))
    lines = (data / "test.txt").read_text().splitlines()
    (data / "test.txt").write_text("\n".join(lines[:-1]) + "\n")
    result = rectool("run", HQGNN, *options(settings), "--runs", tmp_path / "runs")
    assert result.exit_code == 2
    assert "other interactions" in result.output


def test_one_writer_a_run_folder(settings: list[str], tmp_path: Path) -> None:
    import fcntl

    recipe = Recipe.load(HQGNN, settings)
    folder = tmp_path / recipe.folder_name
    folder.mkdir()
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process"):
            execute(recipe, RunOptions(tmp_path))


@pytest.mark.slow
def test_kill_at_random_moments_ends_in_the_same_bytes(finished: Run, settings: list[str], tmp_path: Path) -> None:
    """``kill -9`` ten times: at a random moment after each stage of a run has begun."""
    command = [sys.executable, "-m", "rectoolkit", "run", HQGNN, *options(settings), "--runs", str(tmp_path)]
    command += ["--threads", "1", "--quiet"]
    environment = {**os.environ, "RECTOOL_CHECKPOINT_SECONDS": "0"}
    draws, target = np.random.default_rng(9), tmp_path / finished.path.name

    def rows() -> int:
        return len((target / "log.jsonl").read_text().splitlines()) if (target / "log.jsonl").exists() else 0

    stages = [
        lambda: (target / ".lock").exists(),
        lambda: (target / "environment.json").exists(),
        *(lambda n=n: rows() >= n and (target / "checkpoint.pt").exists() for n in (1, 2, 3, 4, 5)),
        lambda: (target / "users.npy").exists(),
        lambda: (target / "items.codes").exists(),
        lambda: (target / "model.pt").exists(),
    ]
    interrupted = resumed = 0
    for reached in stages:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        begun = time.monotonic()
        while not reached() and process.poll() is None and time.monotonic() - begun < 60:
            time.sleep(0.001)
        time.sleep(draws.uniform(0, 0.01))
        process.send_signal(signal.SIGKILL)
        process.wait()
        interrupted += not (target / "metrics.json").exists()
        resumed += (target / "checkpoint.pt").exists()
    assert interrupted >= 7, "the kills must come before the run is finished"
    assert resumed >= 5, "the kills must leave checkpoints to go on from"
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    for name in ("users.codes", "items.codes", "users.npy", "items.npy"):
        assert (target / name).read_bytes() == (finished.path / name).read_bytes(), name
    assert not list(target.glob(".*.part"))
    assert not (target / "checkpoint.pt").exists()


def test_run_prints_the_table(settings: list[str], finished: Run) -> None:
    result = rectool("run", HQGNN, *options(settings), "--runs", finished.path.parent)
    assert result.exit_code == 0, result.output
    for part in ("finished before", "recall@20", "bytes per item", "queries per second", "2-bit codes"):
        assert part in result.output, part


def test_recommend_prints_items_and_json(finished: Run) -> None:
    plain = rectool("recommend", finished.path, "--user", 3, "-k", 4)
    assert plain.output.startswith("user 3: ")
    assert len(plain.output.split()) == 6
    rows = rectool("recommend", finished.path, "--user", 3, "--user", 4, "-k", 4, "--json").output.splitlines()
    assert [json.loads(row)["user"] for row in rows] == [3, 4]
    assert json.loads(rows[0])["items"] == finished.recommend(3, 4).ids[0].tolist()


def test_recommend_imports_neither_torch_nor_dgl(finished: Run) -> None:
    code = (
        "import sys; from rectoolkit.cli import main\n"
        f"main(['recommend', {str(finished.path)!r}, '--user', '1'], standalone_mode=False)\n"
        "assert not {'torch', 'dgl', 'numba'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_run_without_quantizer_ships_floats(settings: list[str], tmp_path: Path) -> None:
    overrides = [*settings, "quantizer.name=float32", "train.epochs=2"]
    overrides.remove("quantizer.bits=2")
    run = execute(Recipe.load(HQGNN, overrides), RunOptions(tmp_path))
    assert run.metrics["accuracy"] == run.metrics["float32"]["accuracy"]
    assert run.metrics["bytes_per_item"] == 64
    assert run.recommend(3, 5).ids.shape == (1, 5)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "none.toml"), "none.toml: no such file"),
        (("run", HQGNN, "--set", "dataset.name=gowala"), "gowala"),
        (("run", HQGNN, "--set", "quantizer.bits=9"), "quantizer.bits"),
        (("run", HQGNN, "--device", "cuda:x"), "--device"),
        (("runn", HQGNN), "did you mean 'run'"),
        (("list", "encoders"), "did you mean 'encoder'"),
        (("data", "show", "plantet"), "planted"),
    ],
)
def test_a_users_fault_is_one_message_and_code_2(arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    result = rectool(*arguments, *(["--runs", tmp_path] if arguments[0] == "run" else []))
    assert result.exit_code == 2, result.output
    assert told in result.output
    assert "Traceback" not in result.output


def test_a_file_where_the_runs_should_go_is_refused(settings: list[str], tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder should go")
    result = rectool("run", HQGNN, *options(settings), "--runs", tmp_path / "runs")
    assert result.exit_code == 2
    assert "name a folder for the runs" in result.output


def test_swapped_codes_are_refused(finished: Run, tmp_path: Path) -> None:
    target = tmp_path / "run"
    shutil.copytree(finished.path, target)
    shutil.copy(target / "users.codes", target / "items.codes")
    with pytest.raises(FormatError, match="150 rows where this run has 90 items"):
        Run.open(target).recommend(1)


def test_diverged_rows_stop_the_training(settings: list[str], tmp_path: Path) -> None:
    result = rectool(
        "run", HQGNN, *options([*settings, "train.rate=1e30", "train.epochs=1", "sampler.batch=100000"]),
        "--runs", tmp_path,
    )  # fmt: skip
    assert result.exit_code == 2, result.output
    assert "epoch 1" in result.output


def test_a_full_disk_is_one_message_and_leaves_nothing_that_looks_whole(settings: list[str], tmp_path: Path) -> None:
    """A limit on file sizes stands in for the disk: the checkpoint is the first file to pass it."""
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "from rectoolkit.cli import main; main()"
    )
    command = [sys.executable, "-c", limited, "run", HQGNN, *options(settings), "--runs", str(tmp_path), "--quiet"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stderr
    assert ran.stderr.startswith("error: ")
    assert "Traceback" not in ran.stderr
    (folder,) = tmp_path.iterdir()
    assert not (folder / "metrics.json").exists()
    assert not list(folder.glob("checkpoint.pt"))


def test_show_and_list_name_every_setting_and_component() -> None:
    shown = rectool("show", HQGNN)
    assert shown.exit_code == 0, shown.output
    for part in ("curvature", "[quantizer]", "epochs", "metrics"):
        assert part in shown.output
    filled = rectool("show", HQGNN, "--toml", "--set", "quantizer.bits=3").output
    assert "bits = 3" in filled
    listed = rectool("list").output
    for name in ("lightgcn", "gste", "bpr", "uniform"):
        assert name in listed
    assert "planted" in rectool("data", "list").output


FORKED = """
import multiprocessing, sys, warnings
from rectoolkit import Estimator, Interactions, UserError
warnings.simplefilter("ignore")
data = Interactions.from_pairs([n % 40 for n in range(300)], [n * 7 % 30 for n in range(300)])
settings = {"encoder.dim": 16, "train.epochs": 1, "sampler.batch": 64}

def fit(threads, answers):
    try:
        Estimator("hqgnn", settings, threads=threads).fit(data)
        answers.put("fitted")
    except UserError as error:
        answers.put(str(error))

fit(2, multiprocessing.SimpleQueue())
context = multiprocessing.get_context("fork")
for threads in (None, 1, 2):
    answers = context.Queue()
    worker = context.Process(target=fit, args=(threads, answers))
    worker.start()
    print(answers.get(timeout=60))
    worker.join(10)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_worker_fits_with_one_thread_after_its_parent_did(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", FORKED], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    *fitted, refused = done.stdout.splitlines()
    assert fitted == ["fitted", "fitted"]
    assert "threads must be 1 in a process forked" in refused
    assert "spawn" in refused


def test_a_second_process_waits_for_the_owner_of_a_run(finished: Run, settings: list[str], tmp_path: Path) -> None:
    recipe, folder = Recipe.load(HQGNN, settings), tmp_path / finished.path.name
    folder.mkdir()
    with ThreadPoolExecutor(1) as second:
        with locked(folder):
            with pytest.raises(UserError, match="another process is working on this run"):
                execute(recipe, RunOptions(tmp_path, threads=1))
            made = second.submit(execute, recipe, RunOptions(tmp_path, threads=1, wait=True))
            time.sleep(0.5)
            assert not made.done()
            shutil.copytree(finished.path, folder, dirs_exist_ok=True, ignore=lambda *_: [".lock"])
        assert made.result(timeout=60).path == folder
    assert (folder / "metrics.json").read_bytes() == (finished.path / "metrics.json").read_bytes()
