"""Base classes of the quantizers: real rows (N, D) to integer codes, with the gradient that trains through them.

A code stands for the value scale * code + offset. Methods differ mainly in the backward of ``forward``. A model has two
quantizers of the same kind, one for user rows and one for item rows, each with its own grid: the two sides differ in
length and spread, and ranking does not need a common scale.

A run supplies ``dim`` (width of a real row), ``segments`` (the widths it is concatenated from) and ``generator``
(torch.Generator, in the same state for both sides, so that both draw the same rotation, for example).

In eval mode ``forward(x)`` equals ``encode(x).decode()`` bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from rectoolkit.search.codes import CodeTable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from rectoolkit.model.losses.base import Loss, Views
    from rectoolkit.model.quantizers.settings import QuantizerSettings
    from rectoolkit.search.fold_in import RowGrid


def straight_through(x: Tensor, value: Tensor) -> Tensor:
    """``value`` with the gradient of ``x``: the straight-through estimator."""
    return _StraightThrough.apply(x, value)  # type: ignore[no-any-return, no-untyped-call]


def two_bytes(scale: Tensor) -> Tensor:
    """``scale`` rounded to bfloat16, which a packed table stores in two bytes, with the gradient of ``scale``."""
    return straight_through(scale, scale.detach().bfloat16().to(scale))


def in_scales(offset: Tensor, scale: Tensor) -> Tensor:
    """``offset`` in units of ``scale``, in 16 significant bits: its product with a ``two_bytes`` scale is exact."""
    multiple = offset / scale
    bits = multiple.detach().float().view(torch.int32)
    return straight_through(multiple, (bits + 0x80).bitwise_and(-0x100).view(torch.float32).to(multiple))


def random_rotation(dim: int, generator: torch.Generator) -> Tensor:
    """A uniformly random orthogonal matrix (dim, dim): QR of a Gaussian matrix, with a positive diagonal of R."""
    q, r = torch.linalg.qr(torch.randn(dim, dim, generator=generator))
    turned: Tensor = q * torch.where(r.diagonal() < 0, -1.0, 1.0)
    return turned


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class Quantizer(nn.Module):
    """Base class of all quantizers. Subclasses implement ``grid`` and, for training, ``forward``.

    Parameters
    ----------
    dim
        Width of a real row.
    segments
        Widths of the blocks that a code row consists of; each block has its own scale.
    settings
        The recipe's settings: an instance of the class that the quantizer is registered with.

    Attributes
    ----------
    width
        Width of a code row. It differs from ``dim`` if the method has a dense layer of another width.
    bits
        Bits per dim; 32 without codes.
    progress
        Share of training done, 0..1, set by the training loop.
    generator
        Generator of methods that draw random numbers while they train. Its state is saved with the parameters.
    """

    observes: ClassVar[bool] = False  # True: ``observe`` is called with every batch before its backward

    def __init__(self, dim: int, segments: tuple[int, ...], settings: QuantizerSettings) -> None:
        super().__init__()
        self.dim, self.settings = dim, settings
        self.segments = tuple(segments) or (dim,)
        self.width = sum(self.segments)
        self.bits: int = getattr(settings, "bits", 32)
        self.progress = 0.0
        self.generator: torch.Generator | None = None
        self._columns: Tensor  # the segment of each dim, (width,)
        columns = torch.arange(len(self.segments)).repeat_interleave(torch.tensor(self.segments))
        self.register_buffer("_columns", columns, persistent=False)

    def get_extra_state(self) -> Tensor:
        """The state of ``generator``, if the method has one, so that a resumed run continues its stream."""
        return torch.empty(0, dtype=torch.uint8) if self.generator is None else self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        if self.generator is not None:
            self.generator.set_state(state.cpu())

    def calibrate(self, x: Tensor) -> None:
        """Adapt to the initial rows (N, D) of this side, once, before training."""

    def forward(self, x: Tensor) -> Tensor:
        """The values of the codes of ``x``, (N, D) -> (N, width), with the gradient of the method.

        A method that is applied after training (``trained = False`` in its settings) returns ``x`` during training.
        """
        return x if self.training and not self.settings.trained else self.values(*self.grid(x))

    def target(self, x: Tensor) -> Tensor:
        """The rows that the codes of ``x`` approximate, (N, D) -> (N, width): ``x``, if it is not transformed."""
        return x

    def observe(self, side: Literal["users", "items"], views: Views, loss: Loss, value: Tensor) -> None:
        """Use derivatives of a batch's ``value`` = loss(views), before its backward."""

    def finish(self, rows: Tensor, everything: Tensor) -> None:
        """Adapt to the final real rows of this side, and to those of both sides where they must share something."""

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes, as integers in a float tensor (N, width); and their scale and offset, (N or 1, segments) each."""
        raise NotImplementedError

    def row_grid(self) -> RowGrid | None:
        """The grid of rows that have their own scale, for new users; None if the scales determine it."""
        return None

    def values(self, codes: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        """``scale * codes + offset``, computed in the order and precision of CodeTable.decode."""
        return codes * self.spread(scale) + self.spread(offset)

    def spread(self, by_segment: Tensor) -> Tensor:
        """(n, segments) -> (n, width); with one segment (n, 1), which broadcasts."""
        return by_segment if len(self.segments) == 1 else by_segment.index_select(1, self._columns)

    def segment_means(self, x: Tensor) -> Tensor:
        """The mean of each block of a row, (n, width) -> (n, segments)."""
        if len(set(self.segments)) == 1:
            return x.reshape(len(x), len(self.segments), self.segments[0]).mean(2)
        return torch.stack([block.mean(1) for block in self.blocks(x)], dim=1)

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """The blocks of rows, (n, width) -> one (n, d) per segment."""
        return torch.split(x, list(self.segments), dim=1)

    @torch.no_grad()
    def encode(self, x: Tensor) -> CodeTable | npt.NDArray[np.float32]:
        """The codes of rows after training. These are packed, shipped and evaluated."""
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
        """Figures on the codes of these rows, for the log.

        ``quantization_error`` is the mean squared error of the values, relative to the mean square of ``target(x)``.
        ``entropy`` is the mean entropy of a dim's codes in bits, at most ``bits``. ``dead`` is the share of dims that
        have the same code in every row.
        """
        codes, scale, offset = self.grid(x)
        target = self.target(x)
        error = (self.values(codes, scale, offset) - target).square().mean() / target.square().mean().clamp(min=1e-30)
        shares = self._level_counts(codes) / len(codes)
        entropy = -(shares * shares.clamp(min=1e-30).log2()).sum(1)
        return {
            "quantization_error": float(error),
            "entropy": float(entropy.mean()),
            "dead": float((shares.amax(1) == 1).float().mean()),
        }

    def _level_counts(self, codes: Tensor) -> Tensor:
        """How often each dim has each code, (width, levels), in one pass; one comparison per level is much slower."""
        levels = 1 << self.bits
        first = torch.arange(self.width, device=codes.device) * levels
        counts = torch.zeros(self.width * levels, device=codes.device)
        for rows in torch.split(codes, 1 << 16):
            counts += torch.bincount((rows.long() + first).flatten(), minlength=len(counts))
        return counts.view(self.width, levels)


class SignQuantizer(Quantizer):
    """One bit per dim, -a or +a with a = ``magnitude``; 0 counts as positive. Subclasses define the backward."""

    def __init__(self, dim: int, segments: tuple[int, ...], settings: QuantizerSettings) -> None:
        super().__init__(dim, segments, settings)
        self._one: Tensor
        self.register_buffer("_one", torch.ones(1, len(self.segments)), persistent=False)

    def magnitude(self, target: Tensor) -> Tensor:
        """a of each segment, (N or 1, segments); 1 by default."""
        return self._one

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        target = self.target(x)
        magnitude = self.magnitude(target)
        return signs(target), 2 * magnitude, -magnitude


def signs(x: Tensor) -> Tensor:
    """1 where x >= 0, else 0, in the type of x: the codes of one bit."""
    return (x >= 0).to(x.dtype)
