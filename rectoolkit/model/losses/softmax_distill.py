"""Sampled softmax with a teacher: the student learns the ranking of a float32 model instead of memorising pairs.

The teacher acts in two ways, which may be mixed: it provides positives, and it provides targets.

    L = mean over rows of  -z_i + log(exp z_i + sum_j exp z_j),    i drawn from the teacher's list of the user

The list holds the ``top`` items that the teacher ranks highest among those the user does not have in train, as they
would be recommended. Rank r is drawn with odds exp(-decay (r + 1)). The user of a row is drawn uniformly from the users
in train, because metrics are means over users, and the teacher knows nothing about other users. With ``own`` > 0 that
share of the rows keeps the user and item that the sampler drew. One-bit codes have no lengths in which to store
popularity, and trained on the data's own pairs they memorise train; the lists hold the conclusions of a smooth,
regularised float32 model (ranking distillation, Tang and Wang, KDD 2018).

With ``soft`` > 0 that share of a row's target is the teacher's own softmax over the same positive and negatives, with
its scores divided by ``teacher_temperature`` (soft targets: Hinton et al., 2015):

    L = mean over rows of  -sum_v t_v log p_v,    t = (1 - soft) [v = i] + soft softmax(teacher's z)

Then the student learns how much the teacher prefers each drawn item, and not only which item is in train. For a teacher
that was trained with a softmax, its own temperature gives its probabilities.

The negatives are those of the sampler, shared by the batch. Some are in the user's own list or in train; they are not
left out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from rectoolkit.model.losses.base import Views
from rectoolkit.model.losses.fused import Shared, Targets
from rectoolkit.model.losses.settings import SoftmaxDistillSettings
from rectoolkit.model.losses.softmax import Softmax
from rectoolkit.model.losses.teacher import Taught
from rectoolkit.recipe.registry import losses

if TYPE_CHECKING:
    from rectoolkit.data import Interactions
    from rectoolkit.model.samplers.base import Batch


@losses.register("softmax_distill", SoftmaxDistillSettings)
class SoftmaxDistill(Taught, Softmax):
    """Sampled softmax over shared negatives with positives or targets from a float32 teacher."""

    def __init__(self, train: Interactions, seed: int, settings: SoftmaxDistillSettings) -> None:
        super().__init__(settings)
        self.own, self.soft, self.teacher_temperature = settings.own, settings.soft, settings.teacher_temperature
        self.learn_from(train, seed, unseen=True)
        self._known = torch.from_numpy(np.flatnonzero(train.user_degrees))

    def prepare(self, batch: Batch) -> Batch:
        """The batch with all but the share ``own`` of its rows drawn from the teacher's lists."""
        kept = int(self.own * len(batch.users))
        if kept == len(batch.users):
            return batch
        generator = self.next_draws()
        number = len(batch.users) - kept
        users = self._known[torch.randint(len(self._known), (number,), generator=generator)]
        items = self.lists[users, self.draw_ranks(number, generator)]
        return replace(
            batch,
            users=torch.cat([batch.users[:kept], users.to(batch.users)]),
            positives=torch.cat([batch.positives[:kept], items.to(batch.positives)]),
            collisions=None if batch.collisions is None else batch.collisions[:, batch.collisions[0] < kept],
        )

    def _shared(self, views: Views) -> Shared:
        over = super()._shared(views)
        if not self.soft:
            return over
        batch, rows = views.batch, views.coded.users
        users, items = self.tables(rows.device)
        users, items = users[batch.users].to(rows), items[torch.cat([batch.positives, batch.negatives])].to(rows)
        positives, negatives = torch.split(items, [len(batch.positives), len(batch.negatives)])
        targets = Targets(users, positives, negatives, self.teacher_temperature, self.soft)
        return replace(over, targets=targets)
