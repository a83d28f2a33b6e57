"""A teacher: a finished float run whose ranking other runs are taught, and the lists that they are taught from.

``Taught`` is the part of a loss that reads one. The teacher's embeddings are part of the run's identity, and a
teacher trained on another split is refused: it may have seen pairs of this run's test part. One of another seed has
seen other validation pairs, which flatters validation.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from rectoolkit.errors import Fault, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rectoolkit.data import Dataset, Interactions
    from rectoolkit.registry import Recipe

BLOCK = 1024  # users ranked at once: 170 MB of scores for 41 k items
FILES = ("users.npy", "items.npy")

Teacher = Annotated[str, Field(description="folder of the float run whose ranking is taught")]
Decay = Annotated[float, Field(ge=0, description="how fast weights fall along the teacher's list")]
Top = Annotated[int, Field(ge=1, le=10000, description="length of the teacher's list")]


class Taught:
    """Mixed into a loss with the setting ``teacher``: its faults, files and data; ``refused`` samplers do not fit."""

    refused: tuple[str, ...] = ()
    right_sampler = "uniform"
    why = ""
    steps: Tensor  # batches prepared: seeds each batch's draws, so that a resumed run draws on

    def learn_from(
        self: Any, teacher: str, decay: float, top: int, train: Interactions, without: Interactions | None = None
    ) -> None:
        """Remember whom to ask, once the module is there; ``without``: the interactions that lists leave out."""
        self.teacher, self.decay, self.top = teacher, decay, top
        self._size, self._without = (train.num_users, train.num_items), without
        self._lists: Tensor | None = None
        self.register_buffer("steps", torch.tensor(0))

    @property
    def lists(self: Any) -> Tensor:
        """The teacher's list of every user, int32 (U, top), made when it is first asked for."""
        if self._lists is None:
            self._lists = teacher_lists(Path(self.teacher), self.top, self._size, self._without)
        found: Tensor = self._lists
        return found

    @property
    def odds(self: Any) -> Tensor:
        """The odds exp(-decay (r + 1)) of the ranks r = 0, 1, .. of a list, float64, not normalised."""
        return torch.exp(-self.decay * torch.arange(1, self.lists.shape[1] + 1, dtype=torch.float64))

    def next_draws(self) -> torch.Generator:
        """The random stream of the next batch."""
        generator = torch.Generator().manual_seed(int(self.steps))
        self.steps += 1
        return generator

    def draw_ranks(self, number: int, generator: torch.Generator) -> Tensor:
        """Ranks drawn by their odds, int64 (number,)."""
        return torch.multinomial(self.odds, number, True, generator=generator)

    @classmethod
    def misfits(cls, recipe: Recipe) -> list[Fault]:
        faults = []
        folder, sampler = recipe["loss"]["teacher"], recipe["sampler"]["name"]
        if not folder:
            faults.append(Fault("loss.teacher", "needs the folder of a finished run whose quantizer is 'float32'"))
        elif missing := [name for name in FILES if not (Path(folder) / name).is_file()]:
            faults.append(Fault("loss.teacher", f"'{folder}' has no {' and no '.join(missing)}"))
        if sampler in cls.refused:
            faults.append(Fault("sampler.name", f"{cls.why}; write '{cls.right_sampler}', not '{sampler}'"))
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


def teacher_lists(run: Path, top: int, size: tuple[int, int], without: Interactions | None = None) -> Tensor:
    """Each user's ``top`` items by the inner products of a run's embeddings, best first, int32 (U, top).

    The items that a user has in ``without`` are left out; where too few remain, the list's end repeats its best.
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
    lists, top = [], min(top, len(items))
    for first in range(0, len(users), BLOCK):
        scores = users[first : first + BLOCK] @ items.T
        if without is not None:
            start, end = without.indptr[[first, min(first + BLOCK, len(users))]]
            rows = np.repeat(np.arange(len(scores)), without.user_degrees[first : first + BLOCK])
            scores[torch.from_numpy(rows), torch.from_numpy(without.items[start:end].astype(np.int64))] = -torch.inf
        best = scores.topk(top)
        lists.append(torch.where(best.values == -torch.inf, best.indices[:, :1], best.indices).int())
    return torch.cat(lists)
