"""Post-training rounding to a uniform grid, the first baseline for trained methods.

    code = round((clip(x, low, high) - low) / step),   value = step code + low,   step = (high - low) / (2^b - 1)

There is one grid per segment. Its bounds are the minimum and maximum of the final rows of this side, or the values that
leave out the outer ``100 - percentile`` percent, half at each end. With one bit the two values are the bounds
themselves, so ``percentile`` acts as a scale, and only if the rows are centred on zero; ``rotate_sign`` and ``itq`` are
made for one bit.

There is no gradient: training runs in float32. Source: common practice.
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
    """Uniform grid over the final rows of a float32 model."""

    def __init__(self, dim: int, segments: tuple[int, ...], settings: RoundSettings) -> None:
        super().__init__(dim, segments, None, UniformSettings(bits=settings.bits, scale=settings.scale))
        self.settings = settings
        self.share = settings.percentile if settings.extent == "percentile" else 100.0

    def calibrate(self, x: Tensor) -> None:
        """Does nothing, because only the final rows are rounded."""

    def forward(self, x: Tensor) -> Tensor:
        return x if self.training else super().forward(x)

    def finish(self, rows: Tensor, everything: Tensor) -> None:
        ends = [50 - self.share / 2, 50 + self.share / 2]
        bounds = [np.percentile(block.detach().cpu().numpy(), ends) for block in self.blocks(self.in_units(rows)[0])]
        low, high = torch.tensor(np.asarray(bounds, np.float32).T)
        self.low.copy_(low[None])
        self.high.copy_(high[None])
