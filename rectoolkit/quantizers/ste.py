"""The plain straight-through estimator (Bengio et al., 2013) on HQ-GNN's uniform grid.

Forward: round to the grid. Backward: dL/dx_n = dL/dx_q, as though rounding were the identity; the clip passes
nothing outside [low, high]. It is ``gste`` with delta = 0, bit for bit, and what gste must beat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rectoolkit.quantizers.base import Bits, Bounds, Deviations, Extent, Momentum, UniformQuantizer
from rectoolkit.registry import quantizers

if TYPE_CHECKING:
    from torch import Tensor


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


@quantizers.register("ste")
class STE(UniformQuantizer):
    """Uniform grid, identity gradient."""

    def __init__(
        self,
        dim: int,
        segments: tuple[int, ...],
        *,
        bits: Bits = 1,
        bounds: Bounds = "average",
        extent: Extent = "minmax",
        deviations: Deviations = 3.0,
        momentum: Momentum = 0.99,
    ) -> None:
        super().__init__(
            dim, segments, bits=bits, bounds=bounds, extent=extent, deviations=deviations, momentum=momentum
        )

    def round(self, normalised: Tensor) -> Tensor:
        return _Round.apply(normalised)  # type: ignore[no-any-return, no-untyped-call]
