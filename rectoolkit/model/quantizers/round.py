"""Rounding a trained float model to a uniform grid: no training at all, the first floor under every trained method.

    code = round((clip(x, low, high) - low) / step),   value = step code + low,   step = (high - low) / (2^b - 1)

one grid a segment, whose bounds are the extremes of this side's final rows, or the values that leave out the outer
``100 - percentile`` percent, half at each end. At one bit the two values are the bounds themselves, so ``percentile``
acts as a scale only while the rows lie evenly around zero; ``rotate_sign`` and ``itq`` are made for one bit.

There is no gradient: training goes on in float32. Source: common practice; nothing to depart from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from rectoolkit.model.quantizers.base import Bits, Scale
from rectoolkit.model.quantizers.uniform import UniformQuantizer
from rectoolkit.recipe.registry import quantizers

if TYPE_CHECKING:
    from torch import Tensor


@quantizers.register("round")
class Round(UniformQuantizer):
    """Uniform grid laid over the final rows of a float model."""

    trained: ClassVar[bool] = False

    def __init__(
        self,
        dim: int,
        segments: tuple[int, ...],
        *,
        bits: Bits = 8,
        extent: Annotated[
            Literal["minmax", "percentile"], Field(description="bounds: the rows' extremes, or percentiles of them")
        ] = "minmax",
        percentile: Annotated[
            float, Field(gt=0, le=100, description="central share of values, in percent, where extent = 'percentile'")
        ] = 99.9,
        scale: Scale = "table",
    ) -> None:
        super().__init__(dim, segments, bits=bits, scale=scale)
        self.share = percentile if extent == "percentile" else 100.0

    def calibrate(self, x: Tensor) -> None:
        """Nothing: the untrained rows are not what is rounded."""

    def forward(self, x: Tensor) -> Tensor:
        return x if self.training else super().forward(x)

    def finish(self, rows: Tensor, everything: Tensor) -> None:
        ends = [50 - self.share / 2, 50 + self.share / 2]
        bounds = [np.percentile(block.detach().cpu().numpy(), ends) for block in self.blocks(self.in_units(rows)[0])]
        low, high = torch.tensor(np.asarray(bounds, np.float32).T)
        self.low.copy_(low[None])
        self.high.copy_(high[None])
