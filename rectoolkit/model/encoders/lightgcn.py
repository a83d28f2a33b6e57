"""LightGCN (He et al., SIGIR 2020): propagation of embeddings over the graph, without weights or nonlinearities.

    e^(k+1) = A_hat e^(k),    A_hat = D^-1/2 A D^-1/2 without self-loops,    output = mean of e^(0) .. e^(K)

The only parameters are the embeddings e^(0) ~ N(0, 0.1^2). The map is linear and symmetric, so its backward costs the
same as its forward: K propagations.

``combine = "concat"``   output = [e^(0) .. e^(K)], (K + 1) dim wide, one segment per layer; for BiGeaR and BGCH
``weights = "learned"``  layer k has the weight (K + 1) softmax(a)_k instead of 1, starting at a = 0; K + 1 parameters

Differs from the paper: by default, nothing. ``normalize`` scales output rows to length 1, for losses on cosines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from rectoolkit.model.encoders.base import Encoder
from rectoolkit.model.encoders.settings import LightGCNSettings
from rectoolkit.recipe.registry import encoders

if TYPE_CHECKING:
    from rectoolkit.model.graph import BipartiteGraph


@encoders.register("lightgcn", LightGCNSettings)
class LightGCN(Encoder):
    """The embeddings and their K propagations, averaged to (U, dim) and (I, dim), or concatenated."""

    item_weight: ClassVar[float] = 0.5

    def __init__(self, graph: BipartiteGraph, generator: torch.Generator, settings: LightGCNSettings) -> None:
        super().__init__(graph, generator, settings)
        layers = settings.layers
        self.layers, self.combine, self.normalize = layers, settings.combine, settings.normalize
        self.precision = getattr(torch, settings.precision)
        if settings.combine == "concat":
            self.segments = (settings.dim,) * (layers + 1)
        # with one layer the softmax is constant, so a parameter would have no effect
        self.logits = nn.Parameter(torch.zeros(layers + 1)) if settings.weights == "learned" and layers else None

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.graph.split(self.output(self._combined()))

    def rows(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        user_rows, item_rows = self.gather(self._combined(), users, items)
        return self.output(user_rows), self.output(item_rows)

    def _combined(self) -> Tensor:
        if self.combine == "mean" and self.logits is None:
            return self.graph.smooth(self.embedding, self.layers, self.precision if self.training else None)
        layers: list[Tensor] = [self.embedding]
        for _ in range(self.layers):
            layers.append(self.graph.propagate(layers[-1]))
        if self.logits is not None:
            weights = torch.softmax(self.logits, 0) * len(layers)
            layers = [weight * layer for weight, layer in zip(weights, layers, strict=True)]
        if self.combine == "concat":
            return torch.cat(layers, dim=1)
        return sum(layers[1:], start=layers[0]) / len(layers)
