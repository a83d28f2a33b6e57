"""Each export, read back by the library it is for, holds the same codes and ranks the same."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import rectool

from rectoolkit.errors import UserError
from rectoolkit.runs.export import FORMATS, export
from rectoolkit.search import codes
from rectoolkit.search.codes import CodeTable, PackedTable


def tables(bits: int, grid: str, dim: int = 64, segments: tuple[int, ...] = ()) -> tuple[PackedTable, PackedTable]:
    """``grid``: symmetric, one for all items; shifted, the same off centre; rows, a scale by item."""
    random, made = np.random.default_rng(bits), []
    for rows in (20, 500):
        scale = np.full((rows if grid == "rows" else 1, len(segments) or 1), 0.5, np.float32)
        if grid == "rows":
            scale += random.random(scale.shape, np.float32)
        if grid == "halves":
            scale = np.float32(2.0) ** random.integers(-3, 4, (rows, len(segments) or 1)).astype(np.float32)
        offset = -scale * np.float32(((1 << bits) - 1) / 2)
        if grid == "shifted":
            offset += np.float32(0.4)
        values = random.integers(0, 1 << bits, (rows, dim), dtype=np.uint8)
        made.append(PackedTable.pack(CodeTable(values, scale, offset, bits, segments)))
    return made[0], made[1]


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_the_packed_files_open_again(tmp_path: Path, bits: int) -> None:
    users, items = tables(bits, "rows", 97, (30, 67))
    assert set(export(users, items, tmp_path, ["codes"])["codes"]) == {"users.codes", "items.codes"}
    for name, table in (("users", users), ("items", items)):
        again = PackedTable.load(tmp_path / f"{name}.codes")
        assert np.array_equal(again.planes, table.planes)
        assert np.array_equal(again.scale, table.scale)


@pytest.mark.parametrize("grid", ["symmetric", "rows", "halves"])
def test_numpy_arrays_hold_the_codes(tmp_path: Path, grid: str) -> None:
    users, items = tables(3, grid, 97, (30, 67))
    export(users, items, tmp_path, ["npy"])
    for name, table in (("users", users), ("items", items)):
        parts = [np.load(tmp_path / f"{name}.{part}.npy") for part in ("codes", "scale", "offset")]
        assert np.array_equal(CodeTable(*parts, 3, (30, 67)).decode(), table.unpack().decode())
    facts = json.loads((tmp_path / "export.json").read_text())
    assert (facts["dim"], facts["item_bits"], facts["segments"]) == (97, 3, [30, 67])


@pytest.mark.parametrize("grid", ["symmetric", "rows", "halves"])
def test_parquet_holds_the_codes(tmp_path: Path, grid: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    users, items = tables(5, grid, 97, (30, 67))
    export(users, items, tmp_path, ["parquet"])
    for name, table in (("users", users), ("items", items)):
        read = parquet.read_table(tmp_path / f"{name}.parquet")
        assert read.column("id").to_pylist() == list(range(table.num_rows))
        values = np.array([np.frombuffer(row, np.uint8) for row in read.column("codes").to_pylist()])
        scale, offset = (np.array(read.column(part).to_pylist(), np.float32) for part in ("scale", "offset"))
        again = CodeTable(values, scale, offset, int(read.schema.metadata[b"bits"]), (30, 67))
        assert np.array_equal(again.decode(), table.unpack().decode())


@pytest.mark.parametrize(
    ("bits", "grid", "kind"),
    [
        (1, "symmetric", "IndexBinaryFlat"),
        (1, "shifted", "IndexScalarQuantizer"),
        (4, "symmetric", "IndexScalarQuantizer"),
        (8, "shifted", "IndexScalarQuantizer"),
        (1, "rows", "IndexFlatIP"),
        (4, "rows", "IndexFlatIP"),
        (4, "halves", "IndexFlatIP"),
    ],
)
@pytest.mark.parametrize("segments", [(64,), (24, 40)])
@pytest.mark.parametrize("cut", [0, 1])
def test_faiss_ranks_as_the_codes_do(
    tmp_path: Path, bits: int, grid: str, kind: str, segments: tuple[int, ...], cut: int
) -> None:
    faiss = pytest.importorskip("faiss")
    segments = (*segments[:-1], segments[-1] - cut)  # an odd number of dims too
    users, items = tables(bits, grid, 64 - cut, segments)
    if len(segments) > 1 and kind == "IndexBinaryFlat":
        kind = "IndexScalarQuantizer"
    assert export(users, items, tmp_path, ["faiss"])["faiss"]["items.faiss"] == kind
    read = faiss.read_index_binary if kind == "IndexBinaryFlat" else faiss.read_index
    rows = np.load(tmp_path / "users.faiss.npy")
    _, ids = read(str(tmp_path / "items.faiss")).search(rows, 30)
    scores = codes.dot(users.unpack(), items.unpack())
    best = -np.sort(-scores, axis=1)[:, :30]
    np.testing.assert_allclose(np.take_along_axis(scores, ids, axis=1), best, rtol=1e-4, atol=1e-3)


def test_what_cannot_be_exported_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users, items = tables(1, "symmetric")
    with pytest.raises(UserError, match="unknown export format 'parket'; did you mean 'parquet'"):
        export(users, items, tmp_path, ["parket"])
    with pytest.raises(UserError, match="at least one"):
        export(users, items, tmp_path, [])
    with pytest.raises(UserError, match="queries of 97 dims"):
        export(tables(1, "symmetric", 97)[0], items, tmp_path, list(FORMATS))
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=r"pip install 'rectoolkit\[export\]'"):
        export(users, items, tmp_path, ["faiss"])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        export(users, items, tmp_path / "file")


def test_the_command_writes_what_is_named(small_run: Path, tmp_path: Path) -> None:
    code, output = rectool("export", small_run, "--to", tmp_path / "a", "--format", "codes, npy", "--format", "npy")
    assert code == 0, output
    assert f"{tmp_path / 'a' / 'items.codes.npy'}: uint8 (90, 16)" in output
    assert (tmp_path / "a" / "items.codes").read_bytes() == (small_run / "items.codes").read_bytes()
    assert rectool("export", small_run, "--to", tmp_path / "b")[0] == 0
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["export.json", "items.codes", "users.codes"]


def test_the_command_refuses_what_cannot_be_exported(small_run: Path, small_float_run: Path, tmp_path: Path) -> None:
    for arguments, told in (
        ((small_run, "--format", "codes,fais"), "did you mean 'faiss'"),
        ((small_run, "--format", ","), "at least one export format"),
        ((small_float_run,), "users.npy"),
        ((tmp_path / "none",), "no such run folder"),
    ):
        code, output = rectool("export", *arguments, "--to", tmp_path / "out")
        assert (code, told in output) == (2, True), output
    assert not (tmp_path / "out").exists()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_codes_of_two_runs_never_share_a_folder(small_run: Path, tmp_path: Path) -> None:
    to, other = tmp_path / "out", tmp_path / "other"
    shutil.copytree(small_run, other)
    environment = json.loads((other / "environment.json").read_text())
    (other / "environment.json").write_text(json.dumps({**environment, "digest": "0" * 64}))
    assert rectool("export", small_run, "--to", to)[0] == 0
    before = contents(to)
    for name in ("codes", "npy"):
        code, output = rectool("export", other, "--to", to, "--format", name)
        assert (code, f"of the run {small_run.name}; codes of two runs must not mix" in output) == (2, True), output
    assert contents(to) == before
    facts = json.loads(before["export.json"])
    assert facts["run"]["name"] == small_run.name
    assert facts["run"]["digest"] == environment["digest"]
    assert facts["run"]["data"] == environment["data"]["digest"]


def test_the_same_run_may_add_formats(small_run: Path, tmp_path: Path) -> None:
    for name in ("codes", "npy", "codes"):
        assert rectool("export", small_run, "--to", tmp_path, "--format", name)[0] == 0
    assert set(json.loads((tmp_path / "export.json").read_text())["files"]) == {"codes", "npy"}


def test_a_folder_whose_codes_are_of_unknown_origin_is_left_alone(small_run: Path, tmp_path: Path) -> None:
    code, output = rectool("export", small_run, "--to", small_run)
    assert (code, "is a run folder" in output) == (2, True), output
    users, items = tables(1, "symmetric")
    export(users, items, tmp_path / "bare")
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "items.codes").write_bytes(b"")
    for name in ("bare", "loose"):
        before = contents(tmp_path / name)
        code, output = rectool("export", small_run, "--to", tmp_path / name)
        assert (code, "items.codes" in output, "does not name its run" in output) == (2, True, True), output
        assert contents(tmp_path / name) == before
    with pytest.raises(UserError, match="does not name its run"):
        export(users, items, tmp_path / "bare")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "README").write_text("whatever else lies there is no matter")
    assert rectool("export", small_run, "--to", tmp_path / "notes")[0] == 0
