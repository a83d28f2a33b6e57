"""Settings of the built-in encoders. This module needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from rectoolkit.errors import Fault
from rectoolkit.recipe.registry import ComponentSettings, Sections, encoders

Layers = Annotated[int, Field(ge=0, le=16, description="number of propagation layers")]
Normalize = Annotated[
    bool, Field(description="scale each output row to length 1, so that items are ranked by cosine similarity")
]


class EncoderSettings(ComponentSettings):
    """Settings that every encoder has."""

    concatenates: ClassVar[bool] = False  # True: an output row always holds the layers side by side

    dim: Annotated[int, Field(ge=1, le=4096, description="embedding width of one layer")] = 64
    init: Annotated[float, Field(gt=0, description="standard deviation of the initial embeddings")] = 0.1


class MFSettings(EncoderSettings):
    """Matrix factorisation: one embedding per user and item, without the graph."""

    normalize: Normalize = False


class LightGCNSettings(EncoderSettings):
    """LightGCN: the embeddings and their propagations over the graph, averaged or concatenated."""

    layers: Layers = 3
    combine: Annotated[
        Literal["mean", "concat"],
        Field(description="output row: the mean of all layers, or their concatenation ((layers + 1) * dim wide)"),
    ] = "mean"
    weights: Annotated[
        Literal["uniform", "learned"], Field(description="weights of the layers: all equal, or learned")
    ] = "uniform"
    normalize: Normalize = False
    precision: Annotated[
        Literal["float32", "bfloat16"],
        Field(description="number format of the propagated rows during training; bfloat16 needs the plain mean"),
    ] = "float32"

    def misfits(self, recipe: Sections) -> list[Fault]:
        if self.precision == "float32" or (self.combine, self.weights) == ("mean", "uniform"):
            return []
        return [Fault("encoder.precision", "bfloat16 is for combine 'mean' with weights 'uniform'; write 'float32'")]


class NGCFSettings(EncoderSettings):
    """NGCF: the embeddings and layers of weighted neighbour sums and products, concatenated."""

    concatenates: ClassVar[bool] = True

    layers: Layers = 3
    dropout: Annotated[
        float, Field(ge=0, lt=1, description="share of the elements of a layer set to zero during training")
    ] = 0.1


class GraphSAGESettings(EncoderSettings):
    """GraphSAGE: rows computed from item embeddings or features by layers of weighted neighbour means."""

    layers: Annotated[int, Field(ge=1, le=8, description="number of layers")] = 2
    fan_out: Annotated[
        int,
        Field(ge=0, le=1024, description="neighbours sampled per node and layer during training; 0 uses all of them"),
    ] = 10
    user_ids: Annotated[bool, Field(description="learn an embedding for each user too")] = False
    features: Annotated[
        str,
        Field(description="item features: an .npy file, float (I, F); empty to learn an embedding for each item"),
    ] = ""
    normalize: Normalize = False

    def misfits(self, recipe: Sections) -> list[Fault]:
        if not self.features or Path(self.features).is_file():
            return []
        message = f"there is no file '{self.features}'; leave it empty to learn an embedding for each item"
        return [Fault("encoder.features", message)]

    def reads(self) -> dict[str, Path]:
        return {"encoder.features": Path(self.features)} if self.features else {}


encoders.announce(
    {"mf": MFSettings, "lightgcn": LightGCNSettings, "ngcf": NGCFSettings, "graphsage": GraphSAGESettings}
)
