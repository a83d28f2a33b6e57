"""What a quantizer is: real rows (N, D) to integer codes with an affine map, and a backward that *is* the method.

A model has two of the same kind, one for user rows and one for item rows, each with its own grid: the two sides
differ in length and spread, and ranking does not ask for a common scale. A run supplies, before the ``*``:
``dim`` (width of a real row), ``segments`` (the widths it is concatenated from), ``generator`` (torch.Generator,
in the same state for both sides, so that what must be common, such as a rotation, is).

The equality that carries the project: in eval mode ``forward(x)`` equals ``encode(x).decode()`` bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from rectoolkit.codes import CodeTable

if TYPE_CHECKING:
    import numpy.typing as npt

    from rectoolkit.losses import Loss, Views

Bits = Annotated[int, Field(ge=1, le=8, description="bits per dimension")]
OneBit = Annotated[int, Field(ge=1, le=1, description="bits per dimension; the method has no form for more than 1")]
Bounds = Annotated[
    Literal["average", "learned"],
    Field(description="clip bounds: a moving average of the data's range, or parameters trained with the rest"),
]
Extent = Annotated[
    Literal["minmax", "deviation"],
    Field(description="the data's range: its extremes, or so many standard deviations around its mean"),
]
Deviations = Annotated[float, Field(gt=0, le=20, description="half-width of the range where extent = 'deviation'")]
Momentum = Annotated[float, Field(ge=0, lt=1, description="weight of the past in the moving average of the range")]


class Quantizer(nn.Module):
    """Base of every quantizer. Subclasses implement ``grid`` and, for training, ``forward``.

    ``dim`` is the width of a real row, ``width`` that of a code row (they differ where the method has a layer of its
    own), ``segments`` the blocks of a code row with a scale each, ``progress`` the share of training done, 0..1.
    """

    trained: ClassVar[bool] = True  # False: training goes on in float32, codes are made after it
    observes: ClassVar[bool] = False  # True: ``observe`` is called with every batch before its backward

    def __init__(self, dim: int, segments: tuple[int, ...] = (), *, bits: int = 1) -> None:
        super().__init__()
        self.dim = self.width = dim
        self.segments = segments or (dim,)
        self.bits = bits
        self.progress = 0.0
        self.generator: torch.Generator | None = None  # methods that draw put theirs here, to be saved with the rest

    def get_extra_state(self) -> Tensor:
        """The state of the random generator, if the method has one, so that a resumed run draws on."""
        return torch.empty(0, dtype=torch.uint8) if self.generator is None else self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        if self.generator is not None:
            self.generator.set_state(state)

    def calibrate(self, x: Tensor) -> None:
        """Look at this side's initial rows (N, D) once, before training."""

    def forward(self, x: Tensor) -> Tensor:
        """The values of the codes of ``x``, (N, D) -> (N, width), differentiable as the method has it."""
        codes, scale, offset = self.grid(x)
        return self.values(codes, scale, offset)

    def observe(self, side: Literal["users", "items"], views: Views, loss: Loss, value: Tensor) -> None:
        """Look at a batch's ``value`` = loss(views) before its backward, for methods that use its derivatives."""

    def finish(self, rows: Tensor, everything: Tensor) -> None:
        """Look at this side's final real rows, and at those of both sides (for what they must share)."""

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes as whole numbers in a float tensor (N, width), and scale and offset, each (N or 1, segments)."""
        raise NotImplementedError

    def values(self, codes: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        """``scale * codes + offset`` in the order and precision of CodeTable.decode."""
        return codes * self.spread(scale) + self.spread(offset)

    def spread(self, by_segment: Tensor) -> Tensor:
        """(n, segments) -> (n, width), or (n, 1), which broadcasts, where there is one segment."""
        if len(self.segments) == 1:
            return by_segment
        widths = torch.tensor(self.segments, device=by_segment.device)
        return by_segment.repeat_interleave(widths, dim=1)

    @torch.no_grad()
    def encode(self, x: Tensor) -> CodeTable | npt.NDArray[np.float32]:
        """The rows' codes as training leaves them: what is packed, shipped and evaluated."""
        codes, scale, offset = self.grid(x)
        return CodeTable(
            codes.to(torch.uint8).cpu().numpy(),
            scale.float().cpu().numpy(),
            offset.float().cpu().numpy(),
            self.bits,
            self.segments,
        )

    @torch.no_grad()
    def diagnostics(self, x: Tensor) -> dict[str, Any]:
        """What the log says of this side's rows: quantization error, code entropy and dead dimensions.

        ``quantization_error`` is the mean squared error over the mean square of x; ``entropy`` the mean over dims of
        the code's entropy in bits (at most ``bits``); ``dead`` the share of dims whose code is the same in every row.
        """
        codes, scale, offset = self.grid(x)
        facts: dict[str, Any] = {}
        if codes.shape == x.shape:
            error = (self.values(codes, scale, offset) - x).square().mean() / x.square().mean().clamp(min=1e-30)
            facts["quantization_error"] = float(error)
        counts = torch.stack([(codes == level).float().mean(0) for level in range(1 << self.bits)])
        entropy = -(counts * counts.clamp(min=1e-30).log2()).sum(0)
        facts["entropy"] = float(entropy.mean())
        facts["dead"] = float((counts.max(0).values == 1).float().mean())
        return facts


class UniformQuantizer(Quantizer):
    """The b-bit uniform grid of HQ-GNN, one per segment; subclasses say how a gradient passes the rounding.

        x_c = clip(x, low, high)        step = (high - low) / (2^b - 1)        x_n = (x_c - low) / step
        x_q = round(x_n) in 0..2^b-1    value = step x_q + low

    ``bounds = "average"``: low and high follow the range of the training rows by a moving average, without gradient.
    ``"learned"``: they are parameters that start at the initial range, and get the gradient that the formula gives.
    The clip passes no gradient to rows outside. A range that has collapsed is kept ``1e-6`` wide.
    """

    def __init__(
        self,
        dim: int,
        segments: tuple[int, ...] = (),
        *,
        bits: int = 1,
        bounds: str = "average",
        extent: str = "minmax",
        deviations: float = 3.0,
        momentum: float = 0.99,
    ) -> None:
        super().__init__(dim, segments, bits=bits)
        self.low: Tensor
        self.high: Tensor
        self.bounds, self.extent, self.deviations, self.momentum = bounds, extent, deviations, momentum
        low, high = -torch.ones(1, len(self.segments)), torch.ones(1, len(self.segments))
        if bounds == "learned":
            self.low, self.high = nn.Parameter(low), nn.Parameter(high)
        else:
            self.register_buffer("low", low)
            self.register_buffer("high", high)

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        low, high = self._extent(x)
        self.low.copy_(low)
        self.high.copy_(high)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.bounds == "average":
            with torch.no_grad():
                low, high = self._extent(x)
                self.low.lerp_(low, 1 - self.momentum)
                self.high.lerp_(high, 1 - self.momentum)
        normalised, step, low = self._normalise(x)
        return self.values(self.round(normalised), step, low)

    def round(self, normalised: Tensor) -> Tensor:
        """x_n -> x_q; the backward of this step is the method."""
        raise NotImplementedError

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normalised, step, low = self._normalise(x)
        return normalised.round(), step, low

    @torch.no_grad()
    def diagnostics(self, x: Tensor) -> dict[str, Any]:
        outside = (x < self.spread(self.low)) | (x > self.spread(self.high))
        return {**super().diagnostics(x), "clipped": float(outside.float().mean())}

    def step(self) -> Tensor:
        """Distance of two neighbouring values, (1, segments)."""
        return (self.high - self.low).clamp(min=1e-6) / ((1 << self.bits) - 1)

    def _normalise(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        step = self.step()
        low, high = self.spread(self.low), self.spread(self.high)
        clipped = torch.minimum(torch.maximum(x, low), high)
        return (clipped - low) / self.spread(step), step, self.low

    def _extent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        lows, highs = [], []
        for block in torch.split(x, list(self.segments), dim=1):
            if self.extent == "minmax":
                lows.append(block.amin())
                highs.append(block.amax())
            else:
                middle, reach = block.mean(), self.deviations * block.std()
                lows.append(middle - reach)
                highs.append(middle + reach)
        return torch.stack(lows)[None], torch.stack(highs)[None]
