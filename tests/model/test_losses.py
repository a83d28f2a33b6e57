"""Losses: what every one must do (by registry), formulas written out, curvature against the dense Hessian."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rectoolkit.data import Interactions
from rectoolkit.errors import UserError
from rectoolkit.model.losses.base import Loss, Triple, Views
from rectoolkit.model.samplers.base import Batch
from rectoolkit.recipe.registry import losses

NAMES = losses.names()
CURVED = [name for name in NAMES if losses.schema(name).has_curvature]
USERS, ITEMS, DIM = 6, 9, 3
SHAPES = ["by row", "shared"]


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    draws = np.random.default_rng(5)
    np.save(tmp_path / "users.npy", draws.normal(size=(USERS, DIM)).astype(np.float32))
    np.save(tmp_path / "items.npy", draws.normal(size=(ITEMS, DIM)).astype(np.float32))
    return str(tmp_path)


def make(name: str, teacher: str = "", seed: int = 0, train: Interactions | None = None, **written: Any) -> Loss:
    if "teacher" in losses.schema(name).model_fields:
        written |= {"teacher": teacher}
    if name == "softmax_distill":
        written = {"own": 0.999, **written}  # all rows but the last are the batch's own
    filled, faults = losses.check(name, written, "loss")
    assert not faults
    return losses.build(name, filled, {"train": train or Interactions.from_pairs([0], [0], USERS, ITEMS), "seed": seed})


def batch_of(shape: str, size: int = 5, number: int = 4, **more: Any) -> Batch:
    draws = torch.Generator().manual_seed(2)
    users = torch.randint(USERS, (size,), generator=draws)
    positives = torch.randint(ITEMS, (size,), generator=draws)
    negatives = torch.randint(ITEMS, (number,) if shape == "shared" else (size, number), generator=draws)
    if shape == "shared":
        more = {"collisions": torch.tensor([[0, 0, 3], [1, 2, 0]]), **more}
    return Batch(users, positives, negatives, **more)


def ids_of(batch: Batch) -> tuple[torch.Tensor, ...]:
    return batch.users, batch.positives, batch.negatives


def views_of(batch: Batch, dtype: torch.dtype = torch.float64, scale: float = 1.0) -> Views:
    draws = torch.Generator().manual_seed(3)
    shapes = [(*ids.shape, DIM) for ids in (batch.users, batch.positives, batch.negatives)]
    rows = [(scale * torch.randn(shape, generator=draws, dtype=torch.float64)).to(dtype) for shape in shapes]
    triple = Triple(*(row.requires_grad_() for row in rows))
    return Views(triple, triple, triple, batch)


def shapes_of(name: str) -> list[str]:
    return {"distill": SHAPES[:1], "softmax_distill": SHAPES[1:]}.get(name, SHAPES)


EVERY = [(name, shape) for name in NAMES for shape in shapes_of(name)]


@pytest.mark.parametrize(("name", "shape"), EVERY)
class TestEveryLoss:
    def test_is_a_finite_scalar_with_gradients(self, name: str, shape: str, teacher: str) -> None:
        loss = make(name, teacher)
        views = views_of(loss.prepare(batch_of(shape)), torch.float32)
        value = loss(views)
        assert value.shape == ()
        assert value.isfinite()
        value.backward()
        for rows in (views.coded.users, views.coded.positives):
            assert rows.grad is not None
            assert rows.grad.isfinite().all()
            assert rows.grad.any(1).all()

    def test_extreme_scores_stay_finite(self, name: str, shape: str, teacher: str) -> None:
        loss = make(name, teacher)
        views = views_of(loss.prepare(batch_of(shape)), torch.float32, scale=100.0)
        value = loss(views)
        value.backward()
        assert value.isfinite()
        assert views.coded.users.grad.isfinite().all()

    def test_l2_adds_half_the_mean_squares_of_ego_rows(self, name: str, shape: str, teacher: str) -> None:
        loss, plain = make(name, teacher, l2=0.5), make(name, teacher, l2=0.0)
        plain.prepare(batch_of(shape))
        views = views_of(loss.prepare(batch_of(shape)))
        if name == "distill":
            sides = [views.ego.users, views.ego.positives, views.ego.negatives[:, :4]]
        elif name == "align_uniform":
            sides = [views.ego.users, views.ego.positives]
        else:
            sides = [views.ego.users, views.ego.positives, views.ego.negatives]
        lengths = sum(side.flatten(0, -2).norm(dim=1).square().mean() for side in sides)
        torch.testing.assert_close(loss(views) - plain(views), 0.25 * lengths)

    def test_ten_steps_raise_positives_over_negatives(self, name: str, shape: str, teacher: str) -> None:
        """The pairs of positives are disjoint from the negatives, so that no loss is asked for opposites."""
        loss = make(name, teacher, l2=0.0)
        torch.manual_seed(0)
        users, items = (torch.nn.Parameter(0.1 * torch.randn(number, DIM)) for number in (USERS, ITEMS))
        ids = torch.arange(USERS)
        negatives = (ids[:, None] + torch.tensor([1, 2])) % USERS if shape == "by row" else torch.tensor([6, 7, 8])
        batch = loss.prepare(Batch(ids, ids, negatives))
        optimizer = torch.optim.Adam([users, items], 0.05)

        def gap() -> float:
            scores = (users @ items.T).detach()
            against = scores[:, negatives] if shape == "shared" else scores.gather(1, negatives)
            return float(scores[ids, ids].mean() - against.mean())

        before = gap()
        for _ in range(10):
            triple = Triple(users[batch.users], items[batch.positives], items[batch.negatives])
            value = loss(Views(triple, triple, triple, batch))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        assert gap() > before + 0.05

    def test_settings_beyond_their_bounds_are_faults(self, name: str, shape: str, teacher: str) -> None:
        fields = losses.schema(name).model_fields
        bad = {"l2": -1.0, "temperature": 0.0, "margin": 0.0, "gamma": -1.0, "weight": -0.1, "top": 0, "draws": 0}
        bad |= {"negative_weight": 0.0, "decay": -1.0, "own": 1.1, "soft": -0.1, "teacher_temperature": 0.0}
        for key in fields.keys() & bad.keys():
            _, faults = losses.check(name, {key: bad[key]}, "loss")
            assert [fault.where for fault in faults] == [f"loss.{key}"]

    def test_state_goes_round(self, name: str, shape: str, teacher: str) -> None:
        loss, other = make(name, teacher), make(name, teacher)
        loss.prepare(batch_of(shape))
        other.load_state_dict(loss.state_dict())
        first, second = loss.prepare(batch_of(shape)), other.prepare(batch_of(shape))
        for one, two in zip(ids_of(first), ids_of(second), strict=True):
            assert torch.equal(one, two)

    def test_draws_follow_the_seed_of_the_run(self, name: str, shape: str, teacher: str) -> None:
        if "teacher" not in losses.schema(name).model_fields:
            pytest.skip("this loss draws nothing")
        more = {"own": 0.0} if name == "softmax_distill" else {}
        drawn = [ids_of(make(name, teacher, seed=seed, **more).prepare(batch_of(shape, size=50))) for seed in (1, 1, 2)]
        assert all(torch.equal(one, two) for one, two in zip(*drawn[:2], strict=True))
        assert not all(torch.equal(one, two) for one, two in zip(*drawn[1:], strict=True))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("align_uniform", "distill")])
def test_collisions_have_neither_value_nor_gradient(name: str) -> None:
    batch = batch_of("shared", collisions=torch.stack([torch.arange(5), torch.full((5,), 2)]))
    views = views_of(batch)
    loss = make(name, l2=0.0)
    value = loss(views)
    value.backward()
    assert not views.coded.negatives.grad[2].any()
    assert views.coded.negatives.grad[[0, 1, 3]].any(1).all()
    with torch.no_grad():
        views.coded.negatives[2] += 10
    torch.testing.assert_close(loss(views), value)


def hessian_diagonal(loss: Loss, views: Views, side: str, index: int) -> Tensor:
    """The exact diagonal by autograd's dense Hessian, of the shape of one tensor of a side."""
    parts = list(views.coded.side(side))  # type: ignore[arg-type]

    def value(rows: Tensor) -> Tensor:
        changed = [rows if at == index else part.detach() for at, part in enumerate(parts)]
        users, items = (changed, list(views.coded.side("items"))) if side == "users" else ([views.coded.users], changed)
        triple = Triple(
            users[0].detach() if side == "items" else users[0], *(x if side == "items" else x.detach() for x in items)
        )
        return loss.rank(Views(triple, triple, triple, views.batch))

    rows = parts[index].detach()
    matrix = torch.autograd.functional.hessian(value, rows).reshape(rows.numel(), rows.numel())
    return matrix.diagonal().reshape(rows.shape)


@pytest.mark.parametrize("odds", [False, True])
@pytest.mark.parametrize("side", ["users", "items"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", CURVED)
def test_curvature_is_the_diagonal_of_the_hessian(name: str, shape: str, side: Any, odds: bool) -> None:
    loss = make(name, **({"temperature": 0.7} if name == "softmax" else {}))
    batch = batch_of(shape)
    if odds:
        batch = batch_of(
            shape, log_odds=torch.linspace(-1, 1, batch.negatives.numel()).double().view_as(batch.negatives)
        )
    views = views_of(batch)
    diagonals = [hessian_diagonal(loss, views, side, index) for index in range(len(views.coded.side(side)))]
    draws = torch.Generator().manual_seed(7)
    for weights in (None, tuple(torch.rand(one.shape[:-1], generator=draws, dtype=one.dtype) for one in diagonals)):
        expected = sum(
            (one * weight[..., None]).reshape(-1, DIM).sum(0)
            for one, weight in zip(diagonals, weights or [torch.ones(1)] * len(diagonals), strict=True)
        )
        torch.testing.assert_close(loss.curvature(views, side, weights), expected)
        assert loss.curvature(views, side, weights).shape == (DIM,)


@pytest.mark.parametrize("name", CURVED)
def test_curvature_by_finite_differences(name: str) -> None:
    loss, step = make(name), 1e-4
    views = views_of(batch_of("by row"))
    total = 0.0
    for row in range(5):
        for dim in range(DIM):
            values = []
            for shift in (-step, 0.0, step):
                users = views.coded.users.detach().clone()
                users[row, dim] += shift
                triple = Triple(users, views.coded.positives.detach(), views.coded.negatives.detach())
                values.append(loss.rank(Views(triple, triple, triple, views.batch)))
            total += float(values[0] - 2 * values[1] + values[2]) / step**2
    assert float(loss.curvature(views, "users").sum()) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("block", [1, 8, 2**18])
@pytest.mark.parametrize("odds", [False, True])
def test_softmax_over_shared_negatives_is_the_plain_formula(
    block: int, odds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rectoolkit.model.losses.fused.BLOCK", block)
    more = {"log_odds": torch.tensor([0.5, -1.0, 2.0, 0.0])} if odds else {}
    views = views_of(batch_of("shared", **more))
    rows = views.coded.users, views.coded.positives, views.coded.negatives
    positives, negatives = views.scores()
    negatives = negatives / 0.4 - (more["log_odds"] if odds else 0)
    plain = (torch.logaddexp(positives / 0.4, negatives.logsumexp(1)) - positives / 0.4).mean()
    fused = make("softmax", l2=0.0, temperature=0.4)(views)
    torch.testing.assert_close(fused, plain)
    for got, want in zip(torch.autograd.grad(3 * fused, rows), torch.autograd.grad(3 * plain, rows), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("soft", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("odds", [False, True])
def test_soft_targets_are_the_teachers_chances(
    soft: float, odds: bool, teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Value, gradients and second derivatives are those of the cross-entropy written out, block by block or whole."""
    monkeypatch.setattr("rectoolkit.model.losses.fused.BLOCK", 8)
    more = {"log_odds": torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)} if odds else {}
    loss = make("softmax_distill", teacher, own=1.0, soft=soft, temperature=0.4, teacher_temperature=0.7)
    views = views_of(loss.prepare(batch_of("shared", **more)))
    batch, rows = views.batch, (views.coded.users, views.coded.positives, views.coded.negatives)

    def logits(positives: Tensor, negatives: Tensor, temperature: float) -> Tensor:
        negatives = negatives / temperature - (more["log_odds"] if odds else 0)
        negatives = negatives.index_put(tuple(batch.collisions), torch.tensor(-1e9, dtype=negatives.dtype))
        return torch.cat([positives[:, None] / temperature, negatives], 1)

    users, items = (torch.from_numpy(np.load(f"{teacher}/{side}.npy")).double() for side in ("users", "items"))
    theirs = Triple(users[batch.users], items[batch.positives], items[batch.negatives])
    targets = soft * torch.softmax(logits(theirs.positive_scores(), theirs.negative_scores(), 0.7), 1)
    targets[:, 0] += 1 - soft
    plain = -(targets * torch.log_softmax(logits(*views.scores(), 0.4), 1)).sum(1).mean()
    fused = loss.rank(views)
    torch.testing.assert_close(fused, plain)
    first, expected = (torch.autograd.grad(value, rows, create_graph=True) for value in (fused, plain))
    weights = [torch.linspace(-1, 1, row.numel(), dtype=row.dtype).view_as(row) for row in rows]
    second, wanted = (torch.autograd.grad(gradients, rows, weights) for gradients in (first, expected))
    once = torch.autograd.grad(loss.rank(views), rows)
    for got, want in zip((*first, *second, *once), (*expected, *wanted, *expected), strict=True):
        torch.testing.assert_close(got, want)


def test_a_teacher_with_nothing_to_say_is_a_fault(teacher: str) -> None:
    def misfits(**written: float) -> list[str]:
        settings = losses.schema("softmax_distill")(teacher=teacher, **written)
        return [fault.where for fault in settings.misfits({"sampler": {"name": "shared"}})]

    assert misfits(own=1.0, soft=0.0) == ["loss.soft"]
    assert misfits(own=1.0, soft=0.1) == misfits(own=0.9, soft=0.0) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_curvature_is_declared_where_there_is_one(name: str) -> None:
    assert losses.schema(name).has_curvature == (losses[name].curvature is not Loss.curvature)


def test_which_losses_have_a_curvature() -> None:
    assert CURVED == ["bce", "bpr", "hashgnn", "softmax", "softmax_distill"]
    with pytest.raises(NotImplementedError, match="Hinge has no closed form"):
        make("hinge").curvature(views_of(batch_of("by row")), "users")


def by_hand(views: Views) -> tuple[list[float], list[list[float]]]:
    """Scores by loops: positives, and negatives without collisions."""
    triple, collisions = Triple(*(x.detach() for x in vars(views.coded).values())), set()
    if views.batch.collisions is not None:
        collisions = set(map(tuple, views.batch.collisions.T.tolist()))
    positives, negatives = [], []
    for row, user in enumerate(triple.users):
        own = triple.negatives if triple.negatives.dim() == 2 else triple.negatives[row]
        positives.append(float(user @ triple.positives[row]))
        negatives.append([float(user @ j) for column, j in enumerate(own) if (row, column) not in collisions])
    return positives, negatives


@pytest.mark.parametrize("shape", SHAPES)
def test_formulas(shape: str) -> None:
    views = views_of(batch_of(shape))
    positives, negatives = by_hand(views)
    rows, count = list(zip(positives, negatives, strict=True)), 5 * 4
    bpr = sum(np.log1p(np.exp(j - i)) for i, js in rows for j in js) / count
    hinge = sum(max(0.0, 0.5 + j - i) for i, js in rows for j in js) / count
    bce = sum(np.log1p(np.exp(-i)) for i in positives) / 5
    bce += 2 * sum(np.log1p(np.exp(j)) for js in negatives for j in js) / count
    softmax = sum(-i / 0.3 + np.log(sum(np.exp(s / 0.3) for s in [i, *js])) for i, js in rows) / 5
    entropy = float(make("bce").rank(views).detach())
    for name, written, expected in [
        ("bpr", {}, bpr),
        ("hinge", {"margin": 0.5}, hinge),
        ("bce", {"negative_weight": 2.0}, bce),
        ("softmax", {"temperature": 0.3}, softmax),
        ("hashgnn", {"weight": 0.2}, bpr + 0.2 * entropy),
    ]:
        assert float(make(name, **written).rank(views).detach()) == pytest.approx(expected, rel=1e-9), name


def test_softmax_corrects_for_odds() -> None:
    """A negative drawn twice as often as evenly, and thus there twice, weighs as much as one drawn evenly."""
    plain, loss = make("softmax", temperature=0.5, correct=False), make("softmax", temperature=0.5)
    one = views_of(Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([[3]])), scale=0.5)
    doubled = one.coded.negatives.expand(1, 2, DIM)
    triple = Triple(one.coded.users, one.coded.positives, doubled)
    batch = Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([[3, 3]]), log_odds=torch.full((1, 2), 2.0).log())
    torch.testing.assert_close(loss.rank(Views(triple, triple, triple, batch)), plain.rank(one))


def test_align_uniform_by_loops() -> None:
    views = views_of(batch_of("by row"))
    users, items = (
        (rows / rows.norm(dim=1, keepdim=True)).detach() for rows in (views.coded.users, views.coded.positives)
    )
    align = sum(float((u - i).square().sum()) for u, i in zip(users, items, strict=True)) / 5
    spread = []
    for rows in (users, items):
        terms = [float(torch.exp(-2 * (rows[a] - rows[b]).square().sum())) for a in range(5) for b in range(a)]
        spread.append(np.log(np.mean(terms)))
    assert float(make("align_uniform", gamma=0.7).rank(views).detach()) == pytest.approx(
        align + 0.7 * np.mean(spread), rel=1e-9
    )


def test_hardest_keeps_the_best_of_each_group() -> None:
    views = views_of(batch_of("by row", number=6, best_of=3))
    kept = views.hardest()
    scores = views.coded.negative_scores().view(5, 2, 3)
    torch.testing.assert_close(kept.coded.negative_scores(), scores.max(2).values)
    assert kept.batch.negatives.shape == (5, 2)
    for triple, before in ((kept.coded, views.coded), (kept.ego, views.ego)):
        for row in range(5):
            for group in range(2):
                column = 3 * group + int(scores[row, group].argmax())
                assert torch.equal(triple.negatives[row, group], before.negatives[row, column])
                assert kept.batch.negatives[row, group] == views.batch.negatives[row, column]
    plain = views_of(batch_of("by row"))
    assert plain.hardest() is plain


def test_distill_in_expectation_is_the_sum_over_the_list(teacher: str) -> None:
    loss = make("distill", teacher, top=4, draws=400, weight=0.5, decay=0.3)
    views = views_of(loss.prepare(batch_of("by row", size=40)))
    scores = np.load(f"{teacher}/users.npy") @ np.load(f"{teacher}/items.npy").T
    best = np.argsort(-scores, 1)[:, :4]
    taught = views.batch.negatives[:, 4:].numpy()
    assert taught.shape == (40, 400)
    weights = np.exp(-0.3 * np.arange(1, 5))
    for rank in range(4):
        share = (taught == best[views.batch.users, rank][:, None]).mean()
        assert share == pytest.approx(weights[rank] / weights.sum(), abs=0.02)
    own = Triple(views.coded.users, views.coded.positives, views.coded.negatives[:, :4])
    softplus = torch.nn.functional.softplus(-torch.einsum("bd,bkd->bk", own.users, views.coded.negatives[:, 4:]))
    expected = make("bpr").rank(Views(own, own, own, views.batch)) + 0.5 * weights.sum() * softplus.mean()
    torch.testing.assert_close(loss.rank(views), expected)


def test_distill_refuses_a_teacher_that_is_not_there(tmp_path: Path, teacher: str) -> None:
    def misfits(folder: str, sampler: str = "uniform") -> list[str]:
        settings = losses.schema("distill")(teacher=folder)
        return [str(fault) for fault in settings.misfits({"sampler": {"name": sampler}})]

    assert misfits(teacher) == []
    assert misfits("")[0].startswith("loss.teacher: needs the recipe of a float32 model")
    assert misfits(teacher, "shared")[0].startswith("sampler.name: ")
    with pytest.raises(UserError, match=r"loss\.teacher: .*no such file"):
        make("distill", str(tmp_path / "elsewhere")).prepare(batch_of("by row"))
    np.save(Path(teacher) / "users.npy", np.zeros((USERS + 1, DIM), np.float32))
    with pytest.raises(UserError, match="trained on the same data"):
        make("distill", teacher).prepare(batch_of("by row"))


def test_softmax_distill_draws_unseen_items_of_the_list_by_their_odds(teacher: str) -> None:
    pairs = [0, 0, 1, 2, 3], [2, 5, 0, 1, 7]  # no more users: the teacher knows nothing of those without train
    train = Interactions.from_pairs(*pairs, USERS, ITEMS)
    loss = make("softmax_distill", teacher, train=train, own=0.0, top=4, decay=0.5)
    batch = loss.prepare(batch_of("shared", size=60_000))
    scores = np.load(f"{teacher}/users.npy") @ np.load(f"{teacher}/items.npy").T
    scores[pairs] = -np.inf
    odds = np.exp(-0.5 * np.arange(4))
    assert set(batch.users.tolist()) == set(pairs[0])
    for user, best in enumerate(np.argsort(-scores, axis=1)[:4, :4]):
        drawn = batch.positives[batch.users == user].numpy()
        assert len(drawn) == pytest.approx(60_000 / 4, rel=0.05)
        np.testing.assert_allclose([(drawn == item).mean() for item in best], odds / odds.sum(), atol=0.02)
    assert batch.collisions.shape == (2, 0)  # they were of rows that are drawn anew


def test_a_list_that_runs_out_repeats_its_best(teacher: str) -> None:
    left = 2
    train = Interactions.from_pairs([3] * (ITEMS - left), range(ITEMS - left), USERS, ITEMS)
    loss = make("softmax_distill", teacher, train=train, own=0.0, top=5)
    scores = (np.load(f"{teacher}/users.npy") @ np.load(f"{teacher}/items.npy").T)[3, -left:]
    best, other = ITEMS - left + np.argsort(-scores)
    assert loss.lists[3].tolist() == [best, other, best, best, best]


def test_a_teacher_with_nan_is_refused(teacher: str) -> None:
    np.save(Path(teacher) / "users.npy", np.full((USERS, DIM), np.nan, np.float32))
    with pytest.raises(UserError, match=r"loss\.teacher: .*NaN"):
        make("softmax_distill", teacher, own=0.0).prepare(batch_of("shared"))


def test_align_uniform_refuses_negatives() -> None:
    def misfits(sampler: dict[str, Any]) -> list[str]:
        return [fault.where for fault in losses.schema("align_uniform")().misfits({"sampler": sampler})]

    assert misfits({"name": "uniform", "negatives": 1}) == []
    assert misfits({"name": "uniform", "negatives": 2}) == ["sampler.negatives"]
    assert misfits({"name": "in_batch"}) == ["sampler.name"]
