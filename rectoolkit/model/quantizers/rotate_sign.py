"""Random rotation, then the grid that is best for a Gaussian: post-training codes with nothing fitted but a scale.

Claim: a random rotation R, common to both sides, keeps every inner product and spreads a row's energy evenly over
its dims, so that each dim looks Gaussian and one step serves all. At one bit it is the sign of random hyperplanes
(Charikar, STOC 2002): the share of bits in which two codes agree estimates the angle between the rows. With t = R x:

    code = floor(t / step) + 2^(b-1), held within 0..2^b - 1,   value = step (code - (2^b - 1) / 2)

    step = deviation of t * {1.596, 0.9957, 0.5860, 0.3352, 0.1881, 0.1041, 0.0569, 0.0308} for 1..8 bits

the steps of the uniform quantizer with least squared error for a Gaussian (Max, 1960). The grid is symmetric about
zero: zero is the threshold, because the rows' inner products, and not their differences, are what is ranked.

There is no gradient: training goes on in float32. ``scale = "row"`` keeps each row's length at 8 bytes a row; of an
item that is most of its popularity. A rotation mixes the blocks of an encoder that concatenates, so a code row is
one segment.
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
    """Codes of randomly rotated rows on a symmetric grid; at one bit their sign."""

    def __init__(
        self, dim: int, segments: tuple[int, ...], generator: torch.Generator, settings: RotateSignSettings
    ) -> None:
        super().__init__(dim, segments, generator, settings)
        self.deviation: Tensor
        self.register_buffer("deviation", torch.ones(1, 1))

    def finish(self, rows: Tensor, everything: Tensor) -> None:
        self.deviation.copy_(rows.square().mean().sqrt())  # a rotation keeps it

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
