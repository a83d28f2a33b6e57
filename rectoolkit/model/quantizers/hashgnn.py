"""HashGNN's quantizer (Tan et al., WWW 2020): a dense layer, tanh, sign, and guidance.

Claim: a straight-through sign alone gives the encoder a poor gradient early in training. So each row is coded with
probability beta, and keeps its continuous value otherwise; beta grows to 1 in steps of 0.02:

    h = tanh(W x + b),   code = sign(h)
    training: value = code with probability beta, else h, row by row
    backward: sign is the identity, so dL/dh = g in both cases

``width`` is the number of bits per row, by default the width of the encoder's row. ``magnitude`` multiplies all values
(1 in the paper): the wider the row, the smaller it must be for inner products to suit a logistic loss. The loss
``hashgnn`` is the method's loss, cross-entropy beside ranking.

Differs from the paper: the steps of beta are spread evenly over the first ``ramp`` of training, so that the schedule
does not depend on the number of batches, and the rest of training sees only codes, as they are shipped. Each side has
its own dense layer; both start equal, scaled so that W x has deviation 1. The paper's evaluation ranks 500 candidates
again by their continuous values; here codes alone rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rectoolkit.model.quantizers.base import SignQuantizer, signs, straight_through
from rectoolkit.model.quantizers.hash_layer import HashLayer, coded_rows, guidance
from rectoolkit.model.quantizers.settings import HashGNNSettings
from rectoolkit.recipe.registry import quantizers

if TYPE_CHECKING:
    from torch import Tensor


@quantizers.register("hashgnn", HashGNNSettings)
class HashGNN(SignQuantizer):
    """Sign of a dense layer with tanh, guided by its continuous value during training."""

    def __init__(
        self, dim: int, segments: tuple[int, ...], generator: torch.Generator, settings: HashGNNSettings
    ) -> None:
        super().__init__(dim, (settings.width or dim,), settings)
        self.generator = generator
        self.growth, self.ramp, self.scale = settings.growth, settings.ramp, settings.magnitude
        self.layer = HashLayer(dim, self.width, generator)

    def calibrate(self, x: Tensor) -> None:
        self.layer.calibrate(x)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        h = self.target(x)
        codes = straight_through(h, 2 * signs(h) - 1)
        chosen = coded_rows(h, guidance(self.progress, self.ramp, self.growth), self.generator)
        return self.scale * torch.where(chosen[:, None], codes, h)

    def target(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]

    def magnitude(self, target: Tensor) -> Tensor:
        return self.scale * self._one
