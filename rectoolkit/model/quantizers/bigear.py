"""BiGeaR (Chen et al., KDD 2022): a sign and a magnitude for each layer of each node.

Claim: one bit per dim keeps most of the ranking of a graph encoder if each propagation layer is coded by itself with
its own magnitude, deeper layers have more weight, and the gradient of the sign approximates its true derivative. For
the segments l = 0..L of a row, with e_l the block of layer l:

    value_l = (l + 1) / (L + 1) * mean|e_l| * sign(e_l)

So a row has L + 1 floats beside its bits. The backward of the sign is Dirac's delta as a narrow Gaussian:

    d sign(x) / dx ~ gamma exp(-(gamma x)^2) / sqrt(pi), clipped to [1e-8, 1]

mean|e_l| has its own gradient. The other half of the method, distillation from a float32 teacher, is a loss.

Differs from the paper: only the shape of the paper's bump is known to us, and the factor 2 of the derivative of a sign
is left to the learning rate. That the gradient passes through mean|e_l| is our reading.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from rectoolkit.model.quantizers.base import SignQuantizer, signs, two_bytes
from rectoolkit.model.quantizers.settings import BiGeaRSettings
from rectoolkit.recipe.registry import quantizers

if TYPE_CHECKING:
    from torch import Tensor


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.gamma = gamma
        return 2 * signs(x) - 1

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        bump = ctx.gamma / math.sqrt(math.pi) * torch.exp(-(ctx.gamma * x).square())
        return gradients[0] * bump.clamp(1e-8, 1), None


@quantizers.register("bigear", BiGeaRSettings)
class BiGeaR(SignQuantizer):
    """Sign times mean magnitude per row and layer, with more weight on deeper layers."""

    def __init__(self, dim: int, segments: tuple[int, ...], settings: BiGeaRSettings) -> None:
        super().__init__(dim, segments, settings)
        self.gamma = settings.gamma
        self.weights: Tensor
        depth = len(self.segments)
        self.register_buffer("weights", torch.arange(1, depth + 1) / depth, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        magnitude = self.magnitude(self.target(x))
        return _Sign.apply(x, self.gamma) * self.spread(magnitude)  # type: ignore[no-any-return, no-untyped-call]

    def target(self, x: Tensor) -> Tensor:
        return x * self.spread(self.weights[None])

    def magnitude(self, target: Tensor) -> Tensor:
        return two_bytes(self.segment_means(target.abs()))
