"""HashGNN's hash layer (Tan et al., WWW 2020): a dense layer and tanh before the codes, and guidance during training.

    h = tanh(W x + b)

W starts as a rotation, the same for both sides, scaled so that W x has deviation 1 (embeddings start near 0.1, where
tanh is almost linear). Guidance: in training each row is coded with probability beta, and is h otherwise. beta grows to
1 in steps of ``growth`` over the first ``ramp`` of training. The rest of training sees only codes, as they are shipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from rectoolkit.model.quantizers.base import random_rotation
from rectoolkit.model.quantizers.settings import GROWTH

if TYPE_CHECKING:
    from torch import Tensor


class HashLayer(nn.Module):
    """Rows (N, dim) -> h (N, width), between -1 and 1."""

    def __init__(self, dim: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        rotation = random_rotation(max(dim, width), generator)[:width, :dim]
        self.weight, self.bias = nn.Parameter(rotation.contiguous()), nn.Parameter(torch.zeros(width))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Scale W by the untrained rows of this side."""
        self.weight.div_((x @ self.weight.T).std(correction=0).clamp(min=1e-6))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(nn.functional.linear(x, self.weight, self.bias))


def guidance(progress: float, ramp: float, growth: float = GROWTH) -> float:
    """beta, the probability that a row is coded, at the share ``progress`` of training; 1 without a ``ramp``."""
    return min(1.0, growth * int(progress / ramp / growth + 1e-9)) if ramp else 1.0


def coded_rows(x: Tensor, beta: float, generator: torch.Generator | None) -> Tensor:
    """A mask, bool (N,), of the rows ``x`` (N, D) to code this time, each with probability ``beta``."""
    return torch.rand(len(x), generator=generator).to(x.device) < beta
