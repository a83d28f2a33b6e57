"""Losses: what training minimises. One family, one file; ``base`` says what a loss is and what it is shown."""

from rectoolkit.model.losses.align_uniform import AlignUniform
from rectoolkit.model.losses.base import L2, Loss, Side, Triple, Views
from rectoolkit.model.losses.bce import BCE
from rectoolkit.model.losses.bpr import BPR
from rectoolkit.model.losses.distill import Distill
from rectoolkit.model.losses.hashgnn import HashGNNLoss
from rectoolkit.model.losses.hinge import Hinge
from rectoolkit.model.losses.softmax import Softmax
from rectoolkit.model.losses.softmax_distill import SoftmaxDistill

__all__ = [
    "BCE",
    "BPR",
    "L2",
    "AlignUniform",
    "Distill",
    "HashGNNLoss",
    "Hinge",
    "Loss",
    "Side",
    "Softmax",
    "SoftmaxDistill",
    "Triple",
    "Views",
]
