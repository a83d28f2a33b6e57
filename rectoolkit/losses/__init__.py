"""Losses: what training minimises. One family, one file; ``base`` says what a loss is and what it is shown."""

from rectoolkit.losses.align_uniform import AlignUniform
from rectoolkit.losses.base import L2, Loss, Side, Triple, Views
from rectoolkit.losses.distill import Distill
from rectoolkit.losses.pairwise import BPR, Hinge
from rectoolkit.losses.pointwise import BCE, HashGNNLoss
from rectoolkit.losses.softmax import Softmax
from rectoolkit.losses.softmax_distill import SoftmaxDistill

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
