"""A teacher: a finished float run whose ranking other runs are taught, and the lists that they are taught from.

``Taught`` is the part of a loss that reads one. The teacher's embeddings are part of the run's identity. A teacher
trained on another split is refused, for it may have seen pairs of this run's test part; and where this run validates
on a part of train, so is one that did not hold out the same part: lists leave out only what this run trains on, so a
teacher that has seen the rest of train would put just that on top. Bare embeddings cannot say what they have seen.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from rectoolkit.errors import Fault, FormatError, UserError
from rectoolkit.files import check_whole
from rectoolkit.search.float32 import open_embeddings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rectoolkit.data import Dataset, Interactions
    from rectoolkit.recipe.registry import Recipe

BLOCK_SCORES = 1 << 25  # 128 MB of scores at a time
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
        self: Any, teacher: str, decay: float, top: int, train: Interactions, seed: int, *, unseen: bool = False
    ) -> None:
        """Remember whom to ask, once the module is there; ``unseen``: lists leave out what a user has in ``train``."""
        self.teacher, self.decay, self.top, self.seed = teacher, decay, top, seed
        self._size, self._without = (train.num_users, train.num_items), train if unseen else None
        self._lists: Tensor | None = None
        self._tables: tuple[Tensor, Tensor] | None = None
        self.register_buffer("steps", torch.tensor(0))

    @property
    def lists(self: Any) -> Tensor:
        """The teacher's list of every user, int32 (U, top), made when it is first asked for."""
        if self._lists is None:
            users, items = self.tables("cpu")
            self._lists = teacher_lists(users, items, self.top, self._without)
        found: Tensor = self._lists
        return found

    def tables(self: Any, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """The teacher's rows, float32 (U, E) and (I, E), read when first asked for and kept where last asked for."""
        if self._tables is None:
            self._tables = teacher_tables(Path(self.teacher), self._size)
        users, items = self._tables
        self._tables = users.to(device), items.to(device)
        found: tuple[Tensor, Tensor] = self._tables
        return found

    @property
    def odds(self: Any) -> Tensor:
        """The odds exp(-decay (r + 1)) of the ranks r = 0, 1, .. of a list, float64, not normalised."""
        return torch.exp(-self.decay * torch.arange(1, self.lists.shape[1] + 1, dtype=torch.float64))

    def next_draws(self) -> torch.Generator:
        """The random stream of the next batch: another for each seed of a run and each of its batches."""
        state = np.random.SeedSequence((self.seed, int(self.steps))).generate_state(1)
        self.steps += 1
        return torch.Generator().manual_seed(int(state[0]))

    def draw_ranks(self, number: int, generator: torch.Generator) -> Tensor:
        """Ranks drawn by their odds, int64 (number,)."""
        return torch.multinomial(self.odds, number, True, generator=generator)

    @classmethod
    def misfits(cls, recipe: Recipe) -> list[Fault]:
        faults = []
        folder, sampler = recipe["loss"]["teacher"], recipe["sampler"]["name"]
        if not folder:
            faults.append(Fault("loss.teacher", "needs the folder of a finished run whose quantizer is 'float32'"))
        if sampler in cls.refused:
            faults.append(Fault("sampler.name", f"{cls.why}; write '{cls.right_sampler}', not '{sampler}'"))
        return faults

    @classmethod
    def reads(cls, settings: Mapping[str, Any]) -> list[Path]:
        """The files outside recipe and data that the run depends on."""
        return [Path(settings["teacher"]) / name for name in FILES]

    @classmethod
    def check_data(cls, settings: Mapping[str, Any], dataset: Dataset, held_out: Mapping[str, Any] | None) -> None:
        """Raise UserError where the teacher is not there, or has seen what this run's test or validation part holds."""
        folder = Path(settings["teacher"])
        if missing := [name for name in FILES if not (folder / name).is_file()]:
            raise UserError(
                f"loss.teacher: '{folder}' has no {' and no '.join(missing)}; train the teacher first, by the recipe "
                "whose run this is ('rectool run' prints the folder); elsewhere: --set loss.teacher=FOLDER"
            )
        try:
            environment = json.loads((folder / "environment.json").read_text())
            then, held, bits = environment["data"]["digest"], environment.get("held_out"), environment.get("bits", 32)
            metrics = folder / "metrics.json"
            written = json.loads(metrics.read_text()).get("crc32", {}) if metrics.exists() else {}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"loss.teacher: '{folder}' does not say what the teacher was trained on") from None
        if bits < 32:
            raise UserError(
                f"loss.teacher: '{folder}' is a run of {bits}-bit codes, whose rows before coding were not trained to "
                "rank; name a run whose quantizer is 'float32'"
            )
        for name in FILES:
            if name in written:
                check_whole(folder / name, written[name])
        if then != dataset.digest:
            raise UserError(
                f"loss.teacher: '{folder}' was trained on other interactions or another split "
                f"(digest {str(then)[:12]}, here {dataset.digest[:12]}), and may have seen this run's test part; "
                "train the teacher on the same [dataset]"
            )
        if held_out is not None and held != held_out:
            asked = " ".join(f"--set {key}={value}" for key, value in held_out.items() if key != "order")
            now = " on the train file as it is now" if "order" in held_out else ""
            raise UserError(
                f"loss.teacher: '{folder}' did not hold out this run's validation part, and would rank it first; train "
                f"the teacher{now} with {asked}, or write train.validation = 0"
            )


def teacher_tables(run: Path, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """A run's embeddings of users and items, float32.

    Raises UserError where they cannot be read or are not those of ``size`` users and items.
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

    Every user meets every item once (7 s for 30,000 and 41,000 of 64 dims on one core), a block of users at a time.
    The items that a user has in ``without`` are left out; where too few remain, the list's end repeats its best.
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
