"""Distillation of a float teacher's ranking, as in BiGeaR (KDD 2022): what it ranks high counts as liked.

    L = BPR + weight * mean over users of sum_r w_r softplus(-<u, i_r>),    w_r = exp(-decay (r + 1)),  r = 0 .. top-1

i_r is the r-th item of the user's list by the teacher's inner products. The teacher is a finished run without a
quantizer (``teacher`` names its folder), whose embeddings lie in ``users.npy`` and ``items.npy``. The lists are made
at the first batch, in blocks: 4 bytes times ``top`` a user.

Departs from the paper: of the list, ``draws`` ranks are drawn for each batch row, with odds w_r, and their mean is
scaled by the sum of the w_r: the same loss in expectation for a tenth of the gathers. The lists are the final
rows', not one a layer; they may hold items that the user has in train.

The teacher's embeddings are part of the run's identity, and a teacher trained on another split is refused: it may have
seen pairs of this run's test part. One of another seed has seen other validation pairs, which flatters validation.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from rectoolkit.errors import Fault, UserError
from rectoolkit.losses.base import L2, Loss, Triple, Views
from rectoolkit.losses.pairwise import BPR
from rectoolkit.registry import Recipe, losses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rectoolkit.data import Dataset, Interactions
    from rectoolkit.samplers import Batch

BLOCK = 1024  # users ranked at once: 170 MB of scores for 41 k items
FILES = ("users.npy", "items.npy")
SHARING = ("shared", "in_batch", "hard")  # samplers whose negatives leave no room for items by row


@losses.register("distill")
class Distill(Loss):
    """BPR plus the cross-entropy of the items that a teacher ranks high."""

    def __init__(
        self,
        train: Interactions,
        *,
        teacher: Annotated[str, Field(description="folder of the float run whose ranking is taught")] = "",
        weight: Annotated[float, Field(ge=0, description="weight of the distillation against BPR")] = 1.0,
        decay: Annotated[float, Field(ge=0, description="how fast weights fall along the teacher's list")] = 0.1,
        top: Annotated[int, Field(ge=1, le=10000, description="length of the teacher's list")] = 100,
        draws: Annotated[int, Field(ge=1, le=1000, description="items drawn from the list for each row")] = 10,
        l2: L2 = 1e-4,
    ) -> None:
        super().__init__(l2=l2)
        self.teacher, self.weight, self.decay, self.top, self.draws = teacher, weight, decay, top, draws
        self.size = train.num_users, train.num_items
        self.ranking = BPR(l2=0.0)
        self.steps: Tensor
        self.register_buffer("steps", torch.tensor(0))  # seeds each batch's draws, so that a resumed run draws on
        self._lists: Tensor | None = None

    @classmethod
    def misfits(cls, recipe: Recipe) -> list[Fault]:
        faults = []
        folder, sampler = recipe["loss"]["teacher"], recipe["sampler"]["name"]
        if not folder:
            faults.append(Fault("loss.teacher", "needs the folder of a finished run whose quantizer is 'float32'"))
        elif missing := [name for name in FILES if not (Path(folder) / name).is_file()]:
            faults.append(Fault("loss.teacher", f"'{folder}' has no {' and no '.join(missing)}"))
        if sampler in SHARING:
            faults.append(Fault("sampler.name", f"loss 'distill' adds items by row; write 'uniform', not '{sampler}'"))
        return faults

    @classmethod
    def reads(cls, settings: Mapping[str, Any]) -> list[Path]:
        """The files outside recipe and data that the run depends on."""
        return [Path(settings["teacher"]) / name for name in FILES]

    @classmethod
    def check_data(cls, settings: Mapping[str, Any], dataset: Dataset) -> None:
        """Raise UserError where the teacher is a run on other interactions; bare embeddings cannot say."""
        environment = Path(settings["teacher"]) / "environment.json"
        try:
            then = json.loads(environment.read_text())["data"]["digest"]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"loss.teacher: {environment} does not say what the teacher was trained on") from None
        if then != dataset.digest:
            raise UserError(
                f"loss.teacher: '{settings['teacher']}' was trained on other interactions or another split "
                f"(digest {str(then)[:12]}, here {dataset.digest[:12]}), and may have seen this run's test part; "
                "train the teacher on the same [dataset]"
            )

    def prepare(self, batch: Batch) -> Batch:
        """The batch with ``draws`` of the teacher's items for each row behind its negatives, (B, K + draws)."""
        if self._lists is None:
            self._lists = teacher_lists(Path(self.teacher), self.top, self.size)
        lists, users = self._lists, batch.users.cpu()
        generator = torch.Generator().manual_seed(int(self.steps))
        self.steps += 1
        odds = self._weights(lists.shape[1])
        ranks = torch.multinomial(odds, len(users) * self.draws, True, generator=generator).view(-1, self.draws)
        items = lists[users[:, None], ranks].to(batch.negatives)
        return replace(batch, negatives=torch.cat([batch.negatives, items], 1))

    def rank(self, views: Views) -> Tensor:
        taught = views.coded.negatives[:, -self.draws :]
        scores = torch.einsum("bd,bkd->bk", views.coded.users, taught)
        assert self._lists is not None, "prepare comes first"
        total = float(self._weights(self._lists.shape[1]).sum())
        own = replace(views, coded=self._without_taught(views.coded))
        return self.ranking.rank(own) + self.weight * total * functional.softplus(-scores).mean()

    def lengths(self, ego: Triple) -> Tensor:
        return super().lengths(self._without_taught(ego))

    def _without_taught(self, triple: Triple) -> Triple:
        return replace(triple, negatives=triple.negatives[:, : -self.draws])

    def _weights(self, number: int) -> Tensor:
        return torch.exp(-self.decay * torch.arange(1, number + 1, dtype=torch.float64))


def teacher_lists(run: Path, top: int, size: tuple[int, int]) -> Tensor:
    """Each user's ``top`` items by the inner products of a run's embeddings, best first, int32 (U, top).

    Raises UserError where the embeddings cannot be read or are not those of ``size`` users and items.
    """
    try:
        users, items = (torch.from_numpy(np.load(run / name, allow_pickle=False)).float() for name in FILES)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"loss.teacher: cannot read the embeddings of '{run}': {error}") from error
    if (len(users), len(items)) != size or users.dim() != 2 or items.dim() != 2 or users.shape[1] != items.shape[1]:
        raise UserError(
            f"loss.teacher: '{run}' holds embeddings {tuple(users.shape)} and {tuple(items.shape)}, but train has "
            f"{size[0]} users and {size[1]} items; the teacher must be trained on the same data"
        )
    top = min(top, len(items))
    return torch.cat([(block @ items.T).topk(top).indices.int() for block in torch.split(users, BLOCK)])
