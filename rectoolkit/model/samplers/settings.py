"""Settings of the built-in samplers. This module needs no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rectoolkit.recipe.registry import ComponentSettings, samplers

Power = Annotated[
    float, Field(ge=0, le=4, description="items are drawn in proportion to their number of users to this power")
]


class SamplerSettings(ComponentSettings):
    """Settings that every sampler has."""

    batch: Annotated[int, Field(ge=1, description="interactions per batch")] = 2048


class UniformSettings(SamplerSettings):
    """Negatives drawn uniformly from the items that the user does not have in train."""

    negatives: Annotated[int, Field(ge=1, le=65536, description="negatives per interaction")] = 1


class PopularitySettings(UniformSettings):
    """Negatives drawn from the user's unseen items in proportion to a power of their popularity."""

    power: Power = 0.75


class HardSettings(UniformSettings):
    """Hard negatives: of several uniform draws, the one with the highest score."""

    candidates: Annotated[int, Field(ge=2, le=1024, description="draws from which each negative is chosen")] = 8


class SharedSettings(SamplerSettings):
    """Negatives drawn once per batch and shared by all its interactions."""

    negatives: Annotated[int, Field(ge=1, le=65536, description="negatives per batch")] = 1024
    power: Power = 0.0


class InBatchSettings(SamplerSettings):
    """The positives of a batch serve as the negatives of all its interactions."""

    batch: Annotated[int, Field(ge=2, description="interactions per batch, and negatives of each")] = 2048


samplers.announce(
    {
        "uniform": UniformSettings,
        "popularity": PopularitySettings,
        "hard": HardSettings,
        "shared": SharedSettings,
        "in_batch": InBatchSettings,
    }
)
