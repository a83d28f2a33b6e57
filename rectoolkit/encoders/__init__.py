"""Graph encoders: user and item embeddings from the train graph. One method, one file, file name = recipe name."""

from rectoolkit.encoders.base import Dim, Encoder, Layers
from rectoolkit.encoders.graphsage import GraphSAGE
from rectoolkit.encoders.lightgcn import LightGCN
from rectoolkit.encoders.mf import MF
from rectoolkit.encoders.ngcf import NGCF

__all__ = ["MF", "NGCF", "Dim", "Encoder", "GraphSAGE", "Layers", "LightGCN"]
