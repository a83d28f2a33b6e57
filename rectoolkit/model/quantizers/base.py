"""What a quantizer is: real rows (N, D) to integer codes with an affine map, and a backward that *is* the method.

A model has two of the same kind, one for user rows and one for item rows, each with its own grid: the two sides
differ in length and spread, and ranking does not ask for a common scale. A run supplies
``dim`` (width of a real row), ``segments`` (the widths it is concatenated from), ``generator`` (torch.Generator,
in the same state for both sides, so that what must be common, such as a rotation, is).

The equality that carries the project: in eval mode ``forward(x)`` equals ``encode(x).decode()`` bit for bit.
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
    """``value``, with the gradient of ``x``: the straight-through estimator."""
    return _StraightThrough.apply(x, value)  # type: ignore[no-any-return, no-untyped-call]


def two_bytes(scale: Tensor) -> Tensor:
    """A row's scale as bfloat16 has it, with the gradient of ``scale``: so packed tables keep it in two bytes."""
    return straight_through(scale, scale.detach().bfloat16().to(scale))


def in_scales(offset: Tensor, scale: Tensor) -> Tensor:
    """``offset`` in units of ``scale``, to 16 significant bits: exact in float32 times any ``two_bytes``."""
    multiple = offset / scale
    bits = multiple.detach().float().view(torch.int32)
    return straight_through(multiple, (bits + 0x80).bitwise_and(-0x100).view(torch.float32).to(multiple))


def random_rotation(dim: int, generator: torch.Generator) -> Tensor:
    """An orthogonal matrix (dim, dim), evenly from all of them: QR of a Gaussian one, R's diagonal made positive."""
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
    """Base of every quantizer. Subclasses implement ``grid`` and, for training, ``forward``.

    ``dim`` is the width of a real row, ``width`` that of a code row (they differ where the method has a layer of its
    own), ``segments`` the blocks of a code row with a scale each, ``progress`` the share of training done, 0..1.
    """

    observes: ClassVar[bool] = False  # True: ``observe`` is called with every batch before its backward

    def __init__(self, dim: int, segments: tuple[int, ...], settings: QuantizerSettings) -> None:
        super().__init__()
        self.dim, self.settings = dim, settings
        self.segments = tuple(segments) or (dim,)
        self.width = sum(self.segments)
        self.bits: int = getattr(settings, "bits", 32)
        self.progress = 0.0
        self.generator: torch.Generator | None = None  # methods that draw put theirs here, to be saved with the rest
        self._columns: Tensor  # the segment of each dim, (width,)
        columns = torch.arange(len(self.segments)).repeat_interleave(torch.tensor(self.segments))
        self.register_buffer("_columns", columns, persistent=False)

    def get_extra_state(self) -> Tensor:
        """The state of the random generator, if the method has one, so that a resumed run draws on."""
        return torch.empty(0, dtype=torch.uint8) if self.generator is None else self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        if self.generator is not None:
            self.generator.set_state(state.cpu())

    def calibrate(self, x: Tensor) -> None:
        """Look at this side's initial rows (N, D) once, before training."""

    def forward(self, x: Tensor) -> Tensor:
        """The values of the codes of ``x``, (N, D) -> (N, width), differentiable as the method has it.

        A method applied after training (``trained = False`` in its settings) gives ``x`` itself while training.
        """
        return x if self.training and not self.settings.trained else self.values(*self.grid(x))

    def target(self, x: Tensor) -> Tensor:
        """What the codes of ``x`` stand for, (N, D) -> (N, width): ``x``, unless the method transforms rows first."""
        return x

    def observe(self, side: Literal["users", "items"], views: Views, loss: Loss, value: Tensor) -> None:
        """Look at a batch's ``value`` = loss(views) before its backward, for methods that use its derivatives."""

    def finish(self, rows: Tensor, everything: Tensor) -> None:
        """Look at this side's final real rows, and at those of both sides (for what they must share)."""

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes as whole numbers in a float tensor (N, width), and scale and offset, each (N or 1, segments)."""
        raise NotImplementedError

    def row_grid(self) -> RowGrid | None:
        """The grid of rows with scales of their own, for new users; None where their scales tell it."""
        return None

    def values(self, codes: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        """``scale * codes + offset`` in the order and precision of CodeTable.decode."""
        return codes * self.spread(scale) + self.spread(offset)

    def spread(self, by_segment: Tensor) -> Tensor:
        """(n, segments) -> (n, width), or (n, 1), which broadcasts, where there is one segment."""
        return by_segment if len(self.segments) == 1 else by_segment.index_select(1, self._columns)

    def segment_means(self, x: Tensor) -> Tensor:
        """The mean of each row's blocks, (n, width) -> (n, segments)."""
        if len(set(self.segments)) == 1:
            return x.reshape(len(x), len(self.segments), self.segments[0]).mean(2)
        return torch.stack([block.mean(1) for block in self.blocks(x)], dim=1)

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """A row's blocks, (n, width) -> one (n, d) a segment."""
        return torch.split(x, list(self.segments), dim=1)

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

        ``quantization_error`` is the mean squared error over the mean square of what the codes stand for; ``entropy``
        the mean over dims of the code's entropy in bits (at most ``bits``); ``dead`` the share of dims whose code is
        the same in every row.
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
        """How often each dim has each code, (width, levels): one pass; a comparison a level is 60 times slower."""
        levels = 1 << self.bits
        first = torch.arange(self.width, device=codes.device) * levels
        counts = torch.zeros(self.width * levels, device=codes.device)
        for rows in torch.split(codes, 1 << 16):
            counts += torch.bincount((rows.long() + first).flatten(), minlength=len(counts))
        return counts.view(self.width, levels)


class SignQuantizer(Quantizer):
    """One bit a dim, -a or +a with a = ``magnitude``; 0 counts as positive. Subclasses give the backward."""

    def __init__(self, dim: int, segments: tuple[int, ...], settings: QuantizerSettings) -> None:
        super().__init__(dim, segments, settings)
        self._one: Tensor
        self.register_buffer("_one", torch.ones(1, len(self.segments)), persistent=False)

    def magnitude(self, target: Tensor) -> Tensor:
        """a of each segment, (N or 1, segments); 1 unless the method says otherwise."""
        return self._one

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        target = self.target(x)
        magnitude = self.magnitude(target)
        return signs(target), 2 * magnitude, -magnitude


def signs(x: Tensor) -> Tensor:
    """1 where x >= 0, else 0, in x's type: the codes of one bit."""
    return (x >= 0).to(x.dtype)
