"""Learning: every encoder with every trained quantizer finds the rule of the checkerboard; so does every loss.

Users like the items of their own parity, and the item of a user's own number is withheld. Of the items that a user
has not seen, only that one has the right parity: a model that has learned the rule ranks it first, before twenty of
the other parity, strictly (ties, which one bit makes often, count as failures). Rows are 4 wide: negatives are drawn
from the unseen, the withheld item among them, and wide rows learn that by heart (at 32 dims of ``mf`` under
``hashnet`` the rule held for half of the users only).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rectoolkit.data import Interactions
from rectoolkit.model.graph import BipartiteGraph
from rectoolkit.model.recommender import Parts, Recommender
from rectoolkit.recipe.registry import REGISTRIES, encoders, losses, quantizers, samplers
from rectoolkit.search.codes import CodeTable
from rectoolkit.training.loop import step

STEPS = 90


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors of 40 rows gain nothing from a second thread, and lose a factor of ten on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


WIDER: dict[str, dict[str, Any]] = {"graphsage": {"dim": 16}}  # of 4 hidden units, too many may never fire
ENCODERS: list[tuple[str, dict[str, Any]]] = [
    *((name, WIDER.get(name, {})) for name in encoders.names()),
    ("lightgcn", {"combine": "concat", "layers": 1}),
    ("graphsage", {"dim": 16, "user_ids": True}),
]
BITS = (1, 2, 8)


def filled(kind: str, name: str, **written: Any) -> dict[str, Any]:
    settings, faults = REGISTRIES[kind].check(name, written, kind)
    assert not faults, faults
    return {"name": name, **settings}


def takes(quantizer: str, bits: int) -> bool:
    return not quantizers.check(quantizer, {"bits": bits}, "quantizer")[1]


def misfits(recipe: dict[str, dict[str, Any]]) -> list[Any]:
    found = []
    for kind, section in recipe.items():
        found += REGISTRIES[kind].settings(section).misfits(recipe)
    return found


def train(recipe: dict[str, dict[str, Any]], board: Interactions, steps: int = STEPS, seed: int = 0) -> Recommender:
    def build(kind: str, **supply: Any) -> Any:
        section = dict(recipe[kind])
        return REGISTRIES[kind].build(section.pop("name"), section, supply)

    encoder = build("encoder", graph=BipartiteGraph(board), generator=torch.Generator().manual_seed(seed))
    sides = [
        build("quantizer", dim=encoder.dim, segments=encoder.segments, generator=torch.Generator().manual_seed(seed))
        for _ in range(2)
    ]
    model, loss = Recommender(encoder, *sides).train(), build("loss", train=board, seed=seed)
    parts = Parts(model, loss, build("sampler", train=board, generator=np.random.default_rng(seed)))
    model.calibrate()
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    done = 0
    while done < steps:
        for batch in parts.sampler:
            model.progress(done / steps)
            step(parts, optimizer, batch)
            done += 1
    model.progress(1.0)
    return model


def share_right(model: Recommender) -> float:
    """The share of users whose withheld item scores above every item of the other parity, by the decoded codes."""
    users, items = (
        (table.decode() if isinstance(table, CodeTable) else table).astype(np.float64)
        for table in model.tables(model.real())
    )
    scores = users @ items.T
    size = len(scores)
    other = (np.arange(size)[:, None] + np.arange(size)) % 2 == 1
    return float((scores.diagonal() > np.where(other, scores, -np.inf).max(1)).mean())


def recipe_of(**written: Any) -> dict[str, dict[str, Any]]:
    parts: dict[str, Any] = {
        "encoder": ("lightgcn", {}),
        "quantizer": ("float32", {}),
        "loss": ("bpr", {}),
        "sampler": ("uniform", {"batch": 256}),
    }
    parts |= written
    parts["encoder"] = (parts["encoder"][0], {"dim": 4, **parts["encoder"][1]})
    return {kind: filled(kind, name, **settings) for kind, (name, settings) in parts.items()}


PAIRS = [
    pytest.param(encoder, quantizer, bits, id=f"{encoder[0]}{list(encoder[1]) or ''}-{quantizer}-{bits}")
    for encoder in ENCODERS
    for quantizer in quantizers.names()
    for bits in BITS
    if quantizers.schema(quantizer).trained and takes(quantizer, bits)
]


@pytest.mark.parametrize(("encoder", "quantizer", "bits"), PAIRS)
def test_every_encoder_with_every_quantizer(
    checkerboard: Interactions, encoder: tuple[str, dict[str, Any]], quantizer: str, bits: int
) -> None:
    recipe = recipe_of(encoder=encoder, quantizer=(quantizer, {"bits": bits}))
    if misfits(recipe):
        pytest.skip(str(misfits(recipe)[0]))
    assert share_right(train(recipe, checkerboard)) == 1.0


@pytest.mark.parametrize("encoder", ENCODERS, ids=str)
def test_every_encoder_in_float32(checkerboard: Interactions, encoder: tuple[str, dict[str, Any]]) -> None:
    assert share_right(train(recipe_of(encoder=encoder), checkerboard)) == 1.0


def who_knows_the_rule(folder: Path) -> str:
    """A teacher's folder, whose rows are the parity of user and item."""
    for side in ("users", "items"):
        np.save(folder / f"{side}.npy", np.stack([np.arange(40) % 2, 1 - np.arange(40) % 2], 1).astype(np.float32))
    return str(folder)


@pytest.mark.parametrize("sampler", samplers.names())
@pytest.mark.parametrize("loss", losses.names())
def test_every_loss_with_every_sampler(checkerboard: Interactions, tmp_path: Path, loss: str, sampler: str) -> None:
    written: dict[str, Any] = {"batch": 256} | ({"negatives": 16} if sampler == "shared" else {})
    taught = "teacher" in losses.schema(loss).model_fields
    settings = {"teacher": who_knows_the_rule(tmp_path), "top": 20 if loss == "distill" else 5} if taught else {}
    settings |= {"own": 0.7} if loss == "softmax_distill" else {}  # its lists leave the train pairs out
    recipe = recipe_of(loss=(loss, settings), sampler=(sampler, written), quantizer=("ste", {"bits": 1}))
    if misfits(recipe):
        pytest.skip(str(misfits(recipe)[0]))
    assert share_right(train(recipe, checkerboard)) == 1.0


def test_soft_targets_alone_teach_the_rule(checkerboard: Interactions, tmp_path: Path) -> None:
    """Of every item that is drawn the teacher says what it thinks, and the pairs that are drawn count for nothing."""
    settings = {"teacher": who_knows_the_rule(tmp_path), "own": 1.0, "soft": 1.0, "teacher_temperature": 0.1}
    sampler = ("shared", {"batch": 256, "negatives": 16})
    recipe = recipe_of(loss=("softmax_distill", settings), sampler=sampler, quantizer=("ste", {"bits": 1}))
    assert share_right(train(recipe, checkerboard)) == 1.0


def test_an_untrained_model_does_not_know_the_rule(checkerboard: Interactions) -> None:
    """Without propagation: LightGCN's smoothing alone already puts neighbours together."""
    assert share_right(train(recipe_of(encoder=("mf", {})), checkerboard, steps=0)) < 0.5


def test_training_repeats_itself_from_its_seed(checkerboard: Interactions) -> None:
    recipe = recipe_of(encoder=("ngcf", {}), quantizer=("gste", {"bits": 2}))
    first, same, other = (train(recipe, checkerboard, steps=6, seed=seed) for seed in (1, 1, 2))
    states = [model.encoder.embedding.detach() for model in (first, same, other)]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
