"""Base class of the losses: the rows of a batch to one number, over (user, positive, negatives).

``Views`` shows a loss a batch three times: after the quantizer (these rows are ranked), before it, and at layer 0 (on
which L2 acts). A loss is ``rank(views)`` plus ``l2 / 2`` times the mean squared length of the batch's layer-0 rows. It
may offer ``curvature``, the exact diagonal of its Hessian, by which ``gste`` scales gradients.

B batch, K negatives, D dims. Negatives are (B, K, D), or (K, D) if the sampler shares them across the batch. Some
shared negatives are items that the row's user has in train. Such a pair scores -inf, so that it adds neither value,
gradient nor curvature; means still count it.

A run supplies ``train`` (Interactions) and its ``seed`` to losses whose constructors ask for them.
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
    """Rows of a batch: users (B, D), positives (B, D), negatives (B, K, D), or (K, D) if they are shared."""

    users: Tensor
    positives: Tensor
    negatives: Tensor

    def side(self, side: Side) -> tuple[Tensor, ...]:
        """The tensors of one side: users, or positives and negatives."""
        return (self.users,) if side == "users" else (self.positives, self.negatives)

    def positive_scores(self) -> Tensor:
        """<u, i> of each batch row, (B,)."""
        return (self.users * self.positives).sum(1)

    def negative_scores(self) -> Tensor:
        """<u, j> of each negative, (B, K)."""
        if self.negatives.dim() == 2:
            return self.users @ self.negatives.T
        return torch.einsum("bd,bkd->bk", self.users, self.negatives)

    def keep(self, columns: Tensor) -> Triple:
        """This triple with only the negatives (B, K', D) at ``columns`` (B, K')."""
        chosen = columns[:, :, None].expand(-1, -1, self.negatives.shape[2])
        return Triple(self.users, self.positives, self.negatives.gather(1, chosen))


@dataclass(frozen=True)
class Views:
    """The rows of a batch after the quantizer, before it, and at layer 0; and the batch itself.

    If only some of the coded negatives (B, K n) are left, ``columns`` (B, K) says which.
    """

    coded: Triple
    real: Triple
    ego: Triple
    batch: Batch
    columns: Tensor | None = None

    def by_row(self, side: Side, numbers: Tensor) -> tuple[Tensor, ...]:
        """``numbers``, one per coded row of a side, in the shapes of ``coded.side(side)`` without D."""
        if side == "users":
            return (numbers,)
        size = len(self.coded.users)
        positives, negatives = numbers[:size], numbers[size:]
        if self.columns is not None:
            return positives, negatives.view(size, -1).gather(1, self.columns)
        return positives, negatives.view(self.batch.negatives.shape)

    def weights(self, side: Side, given: tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
        """``given``, or ones for the rows of a side, in the shapes of ``by_row``."""
        return given or tuple(rows.new_ones(rows.shape[:-1]) for rows in self.coded.side(side))

    def scores(self) -> tuple[Tensor, Tensor]:
        """Scores of the coded rows: positives (B,), negatives (B, K). A negative that is in train scores -inf."""
        negatives = self.coded.negative_scores()
        if self.batch.collisions is not None:
            rows, columns = self.batch.collisions
            negatives[rows, columns] = -torch.inf
        return self.coded.positive_scores(), negatives

    def hardest(self) -> Views:
        """These views with only the best scored of each ``batch.best_of`` negatives, (B, K n) -> (B, K)."""
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
    """Base class of all losses: a ranking loss plus L2. Subclasses implement ``rank``.

    A loss with a closed form of its Hessian's diagonal also implements ``curvature``, and declares ``has_curvature`` in
    its settings.

    Parameters
    ----------
    settings
        The recipe's settings: an instance of the class that the loss is registered with.
    """

    def __init__(self, settings: LossSettings) -> None:
        super().__init__()
        self.settings, self.l2 = settings, settings.l2

    def prepare(self, batch: Batch) -> Batch:
        """The batch as the model gets it. Losses that need the rows of more items add them here."""
        return batch

    def forward(self, views: Views) -> Tensor:
        """The loss of a batch, a scalar: ``rank`` plus L2."""
        value = self.rank(views)
        return value + self.l2 / 2 * self.lengths(views.ego) if self.l2 else value

    def rank(self, views: Views) -> Tensor:
        """The ranking loss, a scalar: a mean over the batch."""
        raise NotImplementedError

    def lengths(self, ego: Triple) -> Tensor:
        """The value that L2 weighs: the mean squared lengths of users, of positives and of negatives, added."""
        return torch.stack([rows.square().sum(-1).mean() for rows in (ego.users, ego.positives, ego.negatives)]).sum()

    def curvature(self, views: Views, side: Side, weights: tuple[Tensor, ...] | None = None) -> Tensor:
        """Diagonal of the Hessian of ``rank`` with respect to one side's coded rows, summed over rows: (D,).

        Its sum is Tr(H). Each batch row counts as its own variable, as in autograd. ``weights`` weighs the rows in the
        sum, with shapes as of ``Views.by_row``; None stands for ones.
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
