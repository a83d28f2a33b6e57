"""The softmax over shared negatives in one pass: value and gradients, computed in blocks of rows that fit the cache.

Autograd would write the (B, K) scores, their exponentials and their gradients to memory many times. Here a block of
rows is scored, turned into probabilities p and multiplied on while it is in the cache, to

    dL/du = (sum_v p_v v - v_i) / (temperature B),    dL/dv = sum_u (p_v - [v = i]) u / (temperature B)

The gradients are stored in the graph, and the backward only scales them. A backward that is itself differentiated uses
plain operations. If a teacher gives targets t_v other than the positive alone (``Targets``), they replace [v = i].

B batch, K negatives, D dims; users and positives are (B, D), negatives (K, D). ``log_odds`` (K,) are subtracted from
the logits of the negatives. ``collisions`` (2, M) are pairs (row, column) that are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rectoolkit.model.losses.base import Triple

BLOCK = 2**18  # scores in a block: 1 MiB of float32


@dataclass(frozen=True)
class Targets:
    """A teacher's targets for a batch: ``share`` of each row's target is the teacher's own softmax.

    ``users`` (B, E), ``positives`` (B, E) and ``negatives`` (K, E) are the teacher's rows; their scores are divided by
    ``temperature``. The rest of the target is the positive alone, as it is without a teacher.
    """

    users: Tensor
    positives: Tensor
    negatives: Tensor
    temperature: float
    share: float


@dataclass(frozen=True)
class Shared:
    """The settings of the softmax beside the rows, and the targets of a teacher if there is one."""

    temperature: float
    log_odds: Tensor | None = None
    collisions: Tensor | None = None
    targets: Targets | None = None


def shared_softmax(triple: Triple, over: Shared) -> Tensor:
    """Mean over the batch of -sum_v t_v log p_v over the positive and the K shared negatives, a scalar.

    The target t is 1 for the positive, or that of ``over.targets``.
    """
    rows = triple.users, triple.positives, triple.negatives
    return _SharedSoftmax.apply(*rows, over)  # type: ignore[no-any-return, no-untyped-call]


@torch.no_grad()
def shared_curvature(triple: Triple, over: Shared, weights: tuple[Tensor, ...]) -> Tensor:
    """Diagonal of the Hessian of ``shared_softmax`` with respect to one side, summed over its rows: (D,).

    ``weights`` of the rows select the side: (B,) for the users, (B,) and (K,) for positives and negatives.
    """
    users, positives, negatives = triple.users, triple.positives, triple.negatives
    own = (users * positives).sum(1) / over.temperature
    total, columns = torch.zeros_like(users[0]), torch.zeros_like(negatives[:, 0])
    for block, chances, mine, _ in _chances(users, negatives, own, over):
        weight = weights[0][block]
        if len(weights) == 1:
            columns += weight @ chances
            mean = torch.addcmul(chances @ negatives, mine[:, None], positives[block])
            total += (weight * mine) @ positives[block].square() - weight @ mean.square_()
        else:
            bent = weight * mine * (1 - mine) + torch.addcmul(chances, chances, chances, value=-1) @ weights[1]
            total += bent @ users[block].square()
    return (total + columns @ negatives.square()) / (over.temperature**2 * len(users))


def _chances(
    users: Tensor, negatives: Tensor, own: Tensor, over: Shared
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """For each block of rows: its slice, p of the negatives (n, K), p of the positive (n,), and -log of the latter."""
    scaled = (negatives / over.temperature).T.contiguous()
    for block, hits in _blocks(len(users), len(negatives), over.collisions):
        logits = users[block] @ scaled
        if over.log_odds is not None:
            logits -= over.log_odds
        if hits is not None:
            logits[hits[0], hits[1]] = -torch.inf
        most = torch.maximum(logits.amax(1), own[block])
        chances = logits.sub_(most[:, None]).exp_()
        mine = (own[block] - most).exp()
        sums = chances.sum(1) + mine
        yield block, chances.div_(sums[:, None]), mine / sums, sums.log() + most - own[block]


def _taught(targets: Targets, over: Shared) -> Iterator[tuple[Tensor, Tensor]]:
    """For the same blocks: the targets of the negatives (n, K) and of the positive (n,)."""
    own = (targets.users * targets.positives).sum(1) / targets.temperature
    teacher = replace(over, temperature=targets.temperature)
    for _, chances, mine, _ in _chances(targets.users, targets.negatives, own, teacher):
        yield chances.mul_(targets.share), mine.mul_(targets.share).add_(1 - targets.share)


def _blocks(rows: int, columns: int, collisions: Tensor | None) -> Iterator[tuple[slice, Tensor | None]]:
    """Slices of the rows, each with its collisions (rows counted from its first), or None if it has none."""
    size, ends = max(1, BLOCK // columns), None
    if collisions is not None:
        collisions = collisions[:, collisions[0].argsort()]
        starts = torch.arange(0, rows + size, size, device=collisions.device)
        ends = torch.searchsorted(collisions[0].contiguous(), starts).tolist()
    for number, first in enumerate(range(0, rows, size)):
        hits = None
        if collisions is not None and ends is not None and ends[number] < ends[number + 1]:
            hits = collisions[:, ends[number] : ends[number + 1]].clone()
            hits[0] -= first
        yield slice(first, min(first + size, rows)), hits


class _SharedSoftmax(torch.autograd.Function):
    """The value; its forward also computes the gradients."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, positives: Tensor, negatives: Tensor, over: Shared) -> Tensor:
        into_users, into_negatives = torch.empty_like(users), torch.zeros_like(negatives)
        own = (users * positives).sum(1) / over.temperature
        pull, total = torch.empty_like(own), users.new_zeros(())  # p - t of the positive; the value
        taught = None if over.targets is None else _taught(over.targets, over)
        for block, chances, mine, values in _chances(users, negatives, own, over):
            pull[block] = mine - 1
            total += values.sum()
            torch.mm(chances, negatives, out=into_users[block])
            if taught is not None:
                # -sum t_v log p_v = -log p_i + sum over negatives of t_v (z_i - z_v)
                wanted, of_positive = next(taught)
                liked = wanted @ negatives
                total += own[block] @ (1 - of_positive) - (liked * users[block]).sum() / over.temperature
                if over.log_odds is not None:
                    total += (wanted @ over.log_odds).sum()
                pull[block] += 1 - of_positive
                into_users[block] -= liked
                chances -= wanted
            into_negatives.addmm_(chances.T, users[block])
        scale = 1 / (over.temperature * len(users))
        off = (pull * scale)[:, None]
        ctx.gradients = into_users.mul_(scale).addcmul_(off, positives), off * users, into_negatives.mul_(scale)
        ctx.save_for_backward(users, positives, negatives)
        ctx.over = over
        return total / len(users)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        again = torch.is_grad_enabled()  # this backward will itself be differentiated
        users, positives, negatives = ctx.saved_tensors
        gradients = _gradients(users, positives, negatives, ctx.over) if again else ctx.gradients
        return (*(gradient * outer[0] for gradient in gradients), None)


def _gradients(users: Tensor, positives: Tensor, negatives: Tensor, over: Shared) -> tuple[Tensor, Tensor, Tensor]:
    """The same gradients in operations that autograd can differentiate."""
    chances = _plain(users, positives, negatives, over)
    wanted, share = torch.zeros_like(chances), 0.0
    if (given := over.targets) is not None:
        teacher, share = replace(over, temperature=given.temperature), given.share
        wanted = share * _plain(given.users, given.positives, given.negatives, teacher)
    wanted[:, 0] += 1 - share
    pull = (chances - wanted) / (over.temperature * len(users))
    off, rest = pull[:, :1], pull[:, 1:]
    return off * positives + rest @ negatives, off * users, rest.T @ users


def _plain(users: Tensor, positives: Tensor, negatives: Tensor, over: Shared) -> Tensor:
    """The probabilities of the positive and the negatives, (B, 1 + K)."""
    logits = users @ negatives.T / over.temperature
    if over.log_odds is not None:
        logits = logits - over.log_odds
    if over.collisions is not None:
        logits = logits.index_put((over.collisions[0], over.collisions[1]), logits.new_tensor(-torch.inf))
    own = (users * positives).sum(1, keepdim=True) / over.temperature
    return torch.softmax(torch.cat([own, logits], 1), 1)
