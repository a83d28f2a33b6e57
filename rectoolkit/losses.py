"""Losses over (user, positive, negatives): what training minimises.

``Views`` shows a loss one batch three times: after the quantizer (what is ranked), before it, and at layer 0 (on
which L2 acts). Every loss is ``rank(views)`` plus ``l2 / 2`` times the mean over the batch of the squared length of
its ego rows. A loss may offer ``curvature``, the exact diagonal of its Hessian, which ``gste`` scales gradients by.

B batch, K negatives, D dims. Negatives are (B, K, D), or (K, D) where the sampler shares them across the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from rectoolkit.registry import losses

if TYPE_CHECKING:
    from rectoolkit.samplers import Batch

Side = Literal["users", "items"]
L2 = Annotated[float, Field(ge=0, description="weight of the squared ego embeddings of the batch")]


@dataclass(frozen=True)
class Triple:
    """Rows of one batch: users (B, D), positives (B, D), negatives (B, K, D) or shared (K, D)."""

    users: Tensor
    positives: Tensor
    negatives: Tensor

    def side(self, side: Side) -> tuple[Tensor, ...]:
        """The tensors of one side: the users', or the positives and negatives."""
        return (self.users,) if side == "users" else (self.positives, self.negatives)

    def positive_scores(self) -> Tensor:
        """<u, i> by batch row, (B,)."""
        return (self.users * self.positives).sum(1)

    def negative_scores(self) -> Tensor:
        """<u, j> for every negative, (B, K)."""
        if self.negatives.dim() == 2:
            return self.users @ self.negatives.T
        return torch.einsum("bd,bkd->bk", self.users, self.negatives)


@dataclass(frozen=True)
class Views:
    """One batch after the quantizer, before it, and at layer 0; and the batch itself."""

    coded: Triple
    real: Triple
    ego: Triple
    batch: Batch


class Loss(nn.Module):
    """Base of every loss: ranking plus L2. Subclasses implement ``rank``, and ``curvature`` where it has a form."""

    def __init__(self, *, l2: float = 1e-4) -> None:
        super().__init__()
        self.l2 = l2

    def forward(self, views: Views) -> Tensor:
        """The batch's loss, a scalar."""
        value = self.rank(views)
        if self.l2:
            ego = views.ego
            lengths = sum(rows.square().sum(-1).mean() for rows in (ego.users, ego.positives, ego.negatives))
            value = value + self.l2 / 2 * lengths
        return value

    def rank(self, views: Views) -> Tensor:
        """The ranking part, a scalar: a mean over the batch."""
        raise NotImplementedError

    def curvature(self, views: Views, side: Side) -> Tensor:
        """Diagonal of the Hessian of ``rank`` with respect to one side's coded rows, summed over rows: (D,).

        Its sum is Tr(H). Each batch row counts as a variable of its own, as autograd has it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no closed form of its curvature")

    @classmethod
    def has_curvature(cls) -> bool:
        """Whether ``curvature`` is offered."""
        return cls.curvature is not Loss.curvature


@losses.register("bpr")
class BPR(Loss):
    """Bayesian personalised ranking (Rendle et al., UAI 2009): mean softplus(<u, j> - <u, i>).

    With s = <u, i - j> and w = sigma(s)(1 - sigma(s)), the Hessian's diagonal is, per pair and dim, w (i - j)^2 for
    the user and w u^2 for each of the two items; over B K pairs it is averaged as the loss is.
    """

    def __init__(self, *, l2: L2 = 1e-4) -> None:
        super().__init__(l2=l2)

    def rank(self, views: Views) -> Tensor:
        triple = views.coded
        return functional.softplus(triple.negative_scores() - triple.positive_scores()[:, None]).mean()

    @torch.no_grad()
    def curvature(self, views: Views, side: Side) -> Tensor:
        triple = views.coded
        wrong = torch.sigmoid(triple.negative_scores() - triple.positive_scores()[:, None])
        weight = wrong * (1 - wrong) / wrong.numel()
        if side == "items":
            return 2 * weight.sum(1) @ triple.users.square()
        if triple.negatives.dim() == 3:
            return torch.einsum("bk,bkd->d", weight, (triple.positives[:, None] - triple.negatives).square())
        own, cross = weight.sum(1)[:, None], weight @ triple.negatives  # (i - j)^2 without its (B, K, D)
        positives = triple.positives
        return (own * positives.square() - 2 * positives * cross).sum(0) + weight.sum(0) @ triple.negatives.square()
