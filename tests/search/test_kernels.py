"""Every filter and every processor's form of it gives the hits of the reference, up to the last byte of the rows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rectoolkit.search import codes
from rectoolkit.search import packed as index
from rectoolkit.search.codes import CodeTable, Integers, PackedTable
from rectoolkit.search.index import Hits
from rectoolkit.search.packed import Index

pytest.importorskip("numba")

import llvmlite.binding

from rectoolkit.search.kernels import compiled_search, compiling, lookup, matrices, scan
from rectoolkit.search.kernels.queries import Bounds

FORMS = {
    "rows": (scan.scan_rows, "small"),
    "small": (scan.scan_small, "small"),
    "tables": (scan.scan_tables, "tables"),
    "planes": (scan.scan_planes, "planes"),
    "bytes": (scan.scan_bytes, "bytes"),
}


@pytest.fixture(autouse=True)
def compiled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "ENOUGH_WORK", 0.0)


def coded(random: np.random.Generator, rows: int, bits: int, dim: int = 64, scale: float = 0.3) -> CodeTable:
    """Random codes on a grid that is symmetric about 0, each row there twice."""
    values = random.integers(0, 1 << bits, ((rows + 1) // 2, dim), dtype=np.uint8)
    grid = np.full((1, 1), scale, np.float32)
    return CodeTable(np.tile(values, (2, 1))[:rows], grid, -grid * np.float32(((1 << bits) - 1) / 2), bits)


def queries_of(kind: str, random: np.random.Generator, num: int, bits: int, dim: int = 64) -> Any:
    if kind == "floats":
        return random.standard_normal((num, dim)).astype(np.float32)
    if kind == "extreme":  # the largest product there can be, and the smallest
        table = coded(random, num, bits, dim)
        table.codes[::2], table.codes[1::2] = (1 << bits) - 1, 0
        return table
    if kind == "falling":  # a negative scale and an offset of no lattice, by row
        scale = -random.random((num, 1), np.float32) - np.float32(0.1)
        return CodeTable(coded(random, num, bits, dim).codes, scale, scale * np.float32(-0.7), bits)
    return coded(random, num, bits, dim)


def assert_exact(items: PackedTable, queries: Any, k: int = 20, **masks: Any) -> Hits:
    searched = Index(items)
    found, expected = (searched.search(queries, k, method=m, **masks) for m in ("fast", "reference"))
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.scores, expected.scores)
    return found


@pytest.mark.parametrize("kind", ["coded", "floats", "extreme", "falling"])
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("form", FORMS)
def test_every_filter_is_exact(form: str, bits: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(bits)
    items, queries = PackedTable.pack(coded(random, 5003, bits)), queries_of(kind, random, 21, bits)
    integers = Integers.of_floats(queries, (64,)) if kind == "floats" else Integers.of(queries)
    serves = {"tables": lookup.has_tables, "small": matrices.has_matrices}.get(FORMS[form][1])
    if serves is not None and not serves(integers, items):
        pytest.skip("not for this width, or this processor")
    monkeypatch.setattr(compiled_search, "choose", lambda *_: FORMS[form])
    seen = (np.arange(22) * 3, random.integers(0, 5003, 63))
    assert_exact(items, queries, deny=[3, 5, 8], seen=seen)


@pytest.mark.parametrize("dim", [128, 256])
@pytest.mark.parametrize("kind", ["coded", "floats", "extreme"])
@pytest.mark.parametrize("bits", [1, 2])
def test_tables_of_several_words_are_exact(dim: int, kind: str, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(dim)
    items, queries = PackedTable.pack(coded(random, 3000, bits, dim)), queries_of(kind, random, 17, bits, dim)
    if not lookup.HAS_LOOKUP:
        pytest.skip("not for this processor")
    monkeypatch.setattr(compiled_search, "choose", lambda *_: FORMS["tables"])
    assert_exact(items, queries)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("num", [1, 9])
def test_nothing_is_read_beyond_the_rows(bits: int, num: int, tmp_path: Path) -> None:
    """The rows end where a page of a mapped file does: a byte further would end the process."""
    random = np.random.default_rng(bits)
    for rows in (512, 512 * 3):
        packed = PackedTable.pack(coded(random, rows, bits))
        path = tmp_path / f"{rows}.bytes"
        path.write_bytes(packed.planes.tobytes())
        assert path.stat().st_size % 4096 == 0
        mapped = np.memmap(path, np.uint8, "r", shape=packed.planes.shape)
        items = PackedTable(np.asarray(mapped), 64, packed.scale, packed.offset)
        for kind in ("coded", "floats"):
            assert_exact(items, queries_of(kind, random, num, bits))


@pytest.mark.parametrize("size", [2.0**-45, 2.0**-20, 2.0**20, 2.0**30])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_scales_of_any_size_that_the_kernels_serve(size: float, bits: int) -> None:
    random = np.random.default_rng(bits)
    items = PackedTable.pack(coded(random, 4000, bits, scale=size))
    for queries in (coded(random, 6, bits, scale=size), queries_of("floats", random, 6, bits)):
        integers = Integers.of_floats(queries, (64,)) if isinstance(queries, np.ndarray) else Integers.of(queries)
        assert compiled_search.serves(integers, Bounds(items))
        scores = assert_exact(items, queries).scores
        assert (scores[:, 0] > scores[:, -1]).all()
        assert (scores[:, 0] > 0).all()


@pytest.mark.parametrize("kind", ["coded", "floats", "extreme", "falling"])
@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_what_is_looked_up_or_multiplied_bounds_the_score(bits: int, kind: str) -> None:
    """slope * sum + start + margin is never below the score, whatever was rounded."""
    random = np.random.default_rng(bits)
    table, queries = coded(random, 3000, bits), queries_of(kind, random, 20, bits)
    items = PackedTable.pack(table)
    integers = Integers.of_floats(queries, (64,)) if kind == "floats" else Integers.of(queries)
    exact = codes.dot_integers(integers, Integers.of(table))
    small_ones, line, margin = matrices.line_of(integers, items, Bounds(items).sums)
    sums = small_ones.astype(np.int64) @ table.codes.astype(np.int64).T
    assert (line[:, :1] * sums + line[:, 1:] + margin[:, None] >= exact).all()
    if bits > 2:
        return
    looked_up, line, margin = lookup.tables_of(integers, items)
    group = 6 // bits
    padded = np.pad(table.codes, ((0, 0), (0, looked_up.shape[1] * group - 64))).reshape(3000, -1, group)
    index = sum(((padded >> bit) & 1).astype(np.int64) @ (1 << np.arange(group)) << group * bit for bit in range(bits))
    sums = np.array([[row[np.arange(len(row)), i].sum(dtype=np.int64) for i in index] for row in looked_up])
    assert (line[:, :1] * sums + line[:, 1:] + margin[:, None] >= exact).all()


def test_masks_that_are_read_only_or_strided_do_not_compile_anew() -> None:
    random = np.random.default_rng(0)
    items = PackedTable.pack(coded(random, 300, 2))
    queries, seen, deny = (
        items.take([0, 1, 2, 3, 4]),
        (np.arange(6) * 2, random.integers(0, 300, 10)),
        np.zeros(300, bool),
    )
    kernels = [kernel for kernel, _ in FORMS.values()] + [scan.scan_hamming]
    assert_exact(items, queries, seen=seen, deny=deny)
    before = [len(kernel.signatures) for kernel in kernels]
    strided = tuple(np.repeat(part, 2)[::2] for part in seen)
    for array in (*seen, deny):
        array.flags.writeable = False
    for masks in (seen, strided):
        assert_exact(items, queries, seen=masks, deny=deny)
    assert [len(kernel.signatures) for kernel in kernels] == before


def test_the_range_of_sums_is_that_of_the_codes() -> None:
    table = coded(np.random.default_rng(0), 700, 5)
    sums = table.codes.sum(axis=1, dtype=np.int64)
    assert Bounds(PackedTable.pack(table)).sums == (sums.min(), sums.max())


def test_kept_kernels_belong_to_all_of_their_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scan.scan_bytes._cache._cache_file._source_stamp == compiling.SOURCES
    for name in ("scan.py", "vectors.py"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(compiling, "__file__", str(tmp_path / "compiling.py"))
    first = compiling.digest_of_sources()
    (tmp_path / "vectors.py").write_text("edited")
    assert compiling.digest_of_sources() != first


def test_a_search_while_the_interpreter_exits_is_answered() -> None:
    program = """
import atexit, numpy as np
from rectoolkit.search import codes
from rectoolkit.search import packed as index
from rectoolkit.search.codes import PackedTable
index.ENOUGH_WORK = 0
searched = index.Index(PackedTable(np.random.default_rng(0).integers(0, 256, (300_000, 1, 8), np.uint8), 64))
queries = np.random.default_rng(1).standard_normal((2, 64)).astype(np.float32)
expected = searched.search(queries, 20, threads=1).ids.tolist()
atexit.register(lambda: print(searched.search(queries, 20, threads=2).ids.tolist() == expected))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "True\n", "")


PLAIN = ("sse4.2", "ssse3", "popcnt")
AVX2 = (*PLAIN, "avx2", "avx", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe")
AVX512 = (*AVX2, "avx512f", "avx512cd", "avx512bw", "avx512vl", "avx512dq", "avx512vnni")
OLDER = {"without tables": ("cascadelake", AVX512), "avx2": ("haswell", AVX2), "plain": ("x86-64", PLAIN)}


def runs_here(processor: str) -> bool:
    """Whether this machine has the instructions of an older processor: code for another would end the process."""
    present = llvmlite.binding.get_host_cpu_features()
    return all(present.get(feature) for feature in OLDER[processor][1])


def test_a_machine_without_avx512_runs_only_the_older_processors_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    haswell = dict.fromkeys(AVX2, True) | {"avx512f": False}
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", lambda: haswell)
    assert [name for name in OLDER if runs_here(name)] == ["avx2", "plain"]


@pytest.mark.slow
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="names processors of that family")
@pytest.mark.parametrize("processor", OLDER)
def test_an_older_processor_gives_the_same_hits(processor: str) -> None:
    """Each form of every filter and method, by what numba is told to compile for."""
    if not runs_here(processor):
        pytest.skip(f"this machine lacks instructions of {processor}")
    name, features = OLDER[processor]
    features = ",".join(f"+{feature}" for feature in features)
    environment = {**os.environ, "NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
    chosen = "every_filter or definition or beyond_the_rows or all_lists"
    files = [str(Path(__file__).parent / f) for f in ("test_kernels.py", "test_packed.py", "test_inverted_lists.py")]
    command = [sys.executable, "-m", "pytest", *files, "-q", "-x", "-k", chosen, "-p", "no:cacheprovider"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-3000:]


@pytest.mark.slow
def test_after_compiling_all_kernels_no_search_compiles(tmp_path: Path) -> None:
    """In processes of their own with an empty cache: the second finds all it needs in the cache of the first."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    compile_all = "from rectoolkit.search.packed import compile_kernels; compile_kernels()"
    subprocess.run([sys.executable, "-c", compile_all], env=environment, check=True)
    search = (
        "import numpy as np; from rectoolkit.search import packed; from rectoolkit.search.codes import *\n"
        "from rectoolkit.search.kernels import scan; packed.ENOUGH_WORK = 0; draws = np.random.default_rng(0)\n"
        "for bits in range(1, 9):\n"
        "    for dim in (7, 64, 97):\n"
        "        for grids in (1, 200):\n"
        "            codes = draws.integers(0, 2**bits, (200, dim)).astype(np.uint8)\n"
        "            scale = np.full((grids, 1), 0.5, np.float32)\n"
        "            items = PackedTable.pack(CodeTable(codes, scale, -scale, bits))\n"
        "            for queries in (items.take(range(1)), items.take(range(40)), draws.normal(size=(3, dim))):\n"
        "                queries = queries if isinstance(queries, PackedTable) else queries.astype(np.float32)\n"
        "                packed.Index(items).search(queries, 5)\n"
        "kernels = [kernel for kernel in vars(scan).values() if hasattr(kernel, 'stats')]\n"
        "assert sum(len(kernel.signatures) for kernel in kernels) > 2\n"
        "assert not sum(sum(kernel.stats.cache_misses.values()) for kernel in kernels)\n"
    )
    subprocess.run([sys.executable, "-c", search], env=environment, check=True)
