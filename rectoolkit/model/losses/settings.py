"""Settings of the built-in losses. This module needs no torch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from rectoolkit.errors import Fault, UserError
from rectoolkit.files import check_whole
from rectoolkit.recipe.registry import ComponentSettings, Sections, losses
from rectoolkit.runs.layout import ENVIRONMENT, METRICS, SIDES, rows_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rectoolkit.data import Dataset

L2 = Annotated[float, Field(ge=0, description="weight of the squared layer-0 embeddings of the batch")]
Temperature = Annotated[float, Field(gt=0, description="divisor of the scores")]
Decay = Annotated[float, Field(ge=0, description="how fast weights fall along the teacher's list")]
FILES = tuple(map(rows_file, SIDES))  # a teacher's embeddings


class LossSettings(ComponentSettings):
    """Settings that every loss has."""

    has_curvature: ClassVar[bool] = False  # True: the loss has a closed form of the diagonal of its Hessian

    l2: L2 = 1e-4


class BPRSettings(LossSettings):
    """BPR: pairwise logistic loss of a positive against each negative."""

    has_curvature: ClassVar[bool] = True


class BCESettings(LossSettings):
    """Binary cross-entropy of positives and negatives."""

    has_curvature: ClassVar[bool] = True

    negative_weight: Annotated[float, Field(gt=0, description="weight of all negatives relative to positives")] = 1.0


class HingeSettings(LossSettings):
    """Triplet hinge loss: a positive must score higher than a negative by a margin."""

    margin: Annotated[float, Field(gt=0, description="margin between the scores of a positive and a negative")] = 1.0


class HashGNNSettings(LossSettings):
    """HashGNN's loss: weighted cross-entropy plus BPR."""

    has_curvature: ClassVar[bool] = True

    weight: Annotated[float, Field(ge=0, description="weight of the cross-entropy relative to the ranking loss")] = 0.1


class AlignUniformSettings(LossSettings):
    """DirectAU: alignment of users with their items and uniformity of each side, without negatives."""

    gamma: Annotated[float, Field(ge=0, description="weight of uniformity")] = 1.0

    def misfits(self, recipe: Sections) -> list[Fault]:
        sampler = recipe["sampler"]
        if sampler["name"] != "uniform":
            return [
                Fault("sampler.name", "loss 'align_uniform' uses no negatives; write 'uniform', with negatives = 1")
            ]
        if sampler["negatives"] > 1:
            return [Fault("sampler.negatives", "loss 'align_uniform' uses no negatives; write 1")]
        return []


class SoftmaxSettings(LossSettings):
    """Sampled softmax over the positive and its negatives, corrected for popularity-based sampling."""

    has_curvature: ClassVar[bool] = True

    temperature: Temperature = 0.1
    correct: Annotated[bool, Field(description="correct for a sampler that prefers popular items")] = True


class TaughtSettings(LossSettings):
    """Settings of losses that learn from a teacher: a finished float32 run.

    The teacher's embeddings are part of the run's identity. ``check_data`` refuses a teacher trained on another split,
    because it may have seen pairs of this run's test part. If this run validates on a part of train, it also refuses a
    teacher that did not hold out the same part: the teacher's lists omit only what this run trains on, so a teacher
    that knows the rest of train would rank just that first. Bare embeddings, without a run folder around them, do not
    tell what they have seen and are accepted.
    """

    refused: ClassVar[tuple[str, ...]] = ()  # samplers that do not go with the loss
    right_sampler: ClassVar[str] = "uniform"
    why: ClassVar[str] = ""

    teacher: Annotated[
        str,
        AfterValidator(lambda name: os.path.normpath(name) if name else name),
        Field(description="float32 model to learn from: its recipe, trained first if needed, or its run folder"),
    ] = ""
    decay: Decay = 0.1
    top: Annotated[int, Field(ge=1, le=10000, description="length of the teacher's list")] = 100

    def misfits(self, recipe: Sections) -> list[Fault]:
        faults, sampler = [], recipe["sampler"]["name"]
        if not self.teacher:
            faults.append(Fault("loss.teacher", "needs the recipe of a float32 model, or the folder of its run"))
        if sampler in self.refused:
            faults.append(Fault("sampler.name", f"{self.why}; write '{self.right_sampler}', not '{sampler}'"))
        return faults

    def reads(self) -> dict[str, Path]:
        return {f"teacher/{name}": Path(self.teacher) / name for name in FILES}

    def check_data(self, dataset: Dataset, held_out: Mapping[str, Any] | None) -> None:
        folder = Path(self.teacher)
        if missing := [name for name in FILES if not (folder / name).is_file()]:
            raise UserError(
                f"loss.teacher: '{folder}' is neither a recipe nor a run folder (no {' and no '.join(missing)} there); "
                "name a recipe, which is trained first if needed (`rectool list recipes` shows the shipped ones), or "
                "the folder of a finished float32 run: --set loss.teacher=FOLDER"
            )
        try:
            environment = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
            then, held, bits = environment["data"]["digest"], environment.get("held_out"), environment.get("bits", 32)
            metrics = folder / METRICS
            written = json.loads(metrics.read_text(encoding="utf-8")).get("crc32", {}) if metrics.exists() else {}
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


class DistillSettings(TaughtSettings):
    """BPR plus distillation: the items that a teacher ranks high count as positives."""

    refused: ClassVar[tuple[str, ...]] = ("shared", "in_batch", "hard")
    why: ClassVar[str] = "loss 'distill' adds items by row"

    weight: Annotated[float, Field(ge=0, description="weight of distillation relative to BPR")] = 1.0
    draws: Annotated[int, Field(ge=1, le=1000, description="items drawn from the teacher's list per row")] = 10


class SoftmaxDistillSettings(TaughtSettings, SoftmaxSettings):
    """Sampled softmax over shared negatives, with positives or targets from a float32 teacher."""

    refused: ClassVar[tuple[str, ...]] = ("uniform", "popularity", "hard", "in_batch")
    right_sampler: ClassVar[str] = "shared"
    why: ClassVar[str] = "loss 'softmax_distill' draws other users, so negatives must not depend on the row"

    temperature: Temperature = 0.3
    decay: Decay = 0.03
    own: Annotated[float, Field(ge=0, le=1, description="share of rows that keep the pair from the data")] = 0.0
    soft: Annotated[
        float, Field(ge=0, le=1, description="share of a row's target that is the teacher's distribution")
    ] = 0.0
    teacher_temperature: Annotated[float, Field(gt=0, description="divisor of the teacher's scores")] = 1.0
    l2: L2 = 0.0

    def misfits(self, recipe: Sections) -> list[Fault]:
        faults = super().misfits(recipe)
        if self.own == 1 and not self.soft:
            faults.append(Fault("loss.soft", "own = 1 and soft = 0 leave nothing to the teacher; write soft above 0"))
        return faults


losses.announce(
    {
        "bpr": BPRSettings,
        "bce": BCESettings,
        "hinge": HingeSettings,
        "hashgnn": HashGNNSettings,
        "align_uniform": AlignUniformSettings,
        "softmax": SoftmaxSettings,
        "distill": DistillSettings,
        "softmax_distill": SoftmaxDistillSettings,
    }
)
