"""Recommender: an encoder joined with two quantizers, one for user rows and one for item rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rectoolkit.losses import Loss, Side, Triple, Views

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from rectoolkit.codes import CodeTable
    from rectoolkit.encoders import Encoder
    from rectoolkit.quantizers import Quantizer
    from rectoolkit.samplers import Batch

    Table = CodeTable | npt.NDArray[np.float32]


class Recommender(nn.Module):
    """Codes of users and items, trained through their encoder.

    ``forward`` gives a batch's Views for the loss; ``tables`` what training leaves to pack.
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
        """The batch's rows after the quantizers, before them, and at layer 0."""
        items, shape = torch.cat([batch.positives, batch.negatives.flatten()]), batch.negatives.shape
        real = self.encoder.rows(batch.users, items)
        coded = self.user_quantizer(real[0]), self.item_quantizer(real[1])
        ego = self.encoder.ego(batch.users, items)
        return Views(_triple(coded, shape), _triple(real, shape), _triple(ego, shape), batch)

    def calibrate(self) -> None:
        """Show the quantizers the untrained rows of their side."""
        for quantizer, rows in zip(self.quantizers.values(), self.real(), strict=True):
            quantizer.calibrate(rows)

    def observe(self, views: Views, loss: Loss, value: Tensor) -> None:
        """Let quantizers that use the loss's derivatives look at a batch before its backward."""
        for side, quantizer in self.quantizers.items():
            if quantizer.observes:
                quantizer.observe(side, views, loss, value)

    def progress(self, share: float) -> None:
        """Tell annealed quantizers the share of training done, 0..1."""
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
        """The code tables of both sides (float32 arrays without a quantizer) for the rows that ``real`` gave."""
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
        """What each side's quantizer says of its rows, under ``users`` and ``items``."""
        users, items = real
        return {"users": self.user_quantizer.diagnostics(users), "items": self.item_quantizer.diagnostics(items)}


def _triple(rows: tuple[Tensor, Tensor], shape: torch.Size) -> Triple:
    users, items = rows
    positives, negatives = items[: len(users)], items[len(users) :]
    return Triple(users, positives, negatives.view(*shape, -1))
