"""The teacher of a run: the float32 run whose rankings its loss learns from.

``loss.teacher`` names the teacher's recipe, or the folder of its finished run. A teacher's recipe is given the data of
the run and, if the run holds out a part of train, the same part. Its run is looked for in the same folder of runs, and
trained first where it is missing (``rectoolkit.runs.execute``).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rectoolkit.errors import UserError
from rectoolkit.model.losses.settings import TaughtSettings
from rectoolkit.recipe import Recipe
from rectoolkit.recipe.files import find_recipe
from rectoolkit.recipe.registry import REGISTRIES
from rectoolkit.runs.layout import ENVIRONMENT, SIDES, rows_file
from rectoolkit.runs.split import held_out

if TYPE_CHECKING:
    from rectoolkit.data import Dataset


def resolve_teacher(recipe: Recipe, dataset: Dataset, runs: Path) -> tuple[Recipe, Recipe | None]:
    """The recipe with the folder of its teacher's run for ``loss.teacher``, and the teacher's recipe.

    The digest stays that of the recipe as written. The second value is None where there is no teacher, where
    ``loss.teacher`` already names a run folder, and where it names nothing; ``check_data`` of the loss then says so.
    Raises UserError if the teacher's recipe cannot be used.
    """
    written = recipe["loss"].get("teacher", "")
    taught = isinstance(REGISTRIES["loss"].settings(recipe["loss"]), TaughtSettings)
    if not taught or any((Path(written) / name).is_file() for name in (ENVIRONMENT, *map(rows_file, SIDES))):
        return recipe, None
    try:
        find_recipe(written)
    except UserError:
        return recipe, None
    held = held_out(recipe.seed, recipe["train"], dataset) or {}
    changes = {f"dataset.{key}": value for key, value in recipe["dataset"].items()}
    changes |= {key: value for key, value in held.items() if key != "order"}
    try:
        teacher = Recipe.load(written, changes)
    except UserError as error:
        raise UserError(f"loss.teacher: {error}") from None
    if teacher["quantizer"].get("bits", 32) < 32:
        raise UserError(
            f"loss.teacher: the recipe '{written}' makes {teacher['quantizer']['bits']}-bit codes, whose rows before "
            "coding are not trained to rank; name a recipe whose quantizer is 'float32'"
        )
    if "teacher" in teacher["loss"]:
        raise UserError(
            f"loss.teacher: the recipe '{written}' has a teacher itself; train it first and name the folder of its run"
        )
    loss = {**recipe["loss"], "teacher": str(runs / teacher.folder_name)}
    return replace(recipe, sections={**recipe.sections, "loss": loss}), teacher
