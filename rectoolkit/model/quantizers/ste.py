"""The plain straight-through estimator (Bengio et al., 2013) on HQ-GNN's uniform grid.

Forward: round to the grid. Backward: dL/dx_n = dL/dx_q, as though rounding were the identity; the clip passes
nothing outside [low, high], or with ``clip = "inward"`` what leads back inside. It is ``gste`` with delta = 0, bit for
bit, and what gste must beat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rectoolkit.model.quantizers.base import straight_through
from rectoolkit.model.quantizers.settings import STESettings
from rectoolkit.model.quantizers.uniform import UniformQuantizer
from rectoolkit.recipe.registry import quantizers

if TYPE_CHECKING:
    from torch import Tensor


@quantizers.register("ste", STESettings)
class STE(UniformQuantizer):
    """Uniform grid, identity gradient."""

    def round(self, normalised: Tensor) -> Tensor:
        return straight_through(normalised, normalised.round())
