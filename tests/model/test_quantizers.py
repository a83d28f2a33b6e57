"""Quantizers keep the contract of rectoolkit/model/quantizers/base.py: every name, every allowed bit width."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal, get_origin

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rectoolkit.recipe.registry import quantizers
from rectoolkit.search.codes import CodeTable, PackedTable

NAMES = quantizers.names()
TRAINED = [name for name in NAMES if quantizers.schema(name).trained]
AFTER = [name for name in NAMES if not quantizers.schema(name).trained and name != "float32"]
SUPPLY = ("dim", "segments", "generator")
AWKWARD = (1, 7, 64, 97)
CHEAP = {"itq": {"iterations": 4}}  # what the contract does not hang on


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors of a few thousand elements: threads cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def bounds_of(name: str, setting: str) -> dict[str, Any]:
    found = quantizers.schema(name).model_fields[setting].metadata
    return {side: getattr(m, side) for m in found for side in ("ge", "gt", "le", "lt") if hasattr(m, side)}


def widths_of_code(name: str) -> list[int]:
    """The bit widths that a method allows; 0 stands for a method without codes."""
    if "bits" not in quantizers.schema(name).model_fields:
        return [0]
    bounds = bounds_of(name, "bits")
    return list(range(bounds["ge"], bounds["le"] + 1))


CASES = [(name, bits) for name in NAMES for bits in widths_of_code(name)]
WIDE = [name for name in NAMES if widths_of_code(name)[-1] == 8]


def make(name: str, segments: tuple[int, ...] = (7,), seed: int = 0, **written: Any) -> Any:
    written = {**CHEAP.get(name, {}), **written}
    filled, faults = quantizers.check(name, {k: v for k, v in written.items() if v}, "quantizer")
    assert not faults
    supply = {"dim": sum(segments), "segments": segments, "generator": torch.Generator().manual_seed(seed)}
    return quantizers.build(name, filled, supply)


def rows(number: int, dim: int, seed: int = 0, size: float = 0.1) -> torch.Tensor:
    return torch.randn(number, dim, generator=torch.Generator().manual_seed(seed)) * size


def live(quantizer: Any, x: torch.Tensor, steps: int = 3) -> Any:
    """The life of a quantizer: calibrated, trained on batches, finished; in eval mode after it."""
    quantizer.train()
    quantizer.calibrate(x)
    for step in range(steps):
        quantizer.progress = step / steps
        quantizer(x * (1 + 0.1 * step))
    quantizer.progress = 1.0
    quantizer.eval()
    quantizer.finish(x, torch.cat([x, 0.9 * x]))
    return quantizer


def decoded(quantizer: Any, x: torch.Tensor) -> np.ndarray:
    table = quantizer.encode(x)
    return table.decode() if isinstance(table, CodeTable) else table


@st.composite
def partitions(draw: st.DrawFn) -> tuple[int, ...]:
    """An awkward width, cut into one to four segments, even or uneven."""
    width = draw(st.sampled_from(AWKWARD))
    cuts = draw(st.sets(st.integers(1, max(1, width - 1)), max_size=min(3, width - 1)))
    ends = [0, *sorted(cuts), width]
    return tuple(b - a for a, b in pairwise(ends))


@pytest.mark.parametrize(("name", "bits"), CASES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(partitions(), st.integers(1, 20), st.integers(0, 99), st.sampled_from([1e-3, 0.1, 1.0, 30.0]))
def test_forward_equals_the_decoded_codes_bit_for_bit(name, bits, segments, number, seed, size):
    x = rows(number, sum(segments), seed, size)
    quantizer = live(make(name, segments, seed, bits=bits), x)
    for batch in (x, rows(5, sum(segments), seed + 1, 2 * size)):
        values, table = quantizer(batch).detach().numpy(), quantizer.encode(batch)
        np.testing.assert_array_equal(values, decoded(quantizer, batch))
        assert np.isfinite(values).all()
        if bits:
            assert (table.bits, table.dim) == (bits, quantizer.width)
            np.testing.assert_array_equal(PackedTable.pack(table).unpack().codes, table.codes)


@pytest.mark.parametrize("segments", [(8,), (4, 4), (5, 1, 2)], ids=str)
@pytest.mark.parametrize(("name", "bits"), [(n, b) for n, b in CASES if b in (0, 1, 2, 8)])
def test_gradients_reach_the_input_and_every_parameter(name, bits, segments):
    quantizer = make(name, segments, bits=bits)
    x = rows(50, 8).requires_grad_()
    quantizer.calibrate(x.detach())
    quantizer.progress = 0.5
    value = quantizer.train()(x)
    (value * rows(50, quantizer.width, seed=1)).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert (x.grad != 0).float().mean() > 0.8  # what is clipped has none
    for parameter_name, parameter in quantizer.named_parameters():
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert (parameter.grad != 0).all(), parameter_name


@pytest.mark.parametrize("segments", [(7,), (5, 1, 2)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_state_goes_over_into_a_fresh_instance(name, segments):
    x = rows(30, sum(segments))
    old, new = live(make(name, segments), x), make(name, segments, seed=5)
    new.load_state_dict(old.state_dict())
    for mode in (False, True):  # in train mode the draws must go on alike
        for quantizer in (old, new):
            quantizer.train(mode)
            quantizer.progress = 0.4
        torch.testing.assert_close(new(x), old(x), rtol=0, atol=0)


MIXING = [(name, {}) for name in NAMES] + [(name, {"hash_layer": True}) for name in ("ste", "gste")]


@pytest.mark.parametrize("segments", [(12,), (8, 4)], ids=str)
@pytest.mark.parametrize(("name", "written"), MIXING)
def test_mixed_dims_and_training_are_declared(name, written, segments):
    """A change of one dim of a row shows in other dims of what is coded, or it does not, as the settings say."""
    x = rows(60, 12)
    quantizer, settings = make(name, segments, **written), quantizers.settings({"name": name, **written})
    quantizer.calibrate(x)
    assert (quantizer.train()(x) is x) == (not settings.trained)
    live(quantizer, x)
    changed = x.clone()
    changed[:, 3] += 0.05
    moved = (quantizer.target(changed) != quantizer.target(x)).any(0)
    assert moved[3]
    assert bool(moved[torch.arange(12) != 3].any()) == settings.mixes_dims()


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_changes_nothing(name):
    x = rows(30, 7)
    quantizer = live(make(name), x)
    before = {key: value.clone() for key, value in quantizer.state_dict().items()}
    other = 5 * rows(20, 7, seed=1)
    quantizer(other)
    quantizer.encode(other)
    quantizer.diagnostics(other)
    for key, value in quantizer.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_the_generator_decides_every_draw(name):
    x = rows(30, 7)
    outputs = [live(make(name, seed=seed), x).train()(x).detach() for seed in (3, 3)]
    assert torch.equal(*outputs)


@pytest.mark.parametrize("name", [n for n in NAMES if "generator" in quantizers.needs(n) and n not in AFTER])
def test_another_generator_draws_otherwise(name):
    x = rows(30, 7)
    drawing = {"hash_layer": True} if "hash_layer" in quantizers.schema(name).model_fields else {}
    assert not torch.equal(*[live(make(name, seed=seed, **drawing), x).eval()(x) for seed in (3, 4)])


@pytest.mark.parametrize("name", NAMES)
def test_a_run_can_supply_what_is_asked(name):
    assert set(quantizers.needs(name)) <= set(SUPPLY)


OUTSIDE = [
    (name, setting, wrong)
    for name in NAMES
    for setting in quantizers.schema(name).model_fields
    for side, bound in bounds_of(name, setting).items()
    for wrong in [{"ge": bound - 1, "gt": bound, "le": bound + 1, "lt": bound}[side]]
]


@pytest.mark.parametrize(("name", "setting", "wrong"), OUTSIDE)
def test_a_setting_outside_its_bounds_is_refused(name, setting, wrong):
    _, faults = quantizers.check(name, {setting: wrong}, "quantizer")
    assert [fault.where for fault in faults] == [f"quantizer.{setting}"]
    assert repr(wrong) in faults[0].message


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_bounded_described_and_have_defaults_that_toml_can_write(name):
    for setting, info in quantizers.schema(name).model_fields.items():
        assert info.description, setting
        assert isinstance(info.default, (bool, int, float, str)), setting
        if get_origin(info.annotation) is Literal:
            assert quantizers.check(name, {setting: "elsewhere"}, "quantizer")[1]
        elif info.annotation in (int, float):
            assert {"ge", "gt"} & set(bounds_of(name, setting)), setting


@pytest.mark.parametrize("name", [n for n in NAMES if widths_of_code(n) == [1]])
def test_a_method_of_one_bit_says_so(name):
    (fault,) = quantizers.check(name, {"bits": 4}, "quantizer")[1]
    assert "one bit" in fault.message
    assert "gste" in fault.message


@pytest.mark.parametrize("x", [torch.zeros(4, 7), torch.full((4, 7), 0.3), rows(1, 7)], ids=["zeros", "even", "one"])
@pytest.mark.parametrize(("name", "bits"), [(n, b) for n, b in CASES if b in (0, 1, 2, 8)])
def test_rows_without_spread_give_finite_codes_values_and_gradients(name, bits, x):
    quantizer = live(make(name, (3, 4), bits=bits), x)
    assert np.isfinite(decoded(quantizer, x)).all()
    assert all(np.isfinite(v) for v in quantizer.diagnostics(x).values())
    x = x.clone().requires_grad_()
    quantizer.train()(x).sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize(("name", "bits"), CASES)
def test_rows_far_from_those_of_training_keep_to_the_codes(name, bits):
    quantizer = live(make(name, (3, 4), bits=bits), rows(20, 7))
    for far in (1e-20, 1e4, 1e15):
        assert np.isfinite(decoded(quantizer, rows(20, 7, seed=1, size=far))).all()  # CodeTable checks the range


@pytest.mark.parametrize("name", WIDE)
def test_more_bits_come_closer(name):
    x = rows(400, 32)
    errors = [live(make(name, (32,), bits=bits), x).diagnostics(x)["quantization_error"] for bits in (2, 4, 6, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.003


@pytest.mark.parametrize(("name", "bits"), [(n, b) for n, b in CASES if b])
def test_diagnostics_agree_with_a_count_by_hand(name, bits):
    x = rows(40, 8)
    quantizer = live(make(name, (5, 3), bits=bits), x)
    facts, codes = quantizer.diagnostics(x), quantizer.encode(x).codes
    entropy, dead = 0.0, 0
    for column in codes.T:
        shares = np.unique(column, return_counts=True)[1] / len(column)
        entropy += float(-(shares * np.log2(shares)).sum()) / codes.shape[1]
        dead += len(shares) == 1
    assert facts["entropy"] == pytest.approx(entropy, abs=1e-5)
    assert facts["entropy"] <= bits
    assert facts["dead"] == pytest.approx(dead / codes.shape[1])
    target, values = quantizer.target(x).detach().numpy(), decoded(quantizer, x)
    error = ((values - target) ** 2).mean() / (target**2).mean()
    assert facts["quantization_error"] == pytest.approx(error, rel=1e-4)


def test_segments_have_grids_of_their_own():
    x = torch.cat([rows(60, 4), 100 * rows(60, 4, seed=1)], dim=1)
    for name in ("ste", "gste", "lsq", "pact", "dorefa", "round", "bigear"):
        table = live(make(name, (4, 4), bits=1), x).encode(x)
        if name != "dorefa":  # beyond one bit its values end at 1 whatever the rows are
            assert (table.scale[:, 1] > 10 * table.scale[:, 0]).all(), name
        assert table.segments == (4, 4)


BFLOAT16 = 2.0**-8  # the most that rounding to it takes from or adds to a number, relative to it
BY_ROW = [(name, bits) for name, bits in CASES if "scale" in quantizers.schema(name).model_fields]


@pytest.mark.parametrize(("name", "bits"), BY_ROW)
def test_a_row_with_a_scale_of_its_own_keeps_its_codes_at_any_length(name, bits):
    x = rows(60, 12)
    sizes = torch.logspace(-3, 3, 60)[:, None]
    quantizer = live(make(name, (8, 4), bits=bits, scale="row"), x)
    table, longer = quantizer.encode(x), quantizer.encode(x * sizes)
    assert table.scale.shape == (60, len(table.segments))
    assert (table.codes == longer.codes).mean() > 0.999  # a value on the border of two codes may round either way
    np.testing.assert_allclose(longer.scale, table.scale * sizes.numpy(), rtol=2 * BFLOAT16)
    assert PackedTable.pack(table).halved
    np.testing.assert_array_equal(quantizer(x).detach().numpy(), table.decode())
    assert np.isfinite(quantizer.encode(torch.zeros(3, 12)).decode()).all()


@pytest.mark.parametrize("name", ["ste", "gste", "round"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_rows_with_scales_keep_their_length_along_themselves(name, bits):
    """So that no user's score of an item errs by the item's length."""
    x = rows(60, 64) * torch.logspace(-2, 2, 60)[:, None]
    table = live(make(name, (64,), bits=bits, scale="row"), x).encode(x)
    along = (table.decode() * x.numpy()).sum(1) / x.square().sum(1).numpy()
    np.testing.assert_allclose(along, 1, atol=BFLOAT16)


@pytest.mark.parametrize("name", ["ste", "gste"])
@pytest.mark.parametrize("scale", ["table", "row"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_behind_a_hash_layer_are_its_values(name, scale, bits):
    x = rows(60, 12)
    quantizer = live(make(name, (8, 4), bits=bits, hash_layer=True, guidance=0.5, scale=scale), x)
    table = quantizer.encode(x)
    assert table.segments == (12,)
    np.testing.assert_array_equal(quantizer(x).detach().numpy(), PackedTable.pack(table).unpack().decode())
    assert quantizer.diagnostics(x)["quantization_error"] < (1.5 if bits == 1 else 0.3)


@pytest.mark.parametrize("name", ["ste", "gste"])
def test_guidance_lets_ever_fewer_rows_in_uncoded(name):
    x, shares = rows(2000, 6), []
    quantizer = make(name, (6,), bits=2, guidance=0.5)
    quantizer.calibrate(x)
    for quantizer.progress in (0.0, 0.25, 0.5, 1.0):
        values = quantizer.train()(x)
        codes = quantizer.eval()(x)
        whole = (values == codes).all(dim=1)
        assert ((values == x).all(dim=1) | whole).all()
        shares.append(float(whole.double().mean()))
    assert shares == pytest.approx([0, 0.5, 1, 1], abs=0.05)


def test_one_bit_behind_a_hash_layer_is_hashgnn():
    x, upstream = rows(40, 6, size=1.0), rows(40, 6, seed=1)
    ours, theirs = make("ste", (6,), bits=1, hash_layer=True, momentum=0.999), make("hashgnn", (6,), ramp=0.01)
    for quantizer in (ours, theirs):
        quantizer.train().calibrate(x)
        quantizer.progress = 1.0
    ours.momentum = 1.0
    ours.low.fill_(-1)
    ours.high.fill_(1)
    results = []
    for quantizer in (ours, theirs):
        leaf = x.clone().requires_grad_()
        values = quantizer(leaf)
        values.backward(upstream)
        results.append((values.detach(), leaf.grad, quantizer.layer.weight.grad))
    for mine, its in zip(*results, strict=True):
        torch.testing.assert_close(mine, its)


def test_a_row_keeps_the_gradient_of_its_length():
    x = rows(30, 64).requires_grad_()
    quantizer = make("ste", (64,), bits=2, scale="row", deviations=1.5, extent="deviation")
    quantizer.calibrate(x)
    quantizer(x).square().sum().backward()
    along = (x.grad * x.detach()).sum(1)
    assert (along > 0).all()
    values = quantizer.eval()(x.detach()).detach()
    assert torch.equal(quantizer(2 * x.detach()), 2 * values)  # of the first order, so by Euler <x, dL/dx> = 2 L
    torch.testing.assert_close(along, 2 * values.square().sum(1), rtol=0.01, atol=0)


@pytest.mark.parametrize("name", AFTER)
def test_methods_after_training_leave_training_alone_and_forget_earlier_visits(name):
    x, other = rows(50, 7), 3 * rows(50, 7, seed=1)
    quantizer = make(name)
    assert quantizer.train()(x) is x
    once = live(make(name), x, steps=0)(x)
    quantizer.eval()
    for seen in (other, x):
        quantizer.finish(seen, torch.cat([seen, 0.9 * seen]))
    assert torch.equal(quantizer(x), once)


@pytest.mark.parametrize("name", ["rotate_sign", "itq"])
@pytest.mark.parametrize("scale", ["table", "row"])
def test_both_sides_share_one_rotation(name, scale):
    users, items = rows(300, 16), 2 * rows(200, 16, seed=1)
    both = torch.cat([users, items])
    sides = [make(name, (16,), scale=scale) for _ in range(2)]
    for side, own in zip(sides, (users, items), strict=True):
        side.eval().finish(own, both)
    assert torch.equal(sides[0].rotation, sides[1].rotation)
    identity = sides[0].rotation @ sides[0].rotation.T
    torch.testing.assert_close(identity, torch.eye(16), rtol=0, atol=1e-5)
    scores, coded = users @ items.T, sides[0](users) @ sides[1](items).T
    correlation = np.corrcoef(scores.flatten(), coded.flatten())[0, 1]
    assert correlation > 0.55  # signs of Gaussian rows keep 2 / pi of it
    assert sides[0].encode(users).scale.shape == ((300, 1) if scale == "row" else (1, 1))


def test_itq_turns_rows_nearer_to_the_corners_than_chance():
    planted = torch.where(rows(500, 16) >= 0, 1.0, -1.0) @ torch.linalg.qr(rows(16, 16, seed=1))[0]
    fitted, random = make("itq", (16,), iterations=50), make("rotate_sign", (16,))
    errors = [live(quantizer, planted).diagnostics(planted)["quantization_error"] for quantizer in (fitted, random)]
    assert errors[0] < 0.7 * errors[1]


def test_itq_on_a_sample_stays_near_itq_on_all():
    x = rows(2000, 8) * torch.linspace(0.2, 2, 8)
    fits = [live(make("itq", (8,), rows=number, iterations=50), x) for number in (300, 9999)]
    few, every = (fit.diagnostics(x)["quantization_error"] for fit in fits)
    assert few == pytest.approx(every, rel=0.05)


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_steps_for_a_gaussian_are_the_best(bits):
    from rectoolkit.model.quantizers.rotate_sign import GAUSSIAN_STEPS

    points = np.linspace(-8, 8, 160_001)
    weight = np.exp(-(points**2) / 2)
    half = 2 ** (bits - 1)

    def error(step: float) -> float:
        values = (np.clip(np.floor(points / step), -half, half - 1) + 0.5) * step
        return float((weight * (values - points) ** 2).sum())

    best = error(GAUSSIAN_STEPS[bits - 1])
    assert best < min(error(GAUSSIAN_STEPS[bits - 1] * factor) for factor in (0.985, 1.015))


def test_round_lays_its_bounds_at_percentiles_of_each_segment():
    x = torch.stack([torch.arange(1001.0), -10 * torch.arange(1001.0)], dim=1)
    quantizer = live(make("round", (1, 1), extent="percentile", percentile=90.0), x)
    torch.testing.assert_close(quantizer.low, torch.tensor([[50.0, -9500.0]]))
    torch.testing.assert_close(quantizer.high, torch.tensor([[950.0, -500.0]]))
    assert quantizer.diagnostics(x)["clipped"] == pytest.approx(0.1, abs=0.01)


def test_averaged_bounds_follow_the_rows_of_training_only():
    x = rows(40, 6)
    quantizer = make("ste", (6,), momentum=0.9)
    quantizer.calibrate(x)
    low = float(x.min())
    quantizer.train()(3 * x)
    assert float(quantizer.low) == pytest.approx(0.9 * low + 0.1 * 3 * low)
    before = quantizer.low.clone()
    quantizer.eval()(9 * x)
    assert torch.equal(before, quantizer.low)


@pytest.mark.parametrize(("bits", "reach"), [(1, lambda x: x.abs().mean()), (4, lambda x: x.abs().max().tanh())])
def test_dorefas_range_follows_the_rows_of_training(bits, reach):
    x = rows(40, 6)
    quantizer = make("dorefa", (6,), bits=bits, momentum=0.9)
    quantizer.calibrate(x)
    quantizer.train()(3 * x)
    assert float(quantizer.reach) == pytest.approx(float(0.9 * reach(x) + 0.1 * reach(3 * x)), rel=1e-5)


def test_bounds_at_deviations_stand_around_the_mean():
    x = rows(500, 6) + 2
    quantizer = make("ste", (6,), extent="deviation", deviations=2.0)
    quantizer.calibrate(x)
    assert float(quantizer.low) == pytest.approx(float(x.mean() - 2 * x.std(correction=0)), rel=1e-5)
    assert float(quantizer.high) == pytest.approx(float(x.mean() + 2 * x.std(correction=0)), rel=1e-5)


@pytest.mark.parametrize("name", ["ste", "gste"])
def test_learned_bounds_that_cross_give_finite_codes(name):
    x = rows(40, 6)
    quantizer = make(name, (6,), bits=3, bounds="learned")
    with torch.no_grad():
        quantizer.low.fill_(0.2)
        quantizer.high.fill_(-0.2)
    assert np.isfinite(decoded(quantizer.eval(), x)).all()


@pytest.mark.parametrize("name", ["bigear", "bgch"])
def test_methods_by_layer_refuse_an_encoder_that_merges_its_layers(name):
    encoder = {"name": "lightgcn", "layers": 3, "combine": "mean"}
    misfits = quantizers.schema(name)().misfits
    (fault,) = misfits({"encoder": encoder})
    assert fault.where == "encoder.combine"
    assert "write combine = 'concat'" in fault.message
    assert misfits({"encoder": {**encoder, "combine": "concat"}}) == []
    (fault,) = misfits({"encoder": {**encoder, "combine": "concat", "layers": 0}})
    assert fault.where == "encoder.layers"
    (fault,) = misfits({"encoder": {"name": "mf", "dim": 64}})
    assert fault.where == "encoder.name"
    assert "lightgcn" in fault.message


def test_gste_refuses_the_closed_form_of_a_loss_without_one():
    settings = quantizers.schema("gste")(curvature="exact")
    (fault,) = settings.misfits({"loss": {"name": "hinge"}})
    assert fault.where == "quantizer.curvature"
    assert "'hutchinson'" in fault.message
    assert settings.misfits({"loss": {"name": "bpr"}}) == []


def test_hashgnn_makes_codes_of_its_own_width():
    x = rows(30, 10)
    quantizer = live(make("hashgnn", (10,), width=32), x)
    assert quantizer.width == 32
    assert quantizer.encode(x).codes.shape == (30, 32)
    assert quantizer(x).shape == (30, 32)
