"""What an encoder is: a module that turns the train graph into one real row per user and per item.

A recipe's run supplies, before the ``*``: ``graph`` (BipartiteGraph) and ``generator`` (torch.Generator, seeded).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

if TYPE_CHECKING:
    from rectoolkit.graph import BipartiteGraph

Dim = Annotated[int, Field(ge=1, le=4096, description="width of a layer's embedding")]
Layers = Annotated[int, Field(ge=0, le=16, description="propagation steps")]
Init = Annotated[float, Field(gt=0, description="standard deviation of the initial embeddings")]
Normalize = Annotated[bool, Field(description="scale each output row to length 1, so that ranking is by cosine")]


class Encoder(nn.Module):
    """Base of every encoder: a table of ego embeddings, one row a node, and what is made of it.

    ``segments`` are the widths of the blocks that an output row is concatenated from (one for most), so that a
    quantizer may give each block a scale of its own. Subclasses implement ``forward``.
    """

    segments: tuple[int, ...]

    def __init__(self, graph: BipartiteGraph, generator: torch.Generator, *, dim: int = 64, init: float = 0.1) -> None:
        super().__init__()
        self.graph = graph
        self.segments = (dim,)
        table = torch.empty(graph.num_nodes, dim).normal_(0, init, generator=generator)
        self.embedding = nn.Parameter(table)

    @property
    def dim(self) -> int:
        """Width of an output row."""
        return sum(self.segments)

    def forward(self) -> tuple[Tensor, Tensor]:
        """All user embeddings (U, D) and item embeddings (I, D)."""
        raise NotImplementedError

    def rows(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of the users and items named, (n, D) and (m, D); a sampling encoder computes only these."""
        user_table, item_table = self()
        return user_table.index_select(0, users), item_table.index_select(0, items)

    def ego(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Layer-0 rows of the users and items named, on which L2 acts."""
        user_table, item_table = self.graph.split(self.embedding)
        return user_table.index_select(0, users), item_table.index_select(0, items)
