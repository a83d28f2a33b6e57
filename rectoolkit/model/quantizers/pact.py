"""PACT, parameterised clipping (Choi et al., 2018, arXiv 1805.06085), for signed rows, with one bound per segment.

Claim: the clipping bound matters more than the rounding. PACT learns the bound alpha and uses the straight-through
estimator for rounding. With step = 2 alpha / (2^b - 1):

    y = clip(x, -alpha, alpha),   value = step round((y + alpha) / step) - alpha

Backward, with g = dL/dvalue and rounding taken as the identity:

    dL/dx = g if |x| <= alpha, else 0
    dL/dalpha = sum of g over x > alpha - sum of g over x < -alpha + decay alpha

Unlike LSQ's step or the learned bounds of gste, alpha gets no gradient from values inside the bounds.

Differs from the paper: embeddings are signed, so the bounds are -alpha and alpha and not 0 and alpha. alpha starts at
three deviations of the untrained rows. ``decay`` is the paper's penalty on alpha; its default is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rectoolkit.model.quantizers.base import Quantizer, straight_through
from rectoolkit.model.quantizers.settings import PACTSettings
from rectoolkit.recipe.registry import quantizers

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 1e-6


class _Decay(torch.autograd.Function):
    """The identity, with the gradient of an additional term decay / 2 alpha^2 in the loss."""

    @staticmethod
    def forward(ctx: Any, alpha: Tensor, decay: float) -> Tensor:
        ctx.save_for_backward(alpha)
        ctx.decay = decay
        return alpha.view_as(alpha)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (alpha,) = ctx.saved_tensors
        return gradients[0] + ctx.decay * alpha, None


@quantizers.register("pact", PACTSettings)
class PACT(Quantizer):
    """Uniform grid between -alpha and alpha. The clipped values move the parameter alpha."""

    def __init__(self, dim: int, segments: tuple[int, ...], settings: PACTSettings) -> None:
        super().__init__(dim, segments, settings)
        self.deviations, self.decay = settings.deviations, settings.decay
        self.alpha = nn.Parameter(torch.ones(1, len(self.segments)))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        self.alpha.copy_(torch.stack([self.deviations * block.std(correction=0) for block in self.blocks(x)])[None])

    def forward(self, x: Tensor) -> Tensor:
        alpha = _Decay.apply(self.alpha, self.decay)  # type: ignore[no-untyped-call]
        clip = self.spread(alpha.abs().clamp(min=SMALLEST))
        return straight_through(torch.clamp(x, -clip, clip), self.values(*self.grid(x)))

    @torch.no_grad()
    def grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        alpha = self.alpha.abs().clamp(min=SMALLEST)
        step, clip = 2 * alpha / ((1 << self.bits) - 1), self.spread(alpha)
        return ((torch.clamp(x, -clip, clip) + clip) / self.spread(step)).round(), step, -alpha

    @torch.no_grad()
    def diagnostics(self, x: Tensor) -> dict[str, Any]:
        clipped = (x.abs() > self.spread(self.alpha.abs())).float().mean()
        return {**super().diagnostics(x), "clipped": float(clipped)}
