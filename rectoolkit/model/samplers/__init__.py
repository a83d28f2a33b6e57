"""Samplers: the train interactions as batches of (user, positive, negatives). One sampler, one file."""

from rectoolkit.model.samplers.base import Batch, Sampler, Unseen
from rectoolkit.model.samplers.hard import Hard
from rectoolkit.model.samplers.in_batch import InBatch
from rectoolkit.model.samplers.popularity import Popularity
from rectoolkit.model.samplers.shared import Shared
from rectoolkit.model.samplers.uniform import Uniform

__all__ = ["Batch", "Hard", "InBatch", "Popularity", "Sampler", "Shared", "Uniform", "Unseen"]
