"""Random rotation, then the uniform grid that is best for Gaussian values: post-training codes with one fitted scale.

Claim: a random rotation R that both sides share keeps every inner product and spreads the energy of a row evenly over
its dims. Each dim then looks Gaussian, and one step serves all. With one bit this is the sign of random hyperplanes
(Charikar, STOC 2002): the share of equal bits of two codes estimates the angle between the rows. With t = R x:

    code = floor(t / step) + 2^(b-1), clipped to 0..2^b - 1,   value = step (code - (2^b - 1) / 2)

    step = deviation of t * {1.596, 0.9957, 0.5860, 0.3352, 0.1881, 0.1041, 0.0569, 0.0308} for 1..8 bits

These are the steps with the least squared error for a Gaussian (Max, 1960). The grid is symmetric about zero, which is
a threshold, because inner products of rows are ranked, and not their differences.

There is no gradient: training runs in float32. ``scale = "row"`` keeps the length of each row, for 2 more bytes per
row; for an item most of this is its popularity. A rotation mixes the blocks of an encoder that concatenates layers, so
a code row is one segment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rectoolkit.model.quantizers.base import two_bytes
from rectoolkit.model.quantizers.rotated import Rotated
from rectoolkit.model.quantizers.settings import RotateSignSettings
from rectoolkit.recipe.registry import quantizers

if TYPE_CHECKING:
    from torch import Tensor

GAUSSIAN_STEPS = (1.596, 0.9957, 0.5860, 0.3352, 0.1881, 0.1041, 0.0569, 0.0308)


@quantizers.register("rotate_sign", RotateSignSettings)
class RotateSign(Rotated):
    """Codes of randomly rotated rows on a symmetric grid; with one bit, their signs."""

    def __init__(
        self, dim: int, segments: tuple[int, ...], generator: torch.Generator, settings: RotateSignSettings
    ) -> None:
        super().__init__(dim, segments, generator, settings)
        self.deviation: Tensor
        self.register_buffer("deviation", torch.ones(1, 1))

    def finish(self, rows: Tensor, everything: Tensor) -> None:
        self.deviation.copy_(rows.square().mean().sqrt())  # a rotation does not change it

    def target(self, x: Tensor) -> Tensor:
        return x @ self.rotation.T

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        target = self.target(x)
        deviation = self.deviation
        if self.scale == "row":
            deviation = target.square().mean(1, keepdim=True).sqrt()
        step = GAUSSIAN_STEPS[self.bits - 1] * deviation.clamp(min=1e-12)
        top = (1 << self.bits) - 1
        codes = ((target / step).floor() + (top + 1) / 2).clamp(0, top)
        if self.scale == "row":
            step = two_bytes(step)
        return codes, step, -top / 2 * step
