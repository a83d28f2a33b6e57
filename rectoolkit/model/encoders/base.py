"""Base class of the encoders: modules that compute one real row per user and per item from the train graph."""

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
    """Base class of all encoders. Subclasses implement ``forward`` on ``embedding``, the layer-0 row of each node.

    Parameters
    ----------
    graph
        The train graph, with U users and I items.
    generator
        Seeded source of the initial values.
    settings
        The recipe's settings: an instance of the class that the encoder is registered with.

    Attributes
    ----------
    embedding
        Trained parameter (U + I, settings.dim).
    segments
        The widths of the blocks that an output row is concatenated from: one block for most encoders. A quantizer may
        give each block its own scale.
    draws
        Generator of encoders that draw random numbers while they train. Its state is saved with the parameters, so that
        a resumed run continues its stream.
    """

    segments: tuple[int, ...]
    normalize = False  # True scales output rows to length 1; set from the setting of that name
    item_weight: ClassVar[float] = 0.0  # p of ``search.fold_in``: 1/2 if items are summed with D^-1/2

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
        """The embeddings of all users (U, D) and of all items (I, D)."""
        raise NotImplementedError

    def rows(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """The embeddings of some users and items, (n, D) and (m, D). A sampling encoder computes only these."""
        user_table, item_table = self()
        return user_table.index_select(0, users), item_table.index_select(0, items)

    def ego(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """The layer-0 rows of some users and items, on which L2 acts."""
        return self.gather(self.embedding, users, items)

    def gather(self, table: Tensor, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of some users and items in a node table (U + I, D), as (n, D) and (m, D)."""
        # one gather, not one per side: its backward fills one table, which takes a third of the time
        rows = table.index_select(0, torch.cat([users, items + self.graph.num_users]))
        user_rows, item_rows = torch.split(rows, [len(users), len(items)])  # each slice would fill a whole gradient
        return user_rows, item_rows

    def output(self, rows: Tensor) -> Tensor:
        """Rows as the encoder returns them: with length 1 under ``normalize``."""
        return functional.normalize(rows, dim=1) if self.normalize else rows

    def aggregation(self) -> Aggregation:
        """The computation of a new user's row from items: exact, or as weights for a fitted map."""
        return Aggregation(self.item_weight)

    def get_extra_state(self) -> Tensor:
        """The state of ``draws``, if the encoder has one."""
        return torch.empty(0, dtype=torch.uint8) if self.draws is None else self.draws.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        if self.draws is not None:
            restore(self.draws, state)


def spawn(generator: torch.Generator, device: torch.device | str = "cpu") -> torch.Generator:
    """A new generator on ``device``, seeded by a draw from ``generator``."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)


def restore(generator: torch.Generator, state: Tensor) -> None:
    """Restore a saved state. A state from another kind of device does not fit; it seeds a new stream instead."""
    state = state.cpu()
    if len(state) == len(generator.get_state()):
        generator.set_state(state)
    else:
        generator.manual_seed(zlib.crc32(state.numpy().tobytes()))


def glorot(shape: tuple[int, int], generator: torch.Generator) -> nn.Parameter:
    """A weight matrix (in, out), uniform within +-sqrt(6 / (in + out)) (Glorot and Bengio, AISTATS 2010)."""
    bound = (6 / sum(shape)) ** 0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))
