"""DirectAU (Wang et al., KDD 2022): pull each user to its item, spread users and spread items; no negatives.

With x = the row scaled to length 1, over a batch of pairs (u, i) and over pairs of different batch rows:

    alignment  = mean |x_u - x_i|^2
    uniformity = log mean exp(-2 |x - x'|^2),    of users and of items, averaged
    L = alignment + gamma * uniformity

It acts on cosines: use it with ``normalize`` where the encoder has it. Squared distances of unit vectors are
2 - 2 <x, x'>, one (B, B) product a side. A user drawn twice into a batch stands at distance 0 from itself, as in
the authors' code.

Departs from the paper: nothing known.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from rectoolkit.errors import Fault
from rectoolkit.model.losses.base import L2, Loss, Triple, Views
from rectoolkit.recipe.registry import Recipe, losses


@losses.register("align_uniform")
class AlignUniform(Loss):
    """Alignment of each pair and uniformity of each side, on the unit sphere."""

    def __init__(
        self, *, gamma: Annotated[float, Field(ge=0, description="weight of uniformity")] = 1.0, l2: L2 = 1e-4
    ) -> None:
        super().__init__(l2=l2)
        self.gamma = gamma

    @classmethod
    def misfits(cls, recipe: Recipe) -> list[Fault]:
        sampler = recipe["sampler"]
        if sampler["name"] != "uniform":
            return [
                Fault("sampler.name", "loss 'align_uniform' uses no negatives; write 'uniform', with negatives = 1")
            ]
        if sampler["negatives"] > 1:
            return [Fault("sampler.negatives", "loss 'align_uniform' uses no negatives; write 1")]
        return []

    def rank(self, views: Views) -> Tensor:
        users = functional.normalize(views.coded.users, dim=1)
        items = functional.normalize(views.coded.positives, dim=1)
        alignment = (users - items).square().sum(1).mean()
        return alignment + self.gamma * (_uniformity(users) + _uniformity(items)) / 2

    def lengths(self, ego: Triple) -> Tensor:
        return ego.users.square().sum(1).mean() + ego.positives.square().sum(1).mean()


def _uniformity(x: Tensor) -> Tensor:
    """log mean exp(-2 |x - x'|^2) over pairs of different rows; 0 for a single row."""
    if len(x) < 2:
        return x.sum() * 0
    exponents = (4 * (x @ x.T - 1)).fill_diagonal_(-torch.inf)
    return exponents.flatten().logsumexp(0) - math.log(len(x) * (len(x) - 1))
