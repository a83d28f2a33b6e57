"""LightGCN (He et al., SIGIR 2020): propagation and nothing else.

    e^(k+1) = A_hat e^(k),    A_hat = D^-1/2 A D^-1/2 without self-loops,    output = mean of e^(0) .. e^(K)

No weights, no nonlinearity: the only parameters are the ego embeddings e^(0) ~ N(0, 0.1^2). The map is linear
and symmetric, so its backward costs what its forward costs: K propagations.

Departs from the paper: nothing by default. ``normalize`` scales output rows to length 1, for losses on cosines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

from rectoolkit.encoders.base import Dim, Encoder, Init, Layers, Normalize
from rectoolkit.registry import encoders

if TYPE_CHECKING:
    import torch

    from rectoolkit.graph import BipartiteGraph


@encoders.register("lightgcn")
class LightGCN(Encoder):
    """Mean of the ego embeddings and their K propagations, (U, dim) and (I, dim)."""

    def __init__(
        self,
        graph: BipartiteGraph,
        generator: torch.Generator,
        *,
        dim: Dim = 64,
        layers: Layers = 3,
        init: Init = 0.1,
        normalize: Normalize = False,
    ) -> None:
        super().__init__(graph, generator, dim=dim, init=init)
        self.layers, self.normalize = layers, normalize

    def forward(self) -> tuple[Tensor, Tensor]:
        layer: Tensor = self.embedding
        total = layer
        for _ in range(self.layers):
            layer = self.graph.propagate(layer)
            total = total + layer
        output = total / (self.layers + 1)
        return self.graph.split(functional.normalize(output, dim=1) if self.normalize else output)
