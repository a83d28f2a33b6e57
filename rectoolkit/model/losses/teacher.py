"""Teachers: finished float32 runs from whose rankings a loss learns.

``Taught`` is the part of a loss that reads the teacher. ``TaughtSettings`` decides which teachers a run accepts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rectoolkit.errors import FormatError, UserError
from rectoolkit.model.losses.settings import FILES
from rectoolkit.search.float32 import open_embeddings

if TYPE_CHECKING:
    from rectoolkit.data import Interactions

BLOCK_SCORES = 1 << 25  # 128 MB of scores at a time


class Taught:
    """Mixin for losses whose settings are ``TaughtSettings``: the teacher's embeddings, lists and random draws."""

    steps: Tensor  # number of batches prepared; seeds the draws of a batch, so that a resumed run continues

    def learn_from(self: Any, train: Interactions, seed: int, *, unseen: bool = False) -> None:
        """Prepare to read the teacher; call it in the constructor. ``unseen``: lists omit what a user has in train."""
        self.teacher, self.decay, self.top = self.settings.teacher, self.settings.decay, self.settings.top
        self.seed = seed
        self._size, self._without = (train.num_users, train.num_items), train if unseen else None
        self._lists: Tensor | None = None
        self._tables: tuple[Tensor, Tensor] | None = None
        self.register_buffer("steps", torch.tensor(0))

    @property
    def lists(self: Any) -> Tensor:
        """The teacher's list of each user, int32 (U, top), computed at the first use."""
        if self._lists is None:
            users, items = self.tables("cpu")
            self._lists = teacher_lists(users, items, self.top, self._without)
        found: Tensor = self._lists
        return found

    def tables(self: Any, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """The teacher's rows, float32 (U, E) and (I, E), read at the first use and kept on the last device."""
        if self._tables is None:
            self._tables = teacher_tables(Path(self.teacher), self._size)
        users, items = self._tables
        self._tables = users.to(device), items.to(device)
        found: tuple[Tensor, Tensor] = self._tables
        return found

    @property
    def odds(self: Any) -> Tensor:
        """The odds exp(-decay (r + 1)) of the ranks r = 0, 1, .. of a list, float64, unnormalised."""
        return torch.exp(-self.decay * torch.arange(1, self.lists.shape[1] + 1, dtype=torch.float64))

    def next_draws(self) -> torch.Generator:
        """The random stream of the next batch, which depends on the seed of the run and the number of the batch."""
        state = np.random.SeedSequence((self.seed, int(self.steps))).generate_state(1)
        self.steps += 1
        return torch.Generator().manual_seed(int(state[0]))

    def draw_ranks(self, number: int, generator: torch.Generator) -> Tensor:
        """Ranks drawn with these odds, int64 (number,)."""
        return torch.multinomial(self.odds, number, True, generator=generator)


def teacher_tables(run: Path, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The embeddings of users and items of a run, float32.

    Raises UserError if they cannot be read, or are not those of ``size`` users and items.
    """
    try:
        users, items = (torch.from_numpy(np.array(open_embeddings(run / name))) for name in FILES)
    except FormatError as error:
        raise UserError(f"loss.teacher: {error}") from error
    if not (users.isfinite().all() and items.isfinite().all()):
        raise UserError(f"loss.teacher: the embeddings of '{run}' hold NaN or infinity; train the teacher again")
    if (len(users), len(items)) != size or users.shape[1] != items.shape[1]:
        raise UserError(
            f"loss.teacher: '{run}' holds embeddings {tuple(users.shape)} and {tuple(items.shape)}, but train has "
            f"{size[0]} users and {size[1]} items; the teacher must be trained on the same data"
        )
    return users, items


def teacher_lists(users: Tensor, items: Tensor, top: int, without: Interactions | None = None) -> Tensor:
    """Each user's ``top`` items by inner products of rows (U, E) and (I, E), best first, int32 (U, top).

    All scores are computed, a block of users at a time. Items that the user has in ``without`` are left out; if too few
    remain, the best item fills the end of the list.
    """
    lists, top, block = [], min(top, len(items)), max(1, BLOCK_SCORES // max(1, len(items)))
    for first in range(0, len(users), block):
        scores = users[first : first + block] @ items.T
        if without is not None:
            start, end = without.indptr[[first, min(first + block, len(users))]]
            rows = np.repeat(np.arange(len(scores)), without.user_degrees[first : first + block])
            scores[torch.from_numpy(rows), torch.from_numpy(without.items[start:end].astype(np.int64))] = -torch.inf
        best = scores.topk(top)
        lists.append(torch.where(best.values == -torch.inf, best.indices[:, :1], best.indices).int())
    return torch.cat(lists)
