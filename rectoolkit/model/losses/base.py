"""What a loss is: a batch's rows to one number, over (user, positive, negatives).

``Views`` shows a loss one batch three times: after the quantizer (what is ranked), before it, and at layer 0 (on
which L2 acts). Every loss is ``rank(views)`` plus ``l2 / 2`` times the mean over the batch of the squared length of
its ego rows. A loss may offer ``curvature``, the exact diagonal of its Hessian, which ``gste`` scales gradients by.

B batch, K negatives, D dims. Negatives are (B, K, D), or (K, D) where the sampler shares them across the batch. Of
shared negatives some are items that a row's user has in train: these pairs score -inf, which every loss here takes
as a negative that is already right, with neither value, gradient nor curvature; means still count them.

A run supplies ``train`` (Interactions) and its ``seed``, where a loss asks for them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from rectoolkit.model.losses.settings import LossSettings
    from rectoolkit.model.samplers.base import Batch

Side = Literal["users", "items"]


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

    def keep(self, columns: Tensor) -> Triple:
        """Only the negatives (B, K', D) that ``columns`` (B, K') names."""
        chosen = columns[:, :, None].expand(-1, -1, self.negatives.shape[2])
        return Triple(self.users, self.positives, self.negatives.gather(1, chosen))


@dataclass(frozen=True)
class Views:
    """One batch after the quantizer, before it, and at layer 0; and the batch itself.

    ``columns`` (B, K) says which of the negatives that were coded (B, K n) are left, where not all are.
    """

    coded: Triple
    real: Triple
    ego: Triple
    batch: Batch
    columns: Tensor | None = None

    def by_row(self, side: Side, numbers: Tensor) -> tuple[Tensor, ...]:
        """``numbers``, one for each row of a side that was coded, in the shapes of ``coded.side(side)`` without D."""
        if side == "users":
            return (numbers,)
        size = len(self.coded.users)
        positives, negatives = numbers[:size], numbers[size:]
        if self.columns is not None:
            return positives, negatives.view(size, -1).gather(1, self.columns)
        return positives, negatives.view(self.batch.negatives.shape)

    def weights(self, side: Side, given: tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
        """``given``, or else a one for each row of a side, in the shapes of ``by_row``."""
        return given or tuple(rows.new_ones(rows.shape[:-1]) for rows in self.coded.side(side))

    def scores(self) -> tuple[Tensor, Tensor]:
        """Scores of the coded rows: positives (B,), negatives (B, K), -inf where they collide with train."""
        negatives = self.coded.negative_scores()
        if self.batch.collisions is not None:
            rows, columns = self.batch.collisions
            negatives[rows, columns] = -torch.inf
        return self.coded.positive_scores(), negatives

    def hardest(self) -> Views:
        """These views with the best scored negative of each ``batch.best_of``, (B, K n) -> (B, K)."""
        if self.batch.best_of == 1:
            return self
        with torch.no_grad():
            scores = self.coded.negative_scores()
            scores = scores.view(len(scores), -1, self.batch.best_of)
            best = scores.argmax(2)
            columns = best + torch.arange(best.shape[1], device=best.device) * self.batch.best_of
        batch = replace(self.batch, negatives=self.batch.negatives.gather(1, columns), best_of=1)
        return Views(self.coded.keep(columns), self.real.keep(columns), self.ego.keep(columns), batch, columns)


class Loss(nn.Module):
    """Base of every loss: ranking plus L2. Subclasses implement ``rank``, and ``curvature`` where it has a form."""

    def __init__(self, settings: LossSettings) -> None:
        super().__init__()
        self.settings, self.l2 = settings, settings.l2

    def prepare(self, batch: Batch) -> Batch:
        """The batch as the model shall see it; losses that need rows of more items ask for them here."""
        return batch

    def forward(self, views: Views) -> Tensor:
        """The batch's loss, a scalar."""
        value = self.rank(views)
        return value + self.l2 / 2 * self.lengths(views.ego) if self.l2 else value

    def rank(self, views: Views) -> Tensor:
        """The ranking part, a scalar: a mean over the batch."""
        raise NotImplementedError

    def lengths(self, ego: Triple) -> Tensor:
        """What L2 weighs: the mean squared length of users, of positives and of negatives, added."""
        return torch.stack([rows.square().sum(-1).mean() for rows in (ego.users, ego.positives, ego.negatives)]).sum()

    def curvature(self, views: Views, side: Side, weights: tuple[Tensor, ...] | None = None) -> Tensor:
        """Diagonal of the Hessian of ``rank`` with respect to one side's coded rows, summed over rows: (D,).

        Its sum is Tr(H). Each batch row counts as a variable of its own, as autograd has it. The sum is weighted by
        ``weights``, a number for each row in the shapes of ``Views.by_row``; ``Views.weights`` gives ones for None.
        """
        raise NotImplementedError(f"{type(self).__name__} has no closed form of its curvature")


def weighted_squares(weights: Tensor, rows: Tensor) -> Tensor:
    """Sum over pairs of weight times row squared: (B, K) and (B, K, D) or shared (K, D) -> (D,)."""
    if rows.dim() == 2:
        return weights.sum(0) @ rows.square()
    return weights.flatten() @ rows.flatten(0, 1).square()


def weighted_sum(weights: Tensor, rows: Tensor) -> Tensor:
    """Each batch row's sum of its weighted rows: (B, K) and (B, K, D) or shared (K, D) -> (B, D)."""
    return weights @ rows if rows.dim() == 2 else torch.einsum("bk,bkd->bd", weights, rows)
