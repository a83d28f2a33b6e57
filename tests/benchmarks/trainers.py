"""The trainers of the benchmark: LightGCN with BPR in this package, in LightGCN-PyTorch, and in PyG.

All of them minimise, over B triples (user, positive, negative) and layers 0 .. K of A_hat,

    mean softplus(<u, j> - <u, i>) + l2 / (2 B) * sum of the squared layer-0 rows of the batch

so at equal weights and batch they have the same loss and gradient (a test checks this). They differ only in how they
compute these.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rectoolkit.bench.contestants import library
from rectoolkit.model.encoders.lightgcn import LightGCN
from rectoolkit.model.recommender import assemble
from rectoolkit.model.samplers.base import Batch
from rectoolkit.recipe import Recipe
from rectoolkit.training.loop import make_optimizer, step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rectoolkit.data import Interactions


@dataclass(frozen=True)
class Sizes:
    """The sizes of a training: dims, propagation steps, triples per batch, and the weight of L2."""

    dim: int = 64
    layers: int = 3
    batch: int = 2048
    l2: float = 1e-4
    rate: float = 1e-3


class Trainer(Protocol):
    """One way to train. ``weights`` are its tables, users before items."""

    name: str
    weights: list[nn.Parameter]

    def loss(self, batch: Batch) -> Tensor: ...

    def step(self, batch: Batch) -> float: ...

    def draw(self) -> Iterator[Any]: ...


def trainers(train: Interactions, sizes: Sizes, others: bool, skipped: list[str]) -> list[Trainer]:
    """All trainers, with the same weights. For a missing library, a line is added to ``skipped``."""
    found: list[Trainer] = [Ours(train, sizes, precision) for precision in ("float32", "bfloat16")]
    if others:
        found.append(SparseProducts(train, sizes))
        if library("torch_geometric", "torch_geometric", skipped) is not None:
            found += [PyG(train, sizes), PyG(train, sizes, sparse=True)]
    start = torch.cat(list(found[0].weights)).detach()
    for trainer in found:
        put(trainer, start)
    return found


@torch.no_grad()
def put(trainer: Trainer, table: Tensor) -> None:
    """Give the trainer these weights, (U + I, D)."""
    for weight, part in zip(trainer.weights, torch.split(table, [len(w) for w in trainer.weights]), strict=True):
        weight.copy_(part)


def gradient(trainer: Trainer, batch: Batch) -> tuple[float, Tensor]:
    """The loss of a batch and its gradient, (U + I, D)."""
    value = trainer.loss(batch)
    return float(value.detach()), torch.cat(torch.autograd.grad(value, trainer.weights))


class Ours:
    """The step of ``rectool run``: a recipe's model, loss, sampler and optimizer."""

    def __init__(self, train: Interactions, sizes: Sizes, precision: str = "float32") -> None:
        self.name = f"rectoolkit, {precision}"
        encoder = {"name": "lightgcn", "dim": sizes.dim, "layers": sizes.layers, "precision": precision}
        sections = {
            "dataset": {"name": "-"},
            "encoder": encoder,
            "quantizer": {"name": "float32"},
            "loss": {"name": "bpr", "l2": sizes.l2},
            "sampler": {"name": "uniform", "batch": sizes.batch},
            "train": {"rate": sizes.rate},
        }
        recipe = Recipe.check({"name": "training", "seed": 0, **sections})
        self.parts = assemble(recipe, train)
        self.parts.model.train()
        self.settings = recipe["train"]
        self.optimizer = make_optimizer(self.parts, self.settings)
        assert isinstance(self.parts.model.encoder, LightGCN)
        self.encoder = self.parts.model.encoder
        self.weights = [self.encoder.embedding]

    def loss(self, batch: Batch) -> Tensor:
        value: Tensor = self.parts.loss(self.parts.model(batch))
        return value

    def step(self, batch: Batch) -> float:
        return step(self.parts, self.optimizer, batch)

    def draw(self) -> Iterator[Batch]:
        return iter(self.parts.sampler)


class SparseProducts:
    """LightGCN-PyTorch (the authors'): a coalesced COO matrix, ``torch.sparse.mm`` by layer, stack, mean, Adam.

    Its sampler loops over users in Python or C++; here whole arrays are drawn, so that only the step is compared.
    """

    def __init__(self, train: Interactions, sizes: Sizes) -> None:
        self.name = "LightGCN-PyTorch's way"
        self.train, self.sizes = train, sizes
        self.weights = [nn.Parameter(torch.empty(n, sizes.dim)) for n in (train.num_users, train.num_items)]
        self.optimizer = torch.optim.Adam(self.weights, lr=sizes.rate)
        edges, values = normalised_edges(train)
        nodes = train.num_users + train.num_items
        self.graph = torch.sparse_coo_tensor(edges, values, (nodes, nodes), check_invariants=False).coalesce()
        self.random = np.random.default_rng(0)

    def loss(self, batch: Batch) -> Tensor:
        rows = torch.cat([*self.weights])
        layers = [rows]
        for _ in range(self.sizes.layers):
            rows = torch.sparse.mm(self.graph, rows)
            layers.append(rows)
        users, items = torch.split(torch.stack(layers, dim=1).mean(dim=1), [len(w) for w in self.weights])
        negative = batch.negatives.flatten()
        user, liked, other = users[batch.users], items[batch.positives], items[negative]
        own = [
            functional.embedding(ids, table)
            for ids, table in zip(
                (batch.users, batch.positives, negative), (self.weights[0], *[self.weights[1]] * 2), strict=True
            )
        ]
        ranking = functional.softplus((user * other).sum(1) - (user * liked).sum(1)).mean()
        lengths = torch.stack([rows.norm(2).pow(2) for rows in own]).sum() / 2 / len(user)
        return ranking + self.sizes.l2 * lengths

    def step(self, batch: Batch) -> float:
        value = self.loss(batch)
        self.optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(value.detach())

    def draw(self) -> Iterator[Batch]:
        count, degrees = self.train.num_interactions, self.train.user_degrees
        users = self.random.choice(np.flatnonzero(degrees), count)
        places = (self.random.random(count) * degrees[users]).astype(np.int64)
        positives = self.train.items[self.train.indptr[users] + places].astype(np.int64)
        negatives = self.random.integers(0, self.train.num_items, count)
        again = np.flatnonzero(self.train.contains(users, negatives))
        while len(again):
            negatives[again] = self.random.integers(0, self.train.num_items, len(again))
            again = again[self.train.contains(users[again], negatives[again])]
        for start in range(0, count, self.sizes.batch):
            part = slice(start, start + self.sizes.batch)
            rows = [torch.from_numpy(ids[part]) for ids in (users, positives, negatives[:, None])]
            yield Batch(rows[0], rows[1], rows[2])


class PyG:
    """``torch_geometric.nn.LightGCN`` with ``recommendation_loss`` and Adam.

    As in its documentation, messages run along an ``edge_index`` whose weights each layer computes anew. With
    ``sparse`` it uses a CSR matrix, normalised once, its fastest form. Negatives may be seen items, as in its example.
    """

    def __init__(self, train: Interactions, sizes: Sizes, sparse: bool = False) -> None:
        from torch_geometric.nn import LightGCN

        self.name = "PyG LightGCN, sparse matrix" if sparse else "PyG LightGCN, edge index"
        self.train, self.sizes = train, sizes
        nodes = train.num_users + train.num_items
        self.model = LightGCN(nodes, sizes.dim, sizes.layers, normalize=not sparse)
        self.weights = [self.model.embedding.weight]
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=sizes.rate)
        edges, values = normalised_edges(train)
        if sparse:
            matrix = torch.sparse_coo_tensor(edges, values, (nodes, nodes), check_invariants=False).coalesce()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that torch's CSR tensors are in beta state
                self.edges = matrix.to_sparse_csr()
        else:
            self.edges = edges

    def loss(self, batch: Batch) -> Tensor:
        users = self.train.num_users
        pairs = [torch.stack([batch.users, items + users]) for items in (batch.positives, batch.negatives.flatten())]
        liked, other = self.model(self.edges, torch.cat(pairs, dim=1)).chunk(2)
        rows = torch.cat([pairs[0].flatten(), pairs[1][1]])
        value: Tensor = self.model.recommendation_loss(liked, other, node_id=rows, lambda_reg=self.sizes.l2 / 2)
        return value

    def step(self, batch: Batch) -> float:
        self.optimizer.zero_grad()
        value = self.loss(batch)
        value.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(value.detach())

    def draw(self) -> Iterator[Batch]:
        users, items = (torch.from_numpy(np.asarray(ids, np.int64)) for ids in self.train.pairs())
        for chosen in torch.split(torch.randperm(len(users)), self.sizes.batch):
            negatives = torch.randint(0, self.train.num_items, (len(chosen), 1))
            yield Batch(users[chosen], items[chosen], negatives)


def normalised_edges(train: Interactions) -> tuple[Tensor, Tensor]:
    """The edges of both directions, int64 (2, 2 N), and 1 / sqrt(degree degree) of each."""
    users, items = (torch.from_numpy(np.asarray(ids, np.int64)) for ids in train.pairs())
    items = items + train.num_users
    edges = torch.stack([torch.cat([users, items]), torch.cat([items, users])])
    degrees = torch.bincount(edges[0], minlength=train.num_users + train.num_items).float()
    roots = degrees.clamp(min=1).rsqrt()
    return edges, roots[edges[0]] * roots[edges[1]]
