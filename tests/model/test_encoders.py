"""Encoders: what every one must do (by registry), and each against its formula written out densely."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rectoolkit.data import Interactions
from rectoolkit.errors import DataError
from rectoolkit.model.encoders.base import Encoder
from rectoolkit.model.graph import BipartiteGraph
from rectoolkit.recipe.registry import encoders

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in encoders.names()),
    ("mf", {"normalize": True}),
    ("lightgcn", {"combine": "concat", "weights": "learned", "normalize": True}),
    ("lightgcn", {"weights": "learned"}),
    ("ngcf", {"layers": 1, "dropout": 0.5}),
    ("graphsage", {"user_ids": True, "layers": 3, "normalize": True}),
    ("graphsage", {"fan_out": 0, "layers": 1}),
]


@pytest.fixture(scope="module")
def graph(tiny: Interactions) -> BipartiteGraph:
    return BipartiteGraph(tiny)


def make(graph: BipartiteGraph, name: str, seed: int = 0, **written: Any) -> Encoder:
    filled, faults = encoders.check(name, written, "encoder")
    assert not faults
    return encoders.build(name, filled, {"graph": graph, "generator": torch.Generator().manual_seed(seed)})


def node_rows(encoder: Encoder) -> Tensor:
    return torch.cat(encoder()).detach()


USERS, ITEMS = torch.tensor([3, 0, 3, 39]), torch.tensor([5, 24, 1, 5, 0])


@pytest.mark.parametrize(("name", "written"), VARIANTS)
class TestEveryEncoder:
    def test_concatenated_layers_are_declared(self, graph: BipartiteGraph, name: str, written: dict[str, Any]) -> None:
        schema = encoders.schema(name)
        asked = schema.concatenates or written.get("combine") == "concat"
        assert (len(make(graph, name, **written).segments) > 1) == asked

    def test_shapes(self, graph: BipartiteGraph, name: str, written: dict[str, Any]) -> None:
        encoder = make(graph, name, dim=6, **written)
        users, items = encoder()
        assert users.shape == (40, encoder.dim)
        assert items.shape == (25, encoder.dim)
        assert encoder.dim == sum(encoder.segments)
        assert users.isfinite().all()
        assert items.isfinite().all()
        ego = encoder.ego(USERS, ITEMS)
        assert ego[0].shape == (4, 6)
        assert ego[1].shape == (5, 6)

    def test_rows_are_those_of_the_whole(self, graph: BipartiteGraph, name: str, written: dict[str, Any]) -> None:
        encoder = make(graph, name, **written).eval()
        users, items = encoder()
        assert torch.equal(encoder.rows(USERS, ITEMS)[0], users[USERS])
        assert torch.equal(encoder.rows(USERS, ITEMS)[1], items[ITEMS])

    def test_gradients_reach_every_parameter(self, graph: BipartiteGraph, name: str, written: dict[str, Any]) -> None:
        encoder = make(graph, name, **written)
        users, items = encoder.rows(torch.arange(40), torch.arange(25))
        (users @ items.T).tanh().square().sum().backward()
        for label, parameter in encoder.named_parameters():
            assert parameter.grad is not None, label
            assert parameter.grad.isfinite().all(), label
            assert parameter.grad.any(), label

    def test_the_seed_determines_it(self, graph: BipartiteGraph, name: str, written: dict[str, Any]) -> None:
        first, same, other = (make(graph, name, seed, **written) for seed in (1, 1, 2))
        for _ in range(2):
            for a, b in zip(first.rows(USERS, ITEMS), same.rows(USERS, ITEMS), strict=True):
                assert torch.equal(a, b)
        assert not torch.equal(node_rows(first.eval()), node_rows(other.eval()))

    def test_a_restored_state_goes_on_alike(self, graph: BipartiteGraph, name: str, written: dict[str, Any]) -> None:
        encoder, resumed = make(graph, name, 1, **written), make(graph, name, 2, **written)
        encoder.rows(USERS, ITEMS)  # draws, where the encoder draws
        resumed.load_state_dict(encoder.state_dict())
        for _ in range(2):
            for a, b in zip(encoder.rows(USERS, ITEMS), resumed.rows(USERS, ITEMS), strict=True):
                assert torch.equal(a, b)

    def test_values_beyond_the_bounds_are_faults(
        self, graph: BipartiteGraph, name: str, written: dict[str, Any]
    ) -> None:
        bad = {"dim": 0, "layers": -1, "init": 0.0, "dropout": 1.0, "fan_out": -1, "combine": "sum", "weights": "any"}
        for key in encoders.schema(name).model_fields.keys() & bad.keys():
            _, faults = encoders.check(name, {key: bad[key]}, "encoder")
            assert [fault.where for fault in faults] == [f"encoder.{key}"]

    def test_a_graph_without_interactions(self, graph: BipartiteGraph, name: str, written: dict[str, Any]) -> None:
        empty = BipartiteGraph(Interactions.from_pairs([], [], 3, 2))
        users, items = make(empty, name, **written).rows(torch.tensor([0, 2]), torch.tensor([1]))
        assert users.isfinite().all()
        assert items.isfinite().all()


def a_hat(train: Interactions) -> Tensor:
    """D^-1/2 A D^-1/2, dense, without the graph module."""
    adjacency = np.zeros((65, 65), np.float32)
    for user, item in zip(*train.pairs(), strict=True):
        adjacency[user, 40 + item] = adjacency[40 + item, user] = 1
    degrees = np.maximum(adjacency.sum(1), 1)
    return torch.from_numpy(adjacency / np.sqrt(degrees[:, None] * degrees))


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_lightgcn_against_dense_powers(tiny: Interactions, graph: BipartiteGraph, layers: int) -> None:
    encoder = make(graph, "lightgcn", layers=layers)
    ego, matrix = encoder.embedding.detach().clone().requires_grad_(), a_hat(tiny)
    powers = [torch.linalg.matrix_power(matrix, power) @ ego for power in range(layers + 1)]
    expected = torch.stack(powers).mean(0)
    output = torch.cat(encoder())
    torch.testing.assert_close(output, expected)
    upstream = torch.randn(expected.shape)
    output.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(encoder.embedding.grad, ego.grad)
    side_by_side = make(graph, "lightgcn", layers=layers, combine="concat")
    torch.testing.assert_close(node_rows(side_by_side), torch.cat(powers, 1).detach())
    assert side_by_side.segments == (64,) * (layers + 1)


def test_learned_weights_start_uniform_and_count(graph: BipartiteGraph) -> None:
    encoder = make(graph, "lightgcn", weights="learned", layers=2)
    torch.testing.assert_close(node_rows(encoder), node_rows(make(graph, "lightgcn", layers=2)))
    with torch.no_grad():
        encoder.logits.copy_(torch.tensor([50.0, 0.0, 0.0]))
    torch.testing.assert_close(node_rows(encoder), encoder.embedding.detach())


@pytest.mark.parametrize("normalize", [False, True])
def test_lightgcn_without_layers_is_mf(graph: BipartiteGraph, normalize: bool) -> None:
    plain, flat = (
        make(graph, "mf", normalize=normalize),
        make(graph, "lightgcn", layers=0, weights="learned", normalize=normalize),
    )
    assert torch.equal(node_rows(plain), node_rows(flat))
    for a, b in zip(plain.rows(USERS, ITEMS), flat.rows(USERS, ITEMS), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["mf", "lightgcn", "graphsage"])
def test_normalised_rows_have_length_one(graph: BipartiteGraph, name: str) -> None:
    users, items = make(graph, name, normalize=True)()
    for rows in (users[:39], items[:24]):  # the last of each have no neighbours, and GraphSAGE no ids of users
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))


def test_ngcf_against_its_formula(tiny: Interactions, graph: BipartiteGraph) -> None:
    encoder, matrix = make(graph, "ngcf", dim=5, layers=2).eval(), a_hat(tiny)
    with torch.no_grad():
        for bias in (*encoder.sum_biases, *encoder.product_biases):
            bias.normal_()
    layer = encoder.embedding.detach()
    expected = [layer]
    for k in range(2):
        side = matrix @ layer
        linear = (side + layer) @ encoder.sum_weights[k] + encoder.sum_biases[k]
        product = (side * layer) @ encoder.product_weights[k] + encoder.product_biases[k]
        layer = sum(torch.where(x > 0, x, 0.2 * x) for x in (linear, product))
        expected.append(layer / layer.norm(dim=1, keepdim=True))
    torch.testing.assert_close(node_rows(encoder), torch.cat(expected, 1).detach())
    assert encoder.segments == (5, 5, 5)


def test_ngcf_drops_the_share_it_says_and_only_in_training(graph: BipartiteGraph) -> None:
    encoder = make(graph, "ngcf", layers=1, dropout=0.3)
    ones = torch.ones(400, 400)
    dropped = encoder._drop(ones)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    torch.testing.assert_close(dropped.max(), torch.tensor(1 / 0.7))
    assert encoder.eval()._drop(ones) is ones
    assert torch.equal(node_rows(encoder), node_rows(encoder))


def sage_by_hand(encoder: Any, train: Interactions, h: Tensor) -> Tensor:
    neighbours = [[] for _ in range(65)]
    for user, item in zip(*train.pairs(), strict=True):
        neighbours[user].append(40 + item)
        neighbours[40 + item].append(user)
    for k in range(encoder.layers):
        after = []
        for node in range(65):
            step = encoder.steps[2 * k + (node >= 40)]
            mean = h[neighbours[node]].mean(0) if neighbours[node] else torch.zeros(h.shape[1])
            row = step.bias.clone()
            row += h[node] @ step.own if step.own is not None else 0
            row += mean @ step.neighbours if step.neighbours is not None else 0
            after.append(row if k + 1 == encoder.layers else row.clamp(min=0))
        h = torch.stack(after)
    return h.detach()


@pytest.mark.parametrize("user_ids", [False, True])
def test_graphsage_against_its_formula(tiny: Interactions, graph: BipartiteGraph, user_ids: bool) -> None:
    encoder = make(graph, "graphsage", dim=5, layers=2, user_ids=user_ids)
    with torch.no_grad():
        for step in encoder.steps:
            step.bias.normal_()
    users = encoder.users if user_ids else torch.zeros(40, 5)
    torch.testing.assert_close(node_rows(encoder), sage_by_hand(encoder, tiny, torch.cat([users, encoder.items])))


def test_graphsage_on_features(tiny: Interactions, graph: BipartiteGraph, tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(25, 3))
    np.save(tmp_path / "features.npy", features)
    encoder = make(graph, "graphsage", dim=5, features=str(tmp_path / "features.npy"))
    items = torch.from_numpy(features).float() @ encoder.project
    torch.testing.assert_close(node_rows(encoder), sage_by_hand(encoder, tiny, torch.cat([torch.zeros(40, 5), items])))
    assert "features" not in encoder.state_dict()
    encoder.rows(USERS, ITEMS)[0].sum().backward()
    assert encoder.project.grad.any()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((24, 3)), r"must be numbers \(25, F\)"),
        (np.full((25, 3), np.nan), "NaN"),
        (np.full((25, 3), "x"), "must be numbers"),
    ],
)
def test_features_that_do_not_fit_are_refused(
    graph: BipartiteGraph, tmp_path: Path, array: np.ndarray[Any, Any], message: str
) -> None:
    np.save(tmp_path / "features.npy", array)
    with pytest.raises(DataError, match=message):
        make(graph, "graphsage", features=str(tmp_path / "features.npy"))
    with pytest.raises(DataError, match="cannot read"):
        make(graph, "graphsage", features=str(tmp_path / "other.npy"))


def test_features_that_are_not_there_are_a_fault_of_the_recipe(tmp_path: Path) -> None:
    def misfits(path: str) -> list[str]:
        return [fault.where for fault in encoders.schema("graphsage")(features=path).misfits({})]

    (tmp_path / "features.npy").touch()
    assert misfits("") == misfits(str(tmp_path / "features.npy")) == []
    assert misfits(str(tmp_path / "other.npy")) == ["encoder.features"]


def test_sampled_neighbours_are_neighbours_and_even(tiny: Interactions, graph: BipartiteGraph) -> None:
    encoder = make(graph, "graphsage", fan_out=1000)
    user = int(tiny.user_degrees.argmax())
    drawn = encoder._draw(torch.tensor([user, 39, 40]))
    items, counts = drawn[0].unique(return_counts=True)
    assert (items - 40).tolist() == tiny.row(user).tolist()
    expected = 1000 / len(items)
    assert float(((counts - expected).square() / expected).sum()) / (len(items) - 1) < 4
    assert (drawn[1] == 39).all()  # it has none
    assert (drawn[2] < 40).all()


def test_sampled_rows_approach_the_full_ones(graph: BipartiteGraph) -> None:
    encoder = make(graph, "graphsage", fan_out=1000, layers=2, user_ids=True)
    sampled = [rows.detach() for rows in encoder.rows(torch.arange(40), torch.arange(25))]
    full = [rows.detach() for rows in encoder()]
    for a, b in zip(sampled, full, strict=True):
        assert float((a - b).norm() / b.norm()) < 0.1
    one = make(graph, "graphsage", fan_out=1, layers=2, user_ids=True).rows(torch.arange(40), torch.arange(25))
    assert float((one[0].detach() - full[0]).norm() / full[0].norm()) > 0.1


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_new_users_get_the_rows_they_would_have_had(tiny: Interactions, graph: BipartiteGraph, layers: int) -> None:
    encoder = make(graph, "graphsage", layers=layers, normalize=True)
    known = [user for user in range(40) if len(tiny.row(user))]
    rows = encoder.embed_users([tiny.row(user).tolist() for user in known])
    torch.testing.assert_close(rows, encoder()[0][known].detach())


def test_new_users_need_items_that_exist(graph: BipartiteGraph) -> None:
    encoder = make(graph, "graphsage", user_ids=True)
    assert encoder.embed_users([[0, 3], [24]]).shape == (2, 64)
    for bad in ([], [[1], []], [[25]], [[-1]]):
        with pytest.raises(DataError):
            encoder.embed_users(bad)
