"""NGCF, neural graph collaborative filtering (Wang et al., SIGIR 2019).

Claim: the message of a neighbour should depend on the node that receives it. So each layer adds to the sum of the
neighbours their element-wise product with the node itself:

    s = A_hat e^(k)
    m = LeakyReLU((s + e^(k)) W1 + b1) + LeakyReLU((s * e^(k)) W2 + b2),    slope 0.2
    e^(k+1) = dropout(m)
    output = [e^(0), n(e^(1)) .. n(e^(K))],    n(x) = x / |x|

The output is (K + 1) dim wide, one segment per layer: 256 for dim 64 and 3 layers. Dropout sets elements of m to zero
during training.

Differs from the paper: the paper applies one LeakyReLU to the sum of both terms; here each term has its own, as in the
authors' code. There is no node dropout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from rectoolkit.model.encoders.base import Encoder, glorot, spawn
from rectoolkit.model.encoders.settings import NGCFSettings
from rectoolkit.recipe.registry import encoders

if TYPE_CHECKING:
    from rectoolkit.model.graph import BipartiteGraph

SLOPE = 0.2


@encoders.register("ngcf", NGCFSettings)
class NGCF(Encoder):
    """The embeddings and K layers of neighbour sums and products, concatenated to (U, D) and (I, D)."""

    item_weight: ClassVar[float] = 0.5

    def __init__(self, graph: BipartiteGraph, generator: torch.Generator, settings: NGCFSettings) -> None:
        super().__init__(graph, generator, settings)
        dim, layers, self.dropout = settings.dim, settings.layers, settings.dropout
        self.segments = (dim,) * (layers + 1)
        self.sum_weights = nn.ParameterList(glorot((dim, dim), generator) for _ in range(layers))
        self.product_weights = nn.ParameterList(glorot((dim, dim), generator) for _ in range(layers))
        self.sum_biases = nn.ParameterList(torch.zeros(dim) for _ in range(layers))
        self.product_biases = nn.ParameterList(torch.zeros(dim) for _ in range(layers))
        self.draws = spawn(generator, graph.device)

    def forward(self) -> tuple[Tensor, Tensor]:
        layer: Tensor = self.embedding
        outputs = [layer]
        for w1, b1, w2, b2 in zip(
            self.sum_weights, self.sum_biases, self.product_weights, self.product_biases, strict=True
        ):
            side = self.graph.propagate(layer)
            total = functional.leaky_relu(torch.addmm(b1, side + layer, w1), SLOPE)
            product = functional.leaky_relu(torch.addmm(b2, side * layer, w2), SLOPE)
            layer = self._drop(total + product)
            outputs.append(functional.normalize(layer, dim=1))
        return self.graph.split(torch.cat(outputs, dim=1))

    def _drop(self, x: Tensor) -> Tensor:
        if not self.training or not self.dropout:
            return x
        kept = torch.rand(x.shape, generator=self.draws, device=x.device) >= self.dropout
        return x * (kept / (1 - self.dropout))
