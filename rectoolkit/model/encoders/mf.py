"""Matrix factorisation (Koren et al., Computer 2009; with BPR: Rendle et al., UAI 2009): embeddings without the graph.

    output = e^(0) ~ N(0, 0.1^2)

It is the baseline that a graph encoder must beat, and equals ``lightgcn`` with ``layers = 0`` bit for bit.

Differs from the paper: no biases of users or items, because codes are ranked by inner products alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rectoolkit.model.encoders.base import Encoder
from rectoolkit.model.encoders.settings import MFSettings
from rectoolkit.recipe.registry import encoders

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rectoolkit.model.graph import BipartiteGraph


@encoders.register("mf", MFSettings)
class MF(Encoder):
    """The embeddings themselves, (U, dim) and (I, dim)."""

    def __init__(self, graph: BipartiteGraph, generator: torch.Generator, settings: MFSettings) -> None:
        super().__init__(graph, generator, settings)
        self.normalize = settings.normalize

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.graph.split(self.output(self.embedding))

    def rows(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        user_rows, item_rows = self.ego(users, items)
        return self.output(user_rows), self.output(item_rows)
