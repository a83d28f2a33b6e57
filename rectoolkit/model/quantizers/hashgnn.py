"""HashGNN's hash layer (Tan et al., WWW 2020): a dense layer, tanh, sign, and guidance.

Claim: a straight-through sign alone gives the encoder a poor gradient early on. So in training each row is, with
probability beta, its code, and else its continuous value; beta grows to 1 in steps of 0.02:

    h = tanh(W x + b),   code = sign(h)
    training: value = code with probability beta, else h, row by row
    backward: sign is the identity, so dL/dh = g in both cases

``width`` is the number of bits a row, as wide as the encoder's row by default; ``magnitude`` multiplies all values
(1 as published): the wider the row, the smaller it must be for inner products to suit a logistic loss. The
continuous part of the method's loss (cross-entropy beside ranking) is the loss ``hashgnn``.

Departs from the paper: beta's steps are spread evenly over the first ``ramp`` of training, so that a schedule does not
hang on the number of batches, and the last part trains what is shipped; each side has a dense layer of its own,
which start alike, scaled so that W x has unit deviation (embeddings start near 0.1, where tanh does not bend). The
paper's evaluation ranks 500 candidates again by their continuous values; here codes alone rank.
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
    """Sign of a tanh dense layer, guided by its continuous value while training."""

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
