"""BGCH (Chen et al., WWW 2023): signs per layer, trained through a Fourier series, on dispersed features.

Claim: graph convolution pulls all embeddings towards one direction, where signs cannot tell them apart. So part of the
main direction of the rows is removed before the sign, and the gradient of the sign is the derivative of its Fourier
series. For each segment l (a propagation layer), with X_l the blocks of the rows and p_l the main direction of
X_l' X_l:

    X_l - eta X_l p_l p_l'                        feature dispersion, p_l by power iterations
    t_l = (X_l - eta X_l p_l p_l') W_l            linear layer
    value_l = mean|t_l| sign(t_l)                 mean over the block of a row
    d sign(t) / dt ~ sum over odd i < terms of (4 frequency / pi) cos(i frequency t), clipped to [-1, 1]

mean|t_l| has its own gradient. With frequency 1 and 4 terms the derivative is 1 up to |t| = 0.59, falls to 0 at pi / 4
and is negative beyond, which drives values back towards zero.

Differs from the paper: dispersion is part of the quantizer and not of the convolution, so that it works with any
encoder. p_l is kept from batch to batch, moved by ``iterations`` steps on each, and fixed in evaluation. W_l starts as
a random rotation, the same on both sides. eta and the two iterations are the published values; the frequency and the
number of terms are ours. The cross-entropy on layer 0 belongs to a loss.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from rectoolkit.model.quantizers.base import SignQuantizer, random_rotation, signs, two_bytes
from rectoolkit.model.quantizers.settings import BGCHSettings
from rectoolkit.recipe.registry import quantizers

if TYPE_CHECKING:
    from torch import Tensor


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, terms: int, frequency: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.terms, ctx.frequency = terms, frequency
        return 2 * signs(x) - 1

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        series = torch.zeros_like(x)
        for i in range(1, ctx.terms, 2):
            series += torch.cos(i * ctx.frequency * x)
        return gradients[0] * (4 * ctx.frequency / math.pi * series).clamp(-1, 1), None, None


@quantizers.register("bgch", BGCHSettings)
class BGCH(SignQuantizer):
    """Sign times mean magnitude per row and layer, of dispersed rows after a linear layer."""

    def __init__(self, dim: int, segments: tuple[int, ...], generator: torch.Generator, settings: BGCHSettings) -> None:
        super().__init__(dim, segments, settings)
        self.terms, self.frequency = settings.terms, settings.frequency
        self.eta, self.iterations = settings.eta, settings.iterations
        self.weights = nn.ParameterList([random_rotation(width, generator) for width in self.segments])
        self.direction: Tensor  # p of all segments, (width,)
        direction = torch.randn(self.width, generator=generator)
        self.register_buffer("direction", torch.cat([functional.normalize(p, dim=0) for p in self._split(direction)]))

    def calibrate(self, x: Tensor) -> None:
        self._turn(x)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        self._turn(x)
        t = self.target(x)
        return _Sign.apply(t, self.terms, self.frequency) * self.spread(self.magnitude(t))  # type: ignore[no-any-return, no-untyped-call]

    def target(self, x: Tensor) -> Tensor:
        parts = []
        for block, p, weight in zip(self.blocks(x), self._split(self.direction), self.weights, strict=True):
            parts.append((block - self.eta * (block @ p)[:, None] * p) @ weight)
        return torch.cat(parts, dim=1)

    def magnitude(self, target: Tensor) -> Tensor:
        return two_bytes(self.segment_means(target.abs()))

    @torch.no_grad()
    def _turn(self, x: Tensor) -> None:
        """Power iterations of p on these rows. Rows of zeros do not change it."""
        directions = []
        for block, p in zip(self.blocks(x), self._split(self.direction), strict=True):
            for _ in range(self.iterations):
                turned = (block @ p) @ block
                length = turned.norm()
                p = torch.where(length > 0, turned / length, p)
            directions.append(p)
        self.direction.copy_(torch.cat(directions))

    def _split(self, by_dim: Tensor) -> tuple[Tensor, ...]:
        return torch.split(by_dim, list(self.segments))
