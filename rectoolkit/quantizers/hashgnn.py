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

from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import nn

from rectoolkit.quantizers.base import Magnitude, OneBit, SignQuantizer, random_rotation, signs, straight_through
from rectoolkit.registry import quantizers

if TYPE_CHECKING:
    from torch import Tensor


@quantizers.register("hashgnn")
class HashGNN(SignQuantizer):
    """Sign of a tanh dense layer, guided by its continuous value while training."""

    def __init__(
        self,
        dim: int,
        segments: tuple[int, ...],
        generator: torch.Generator,
        *,
        bits: OneBit = 1,
        width: Annotated[int, Field(ge=0, le=4096, description="bits a row; 0: the encoder's width")] = 0,
        growth: Annotated[float, Field(gt=0, le=1, description="step by which beta grows")] = 0.02,
        magnitude: Magnitude = 1.0,
        ramp: Annotated[float, Field(gt=0, le=1, description="share of training over which beta grows to 1")] = 0.8,
    ) -> None:
        super().__init__(dim, (width or dim,), bits=bits)
        self.generator = generator
        self.growth, self.ramp, self.scale = growth, ramp, magnitude
        rotation = random_rotation(max(dim, self.width), generator)[: self.width, :dim]
        self.weight, self.bias = nn.Parameter(rotation.contiguous()), nn.Parameter(torch.zeros(self.width))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        self.weight.div_((x @ self.weight.T).std(correction=0).clamp(min=1e-6))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        continuous = self.target(x)
        codes = straight_through(continuous, 2 * signs(continuous) - 1)
        guided = torch.rand(len(x), 1, generator=self.generator).to(x.device) < self.beta()
        return self.scale * torch.where(guided, codes, continuous)

    def beta(self) -> float:
        """Probability that a row is its code, at the present share of training."""
        steps = int(self.progress / self.ramp / self.growth + 1e-9)
        return min(1.0, self.growth * steps)

    def target(self, x: Tensor) -> Tensor:
        return torch.tanh(nn.functional.linear(x, self.weight, self.bias))

    def magnitude(self, target: Tensor) -> Tensor:
        return self.scale * self._one
