"""LSQ, learned step size quantization (Esser et al., ICLR 2020), for signed rows, with one step per segment.

Claim: the step s of the grid should be learned with everything else, from a gradient that depends on how near a value
is to the point where its code changes. With Qn = 2^(b-1), Qp = 2^(b-1) - 1 and v = x / s:

    code = round(clip(v, -Qn, Qp)),   value = s code

Backward, with g = dL/dvalue:

    dL/dx = g if -Qn <= v <= Qp, else 0
    dL/ds = 1 / sqrt(N Qp) * sum of g times { round(v) - v inside;  -Qn below;  Qp above }

The sum is over the N elements of the segment in the batch. s starts at 2 mean|x| / sqrt(Qp).

Differs from the paper: with one bit the signed range would have the codes -1 and 0, and Qp = 0; here the codes are -1
and +1, with Qn = Qp = 1 and code = sign(v). (s = mean|x| has the least squared error there, but clips 42 % of Gaussian
rows, which then have no gradient; the published start clips 11 %.) A step that training makes negative counts by its
magnitude, so that it can recover.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rectoolkit.model.quantizers.base import Quantizer, signs, straight_through
from rectoolkit.model.quantizers.settings import LSQSettings
from rectoolkit.recipe.registry import quantizers

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 1e-8


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return gradients[0] * factor, None


@quantizers.register("lsq", LSQSettings)
class LSQ(Quantizer):
    """Uniform grid through zero with a learned step."""

    def __init__(self, dim: int, segments: tuple[int, ...], settings: LSQSettings) -> None:
        super().__init__(dim, segments, settings)
        self.negative = 1 << (settings.bits - 1)  # Qn
        self.positive = max(1, self.negative - 1)  # Qp
        self.step = nn.Parameter(torch.ones(1, len(self.segments)))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        mean = self.segment_means(x.abs()).mean(0, keepdim=True)
        self.step.copy_((2 * mean / self.positive**0.5).clamp(min=SMALLEST))

    def forward(self, x: Tensor) -> Tensor:
        elements = len(x) * torch.tensor(self.segments, device=x.device, dtype=x.dtype)
        step = _ScaleGradient.apply(self.step, (elements * self.positive).rsqrt())  # type: ignore[no-untyped-call]
        return self.values(*self._codes(x, step))

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._codes(x, self.step)

    def _codes(self, x: Tensor, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        step = step.abs().clamp(min=SMALLEST)
        v = (x / self.spread(step)).clamp(-self.negative, self.positive)
        if self.bits == 1:
            return straight_through((v + 1) / 2, signs(v)), 2 * step, -step
        return straight_through(v, v.round()) + self.negative, step, -self.negative * step
