"""Settings of a recipe's head and of the sections ``dataset``, ``train`` and ``evaluate``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from rectoolkit.errors import Fault, UserError, nearest
from rectoolkit.recipe.registry import REGISTRIES, parse_metric
from rectoolkit.recipe.schema import Settings

FORMATS = ("adjacency", "pairs", "ratings")  # of files given by path; ``data.readers`` reads each


class HeadSettings(Settings):
    """The keys before the first section."""

    name: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$",
            description="name of the recipe; the name of the run folder begins with it",
            json_schema_extra={
                "words": "of up to 64 lower-case letters, digits, '-' or '_', starting with a letter or digit"
            },
        ),
    ]
    description: Annotated[str, Field(description="one line about the recipe")] = ""
    seed: Annotated[int, Field(ge=0, lt=2**63, description="seed of all random numbers of the run")] = 0
    plugins: Annotated[list[str], Field(description="modules to import, which register components or metrics")] = []  # noqa: RUF012


class SectionSettings(Settings):
    """Base of the sections that are not components."""

    def faults(self) -> list[Fault]:
        """Faults that remain although every value has the right type and is within its bounds."""
        return []

    def notes(self) -> list[str]:
        """Notes on settings that have no effect."""
        return []


class DatasetSettings(SectionSettings):
    """The interactions: a data set by name, or files of your own."""

    name: Annotated[str, Field(description="name of a data set (see rectool data list); empty if path is set")] = ""
    path: Annotated[
        str, Field(description="folder with your train and test files, one file, or an import; empty if name is set")
    ] = ""
    format: Annotated[str, Field(description="format of the files at path: adjacency, pairs or ratings")] = "adjacency"
    test_share: Annotated[
        float, Field(gt=0, lt=1, description="if path is one file: share of each user's items held out for testing")
    ] = 0.2
    split_seed: Annotated[int, Field(ge=0, description="if path is one file: seed of that split")] = 2023

    def faults(self) -> list[Fault]:
        if self.format not in FORMATS:
            return [Fault("dataset.format", f"unknown format '{self.format}'; {nearest(self.format, FORMATS)}")]
        if bool(self.name) == bool(self.path):
            return [Fault("dataset", "write either name (a data set) or path (your own files), not both or neither")]
        return []

    def notes(self) -> list[str]:
        idle = self.changed().keys() & {"format", "test_share", "split_seed"} if self.name else ()
        return [
            f"dataset.{key} has no effect on a data set given by name, whose card states it" for key in sorted(idle)
        ]


class TrainSettings(SectionSettings):
    """The training loop."""

    optimizer: Annotated[Literal["adam", "adagrad", "sgd"], Field(description="optimizer of torch.optim")] = "adam"
    rate: Annotated[float, Field(gt=0, description="learning rate")] = 1e-3
    schedule: Annotated[
        Literal["constant", "cosine", "linear"],
        Field(description="learning rate over all steps: constant, or falling to 0 along a cosine or a line"),
    ] = "constant"
    epochs: Annotated[int, Field(ge=1, le=100_000, description="maximum number of epochs")] = 60
    validation: Annotated[
        float,
        Field(ge=0, le=0.5, description="share of each user's train items held out for validation; 0 trains on all"),
    ] = 0.1
    held: Annotated[
        Literal["random", "last"],
        Field(
            description="which items are held out for validation: random ones, or the last of each user's train line"
        ),
    ] = "random"
    monitor: Annotated[str, Field(description="validation metric that picks the best epoch")] = "ndcg@20"
    every: Annotated[int, Field(ge=1, description="epochs between two validations")] = 1
    patience: Annotated[
        int, Field(ge=0, description="stop after this many validations without improvement; 0 never stops early")
    ] = 0

    def faults(self) -> list[Fault]:
        return metric_faults("train.monitor", [self.monitor])

    def notes(self) -> list[str]:
        idle = () if self.validation else self.changed().keys() & {"patience", "held", "monitor"}
        return [f"train.{key} has no effect without train.validation" for key in sorted(idle)]


class EvaluateSettings(SectionSettings):
    """The metrics to measure on the test part after training."""

    metrics: Annotated[
        list[Annotated[str, Field(description="name@k")]],
        Field(min_length=1, description="accuracy metrics; see rectool list metric"),
    ] = ["recall@20", "ndcg@20", "recall@50", "ndcg@50"]  # noqa: RUF012

    def faults(self) -> list[Fault]:
        return metric_faults("evaluate.metrics", self.metrics)


SECTIONS: dict[str, type[SectionSettings]] = {
    "dataset": DatasetSettings,
    "train": TrainSettings,
    "evaluate": EvaluateSettings,
}
ORDER = ("dataset", *REGISTRIES, "train", "evaluate")


def metric_faults(where: str, written: list[str]) -> list[Fault]:
    """The faults of a list of accuracy metrics."""
    twice = sorted({metric for metric in written if written.count(metric) > 1})
    faults = [Fault(where, f"'{metric}' is given twice") for metric in twice]
    for metric in written:
        try:
            parse_metric(metric, accuracy=True)
        except UserError as error:
            faults.append(Fault(where, str(error)))
    return faults


def expect_faults(written: dict[str, Any]) -> list[Fault]:
    """The faults of the section ``expect``: metric -> the value that the recipe reaches."""
    faults = []
    for metric, value in written.items():
        faults += metric_faults(f"expect.{metric}", [metric])
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            faults.append(Fault(f"expect.{metric}", f"must be a number from 0 to 1, got {value!r}"))
    return faults
