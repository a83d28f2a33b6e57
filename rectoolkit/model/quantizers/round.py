"""Rounding a trained float model to a uniform grid: no training at all, the first floor under every trained method.

    code = round((clip(x, low, high) - low) / step),   value = step code + low,   step = (high - low) / (2^b - 1)

one grid a segment, whose bounds are the extremes of this side's final rows, or the values that leave out the outer
``100 - percentile`` percent, half at each end. At one bit the two values are the bounds themselves, so ``percentile``
acts as a scale only while the rows lie evenly around zero; ``rotate_sign`` and ``itq`` are made for one bit.

There is no gradient: training goes on in float32. Source: common practice; nothing to depart from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from rectoolkit.model.quantizers.settings import RoundSettings, UniformSettings
from rectoolkit.model.quantizers.uniform import UniformQuantizer
from rectoolkit.recipe.registry import quantizers

if TYPE_CHECKING:
    from torch import Tensor


@quantizers.register("round", RoundSettings)
class Round(UniformQuantizer):
    """Uniform grid laid over the final rows of a float model."""

    def __init__(self, dim: int, segments: tuple[int, ...], settings: RoundSettings) -> None:
        super().__init__(dim, segments, None, UniformSettings(bits=settings.bits, scale=settings.scale))
        self.settings = settings
        self.share = settings.percentile if settings.extent == "percentile" else 100.0

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
