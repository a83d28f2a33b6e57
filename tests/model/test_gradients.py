"""Each quantizer's backward is the formula at the head of its file, here written out again, apart from it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rectoolkit.model.losses.base import Triple, Views
from rectoolkit.model.quantizers.hash_layer import guidance
from rectoolkit.model.samplers.base import Batch
from rectoolkit.recipe.registry import losses, quantizers

EVERY_WIDTH = (1, 2, 4, 8)


def make(name: str, segments: tuple[int, ...] = (6,), seed: int = 0, **written: Any) -> Any:
    """A quantizer in train mode, in float64."""
    filled, faults = quantizers.check(name, written, "quantizer")
    assert not faults
    supply = {"dim": sum(segments), "segments": segments, "generator": torch.Generator().manual_seed(seed)}
    return quantizers.build(name, filled, supply).double().train()


def rows(number: int, dim: int, seed: int = 0, size: float = 0.1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, dim, generator=generator, dtype=torch.float64) * size


def gradient(quantizer: Any, x: Tensor, upstream: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    quantizer.zero_grad()
    (quantizer(x) * upstream).sum().backward()
    return x.grad


def numeric(function: Any, at: Tensor, small: float = 1e-6) -> Tensor:
    """Central differences of a scalar function."""
    result = torch.zeros_like(at)
    for place in range(at.numel()):
        shift = torch.zeros_like(at).flatten()
        shift[place] = small
        shift = shift.view_as(at)
        result.view(-1)[place] = (function(at + shift) - function(at - shift)) / (2 * small)
    return result


def blocks(x: Tensor, segments: tuple[int, ...]) -> tuple[Tensor, ...]:
    return torch.split(x, list(segments), dim=1)


# --- the uniform grid: ste and gste -------------------------------------------------------------------------


@pytest.mark.parametrize("bits", EVERY_WIDTH)
def test_ste_is_the_identity_inside_the_bounds_and_nothing_outside(bits):
    quantizer, x, upstream = make("ste", bits=bits, momentum=0.999), rows(50, 6), rows(50, 6, seed=1)
    quantizer.calibrate(0.5 * x)
    found = gradient(quantizer, x, upstream)
    inside = (x >= quantizer.low) & (x <= quantizer.high)
    assert 0 < inside.double().mean() < 1
    torch.testing.assert_close(found, upstream * inside)


@pytest.mark.parametrize("bounds", ["average", "learned"])
@pytest.mark.parametrize("bits", EVERY_WIDTH)
def test_a_clip_that_lets_inward_passes_what_brings_values_back(bits, bounds):
    x, upstream = rows(50, 6), rows(50, 6, seed=1)
    hard, soft = (make("ste", bits=bits, bounds=bounds, momentum=0.999, clip=clip) for clip in ("nothing", "inward"))
    for quantizer in (hard, soft):
        quantizer.calibrate(0.5 * x)
    found, published = gradient(soft, x, upstream), gradient(hard, x, upstream)
    above, below = x > soft.high, x < soft.low
    back = (above & (upstream > 0)) | (below & (upstream < 0))  # descent goes against the gradient
    assert 0 < back.double().mean() < (above | below).double().mean()
    torch.testing.assert_close(found, published + upstream * back)
    assert torch.equal(soft(x), hard(x))
    if bounds == "learned":
        assert torch.equal(soft.low.grad, hard.low.grad)
        assert torch.equal(soft.high.grad, hard.high.grad)


@pytest.mark.parametrize("bits", EVERY_WIDTH)
@pytest.mark.parametrize("segments", [(6,), (4, 2)], ids=str)
def test_gste_scales_by_delta_sign_and_rounding_error(bits, segments):
    quantizer, x = make("gste", segments, bits=bits, delta=0.7, curvature="none"), rows(50, 6)
    upstream = rows(50, 6, seed=1)
    quantizer.calibrate(x)
    found = gradient(quantizer, x, upstream)
    for part, (block, g) in enumerate(zip(blocks(x, segments), blocks(upstream, segments), strict=True)):
        low, high = quantizer.low[0, part], quantizer.high[0, part]
        step = (high - low) / (2**bits - 1)
        normalised = (block.clamp(low, high) - low) / step
        error = normalised - normalised.round()
        expected = g * (1 + 0.7 * torch.sign(g * step) * error) * ((block >= low) & (block <= high))
        torch.testing.assert_close(blocks(found, segments)[part], expected)


@pytest.mark.parametrize("bounds", ["average", "learned"])
@pytest.mark.parametrize("bits", EVERY_WIDTH)
def test_gste_without_delta_is_ste_bit_for_bit(bits, bounds):
    found = []
    for name, more in (("ste", {}), ("gste", {"curvature": "none"})):
        quantizer = make(name, (4, 2), bits=bits, bounds=bounds, **more).float()
        x = rows(500, 6).float().requires_grad_()
        quantizer.calibrate(x.detach())
        value = quantizer(1.1 * x)
        (value * rows(500, 6, seed=1).float()).sum().backward()
        found.append([value.detach(), x.grad, *(p.grad for p in quantizer.parameters()), quantizer.low, quantizer.high])
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["ste", "gste"])
@pytest.mark.parametrize("bits", EVERY_WIDTH)
def test_learned_bounds_get_the_gradient_of_the_grid_with_the_rounding_error_held(name, bits):
    more = {"curvature": "none", "delta": 0.0} if name == "gste" else {}
    quantizer, x, upstream = make(name, bits=bits, bounds="learned", **more), rows(50, 6), rows(50, 6, seed=1)
    quantizer.calibrate(0.5 * x)
    gradient(quantizer, x, upstream)
    ends = torch.stack([quantizer.low.detach().flatten(), quantizer.high.detach().flatten()])

    def normal(bounds: Tensor) -> tuple[Tensor, Tensor]:
        step = (bounds[1] - bounds[0]) / (2**bits - 1)
        return (x.clamp(bounds[0], bounds[1]) - bounds[0]) / step, step

    held = normal(ends)[0].round() - normal(ends)[0]

    def surrogate(bounds: Tensor) -> Tensor:
        normalised, step = normal(bounds)
        return (upstream * (step * (normalised + held) + bounds[0])).sum()

    expected = numeric(surrogate, ends)
    torch.testing.assert_close(quantizer.low.grad.flatten(), expected[0], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(quantizer.high.grad.flatten(), expected[1], rtol=1e-5, atol=1e-7)


# --- gste's curvature ---------------------------------------------------------------------------------------


class Step:
    """One batch of BPR through two quantizers."""

    def __init__(
        self, number: int = 12, negatives: int = 3, segments: Any = (5,), shared: bool = False, **written: Any
    ) -> None:
        dim = sum(segments)
        self.sides = {side: make("gste", segments, seed=k, **written) for k, side in enumerate(("users", "items"))}
        self.shape = (negatives,) if shared else (number, negatives)
        self.users, self.items = rows(number, dim, 1, 0.5), rows(number + math.prod(self.shape), dim, 2, 0.5)
        self.sides["users"].calibrate(self.users)
        self.sides["items"].calibrate(self.items)
        self.users.requires_grad_()
        self.items.requires_grad_()
        self.loss = losses.build("bpr", {"l2": 0.0}, {})
        self.ids = Batch(
            torch.arange(number), torch.arange(number), torch.arange(math.prod(self.shape)).view(self.shape)
        )

    def triple(self, users: Tensor, items: Tensor) -> Triple:
        negatives = items[len(users) :].view(*self.shape, -1)
        return Triple(users, items[: len(users)], negatives)

    def views(self, users: Tensor, items: Tensor) -> Views:
        triple = self.triple(users, items)
        return Views(triple, triple, triple, self.ids)

    def run(self) -> dict[str, Tensor]:
        """Forward, observe, backward; the gradients with respect to the coded rows."""
        coded = self.sides["users"](self.users), self.sides["items"](self.items)
        views = self.views(*coded)
        value = self.loss(views)
        for side, quantizer in self.sides.items():
            quantizer.observe(side, views, self.loss, value)
        value.backward()
        leaves = [tensor.detach().requires_grad_() for tensor in coded]
        return dict(zip(self.sides, torch.autograd.grad(self.loss(self.views(*leaves)), leaves), strict=True))

    def dense_trace(self, side: str) -> float:
        """Tr(H) from the whole Hessian, on the integer grid."""
        coded = {"users": self.sides["users"](self.users).detach(), "items": self.sides["items"](self.items).detach()}

        def value(flat: Tensor) -> Tensor:
            return self.loss(self.views(**{**coded, side: flat.view_as(coded[side])}))

        diagonal = torch.autograd.functional.hessian(value, coded[side].flatten()).diagonal().view_as(coded[side])
        quantizer = self.sides[side]
        _, scale, _ = quantizer.grid(getattr(self, side).detach())
        weighted = diagonal * quantizer.spread(scale).square()
        return float((weighted if quantizer.coded is None else weighted[quantizer.coded]).sum())


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("dims", [(5,), (2, 3)])
@pytest.mark.parametrize("curvature", ["exact", "hutchinson"])
def test_each_row_has_its_own_step_in_the_trace(curvature, dims, shared, monkeypatch):
    monkeypatch.setattr("rectoolkit.model.quantizers.gste.TOLERANCE", 0.0)
    batch = Step(bits=2, scale="row", momentum=0.0, curvature=curvature, probes=600, segments=dims, shared=shared)
    with torch.no_grad():
        for rows_of in (batch.users, batch.items):
            rows_of.mul_(torch.logspace(-1, 1, len(rows_of), dtype=torch.float64)[:, None])
    batch.run()
    for side, quantizer in batch.sides.items():
        expected = batch.dense_trace(side)
        assert expected > 0
        assert float(quantizer.trace) == pytest.approx(expected, rel=1e-4 if curvature == "exact" else 0.2)


@pytest.mark.parametrize("scale", ["table", "row"])
@pytest.mark.parametrize("curvature", ["exact", "hutchinson"])
def test_rows_let_in_uncoded_are_no_part_of_delta(curvature, scale, monkeypatch):
    monkeypatch.setattr("rectoolkit.model.quantizers.gste.TOLERANCE", 0.0)
    batch = Step(bits=2, scale=scale, momentum=0.0, guidance=1.0, curvature=curvature, probes=600, number=30)
    for quantizer in batch.sides.values():
        quantizer.progress = 0.4
    coded = {side: quantizer(getattr(batch, side)) for side, quantizer in batch.sides.items()}
    views = batch.views(*coded.values())
    value = batch.loss(views)
    found = dict(zip(coded, torch.autograd.grad(value, list(coded.values()), retain_graph=True), strict=True))
    for side, quantizer in batch.sides.items():
        quantizer.observe(side, views, batch.loss, value)
    value.backward()
    for side, quantizer in batch.sides.items():
        assert 0 < quantizer.coded.sum() < len(quantizer.coded)
        _, steps, _ = quantizer.grid(getattr(batch, side).detach())
        g = (found[side] * steps)[quantizer.coded]
        diagonal = _diagonal(lambda rows, side=side: batch.loss(batch.views(**{**coded, side: rows})), coded[side])
        trace = (diagonal * steps.square())[quantizer.coded].sum()
        near = 1e-4 if curvature == "exact" else 0.2
        assert float(quantizer.trace) == pytest.approx(float(trace), rel=near)
        assert float(quantizer.delta) == pytest.approx(float(trace / g.numel() / (3 * g.std(correction=0))), rel=near)


def _diagonal(value, rows):
    rows = rows.detach()
    matrix = torch.autograd.functional.hessian(lambda flat: value(flat.view_as(rows)), rows.flatten())
    return matrix.diagonal().view_as(rows)


def test_the_hardest_negatives_keep_their_own_steps():
    users, items = rows(4, 5, 1), rows(4 + 4 * 6, 5, 2)
    ids = Batch(torch.arange(4), torch.arange(4), torch.arange(24).view(4, 6), best_of=3)
    triple = Triple(users, items[:4], items[4:].view(4, 6, 5))
    views = Views(triple, triple, triple, ids).hardest()
    for part, numbers in zip(views.coded.side("items"), views.by_row("items", items[:, 0]), strict=True):
        torch.testing.assert_close(part[..., 0], numbers)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("bits", [1, 3])
def test_the_exact_trace_is_that_of_the_dense_hessian(bits, shared):
    batch = Step(bits=bits, shared=shared, momentum=0.0)
    batch.run()
    for side, quantizer in batch.sides.items():
        assert float(quantizer.trace) == pytest.approx(batch.dense_trace(side), rel=1e-5)
        assert float(quantizer.trace) > 0


@pytest.mark.parametrize("shared", [False, True])
def test_hutchinson_equals_the_exact_trace_within_its_sampling_error(shared, monkeypatch):
    monkeypatch.setattr("rectoolkit.model.quantizers.gste.TOLERANCE", 0.0)  # else it may stop at two probes alike
    exact = Step(shared=shared, number=40)
    guessed = Step(shared=shared, number=40, curvature="hutchinson", probes=400)
    exact.run()
    guessed.run()
    for side in exact.sides:
        assert float(guessed.sides[side].trace) == pytest.approx(float(exact.sides[side].trace), rel=0.1)


@pytest.mark.parametrize("curvature", ["exact", "hutchinson"])
def test_delta_is_mean_curvature_over_three_deviations_of_the_gradient(curvature):
    batch = Step(bits=2, curvature=curvature)
    found = batch.run()
    for side, quantizer in batch.sides.items():
        g = found[side] * quantizer.step()
        expected = quantizer.trace / g.numel() / (3 * g.std(correction=0))
        assert float(quantizer.delta) == pytest.approx(float(expected), rel=1e-6)
        assert float(quantizer.delta) > 0


def test_rows_that_the_loss_never_sees_do_not_count():
    """As where a sampler offers many negatives and keeps the hardest."""
    few, many = Step(bits=2, momentum=0.999), Step(bits=2, momentum=0.999)
    unseen = many.items.detach().flip(0)
    for step in (few, many):
        coded = step.sides["items"](step.items if step is few else torch.cat([step.items, unseen]))
        views = step.views(step.sides["users"](step.users), coded[: len(step.items)])
        value = step.loss(views)
        step.sides["items"].observe("items", views, step.loss, value)
        value.backward()
    assert float(few.sides["items"].delta) > 0
    assert float(many.sides["items"].delta) == pytest.approx(float(few.sides["items"].delta), rel=1e-6)


def test_the_batch_that_refreshes_delta_is_scaled_by_it():
    batch = Step(bits=2, momentum=0.0)
    upstream = batch.run()["users"]
    quantizer = batch.sides["users"]
    normalised = (batch.users.detach() - quantizer.low) / quantizer.step()
    error = normalised - normalised.round()
    expected = upstream * (1 + quantizer.delta * upstream.sign() * error)
    torch.testing.assert_close(batch.users.grad, expected)


def test_delta_is_refreshed_only_when_due():
    batch = Step(every=3)
    seen = []
    for size in (1.0, 1.5, 0.5, 2.0):
        with torch.no_grad():
            batch.users.mul_(size)
        batch.run()
        seen.append(float(batch.sides["items"].delta))
    assert seen[0] == seen[1] == seen[2] != seen[3]


def test_a_loss_that_bends_downwards_leaves_the_plain_estimator():
    batch = Step(bits=2)
    batch.loss.curvature = lambda *_: -torch.ones(5, dtype=torch.float64)
    batch.run()
    assert all(float(quantizer.trace) < 0 and float(quantizer.delta) == 0 for quantizer in batch.sides.values())


def test_a_linear_loss_has_no_curvature():
    batch = Step(curvature="hutchinson")
    batch.loss.forward = lambda views: views.coded.users.sum() + views.coded.positives.sum()
    batch.run()
    for quantizer in batch.sides.values():
        assert float(quantizer.trace) == 0
        assert float(quantizer.delta) == 0
    torch.testing.assert_close(batch.users.grad.unique(), torch.ones(1, dtype=torch.float64))


# --- learned steps and clips --------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", EVERY_WIDTH)
@pytest.mark.parametrize("segments", [(6,), (4, 2)], ids=str)
def test_lsq_follows_its_formula(bits, segments):
    quantizer, x, upstream = make("lsq", segments, bits=bits), rows(50, 6), rows(50, 6, seed=1)
    quantizer.calibrate(x)
    with torch.no_grad():
        quantizer.step.mul_(0.3 if bits < 8 else 0.05)  # so that some rows lie outside
    found = gradient(quantizer, x, upstream)
    low, high = -(2 ** (bits - 1)), max(1, 2 ** (bits - 1) - 1)
    for part, (block, g) in enumerate(zip(blocks(x, segments), blocks(upstream, segments), strict=True)):
        v = block / quantizer.step[0, part].detach()
        rounded = torch.where(v >= 0, 1.0, -1.0) if bits == 1 else v.round()
        inside = (v >= low) & (v <= high)
        assert 0 < inside.double().mean() < 1
        torch.testing.assert_close(blocks(found, segments)[part], g * inside)
        slope = torch.where(inside, rounded - v, v.clamp(low, high))
        expected = (g * slope).sum() / math.sqrt(g.numel() * high)
        torch.testing.assert_close(quantizer.step.grad[0, part], expected)


def test_lsq_starts_at_the_published_step():
    quantizer, x = make("lsq", (4, 2), bits=4), rows(50, 6)
    quantizer.calibrate(x)
    for part, block in enumerate(blocks(x, (4, 2))):
        assert quantizer.step[0, part].item() == pytest.approx(2 * float(block.abs().mean()) / math.sqrt(7))


@pytest.mark.parametrize("bits", EVERY_WIDTH)
def test_pact_moves_its_clip_by_what_it_clips(bits):
    quantizer, x = make("pact", bits=bits, deviations=1.0, decay=0.5), rows(50, 6)
    upstream = rows(50, 6, seed=1)
    quantizer.calibrate(x)
    alpha = quantizer.alpha.item()
    assert alpha == pytest.approx(float(x.std(correction=0)))
    torch.testing.assert_close(gradient(quantizer, x, upstream), upstream * (x.abs() <= alpha))
    expected = upstream[x > alpha].sum() - upstream[x < -alpha].sum() + 0.5 * alpha
    assert float(quantizer.alpha.grad) == pytest.approx(float(expected))


@pytest.mark.parametrize("bits", EVERY_WIDTH)
def test_dorefa_differentiates_tanh_over_its_largest(bits):
    quantizer, x, upstream = (
        make("dorefa", (4, 2), bits=bits, momentum=0.999),
        rows(50, 6, size=0.8),
        rows(50, 6, seed=1),
    )
    quantizer.calibrate(0.5 * x)
    found = gradient(quantizer, x, upstream)
    if bits == 1:
        torch.testing.assert_close(found, upstream)
        return
    top = quantizer.spread(quantizer.reach)
    expected = upstream * (1 - x.tanh().square()) / top * (x.tanh().abs() <= top)
    assert (expected == 0).any()
    torch.testing.assert_close(found, expected)


# --- signs --------------------------------------------------------------------------------------------------


def test_hashnet_is_tanh_and_its_gradient_tanhs():
    quantizer, x, upstream = make("hashnet", (4, 2), magnitude=0.5), rows(10, 6), rows(10, 6, seed=1)
    quantizer.calibrate(x)
    quantizer.progress = 0.3
    expected = numeric(lambda at: (quantizer(at) * upstream).sum(), x)
    torch.testing.assert_close(gradient(quantizer, x, upstream), expected, rtol=1e-6, atol=1e-9)


def test_hashnet_follows_the_published_square_root_and_reaches_the_sign():
    quantizer, x = make("hashnet", sharpness=math.sqrt(51)), rows(500, 6)
    quantizer.calibrate(x)
    for steps in (0, 2500, 10_000):
        quantizer.progress = steps / 10_000
        assert quantizer.slope() == pytest.approx((1 + 0.005 * steps) ** 0.5)
    sharp = make("hashnet", sharpness=1e6)
    sharp.calibrate(x)
    distance = []
    for progress in (0.0, 0.01, 1.0):
        sharp.progress = progress
        distance.append(float((sharp.train()(x) - sharp.eval()(x)).abs().mean()))
    assert distance == sorted(distance, reverse=True)
    assert distance[0] > 0.3
    assert distance[-1] < 1e-3
    assert set(sharp(x).unique().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("progress", [0.0, 0.4, 1.0])
def test_hashgnn_passes_the_gradient_of_tanh_whether_a_row_is_guided_or_not(progress):
    quantizer, x, upstream = make("hashgnn", magnitude=0.5), rows(200, 6), rows(200, 6, seed=1)
    quantizer.calibrate(x)
    quantizer.progress = progress
    hidden = torch.tanh(x @ quantizer.layer.weight.T + quantizer.layer.bias)
    expected = (0.5 * upstream * (1 - hidden.square())) @ quantizer.layer.weight
    torch.testing.assert_close(gradient(quantizer, x, upstream), expected.detach())
    coded = (quantizer(x).abs() == 0.5).all(dim=1)
    assert float(coded.double().mean()) == pytest.approx(
        guidance(quantizer.progress, quantizer.ramp, quantizer.growth), abs=0.1
    )


def test_hashgnn_guides_in_published_steps_until_all_rows_are_codes():
    quantizer = make("hashgnn", ramp=0.5)
    seen = []
    for progress in np.linspace(0, 1, 201):
        quantizer.progress = float(progress)
        seen.append(guidance(quantizer.progress, quantizer.ramp, quantizer.growth))
    assert (seen[0], seen[50], seen[100], seen[-1]) == pytest.approx((0.0, 0.5, 1.0, 1.0))
    assert sorted(set(np.round(seen, 9))) == pytest.approx([0.02 * k for k in range(51)])


def scaled_sign_gradient(t: Tensor, g: Tensor, segments: tuple[int, ...], slope: Any, weights: list[float]) -> Tensor:
    """dL/dt of value = w mean|t| sign(t) by block: through the sign by ``slope``, and through the mean."""
    parts = []
    for block, up, weight in zip(blocks(t, segments), blocks(g, segments), weights, strict=True):
        sign, alpha = torch.where(block >= 0, 1.0, -1.0), (weight * block.abs().mean(1, keepdim=True)).bfloat16()
        through_mean = sign / block.shape[1] * (up * sign).sum(1, keepdim=True)
        parts.append(up * alpha * slope(block) + weight * through_mean)
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 8.0])
@pytest.mark.parametrize("segments", [(6,), (2, 2, 2), (3, 1, 2)], ids=str)
def test_bigear_weighs_layers_and_bumps_the_sign(segments, gamma):
    quantizer, x, upstream = make("bigear", segments, gamma=gamma), rows(20, 6, size=0.6), rows(20, 6, seed=1)

    def bump(t: Tensor) -> Tensor:
        return (gamma * torch.exp(-((gamma * t) ** 2)) / math.sqrt(math.pi)).clamp(1e-8, 1)

    weights = [(layer + 1) / len(segments) for layer in range(len(segments))]
    expected = scaled_sign_gradient(x, upstream, segments, bump, weights)
    torch.testing.assert_close(gradient(quantizer, x, upstream), expected, rtol=1e-6, atol=1e-9)
    values = torch.cat(
        [
            (w * b.abs().mean(1, keepdim=True)).bfloat16() * b.sign()
            for w, b in zip(weights, blocks(x, segments), strict=True)
        ],
        dim=1,
    )
    torch.testing.assert_close(quantizer(x), values, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(quantizer.eval()(x), values, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("segments", [(6,), (2, 4)], ids=str)
@pytest.mark.parametrize(("terms", "frequency"), [(2, 1.0), (4, 1.0), (8, 0.5)])
def test_bgch_disperses_maps_and_differentiates_the_series(segments, terms, frequency):
    quantizer = make("bgch", segments, terms=terms, frequency=frequency)
    x, upstream = rows(20, 6, size=0.6), rows(20, 6, seed=1)
    found = gradient(quantizer, x, upstream)
    quantizer.iterations = 1000  # the direction has been turned; what follows only reads it
    maps = []
    for p, weight in zip(torch.split(quantizer.direction, list(segments)), quantizer.weights, strict=True):
        maps.append((torch.eye(len(p), dtype=torch.float64) - 0.1 * torch.outer(p, p)) @ weight.detach())
    whole = torch.block_diag(*maps)

    def series(t: Tensor) -> Tensor:
        total = sum(4 * frequency / math.pi * torch.cos(i * frequency * t) for i in range(1, terms, 2))
        return torch.clamp(total, -1, 1)

    expected = scaled_sign_gradient(x @ whole, upstream, segments, series, [1.0] * len(segments)) @ whole.T
    torch.testing.assert_close(found, expected)


def test_bgch_turns_towards_the_main_direction():
    x = rows(200, 6)
    x[:, 2] *= 3
    x[:, 4] += 1
    quantizer = make("bgch")
    for _ in range(30):
        quantizer(x)
    main = torch.linalg.eigh(x.T @ x)[1][:, -1]
    assert abs(float(quantizer.direction @ main)) == pytest.approx(1, abs=1e-6)


def test_the_series_is_the_derivative_of_the_signs():
    t = torch.linspace(-0.3, 0.3, 7, dtype=torch.float64)
    summed = numeric(lambda at: sum(4 / math.pi * torch.sin(i * at) / i for i in (1, 3, 5)).sum(), t)
    stated = sum(4 / math.pi * torch.cos(i * t) for i in (1, 3, 5))
    torch.testing.assert_close(summed, stated, rtol=1e-6, atol=1e-6)
