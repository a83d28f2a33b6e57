"""Split: the interactions that a run trains on, validates on, and leaves out of its rankings."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.data import Dataset, Interactions
from rectoolkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from rectoolkit.recipe import Recipe


@dataclass(frozen=True)
class Split:
    """The parts of a run's data apart from the test part.

    ``train`` is trained on, ``validation`` picks the best epoch (None without validation), and ``seen``, all of both,
    is left out of the rankings for the test.
    """

    train: Interactions
    validation: Interactions | None
    seen: Interactions


def split_of(recipe: Recipe, dataset: Dataset, tested: bool = True) -> Split:
    """The split of a run. Raises DataError if a part that the run needs is empty.

    The validation part of the data set is used where it has one; otherwise ``train.validation`` of each user's train
    items is held out. ``tested`` requires a test part.
    """
    if tested and not dataset.test.num_interactions:
        raise DataError(
            f"{dataset.name}: no user has a test item, so there is nothing to evaluate; give a test file, or with a "
            "single file a larger dataset.test_share"
        )
    share, train = recipe["train"]["validation"], dataset.train
    if dataset.validation is not None:
        validation = dataset.validation
        users, items = (np.concatenate(pair) for pair in zip(train.pairs(), validation.pairs(), strict=True))
        seen = Interactions.from_pairs(users, items, train.num_users, train.num_items)
        return Split(train, validation if share else None, seen)
    if not share:
        return Split(train, None, train)
    from rectoolkit.data.splits import hold_out

    times = _order(dataset) if recipe["train"]["held"] == "last" else None
    rest, validation = hold_out(train, share, np.random.default_rng([recipe.seed, 1]), times)
    if not validation.num_interactions:
        raise DataError(
            f"{dataset.name}: train.validation = {share} holds nothing out, since users have too few train items; "
            "write a larger share, or 0 to train without validation"
        )
    return Split(rest, validation, train)


def held_out(seed: int, train: Mapping[str, Any], dataset: Dataset) -> dict[str, Any] | None:
    """The facts that fix which items of train a run with the section ``train`` holds out; None if it holds out none.

    Where these are the last items of each line, ``order`` is the sha256 of the order of each user's items in the file.
    """
    if dataset.validation is not None or not train["validation"]:
        return None
    held = {"seed": seed, "train.validation": train["validation"], "train.held": train["held"]}
    if train["held"] == "last" and dataset.places is not None:
        order = np.lexsort((dataset.places(), dataset.train.users))  # within a line: the order of lines plays no part
        held["order"] = hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()
    return held


def _order(dataset: Dataset) -> npt.NDArray[np.float64]:
    """The order of the train items in their file, as times (N,). Raises DataError if the data has none."""
    if dataset.places is None:
        raise DataError(
            f"{dataset.name}: train.held = 'last' needs a train file whose lines keep their order, and this data has "
            "none; write 'random', or give a validation part"
        )
    return dataset.places().astype(np.float64)
