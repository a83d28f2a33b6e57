"""No quantization: rows stay float32, at 32 bits per dim. The accuracy that every quantizer is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rectoolkit.model.quantizers.base import Quantizer
from rectoolkit.model.quantizers.settings import Float32Settings
from rectoolkit.recipe.registry import quantizers

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from rectoolkit.search.codes import CodeTable


@quantizers.register("float32", Float32Settings)
class Float32(Quantizer):
    """The identity. ``encode`` returns the rows themselves, float32 (N, D)."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def encode(self, x: Tensor) -> CodeTable | npt.NDArray[np.float32]:
        return x.detach().to("cpu", torch.float32).contiguous().numpy()

    def diagnostics(self, x: Tensor) -> dict[str, Any]:
        return {}
