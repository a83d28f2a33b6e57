"""Recommender: an encoder joined with two quantizers, one for user rows and one for item rows.

``assemble`` builds it, with its loss and sampler, from the sections of a recipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rectoolkit.model.graph import BipartiteGraph
from rectoolkit.model.losses.base import Loss, Side, Triple, Views
from rectoolkit.recipe.registry import REGISTRIES

if TYPE_CHECKING:
    import numpy.typing as npt

    from rectoolkit.data import Interactions
    from rectoolkit.model.encoders.base import Encoder
    from rectoolkit.model.quantizers.base import Quantizer
    from rectoolkit.model.samplers.base import Batch, Sampler
    from rectoolkit.recipe import Recipe
    from rectoolkit.search.codes import CodeTable

    Table = CodeTable | npt.NDArray[np.float32]


@dataclass(frozen=True)
class Parts:
    """The components of a recipe, ready for ``training.loop.fit``."""

    model: Recommender
    loss: Loss
    sampler: Sampler


def assemble(recipe: Recipe, train: Interactions, device: str = "cpu") -> Parts:
    """Build the components of a recipe on the train interactions. All random streams derive from the recipe's seed."""
    init, sampling, shared = np.random.SeedSequence(recipe.seed).spawn(3)
    graph = BipartiteGraph(train, device)
    supply = {"graph": graph, "train": train, "generator": _torch_generator(init)}
    encoder = _build(recipe, "encoder", supply)
    inner = {"dim": encoder.dim, "segments": encoder.segments}
    sides = [_build(recipe, "quantizer", {**inner, "generator": _torch_generator(shared)}) for _ in range(2)]
    loss = _build(recipe, "loss", {"train": train, "seed": recipe.seed})
    sampler = _build(recipe, "sampler", {"train": train, "generator": np.random.default_rng(sampling)})
    return Parts(Recommender(encoder, *sides).to(device), loss.to(device), sampler)


def _build(recipe: Recipe, kind: str, supply: dict[str, Any]) -> Any:
    settings = dict(recipe[kind])
    return REGISTRIES[kind].build(settings.pop("name"), settings, supply)


def _torch_generator(seed: np.random.SeedSequence) -> torch.Generator:
    return torch.Generator().manual_seed(int(seed.generate_state(1, np.uint64)[0] >> np.uint64(1)))


class Recommender(nn.Module):
    """An encoder and the quantizers of its user and item rows.

    ``forward`` computes the Views of a batch for the loss. ``tables`` computes the codes of all rows.
    """

    def __init__(self, encoder: Encoder, user_quantizer: Quantizer, item_quantizer: Quantizer) -> None:
        super().__init__()
        self.encoder = encoder
        self.user_quantizer, self.item_quantizer = user_quantizer, item_quantizer

    @property
    def quantizers(self) -> dict[Side, Quantizer]:
        """The quantizer of each side."""
        return {"users": self.user_quantizer, "items": self.item_quantizer}

    def forward(self, batch: Batch) -> Views:
        """The rows of a batch after the quantizers, before them, and at layer 0. Moves the batch to the device."""
        batch = batch.to(self.encoder.graph.device)
        items, shape = torch.cat([batch.positives, batch.negatives.flatten()]), batch.negatives.shape
        real = self.encoder.rows(batch.users, items)
        coded = self.user_quantizer(real[0]), self.item_quantizer(real[1])
        ego = self.encoder.ego(batch.users, items)
        return Views(_triple(coded, shape), _triple(real, shape), _triple(ego, shape), batch).hardest()

    def calibrate(self) -> None:
        """Calibrate the quantizers on the untrained rows of their side."""
        for quantizer, rows in zip(self.quantizers.values(), self.real(), strict=True):
            quantizer.calibrate(rows)

    def observe(self, views: Views, loss: Loss, value: Tensor) -> None:
        """Show a batch, before its backward, to the quantizers that use derivatives of the loss."""
        for side, quantizer in self.quantizers.items():
            if quantizer.observes:
                quantizer.observe(side, views, loss, value)

    def progress(self, share: float) -> None:
        """Set the share of training done, 0..1, for annealed quantizers."""
        for quantizer in self.quantizers.values():
            quantizer.progress = share

    @torch.no_grad()
    def real(self) -> tuple[Tensor, Tensor]:
        """All rows before the quantizers, user rows (U, D) and item rows (I, D), in eval mode."""
        training = self.training
        self.eval()
        try:
            return self.encoder()  # type: ignore[no-any-return]
        finally:
            self.train(training)

    @torch.no_grad()
    def tables(self, real: tuple[Tensor, Tensor]) -> tuple[Table, Table]:
        """The code tables of both sides for the rows of ``real``; float32 arrays without a quantizer."""
        training = self.training
        self.eval()
        everything = torch.cat(real)
        tables = []
        for quantizer, rows in zip(self.quantizers.values(), real, strict=True):
            quantizer.finish(rows, everything)
            tables.append(quantizer.encode(rows))
        self.train(training)
        return tables[0], tables[1]

    def diagnostics(self, real: tuple[Tensor, Tensor]) -> dict[str, Any]:
        """The diagnostics of the quantizers on these rows, under ``users`` and ``items``."""
        users, items = real
        return {"users": self.user_quantizer.diagnostics(users), "items": self.item_quantizer.diagnostics(items)}


def _triple(rows: tuple[Tensor, Tensor], shape: torch.Size) -> Triple:
    users, items = rows
    positives, negatives = torch.split(items, [len(users), len(items) - len(users)])
    return Triple(users, positives, negatives.view(*shape, -1))
