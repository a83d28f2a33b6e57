"""HashNet (Cao et al., ICCV 2017): learning signs by continuation.

Claim: a sign cannot be trained, but tanh(s x) can, and it becomes the sign as s grows. Training starts with a smooth
problem and ends close to the binary one:

    training:   value = a tanh(s x),   backward: dL/dx = g a s (1 - tanh(s x)^2)
    evaluation: value = a sign(x)

The published schedule is s = (1 + 0.005 t)^0.5 at step t, updated every 200 steps. Here the same square-root law runs
over the share p of training, s = (1 + (sharpness^2 - 1) p)^0.5, from 1 to ``sharpness``. The published law reaches the
default, 7.1, after 10,000 steps.

Differs from the paper: s depends on the share of training. x is measured in deviations of the untrained rows of its
segment, because embeddings start near 0.1, where tanh(x) is almost linear. The loss is that of the recipe, not the
weighted likelihood of pairs of images. ``magnitude`` is a, the length of a coded dim. With 64 dims of +-1 inner
products reach 64; a below 1 has the effect of the scale that the paper's likelihood applies to inner products.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rectoolkit.model.quantizers.base import SignQuantizer
from rectoolkit.model.quantizers.settings import HashNetSettings
from rectoolkit.recipe.registry import quantizers

if TYPE_CHECKING:
    from torch import Tensor


@quantizers.register("hashnet", HashNetSettings)
class HashNet(SignQuantizer):
    """tanh(s x) with s growing during training; the sign in evaluation."""

    def __init__(self, dim: int, segments: tuple[int, ...], settings: HashNetSettings) -> None:
        super().__init__(dim, segments, settings)
        self.sharpness, self.scale = settings.sharpness, settings.magnitude
        self.unit: Tensor
        self.register_buffer("unit", torch.ones(1, len(self.segments)))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        deviations = torch.stack([block.std(correction=0) for block in self.blocks(x)])
        self.unit.copy_(deviations[None].clamp(min=1e-6))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        return self.scale * torch.tanh(self.slope() * self.target(x))

    def slope(self) -> float:
        """s at the current share of training."""
        return float((1 + (self.sharpness**2 - 1) * self.progress) ** 0.5)

    def target(self, x: Tensor) -> Tensor:
        return x / self.spread(self.unit)

    def magnitude(self, target: Tensor) -> Tensor:
        return self.scale * self._one
