"""Base class of ``rotate_sign`` and ``itq``: codes of rotated rows, made after training in float32.

Inner products do not change under a rotation that both sides share; the generator is in the same state for both. The
rotated row is one segment, whatever the blocks of the encoder's rows were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rectoolkit.model.quantizers.base import Quantizer, random_rotation

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rectoolkit.model.quantizers.settings import RotatedSettings


class Rotated(Quantizer):
    """Rows under a rotation, which starts random. Subclasses define the codes."""

    def __init__(
        self, dim: int, segments: tuple[int, ...], generator: torch.Generator, settings: RotatedSettings
    ) -> None:
        super().__init__(dim, (dim,), settings)
        self.scale = settings.scale
        self.rotation: Tensor
        self.register_buffer("rotation", random_rotation(dim, generator))
