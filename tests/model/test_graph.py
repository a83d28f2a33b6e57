"""The graph against dense matrices: structure, propagation, and its derivatives of first and second order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rectoolkit.data import Interactions
from rectoolkit.model import graph as graph_module
from rectoolkit.model.graph import BipartiteGraph, load_dgl


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
def small(tiny: Interactions) -> BipartiteGraph:
    return BipartiteGraph(tiny)


def rows(graph: BipartiteGraph, dim: int = 3, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(graph.num_nodes, dim, dtype=dtype, generator=torch.Generator().manual_seed(1))


def test_dgl_graph_holds_each_interaction_both_ways(tiny: Interactions, small: BipartiteGraph) -> None:
    users, items = (torch.from_numpy(np.asarray(side)).int() for side in tiny.pairs())
    assert small.dgl.num_nodes() == 65
    assert small.dgl.num_edges() == 2 * tiny.num_interactions
    assert small.dgl.has_edges_between(users, items + 40).all()
    assert small.dgl.has_edges_between(items + 40, users).all()


def test_sum_over_neighbours_is_the_adjacency_matrix(tiny: Interactions, small: BipartiteGraph) -> None:
    x = rows(small)
    torch.testing.assert_close(small.sum_neighbours(x), dense(tiny) @ x)


@pytest.mark.parametrize("dim", [1, 7, 64, 97])
def test_sums_by_dgl_and_by_bags_are_the_same(small: BipartiteGraph, dim: int) -> None:
    x = rows(small, dim, torch.float32)
    bags = torch.nn.functional.embedding_bag(small.indices, x, small.indptr, mode="sum", include_last_offset=True)
    torch.testing.assert_close(small.sum_neighbours(x), bags)


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
