"""The plain straight-through estimator (Bengio et al., 2013) on HQ-GNN's uniform grid.

Forward: round to the grid. Backward: dL/dx_n = dL/dx_q, as though rounding were the identity; the clip passes
nothing outside [low, high]. It is ``gste`` with delta = 0, bit for bit, and what gste must beat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rectoolkit.quantizers.base import Bits, Bounds, Deviations, Extent, Momentum, UniformQuantizer, straight_through
from rectoolkit.registry import quantizers

if TYPE_CHECKING:
    from torch import Tensor


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
        return straight_through(normalised, normalised.round())
