"""Graph encoders: user and item embeddings from the train graph. One method, one file, file name = recipe name."""

from rectoolkit.encoders.base import Dim, Encoder, Layers
from rectoolkit.encoders.lightgcn import LightGCN

__all__ = ["Dim", "Encoder", "Layers", "LightGCN"]
