"""GraphSAGE (Hamilton et al., NeurIPS 2017) on the user-item graph: learn how to compute a row from neighbours.

Claim: a node does not have to be known in training if the model learns how to combine its neighbours. Layer k has
weights for each side (n are the user neighbours of an item, or the item neighbours of a user):

    h_n^(k+1) = act(h_n^(k) W_self + mean over n's neighbours (h^(k)) W_neighbour + b),    act = ReLU, none at the last

This is W [h ; mean] written out. h^(0) of an item is a learned embedding, or its ``features`` (an .npy file, float
(I, F)) times a matrix. h^(0) of a user is zero: users are described by their items alone, so ``embed_users`` gives new
users exactly the rows that they would have had in training. With ``user_ids = true`` each user has a learned embedding,
and new users start from the mean of all.

Training computes only the rows of a batch, from ``fan_out`` neighbours of each node. They are drawn with replacement,
anew for every layer and batch, so the mean is unbiased and its cost does not grow with the degree of a node. Inference
uses all neighbours. ``fan_out = 0`` uses all neighbours of all nodes in training too, which costs more on large graphs.

The draws are our own, over the graph's CSC arrays. ``dgl.dataloading.NeighborSampler`` is reproducible with one thread
only, and has no state to resume from.

Differs from the paper: neighbours are always drawn with replacement (the paper does so only if a node has too few);
rows are scaled to length 1 only under ``normalize``; users and items have separate weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rectoolkit.errors import DataError
from rectoolkit.model.encoders.base import Encoder, glorot, spawn
from rectoolkit.model.encoders.settings import GraphSAGESettings
from rectoolkit.recipe.registry import encoders
from rectoolkit.search.fold_in import Aggregation, Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from rectoolkit.model.graph import BipartiteGraph


@encoders.register("graphsage", GraphSAGESettings)
class GraphSAGE(Encoder):
    """Rows computed from item embeddings or features by K layers of weighted neighbour means, (U, dim) and (I, dim)."""

    def __init__(self, graph: BipartiteGraph, generator: torch.Generator, settings: GraphSAGESettings) -> None:
        super().__init__(graph, generator, settings)
        dim, features, user_ids = settings.dim, settings.features, settings.user_ids
        self.layers, self.fan_out, self.normalize = settings.layers, settings.fan_out, settings.normalize
        self.features: Tensor | None
        table = self.embedding.detach()
        del self.embedding  # each side has its own table, and only if it is used
        self.users = nn.Parameter(table[: graph.num_users].clone()) if user_ids else None
        self.items = nn.Parameter(table[graph.num_users :].clone()) if not features else None
        self.register_buffer("features", read_features(features, graph.num_items) if features else None, False)
        self.project = glorot((self.features.shape[1], dim), generator) if self.features is not None else None
        self.steps = nn.ModuleList()  # for each layer users, then items; users whose rows are zero need no weights
        for index in range(self.layers):
            nonzero = user_ids or index > 0  # whether the users' rows of this layer are
            self.steps.append(_Step(dim, generator, own=nonzero))
            self.steps.append(_Step(dim, generator, neighbours=nonzero))
        self.draws = spawn(generator)  # on the CPU, like the graph

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.graph.split(self._all_layers()[-1])

    def rows(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training or not self.fan_out:
            return super().rows(users, items)
        seeds = torch.cat([users, items + self.graph.num_users])
        nodes, place = self._unique(seeds)
        blocks = []
        for _ in range(self.layers):
            drawn = self._draw(nodes)
            inner, where = self._unique(torch.cat([nodes, drawn.flatten()]))
            blocks.append((nodes, where[: len(nodes)], where[len(nodes) :].view_as(drawn)))
            nodes = inner
        split = int((nodes < self.graph.num_users).sum())
        layer = torch.cat(self.ego(nodes[:split], nodes[split:] - self.graph.num_users))
        for index, (nodes, own, drawn) in enumerate(reversed(blocks)):
            mean = functional.embedding_bag(drawn, layer, mode="mean") * self._has_neighbours(nodes)
            split = int((nodes < self.graph.num_users).sum())
            layer = self._layer(index, layer.index_select(0, own), mean, split)
        output = self.output(layer).index_select(0, place)
        return output[: len(users)], output[len(users) :]

    def ego(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        if self.items is not None:
            item_rows = self.items.index_select(0, items)
        else:
            item_rows = self.features.index_select(0, items) @ self.project  # type: ignore[union-attr,operator]
        if self.users is None:
            return item_rows.new_zeros(len(users), self.dim), item_rows
        return self.users.index_select(0, users), item_rows

    @torch.no_grad()
    def embed_users(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Rows (n, dim) of new users from a list of item ids each, in eval mode. Rows of the graph do not change.

        Raises DataError for an empty list or an unknown item.
        """
        lengths = torch.tensor([len(row) for row in rows])
        flat = torch.tensor([item for row in rows for item in row], dtype=torch.int64, device=self.graph.device)
        if not len(rows) or not lengths.all():
            raise DataError("a user is embedded from at least one item")
        if int(flat.min()) < 0 or int(flat.max()) >= self.graph.num_items:
            raise DataError(f"item ids run from 0 to {self.graph.num_items - 1}")
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)[:-1]]).to(flat.device)
        layers = self._all_layers()
        start = layers[0].new_zeros(1, self.dim) if self.users is None else self.users.mean(0, keepdim=True)
        layer = start.expand(len(rows), -1)
        for index in range(self.layers):
            mean = functional.embedding_bag(flat, self.graph.split(layers[index])[1], offsets, mode="mean")
            layer = self._layer(index, layer, mean, len(rows))
        return self.output(layer)

    @torch.no_grad()
    def aggregation(self) -> Aggregation:
        """The computation of ``embed_users`` as arrays: the items' rows at each layer and the users' weights."""
        layers, steps, none = self._all_layers(), [], torch.zeros(0, 0)
        for index in range(self.layers):
            step: Any = self.steps[2 * index]
            parts = (self.graph.split(layers[index])[1], step.own, step.neighbours, step.bias)
            steps.append(Step(*(_array(none if part is None else part) for part in parts)))
        start = layers[0].new_zeros(self.dim) if self.users is None else self.users.mean(0)
        return Aggregation(steps=tuple(steps), start=_array(start), normalize=self.normalize)

    def _all_layers(self) -> list[Tensor]:
        """h^(0) .. h^(K) of all nodes; the last is the output."""
        device, graph = self.graph.device, self.graph
        everyone = torch.arange(graph.num_users, device=device), torch.arange(graph.num_items, device=device)
        layers = [torch.cat(self.ego(*everyone))]
        for index in range(self.layers):
            layers.append(self._layer(index, layers[-1], graph.mean_neighbours(layers[-1]), graph.num_users))
        layers[-1] = self.output(layers[-1])
        return layers

    def _layer(self, index: int, own: Tensor, mean: Tensor, split: int) -> Tensor:
        """h^(k+1) of nodes, the first ``split`` of which are users."""
        users, items = self.steps[2 * index : 2 * index + 2]
        output = torch.cat([users(own[:split], mean[:split]), items(own[split:], mean[split:])])
        return output if index + 1 == self.layers else functional.relu(output)

    def _draw(self, nodes: Tensor) -> Tensor:
        """``fan_out`` neighbours of each node, (n,) -> (n, fan_out). A node without neighbours gets itself."""
        indptr, indices = self.graph.indptr, self.graph.indices
        start, degree = indptr[nodes].long(), (indptr[nodes + 1] - indptr[nodes]).long()
        share = torch.rand(len(nodes), self.fan_out, generator=self.draws, dtype=torch.float64).to(nodes.device)
        place = start[:, None] + (share * degree[:, None]).long()
        if not len(indices):
            return nodes[:, None].expand(-1, self.fan_out)
        drawn = indices[place.clamp_(max=len(indices) - 1)].long()
        return torch.where(degree[:, None] > 0, drawn, nodes[:, None])

    def _has_neighbours(self, nodes: Tensor) -> Tensor:
        return (self.graph.inverse_degree[nodes] > 0).float()

    def _unique(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The distinct nodes, ascending, and the position of each node among them; a table is faster than sorting."""
        place = torch.zeros(self.graph.num_nodes, dtype=torch.int64, device=nodes.device)
        place[nodes] = 1
        found = place.nonzero().squeeze(1)
        place[found] = torch.arange(len(found), device=nodes.device)
        return found, place[nodes]


class _Step(nn.Module):
    """h W_self + mean W_neighbour + b for the nodes of one side at one layer, (n, dim)."""

    def __init__(self, dim: int, generator: torch.Generator, own: bool = True, neighbours: bool = True) -> None:
        super().__init__()
        self.own = glorot((dim, dim), generator) if own else None
        self.neighbours = glorot((dim, dim), generator) if neighbours else None
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, own: Tensor, mean: Tensor) -> Tensor:
        output: Tensor = self.bias.expand(len(own), -1)
        for rows, weights in ((own, self.own), (mean, self.neighbours)):
            if weights is not None:
                output = torch.addmm(output, rows, weights)
        return output


def _array(tensor: Tensor) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())


def read_features(path: str, num_items: int) -> Tensor:
    """The features in an .npy file as float32 (I, F). Raises DataError if it cannot be read or has the wrong shape."""
    try:
        features = np.load(Path(path), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"encoder.features: cannot read '{path}': {error}") from error
    if features.ndim != 2 or len(features) != num_items or features.dtype.kind not in "fiu":
        raise DataError(
            f"encoder.features: '{path}' holds {features.dtype} {features.shape}; must be numbers ({num_items}, F)"
        )
    if not np.isfinite(features).all():
        raise DataError(f"encoder.features: '{path}' holds NaN or infinity")
    return torch.from_numpy(features.astype(np.float32))
