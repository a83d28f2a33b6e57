"""The straight-through estimator (Bengio et al., 2013) on HQ-GNN's uniform grid.

Forward: round to the grid. Backward: dL/dx_n = dL/dx_q, as if rounding were the identity. A value outside [low, high]
gets no gradient, or with ``clip = "inward"`` only one that leads back inside. This equals ``gste`` with delta = 0 bit
for bit, and is the baseline for it.
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
