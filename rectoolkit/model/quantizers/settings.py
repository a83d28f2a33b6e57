"""Settings of the built-in quantizers. This module needs no torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from rectoolkit.errors import Fault
from rectoolkit.recipe.registry import ComponentSettings, Sections, encoders, losses, quantizers


def _one_bit(bits: Any) -> Any:
    if isinstance(bits, int) and bits != 1:
        raise ValueError(
            "this method makes one bit per dimension; write 1, or choose a method of 1 to 8 bits, such as gste, lsq or "
            "round"
        )
    return bits


GROWTH = 0.02  # step by which the probability of a code grows in HashGNN

Bits = Annotated[int, Field(ge=1, le=8, description="bits per dimension")]
OneBit = Annotated[
    int, Field(ge=1, le=1, description="bits per dimension; this method has only one"), BeforeValidator(_one_bit)
]
Momentum = Annotated[float, Field(ge=0, lt=1, description="weight of the past in the moving average of the range")]
Magnitude = Annotated[float, Field(gt=0, description="absolute value that a code stands for")]
Scale = Annotated[
    Literal["table", "row"],
    Field(description="one scale for the whole table, or one per row (2 more bytes), which keeps the row's length"),
]


class QuantizerSettings(ComponentSettings):
    """Base class of quantizers' settings, with facts that other parts need to know."""

    trained: ClassVar[bool] = True  # False: training runs in float32, and the codes are made afterwards

    def mixes_dims(self) -> bool:
        """Whether a dim of a code depends on several dims of the row (by a rotation or a dense layer).

        If so, a float32 row of the encoder cannot be multiplied with the codes.
        """
        return False


def needs_layers(name: str, recipe: Sections) -> list[Fault]:
    """The faults of a recipe whose encoder does not concatenate layers, which quantizer ``name`` scales one by one."""
    encoder = recipe["encoder"]
    if encoder.get("combine", "concat") != "concat":
        message = f"{name} scales each layer by itself, but this encoder merges its layers; write combine = 'concat'"
        return [Fault("encoder.combine", message)]
    if "combine" not in encoder and not encoders.schema(encoder["name"]).concatenates:
        message = f"{name} scales each layer by itself, but this encoder does not concatenate layers; "
        return [Fault("encoder.name", message + "write name = 'lightgcn' and combine = 'concat'")]
    if encoder.get("layers", 1) == 0:
        return [Fault("encoder.layers", f"{name} scales each layer by itself; write 1 or more layers")]
    return []


class Float32Settings(QuantizerSettings):
    """No quantization: rows stay float32. The baseline for every quantizer."""

    trained: ClassVar[bool] = False


class GridSettings(QuantizerSettings):
    """Settings of a uniform grid."""

    bits: Bits = 1
    scale: Scale = "table"


class UniformSettings(GridSettings):
    """Settings of quantizers that train through the uniform grid."""

    bounds: Annotated[
        Literal["average", "learned"],
        Field(description="bounds of the grid: a moving average of the data's range, or trained parameters"),
    ] = "average"
    extent: Annotated[
        Literal["minmax", "deviation"],
        Field(description="the data's range: minimum and maximum, or a number of standard deviations around the mean"),
    ] = "minmax"
    deviations: Annotated[
        float, Field(gt=0, le=20, description="half-width of the range in standard deviations, if extent = 'deviation'")
    ] = 3.0
    momentum: Momentum = 0.99
    clip: Annotated[
        Literal["nothing", "inward"],
        Field(description="gradient of values outside the bounds: none, or only one that moves them back inside"),
    ] = "nothing"
    hash_layer: Annotated[bool, Field(description="put HashGNN's dense layer with tanh before the grid")] = False
    guidance: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="share of training during which some rows, fewer over time, enter the loss uncoded",
        ),
    ] = 0.0

    def mixes_dims(self) -> bool:
        return self.hash_layer


class STESettings(UniformSettings):
    """The straight-through estimator: uniform grid, identity gradient."""


class GSTESettings(UniformSettings):
    """GSTE, HQ-GNN's quantizer: uniform grid, gradient scaled by rounding error and curvature."""

    curvature: Annotated[
        Literal["exact", "hutchinson", "none"],
        Field(description="how to compute Tr(H): in closed form, by random probes, or not at all (delta is fixed)"),
    ] = "exact"
    delta: Annotated[float, Field(ge=0, description="delta before its first update")] = 0.0
    every: Annotated[int, Field(ge=1, description="steps between two updates of delta")] = 1
    probes: Annotated[int, Field(ge=1, description="maximum number of probes if curvature = 'hutchinson'")] = 50

    def misfits(self, recipe: Sections) -> list[Fault]:
        name = recipe["loss"]["name"]
        if self.curvature != "exact" or losses.schema(name).has_curvature:
            return []
        return [Fault("quantizer.curvature", f"loss '{name}' has no closed form of its curvature; write 'hutchinson'")]


class LSQSettings(QuantizerSettings):
    """LSQ: uniform grid through zero with a learned step size."""

    bits: Bits = 1


class PACTSettings(QuantizerSettings):
    """PACT: uniform grid between -alpha and alpha, where the clipping bound alpha is learned."""

    bits: Bits = 1
    deviations: Annotated[
        float, Field(gt=0, le=20, description="initial clipping bound in standard deviations of the rows")
    ] = 3.0
    decay: Annotated[float, Field(ge=0, description="weight of the penalty decay / 2 alpha^2 on the bound")] = 1e-4


class DoReFaSettings(QuantizerSettings):
    """DoReFa: uniform grid on the tanh of a row; with one bit, its sign times its mean magnitude."""

    bits: Bits = 1
    momentum: Momentum = 0.99


class HashNetSettings(QuantizerSettings):
    """HashNet: tanh that sharpens into a sign during training."""

    bits: OneBit = 1
    sharpness: Annotated[float, Field(ge=1, description="slope of tanh at the end of training; it starts at 1")] = 7.1
    magnitude: Magnitude = 1.0


class HashGNNSettings(QuantizerSettings):
    """HashGNN: sign of a dense layer with tanh, guided by its continuous value during training."""

    bits: OneBit = 1
    width: Annotated[int, Field(ge=0, le=4096, description="bits per row; 0 for the encoder's width")] = 0
    growth: Annotated[float, Field(gt=0, le=1, description="step by which the probability of a code grows")] = GROWTH
    magnitude: Magnitude = 1.0
    ramp: Annotated[
        float, Field(gt=0, le=1, description="share of training over which the probability of a code grows to 1")
    ] = 0.8

    def mixes_dims(self) -> bool:
        return True


class BiGeaRSettings(QuantizerSettings):
    """BiGeaR: sign times mean magnitude per row and layer, with more weight on deeper layers."""

    bits: OneBit = 1
    gamma: Annotated[float, Field(gt=0, description="sharpness of the bump in the gradient of the sign")] = 1.0

    def misfits(self, recipe: Sections) -> list[Fault]:
        return needs_layers("bigear", recipe)


class BGCHSettings(QuantizerSettings):
    """BGCH: sign times mean magnitude per row and layer, after feature dispersion and a linear layer."""

    bits: OneBit = 1
    terms: Annotated[
        int, Field(ge=2, le=64, description="the Fourier series of the sign has the odd terms below this number")
    ] = 4
    frequency: Annotated[float, Field(gt=0, description="frequency of the Fourier series of the sign")] = 1.0
    eta: Annotated[float, Field(ge=0, le=1, description="share of the main direction that is removed")] = 0.1
    iterations: Annotated[
        int, Field(ge=1, le=100, description="power iterations per batch to find the main direction")
    ] = 2

    def mixes_dims(self) -> bool:
        return True

    def misfits(self, recipe: Sections) -> list[Fault]:
        return needs_layers("bgch", recipe)


class RoundSettings(GridSettings):
    """Rounding after training: a uniform grid over the final rows of a float32 model."""

    trained: ClassVar[bool] = False

    bits: Bits = 8
    extent: Annotated[
        Literal["minmax", "percentile"],
        Field(description="bounds of the grid: minimum and maximum of the rows, or percentiles"),
    ] = "minmax"
    percentile: Annotated[
        float, Field(gt=0, le=100, description="central share of the values in percent, if extent = 'percentile'")
    ] = 99.9


class RotatedSettings(GridSettings):
    """Settings of codes made after training from rows under a rotation."""

    trained: ClassVar[bool] = False

    def mixes_dims(self) -> bool:
        return True


class RotateSignSettings(RotatedSettings):
    """Random rotation, then a symmetric grid; with one bit, the signs of the rotated rows."""


class ITQSettings(RotatedSettings):
    """ITQ: signs of rows under a rotation fitted to them."""

    bits: OneBit = 1
    iterations: Annotated[int, Field(ge=1, le=1000, description="alternations between codes and rotation")] = 50
    rows: Annotated[int, Field(ge=1, description="maximum number of rows that the rotation is fitted to")] = 65536


quantizers.announce(
    {
        "float32": Float32Settings,
        "ste": STESettings,
        "gste": GSTESettings,
        "lsq": LSQSettings,
        "pact": PACTSettings,
        "dorefa": DoReFaSettings,
        "hashnet": HashNetSettings,
        "hashgnn": HashGNNSettings,
        "bigear": BiGeaRSettings,
        "bgch": BGCHSettings,
        "round": RoundSettings,
        "rotate_sign": RotateSignSettings,
        "itq": ITQSettings,
    }
)
