"""The graph against dense matrices: structure, propagation, and its derivatives of first and second order."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from rectoolkit.data import Interactions
from rectoolkit.errors import UserError
from rectoolkit.model import graph as graph_module
from rectoolkit.model.graph import Backend, BipartiteGraph, backend, compressed, dgl_graph, load_dgl
from rectoolkit.model.recommender import assemble
from rectoolkit.recipe import Recipe
from rectoolkit.recipe.registry import samplers

needs_dgl = pytest.mark.skipif(backend().name != "dgl", reason=f"needs DGL: {backend().why}")


def dense(train: Interactions) -> torch.Tensor:
    """A, users first, then items, float64."""
    size = train.num_users + train.num_items
    adjacency = torch.zeros(size, size, dtype=torch.float64)
    for user, item in zip(*train.pairs(), strict=True):
        adjacency[user, train.num_users + item] = adjacency[train.num_users + item, user] = 1
    return adjacency


def normalised(train: Interactions) -> torch.Tensor:
    adjacency = dense(train)
    degrees = adjacency.sum(1)
    root = torch.where(degrees > 0, degrees.clamp(min=1).rsqrt(), 0.0)
    return root[:, None] * adjacency * root


@pytest.fixture
def wanted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Ask for a backend by name, until the test ends."""

    def ask(name: str) -> None:
        monkeypatch.setenv("RECTOOL_GRAPH", name)
        backend.cache_clear()

    yield ask
    backend.cache_clear()


@pytest.fixture
def small(tiny: Interactions) -> BipartiteGraph:
    return BipartiteGraph(tiny)


def rows(graph: BipartiteGraph, dim: int = 3, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(graph.num_nodes, dim, dtype=dtype, generator=torch.Generator().manual_seed(1))


@needs_dgl
def test_dgl_graph_holds_each_interaction_both_ways(tiny: Interactions, small: BipartiteGraph) -> None:
    users, items = (torch.from_numpy(np.asarray(side)).int() for side in tiny.pairs())
    assert small.dgl.num_nodes() == 65
    assert small.dgl.num_edges() == 2 * tiny.num_interactions
    assert small.dgl.has_edges_between(users, items + 40).all()
    assert small.dgl.has_edges_between(items + 40, users).all()


@needs_dgl
@pytest.mark.parametrize("number", [0, 200, 5000])
def test_the_arrays_without_dgl_are_those_of_dgl(number: int) -> None:
    draws = np.random.default_rng(number)
    train = Interactions.from_pairs(draws.integers(0, 60, number), draws.integers(0, 90, number), 70, 95)
    for ours, theirs in zip(compressed(train), dgl_graph(train)[1:], strict=True):
        assert ours.dtype is theirs.dtype
        assert torch.equal(ours, theirs)


def test_without_dgl_every_sum_is_the_same_to_the_bit(
    tiny: Interactions, small: BipartiteGraph, wanted: Callable[[str], None]
) -> None:
    wanted("torch")
    graph = BipartiteGraph(tiny)
    assert graph.dgl is None
    for dim in (1, 7, 64):
        x = rows(graph, dim, torch.float32)
        assert torch.equal(graph.propagate(x), small.propagate(x))
        assert torch.equal(graph.smooth(x, 3), small.smooth(x, 3))


def test_the_backend_can_be_asked_for(wanted: Callable[[str], None]) -> None:
    wanted("torch")
    assert backend() == Backend("torch", "RECTOOL_GRAPH asks for it")
    wanted("cuda")
    with pytest.raises(UserError, match="must be auto, dgl or torch"):
        backend()


def test_dgl_that_cannot_be_imported_leaves_torch(
    wanted: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dgl", None)  # as where it is not installed
    wanted("auto")
    assert backend().name == "torch"
    wanted("dgl")
    with pytest.raises(UserError, match="asks for DGL, but DGL"):
        backend()


@needs_dgl
def test_the_stand_in_for_graphbolt_leaves_no_trace() -> None:
    code = (
        "import sys; from rectoolkit.model.graph import load_dgl; load_dgl(); "
        "module = sys.modules.get('dgl.graphbolt'); sys.exit(module is not None and module.__file__ is None)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_sum_over_neighbours_is_the_adjacency_matrix(tiny: Interactions, small: BipartiteGraph) -> None:
    x = rows(small)
    torch.testing.assert_close(small.sum_neighbours(x), dense(tiny) @ x)


@needs_dgl
@pytest.mark.parametrize("dim", [1, 7, 64, 97])
def test_sums_by_dgl_and_by_bags_are_the_same(small: BipartiteGraph, dim: int) -> None:
    x = rows(small, dim, torch.float32)
    bags = torch.nn.functional.embedding_bag(small.indices, x, small.indptr, mode="sum", include_last_offset=True)
    assert torch.equal(small.sum_neighbours(x), bags)  # neighbours are added in the same order


def test_powers_of_the_propagation(tiny: Interactions, small: BipartiteGraph) -> None:
    x, matrix = rows(small), normalised(tiny)
    result = x
    for power in range(1, 5):
        result = small.propagate(result)
        torch.testing.assert_close(result, torch.linalg.matrix_power(matrix, power) @ x)


@pytest.mark.parametrize("layers", range(5))
def test_smoothing_is_the_mean_of_the_powers(tiny: Interactions, small: BipartiteGraph, layers: int) -> None:
    x, matrix = rows(small), normalised(tiny)
    powers = [torch.linalg.matrix_power(matrix, power) @ x for power in range(layers + 1)]
    torch.testing.assert_close(small.smooth(x, layers), torch.stack(powers).mean(0))


def test_smoothing_in_bfloat16_is_near(small: BipartiteGraph) -> None:
    x = rows(small, 64, torch.float32)
    exact, near = small.smooth(x, 3), small.smooth(x, 3, torch.bfloat16)
    assert near.dtype is torch.float32
    assert 0 < (near - exact).norm() < 0.01 * exact.norm()


def test_nodes_without_neighbours_get_zero(small: BipartiteGraph) -> None:
    isolated = torch.tensor([39, 64])
    for result in (small.propagate(rows(small)), small.mean_neighbours(rows(small))):
        assert not result[isolated].any()
        assert result.isfinite().all()


def test_mean_over_neighbours(tiny: Interactions, small: BipartiteGraph) -> None:
    x, adjacency = rows(small), dense(tiny)
    expected = adjacency @ x / adjacency.sum(1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(small.mean_neighbours(x), expected)


@pytest.mark.parametrize("name", ["propagate", "mean_neighbours", "smooth"])
def test_first_and_second_derivatives(small: BipartiteGraph, name: str) -> None:
    method = getattr(small, name)
    sparse = (lambda y: method(y, 2)) if name == "smooth" else method
    x = rows(small, 2)[:, :1].requires_grad_()
    assert torch.autograd.gradcheck(lambda y: sparse(y).sin(), x)
    assert torch.autograd.gradgradcheck(lambda y: sparse(sparse(y).sin()).square(), x)


def test_backward_is_that_of_the_dense_matrix(tiny: Interactions, small: BipartiteGraph) -> None:
    matrix = normalised(tiny)
    gradients = []
    for apply in (small.propagate, lambda y: matrix @ y):
        x = rows(small).requires_grad_()
        apply(apply(x).tanh()).square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)


def test_bfloat16_and_float32_agree(small: BipartiteGraph) -> None:
    x = rows(small, 8, torch.float32)
    half = small.propagate(x.bfloat16())
    assert half.dtype is torch.bfloat16
    torch.testing.assert_close(half.float(), small.propagate(x), atol=0.03, rtol=0.03)


@needs_dgl
def test_without_l3_cache_dgl_does_not_sum(tiny: Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_module.os, "sysconf", lambda number: 0)
    monkeypatch.setattr(graph_module.sys, "platform", "linux")
    dgl = load_dgl()
    monkeypatch.setattr(dgl.ops, "copy_u_sum", lambda *_: pytest.fail("would end the process"))
    try:
        graph = BipartiteGraph(tiny)
        x = rows(graph, 4, torch.float32)
        torch.testing.assert_close(graph.propagate(x), (normalised(tiny) @ x.double()).float())
    finally:
        dgl.use_libxsmm(True)


def test_a_graph_without_interactions() -> None:
    graph = BipartiteGraph(Interactions.from_pairs([], [], 3, 2))
    assert not graph.propagate(torch.ones(5, 4)).any()


def test_split_names_users_then_items(small: BipartiteGraph) -> None:
    users, items = small.split(rows(small))
    assert (len(users), len(items)) == (40, 25)


def test_propagation_over_gowalla_repeats_itself(data) -> None:  # type: ignore[no-untyped-def]
    lines = [np.array(line.split(), int) for line in (data / "gowalla" / "train.txt").read_text().splitlines()]
    users = np.concatenate([np.full(len(line) - 1, line[0]) for line in lines])
    graph = BipartiteGraph(Interactions.from_pairs(users, np.concatenate([line[1:] for line in lines])))
    x = torch.randn(graph.num_nodes, 64)
    first = graph.propagate(x)
    assert all(torch.equal(graph.propagate(x), first) for _ in range(3))


@pytest.mark.parametrize("name", ["dgl", "torch"])
@pytest.mark.filterwarnings("error")
def test_a_read_only_memory_map_is_read_without_a_warning(
    tiny: Interactions, tmp_path: Path, wanted: Callable[[str], None], name: str
) -> None:
    if name == "dgl" and backend().name != "dgl":
        pytest.skip(backend().why)
    wanted(name)
    tiny.save(tmp_path / "train.bin")
    train = Interactions.load(tmp_path / "train.bin")
    assert not train.items.flags.writeable
    assert len(BipartiteGraph(train).indices) == 2 * tiny.num_interactions
    for sampler in samplers.names():
        recipe = Recipe.load("hqgnn", ["encoder.dim=8", f"sampler.name={sampler}", "quantizer.name=ste"])
        for batch in assemble(recipe, train).sampler:
            assert len(batch.users)
