"""ITQ, iterative quantization (Gong and Lazebnik, CVPR 2011): signs under the rotation that loses least.

Claim: of all rotations R, choose the one that brings rows closest to the corners of the cube, by alternating between

    B = sign(V R)                  the best codes for a fixed rotation
    R = S_hat S'                   the best rotation for fixed codes, where the SVD of B' V is S Omega S_hat'

starting from a random rotation. Each iteration lowers |B - V R|^2. V holds the rows of both sides, which must share R:
inner products are kept only by a common rotation.

There is no gradient: training runs in float32.

Differs from the paper: no PCA, because an embedding is already as wide as its code. No centring, because rows are
ranked by inner products: subtracting a mean from the user rows would change the ranking. R is fitted to at most
``rows`` rows, taken evenly from both sides, and always from the same start, so that evaluating a run more often changes
nothing. ``scale = "row"`` keeps the length of each row, for 2 more bytes per row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rectoolkit.model.quantizers.base import signs, two_bytes
from rectoolkit.model.quantizers.rotated import Rotated
from rectoolkit.model.quantizers.settings import ITQSettings
from rectoolkit.recipe.registry import quantizers

if TYPE_CHECKING:
    from torch import Tensor


@quantizers.register("itq", ITQSettings)
class ITQ(Rotated):
    """Signs of rows under a rotation that is fitted to them."""

    def __init__(self, dim: int, segments: tuple[int, ...], generator: torch.Generator, settings: ITQSettings) -> None:
        super().__init__(dim, segments, generator, settings)
        self.iterations, self.rows = settings.iterations, settings.rows
        self.start: Tensor
        self.mean: Tensor
        self.register_buffer("start", self.rotation.clone())
        self.register_buffer("mean", torch.ones(1, 1))

    @torch.no_grad()
    def finish(self, rows: Tensor, everything: Tensor) -> None:
        sample = everything[:: -(-len(everything) // self.rows)]
        rotation = self.start
        for _ in range(self.iterations):
            codes = torch.where(sample @ rotation >= 0, 1.0, -1.0)
            left, _, right = torch.linalg.svd(codes.T @ sample)
            rotation = (left @ right).T
        self.rotation.copy_(rotation)
        self.mean.copy_(self.target(rows).abs().mean())

    def target(self, x: Tensor) -> Tensor:
        return x @ self.rotation

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        target = self.target(x)
        magnitude = two_bytes(target.abs().mean(1, keepdim=True)) if self.scale == "row" else self.mean
        return signs(target), 2 * magnitude, -magnitude
