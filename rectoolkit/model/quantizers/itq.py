"""ITQ, iterative quantization (Gong and Lazebnik, CVPR 2011): the rotation whose signs lose least.

Claim: of all rotations R, take the one under which rows lie nearest to the corners of the cube, by turns:

    B = sign(V R)                  codes for a fixed rotation
    R = S_hat S'                   where the SVD of B' V is S Omega S_hat': the best rotation for fixed codes

from a random rotation on; each turn lowers |B - V R|^2. V holds the rows of both sides, because they must share R:
inner products survive a common rotation only.

There is no gradient: training goes on in float32.

Departs from the paper: no PCA, since an embedding is already as wide as its code; no centring, since rows are
ranked by inner products, whose zero has a meaning: to take a mean from the user rows would change the ranking. R is
fitted on at most ``rows`` rows taken evenly from the two sides, and always from the same start, so that how often
a run was evaluated on its way changes nothing. ``scale = "row"`` keeps each row's length at 8 bytes a row.
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
    """Signs of rows under a rotation fitted to them."""

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
