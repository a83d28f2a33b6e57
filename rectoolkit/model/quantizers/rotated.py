"""What rotate_sign and itq share: codes of rows under one rotation, made after training in float32.

Inner products survive a rotation that both sides have in common: the generator stands in the same state for both. The
rotated row is one segment, whatever blocks the encoder's rows had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rectoolkit.model.quantizers.base import Quantizer, random_rotation

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rectoolkit.model.quantizers.settings import RotatedSettings


class Rotated(Quantizer):
    """Rows under a rotation that begins at random; subclasses say how they are coded."""

    def __init__(
        self, dim: int, segments: tuple[int, ...], generator: torch.Generator, settings: RotatedSettings
    ) -> None:
        super().__init__(dim, (dim,), settings)
        self.scale = settings.scale
        self.rotation: Tensor
        self.register_buffer("rotation", random_rotation(dim, generator))
