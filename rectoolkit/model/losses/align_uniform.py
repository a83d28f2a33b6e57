"""DirectAU (Wang et al., KDD 2022): pull each user to its item, and spread users and items apart; no negatives.

With x the row scaled to length 1, over the pairs (u, i) of a batch and over pairs of different batch rows:

    alignment  = mean |x_u - x_i|^2
    uniformity = log mean exp(-2 |x - x'|^2),    of users and of items, averaged
    L = alignment + gamma * uniformity

It acts on cosines: use it with ``normalize`` if the encoder has it. Squared distances of unit vectors are
2 - 2 <x, x'>, one (B, B) product per side. A user that occurs twice in a batch has distance 0 from itself, as in
the authors' code.

Differs from the paper: nothing known.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from rectoolkit.model.losses.base import Loss, Triple, Views
from rectoolkit.model.losses.settings import AlignUniformSettings
from rectoolkit.recipe.registry import losses


@losses.register("align_uniform", AlignUniformSettings)
class AlignUniform(Loss):
    """Alignment of pairs and uniformity of each side, on the unit sphere."""

    settings: AlignUniformSettings

    def rank(self, views: Views) -> Tensor:
        users = functional.normalize(views.coded.users, dim=1)
        items = functional.normalize(views.coded.positives, dim=1)
        alignment = (users - items).square().sum(1).mean()
        return alignment + self.settings.gamma * (_uniformity(users) + _uniformity(items)) / 2

    def lengths(self, ego: Triple) -> Tensor:
        return ego.users.square().sum(1).mean() + ego.positives.square().sum(1).mean()


def _uniformity(x: Tensor) -> Tensor:
    """log mean exp(-2 |x - x'|^2) over pairs of different rows; 0 if there is only one row."""
    if len(x) < 2:
        return x.sum() * 0
    exponents = (4 * (x @ x.T - 1)).fill_diagonal_(-torch.inf)
    return exponents.flatten().logsumexp(0) - math.log(len(x) * (len(x) - 1))
