"""The uniform grid of HQ-GNN with 1 to 8 bits, the base of ``ste``, ``gste`` and ``round``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rectoolkit.model.quantizers.base import Quantizer, in_scales, two_bytes
from rectoolkit.model.quantizers.hash_layer import HashLayer, coded_rows, guidance
from rectoolkit.search.fold_in import LEAST_ALONG, SMALLEST_SQUARE, RowGrid

if TYPE_CHECKING:
    from rectoolkit.model.quantizers.settings import UniformSettings


class _Inward(torch.autograd.Function):
    """``clipped``; its gradient also reaches an ``x`` outside the bounds if descent moves it back inside."""

    @staticmethod
    def forward(ctx: Any, clipped: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(x - clipped)
        return clipped.view_as(clipped)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (outside,) = ctx.saved_tensors
        return gradients[0], torch.where(outside * gradients[0] > 0, gradients[0], 0.0)


class UniformQuantizer(Quantizer):
    """The b-bit uniform grid of HQ-GNN, one per segment. Subclasses define the gradient of the rounding.

        x_c = clip(x, low, high)        step = (high - low) / (2^b - 1)        x_n = (x_c - low) / step
        x_q = round(x_n) in 0..2^b-1    value = step x_q + low

    Bounds. With ``bounds = "average"``, low and high follow the range of the training rows as a moving average, without
    gradient. With ``"learned"`` they are parameters, which start at the initial range and get the gradient of the
    formula. If a range has collapsed, or learned bounds have crossed, the grid starts at low and is ``1e-6`` wide, so
    that codes and values stay finite.

    Clipping. With ``clip = "nothing"``, as published, a value outside the bounds gets no gradient and stays there until
    its neighbours move it; on a grid of 1.5 deviations this is one value in eight. ``"inward"`` (ours) also passes a
    gradient whose descent step moves the value back inside. A gradient that would move it further out is dropped,
    because there are no codes out there.

    Row scales. With ``scale = "row"`` the grid is laid over each block of a row in units of its root mean square m, and
    the row stores m: scale = step m f (in bfloat16) and offset = low m f. The factor f = <x, x> / <x, value before f>
    makes the component of the values along x as long as x (for one bit: RaBitQ, Gao and Long, SIGMOD 2024). The
    backward takes it as a constant. Without it a short code mostly errs in the length of a row, and then the scores of
    an item err in the same way for all users. So row scales are worth more than the same 2 bytes in further bits.

    ``hash_layer`` and ``guidance`` put HashGNN's dense layer before this grid (hash_layer.py). The coded rows are then
    tanh(W x + b), in one segment. With ``extent = "minmax"`` the grid spans their range, about -1..1.
    """

    def __init__(
        self, dim: int, segments: tuple[int, ...], generator: torch.Generator | None, settings: UniformSettings
    ) -> None:
        super().__init__(dim, (dim,) if settings.hash_layer else segments, settings)
        self.generator, self.ramp = generator, settings.guidance
        self.coded: Tensor | None = None  # rows of the batch that are coded, bool (N,); None for all
        self.layer = HashLayer(dim, dim, generator or torch.Generator()) if settings.hash_layer else None
        self.low: Tensor
        self.high: Tensor
        self.scale, self.clip, self.bounds = settings.scale, settings.clip, settings.bounds
        self.extent, self.deviations, self.momentum = settings.extent, settings.deviations, settings.momentum
        low, high = -torch.ones(1, len(self.segments)), torch.ones(1, len(self.segments))
        if settings.bounds == "learned":
            self.low, self.high = nn.Parameter(low), nn.Parameter(high)
        else:
            self.register_buffer("low", low)
            self.register_buffer("high", high)

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        if self.layer is not None:
            self.layer.calibrate(x)
        low, high = self._extent(self.in_units(self.target(x))[0])
        self.low.copy_(low)
        self.high.copy_(high)

    def target(self, x: Tensor) -> Tensor:
        return x if self.layer is None else self.layer(x)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.target(x)
        x, unit = self.in_units(rows)
        if self.training and self.bounds == "average":
            with torch.no_grad():
                low, high = self._extent(x)
                self.low.lerp_(low, 1 - self.momentum)
                self.high.lerp_(high, 1 - self.momentum)
        codes = self.round(self._normalise(x))
        values = self.values(codes, *self._affine(x, unit, codes))
        if not self.training or not self.ramp:
            return values
        self.coded = coded_rows(rows, guidance(self.progress, self.ramp), self.generator)
        return torch.where(self.coded[:, None], values, rows)

    def round(self, normalised: Tensor) -> Tensor:
        """x_n -> x_q. The backward of this step is the method; here it passes no gradient."""
        return normalised.round()

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, unit = self.in_units(self.target(x))
        codes = self._normalise(x).round()
        return codes, *self._affine(x, unit, codes)

    @torch.no_grad()
    def diagnostics(self, x: Tensor) -> dict[str, Any]:
        inner, _ = self.in_units(self.target(x))
        outside = (inner < self.spread(self.low)) | (inner > self.spread(self.high))
        return {**super().diagnostics(x), "clipped": float(outside.float().mean())}

    def step(self) -> Tensor:
        """Distance between two neighbouring values in the grid's units, (1, segments)."""
        return (self.high - self.low).clamp(min=1e-6) / ((1 << self.bits) - 1)

    def in_units(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Rows (N, width) in the units of the grid, and these units (N, segments), or None if they are 1.

        The result for a row does not depend on the other rows.
        """
        if self.scale == "table":
            return x, None
        unit = self.segment_means(x.square()).clamp(min=SMALLEST_SQUARE).sqrt()
        return x / self.spread(unit), unit

    @torch.no_grad()
    def row_grid(self) -> RowGrid | None:
        if self.scale == "table":
            return None
        return RowGrid(self.step()[0].cpu().numpy(), self.low[0].cpu().numpy(), order=2)

    def _normalise(self, x: Tensor) -> Tensor:
        """x_n of rows in the grid's units."""
        low = self.spread(self.low)
        clipped = torch.clamp(x, low, self.spread(torch.maximum(self.low, self.high)))
        if self.clip == "inward":
            clipped = _Inward.apply(clipped, x)  # type: ignore[no-untyped-call]
        return (clipped - low) / self.spread(self.step())

    def _affine(self, x: Tensor, unit: Tensor | None, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and offset of ``codes``, (N or 1, segments) each; ``x`` and ``unit`` are those of ``in_units``."""
        step, low = self.step(), self.low
        if unit is None:
            return step, low
        with torch.no_grad():
            along = self.segment_means(x * self.values(codes, step, low))
            factor = self.segment_means(x.square()) / along.clamp(min=LEAST_ALONG)
        scale = two_bytes(step * unit * factor)
        return scale, scale * in_scales(low, step)

    def _extent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Low and high end of this tensor's range, (1, segments) each."""
        ranges = []
        for block in self.blocks(x):
            if self.extent == "minmax":
                ranges.append(torch.stack(block.aminmax()))
            else:
                middle, deviation = block.mean(), block.std(correction=0)
                ranges.append(torch.stack([middle - self.deviations * deviation, middle + self.deviations * deviation]))
        low, high = torch.stack(ranges, dim=1)
        return low[None], high[None]
