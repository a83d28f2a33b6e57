"""DoReFa (Zhou et al., 2016, arXiv 1606.06160): its quantizer of weights, applied to embeddings, one range per segment.

Claim: tanh squashes all values into a range, so nothing has to be clipped; round there with a straight-through
gradient. With n = 2^b - 1 and M = max |tanh(x)|:

    r = tanh(x) / (2 M) + 1/2,   code = round(n r),   value = 2 code / n - 1        b > 1
    value = mean|x| sign(x)                                                         b = 1

Backward: rounding is the identity. So dL/dx = g (1 - tanh(x)^2) / M for several bits, if |tanh(x)| <= M, and dL/dx = g
for one bit. M and mean|x| are constants in the backward.

Differs from the paper: M and mean|x| are moving averages over batches, because a code must not depend on the rows that
are coded with it. Values above M are clipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rectoolkit.model.quantizers.base import Quantizer, signs, straight_through
from rectoolkit.model.quantizers.settings import DoReFaSettings
from rectoolkit.recipe.registry import quantizers

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 1e-6


@quantizers.register("dorefa", DoReFaSettings)
class DoReFa(Quantizer):
    """Uniform grid on the tanh of a row, in [-1, 1]; with one bit, its sign times its mean magnitude."""

    def __init__(self, dim: int, segments: tuple[int, ...], settings: DoReFaSettings) -> None:
        super().__init__(dim, segments, settings)
        self.momentum = settings.momentum
        self.reach: Tensor  # M, or mean|x| with one bit, (1, segments)
        self.register_buffer("reach", torch.ones(1, len(self.segments)))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        self.reach.copy_(self._reach(x))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.reach.lerp_(self._reach(x), 1 - self.momentum)
        if self.bits == 1:
            return straight_through(x, self.values(*self.grid(x)))
        levels = self._levels(x)
        return self.values(straight_through(levels, levels.round()), *self._affine())

    def target(self, x: Tensor) -> Tensor:
        return x if self.bits == 1 else x.tanh() / self.spread(self.reach)

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return signs(x) if self.bits == 1 else self._levels(x).round(), *self._affine()

    def _levels(self, x: Tensor) -> Tensor:
        """n r, from 0 to n."""
        top = (1 << self.bits) - 1
        return ((x.tanh() / self.spread(2 * self.reach) + 0.5) * top).clamp(0, top)

    def _affine(self) -> tuple[Tensor, Tensor]:
        if self.bits == 1:
            return 2 * self.reach, -self.reach
        one = torch.ones_like(self.reach)
        return 2 * one / ((1 << self.bits) - 1), -one

    def _reach(self, x: Tensor) -> Tensor:
        if self.bits == 1:
            return self.segment_means(x.abs()).mean(0, keepdim=True).clamp(min=SMALLEST)
        return torch.stack([block.abs().amax() for block in self.blocks(x)])[None].tanh().clamp(min=SMALLEST)
