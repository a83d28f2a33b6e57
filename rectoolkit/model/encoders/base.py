"""Base class of the encoders: modules that turn the train graph into one real row per user and per item.

A run supplies ``graph`` (BipartiteGraph) and ``generator`` (torch.Generator, seeded).
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from rectoolkit.search.fold_in import Aggregation

if TYPE_CHECKING:
    from rectoolkit.model.encoders.settings import EncoderSettings
    from rectoolkit.model.graph import BipartiteGraph


class Encoder(nn.Module):
    """Base of every encoder: a table of ego embeddings, one row a node, and what is made of it.

    ``segments`` are the widths of the blocks that an output row is concatenated from (one for most), so that a
    quantizer may give each block a scale of its own. Subclasses implement ``forward``. Encoders that draw while they
    train do so from ``draws``, whose state is saved with the parameters, so that a resumed run draws on.
    """

    segments: tuple[int, ...]
    normalize = False  # set it where rows may be scaled, as the setting of that name says
    item_weight: ClassVar[float] = 0.0  # p of ``fold``: 1/2 where items are summed with D^-1/2

    def __init__(self, graph: BipartiteGraph, generator: torch.Generator, settings: EncoderSettings) -> None:
        super().__init__()
        self.graph, self.settings = graph, settings
        self.segments = (settings.dim,)
        self.draws: torch.Generator | None = None
        table = torch.empty(graph.num_nodes, settings.dim).normal_(0, settings.init, generator=generator)
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
        return self.gather(self.embedding, users, items)

    def gather(self, table: Tensor, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of a node table (U + I, D) for the users and items named, (n, D) and (m, D)."""
        # one gather, not one a side: its backward fills one table, 2.0 ms instead of 5.8 for Gowalla's
        rows = table.index_select(0, torch.cat([users, items + self.graph.num_users]))
        user_rows, item_rows = torch.split(rows, [len(users), len(items)])  # slices would each fill all of the gradient
        return user_rows, item_rows

    def output(self, rows: Tensor) -> Tensor:
        """Rows as the encoder gives them out: of length 1 under ``normalize``."""
        return functional.normalize(rows, dim=1) if self.normalize else rows

    def aggregation(self) -> Aggregation:
        """How a user's items are put together for one who was not trained on; exact steps where there are any."""
        return Aggregation(self.item_weight)

    def get_extra_state(self) -> Tensor:
        """The state of ``draws``, if there is one."""
        return torch.empty(0, dtype=torch.uint8) if self.draws is None else self.draws.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        if self.draws is not None:
            restore(self.draws, state)


def spawn(generator: torch.Generator, device: torch.device | str = "cpu") -> torch.Generator:
    """A new generator on ``device``, seeded by a draw from ``generator``."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)


def restore(generator: torch.Generator, state: Tensor) -> None:
    """Put a saved state back. One of another kind of device does not fit and becomes the seed of a new stream."""
    state = state.cpu()
    if len(state) == len(generator.get_state()):
        generator.set_state(state)
    else:
        generator.manual_seed(zlib.crc32(state.numpy().tobytes()))


def glorot(shape: tuple[int, int], generator: torch.Generator) -> nn.Parameter:
    """A weight matrix (in, out), even within +-sqrt(6 / (in + out)) (Glorot and Bengio, AISTATS 2010)."""
    bound = (6 / sum(shape)) ** 0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))
