"""Graph encoders: user and item embeddings from the train graph. One method, one file, file name = recipe name."""

from rectoolkit.model.encoders.base import Dim, Encoder, Layers
from rectoolkit.model.encoders.graphsage import GraphSAGE
from rectoolkit.model.encoders.lightgcn import LightGCN
from rectoolkit.model.encoders.mf import MF
from rectoolkit.model.encoders.ngcf import NGCF

__all__ = ["MF", "NGCF", "Dim", "Encoder", "GraphSAGE", "Layers", "LightGCN"]
