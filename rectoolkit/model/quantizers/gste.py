"""GSTE, HQ-GNN's quantizer: the generalised straight-through estimator (RecSys 2023, arXiv 2309.01032).

Claim: the straight-through estimator ignores how far a value was rounded and how curved the loss is there. GSTE scales
the gradient by both. The forward is the uniform grid of ``UniformQuantizer``. The backward is, element by element, with
g = dL/dx_q:

    dL/dx_n = g (1 + delta sign(g) (x_n - x_q)),        delta = max(0, (Tr(H) / N) / G)

H is the Hessian of the loss with respect to x_q on the integer grid, N its size, and G = 3 std(g) a representative size
of the gradient (EWGS, Lee et al., CVPR 2021). delta = 0 gives the straight-through estimator. The formula is the first
order of the gradient at x_n instead of x_q, g + H (x_n - x_q), with delta |g| for H. A descent step that pulls x_n back
to its code becomes larger; a step that pushes it to the next code becomes smaller, by at most delta / 2. delta is
updated every ``every`` steps, in the backward of a batch, from the g of that batch. Tr(H) comes from

``curvature = "exact"``       the closed form of the loss, at about the cost of the loss itself
``curvature = "hutchinson"``  random probes, for any loss: the mean of v' H v over Rademacher vectors v, with one double
                              backward per probe, until the running mean changes by less than 1e-3 of itself, or after
                              ``probes`` of them

x_q enters the loss as value = step x_q + low, so derivatives with respect to the values are multiplied by step (for g)
and step^2 (for H). On this grid |x_n - x_q| <= 1/2. On EWGS's grid [0, 1] the error is smaller by 2^b - 1, so values of
delta do not carry over.

Differs from the paper:

- H is taken with respect to the rows of a batch; a user that occurs twice counts as two rows. N, g and Tr(H) are over
  the same rows, for users and items separately. Rows that guidance leaves uncoded do not count.
- If each row has its own step, its part of the trace is multiplied by its own step^2.
- Updates are counted in steps, and not made every 10 epochs, because the closed form is cheap.
- The paper's stopping rule for the probes is not known to us. This one is that of EWGS, with the absolute value that
  its code lacks.
- ``scale = "row"``, ``clip = "inward"``, ``hash_layer`` and ``guidance`` are not in the paper
  (rectoolkit/model/quantizers/uniform.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from rectoolkit.model.quantizers.settings import GSTESettings
from rectoolkit.model.quantizers.uniform import UniformQuantizer
from rectoolkit.recipe.registry import quantizers

if TYPE_CHECKING:
    from torch import Tensor

    from rectoolkit.model.losses.base import Loss, Views

TOLERANCE = 1e-3


class _Round(torch.autograd.Function):
    """Rounds. The backward calls ``through`` of the quantizer with the gradient and the rounding error."""

    @staticmethod
    def forward(ctx: Any, normalised: Tensor, quantizer: GSTE) -> Tensor:
        rounded = normalised.round()
        ctx.quantizer = quantizer
        ctx.save_for_backward(normalised - rounded)
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (error,) = ctx.saved_tensors
        return ctx.quantizer.through(gradients[0], error), None


@quantizers.register("gste", GSTESettings)
class GSTE(UniformQuantizer):
    """Uniform grid whose gradient is scaled by rounding error and curvature."""

    observes: ClassVar[bool] = True

    def __init__(self, dim: int, segments: tuple[int, ...], generator: torch.Generator, settings: GSTESettings) -> None:
        super().__init__(dim, segments, generator, settings)
        self.delta: Tensor
        self.trace: Tensor  # Tr(H) on the integer grid at the last update
        self.steps: Tensor  # batches observed
        self.curvature, self.every, self.probes = settings.curvature, settings.every, settings.probes
        self._due = False
        self._elements: Tensor | int = 0  # N
        self._step_square = torch.ones(1, len(self.segments))  # of the rows coded last, (N or 1, segments)
        self.register_buffer("delta", torch.tensor(settings.delta))
        self.register_buffer("trace", torch.tensor(0.0))
        self.register_buffer("steps", torch.tensor(0))

    def _affine(self, x: Tensor, unit: Tensor | None, codes: Tensor) -> tuple[Tensor, Tensor]:
        scale, offset = super()._affine(x, unit, codes)
        self._step_square = scale.detach().square()
        return scale, offset

    def round(self, normalised: Tensor) -> Tensor:
        return _Round.apply(normalised, self)  # type: ignore[no-any-return, no-untyped-call]

    def observe(self, side: Literal["users", "items"], views: Views, loss: Loss, value: Tensor) -> None:
        """Compute Tr(H) of this batch if an update of delta is due. The backward that follows has g and makes it."""
        if self.curvature == "none":
            return
        self._due = int(self.steps) % self.every == 0
        self.steps += 1
        if not self._due:
            return
        rows, square = views.coded.side(side), self._step_square
        if self.coded is None:
            self._elements = sum(part.numel() for part in rows)  # fewer than were coded if the sampler discards some
        else:
            coded = views.by_row(side, self.coded.to(square))
            self._elements = self.width * torch.stack([part.sum() for part in coded]).sum()
            square = square * self.coded[:, None]
        exact = self.curvature == "exact"
        self.trace.copy_(self._exact(side, views, loss, square) if exact else self._guess(side, views, value, square))

    def through(self, gradient: Tensor, error: Tensor) -> Tensor:
        """dL/dx_n from g = dL/dx_q and error = x_n - x_q; first updates delta if ``observe`` found this due."""
        if self._due:
            self._due = False
            mean = gradient.sum() / self._elements
            square = torch.linalg.vector_norm(gradient).square() / self._elements
            variance = square - mean.square()
            spread = variance > 1e-6 * square  # a constant gradient has no spread but rounding errors
            delta = self.trace / self._elements / (3 * variance.clamp(min=0).sqrt())
            self.delta.copy_(torch.where(spread, delta.clamp(min=0), 0.0))
        # g + |g| error delta, with one new tensor: four times as fast as the formula term by term
        return gradient.abs().mul_(error).mul_(self.delta).add_(gradient)

    def diagnostics(self, x: Tensor) -> dict[str, Any]:
        return {**super().diagnostics(x), "delta": float(self.delta), "trace": float(self.trace)}

    def _exact(self, side: Literal["users", "items"], views: Views, loss: Loss, square: Tensor) -> Tensor:
        """Tr(H) on the integer grid from the closed form of the loss; ``square`` is step^2, (N or 1, segments)."""
        if len(square) == 1:
            return (loss.curvature(views, side) * self.spread(square)).sum()
        total = square.new_zeros(())
        for segment, of_rows in enumerate(square.T):
            diagonal = loss.curvature(views, side, views.by_row(side, of_rows))
            total = total + self.blocks(diagonal[None])[segment].sum()
        return total

    def _guess(self, side: Literal["users", "items"], views: Views, value: Tensor, square: Tensor) -> Tensor:
        """Tr(H) on the integer grid by Hutchinson's estimator, the mean of v' H v over Rademacher vectors v."""
        rows = views.coded.side(side)
        squares = [self.spread(square)] * len(rows)
        if len(square) > 1:
            by_segment = zip(*(views.by_row(side, of_rows) for of_rows in square.T), strict=True)
            squares = [torch.stack(one, dim=-1).index_select(-1, self._columns) for one in by_segment]
        gradients = torch.autograd.grad(value, rows, create_graph=True, materialize_grads=True)
        total = mean = rows[0].new_zeros(())
        curved = [place for place, gradient in enumerate(gradients) if gradient.requires_grad]
        if not curved:
            return mean
        bent = [gradients[place] for place in curved]  # the others are constant and no part of H
        for probe in range(1, self.probes + 1):
            signs = [torch.randint(0, 2, row.shape, generator=self.generator).to(row) * 2 - 1 for row in rows]
            into = [signs[place] for place in curved]
            products = torch.autograd.grad(bent, rows, into, retain_graph=True, materialize_grads=True)
            total = total + sum((v * p * weight).sum() for v, p, weight in zip(signs, products, squares, strict=True))
            previous, mean = mean, total / probe
            if probe > 1 and (mean - previous).abs() <= TOLERANCE * mean.abs():
                break
        return mean
