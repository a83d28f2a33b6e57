"""Other devices than the CPU: no operation mixes two, sums run in torch, checkpoints move. CUDA where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pretended import DEVICE, Generator, MixedDevicesError, OnDevice, Pretended, inner
from torch import Tensor

from rectoolkit.cli import main
from rectoolkit.cli.group import device_notes
from rectoolkit.data import Interactions
from rectoolkit.errors import RecipeError, UserError
from rectoolkit.model import graph as graph_module
from rectoolkit.model.encoders.base import restore
from rectoolkit.model.graph import BipartiteGraph
from rectoolkit.model.recommender import Parts, assemble
from rectoolkit.recipe import Recipe
from rectoolkit.recipe.registry import encoders, losses, quantizers, samplers
from rectoolkit.runs.execute import RunOptions
from rectoolkit.training.loop import fit, step

HQGNN = Path(__file__).parents[2] / "recipes" / "hqgnn.toml"
SMALL = ["encoder.dim=8", "encoder.layers=2", "sampler.batch=64", "train.epochs=2", "train.validation=0"]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch sees: none here")

STEPS = [
    *(f"quantizer.name={q} encoder.combine=concat" for q in quantizers.names()),
    *(f"quantizer.name={q} encoder.name={e}" for e in encoders.names() for q in ("gste", "lsq", "hashgnn", "itq")),
    "quantizer.curvature=hutchinson",
    "quantizer.name=ste quantizer.bits=2 quantizer.bounds=learned",
    "quantizer.name=ste encoder.precision=bfloat16",
    "quantizer.name=ste encoder.weights=learned encoder.normalize=true",
    "quantizer.name=ste encoder.name=graphsage encoder.fan_out=2 encoder.user_ids=true",
    "quantizer.name=ste encoder.name=graphsage encoder.fan_out=0",
    *(f"loss.name={loss} sampler.name={sampler} quantizer.curvature=hutchinson quantizer.probes=2"
      for loss in losses.names() for sampler in samplers.names()),
    *(f"loss.name=softmax sampler.name={sampler}" for sampler in samplers.names()),
    "loss.name=softmax sampler.name=shared sampler.power=0.5",
    "quantizer.hash_layer=true quantizer.guidance=0.8 encoder.normalize=true",
    "quantizer.scale=row quantizer.bits=2 encoder.precision=bfloat16 sampler.name=shared loss.name=softmax",
    "loss.name=softmax_distill sampler.name=shared sampler.power=0.5 loss.own=0.5 loss.soft=0.5 quantizer.clip=inward",
]  # fmt: skip


def parts_of(train: Interactions, changes: str, folder: Path, device: str = "cpu") -> tuple[Parts, Recipe]:
    overrides = [s for s in SMALL if "encoder.name=mf" not in changes or "layers" not in s] + changes.split()
    if "sampler.name=in_batch" not in changes and "loss.name=align_uniform" not in changes:
        overrides += ["sampler.negatives=3"]
    if "distill" in changes:
        overrides.append(f"loss.teacher={folder}")
        for side, rows in (("users", train.num_users), ("items", train.num_items)):
            np.save(folder / f"{side}.npy", np.random.default_rng(rows).standard_normal((rows, 4), np.float32))
    try:
        recipe = Recipe.load(HQGNN, overrides)
    except RecipeError as error:
        if "loss.name" not in changes:
            raise
        pytest.skip(f"these do not go together: {error}")
    return assemble(recipe, train, device), recipe


class Matrix:
    """Stands for a sparse matrix on the pretended device; as CUDA's, it is multiplied with rows of its own type."""

    def __init__(self, graph: BipartiteGraph, dtype: torch.dtype) -> None:
        self.graph, self.dtype = graph, dtype

    def __matmul__(self, x: Tensor) -> Tensor:
        assert isinstance(x, OnDevice)
        assert x.dtype == self.dtype
        return torch.nn.functional.embedding_bag(
            self.graph.indices, x, self.graph.indptr, mode="sum", include_last_offset=True
        )


@pytest.fixture
def mode(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    create = torch.tensor
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(Generator, "seeds", set())
    monkeypatch.setattr(torch, "tensor", lambda data, device="cpu", **of: create(data, **of).to(device))
    monkeypatch.setattr(Tensor, "new_tensor", lambda self, data: create(data, dtype=self.dtype).to(self.device))
    monkeypatch.setattr(BipartiteGraph, "_sparse", lambda self, dtype: Matrix(self, dtype))
    return Pretended()


def train_steps(parts: Parts, count: int = 2) -> list[float]:
    """The losses of ``count`` training steps, by an optimizer that knows the pretended device."""
    weights = [w for part in (parts.model, parts.loss) for w in part.parameters()]
    optimizer, values = torch.optim.Adam(weights, 0.01, foreach=False), []
    parts.model.train()
    parts.model.calibrate()
    for batch, _ in zip(parts.sampler, range(count), strict=False):
        parts.model.progress(0.5)
        values.append(step(parts, optimizer, batch))
    return values


def codes_of(parts: Parts) -> list[np.ndarray[Any, Any]]:
    real = parts.model.real()
    parts.model.diagnostics(real)
    return [getattr(table, "codes", table) for table in parts.model.tables(real)]


@pytest.mark.parametrize("changes", STEPS)
def test_no_step_mixes_devices_and_all_end_as_on_the_cpu(
    tiny: Interactions, tmp_path: Path, mode: Pretended, monkeypatch: pytest.MonkeyPatch, changes: str
) -> None:
    monkeypatch.setattr(graph_module, "libxsmm_is_safe", lambda: False)  # sums by embedding_bag on the CPU too
    here, _ = parts_of(tiny, changes, tmp_path)
    expected = train_steps(here), codes_of(here)
    with mode:
        there, _ = parts_of(tiny, changes, tmp_path, str(DEVICE))
        assert all(isinstance(weight, OnDevice) for weight in there.model.parameters())
        found = train_steps(there), codes_of(there)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    for ours, theirs in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_pretended_device_refuses_what_cuda_refuses(mode: Pretended) -> None:
    with mode:
        x = torch.ones(3, 2).to(DEVICE)
        assert torch.equal(inner(x * 2 + torch.tensor(1.0)), torch.full((3, 2), 3.0))
        for wrong in (
            lambda: x + torch.ones(3, 2),
            lambda: x.index_select(0, torch.tensor([0])),
            lambda: torch.rand(3, generator=torch._C.Generator(), device=DEVICE),
            lambda: torch.rand(3, generator=Generator(DEVICE).manual_seed(1)),
        ):
            with pytest.raises(MixedDevicesError):
                wrong()
        assert x[torch.tensor([0])].shape == (1, 2)
        assert float(x.sum()) == 6
        with pytest.raises((TypeError, RuntimeError)):
            x.numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # the CPU's has no bfloat16
def test_the_sparse_product_is_the_sum_over_neighbours(tiny: Interactions, dtype: torch.dtype) -> None:
    graph = BipartiteGraph(tiny)
    x = torch.randint(-3, 4, (graph.num_nodes, 8)).to(dtype)  # small whole numbers: exact in any order and type
    assert torch.equal(graph._sparse(dtype) @ x, graph.sum_neighbours(x))


def test_a_generator_of_another_kind_of_device_is_seeded_from_the_saved_state() -> None:
    draws = []
    for state in (torch.arange(16, dtype=torch.uint8), torch.arange(16, dtype=torch.uint8), torch.ones(16).byte()):
        generator = torch.Generator()
        restore(generator, state)
        draws.append(torch.rand(3, generator=generator))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_the_chosen_gpu_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for asked, device in (("auto", "cuda"), ("cuda", "cuda"), ("cuda:1", "cuda:1")):
        assert RunOptions(device=asked).on_device().device == device
        assert device_notes(device) == [f"training on {device}"]


def test_without_a_gpu_the_cpu_is_chosen_and_a_gpu_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for asked in ("auto", "cpu"):
        assert RunOptions(device=asked).on_device().device == "cpu"
    assert device_notes("cpu") == []
    with pytest.raises(UserError, match="device 'cuda:1': torch sees 0 GPUs here; write 'cpu' or 'auto'"):
        RunOptions(device="cuda:1").on_device()
    for command in ("run", "compare", "tune"):
        refused = CliRunner().invoke(main, [command, str(HQGNN), "--device", "gpu"])
        assert (refused.exit_code, "--device gpu: must be auto, cpu, cuda or cuda:N" in refused.output) == (2, True)


@needs_cuda
@pytest.mark.parametrize("changes", STEPS)
def test_a_step_on_cuda_is_that_of_the_cpu(tiny: Interactions, tmp_path: Path, changes: str) -> None:
    here, there = (parts_of(tiny, changes, tmp_path, device)[0] for device in ("cpu", "cuda"))
    first, second = train_steps(here, 1), train_steps(there, 1)
    assert len(codes_of(there)) == 2
    if not {"hutchinson", "ngcf"} & set(changes.replace("=", " ").split()):  # these draw on the device
        np.testing.assert_allclose(second, first, rtol=1e-2 if "bfloat16" in changes else 1e-4)


@needs_cuda
@pytest.mark.parametrize("encoder", encoders.names())
def test_a_checkpoint_of_one_device_goes_on_on_another(tiny: Interactions, tmp_path: Path, encoder: str) -> None:
    for number, devices in enumerate((("cpu", "cuda"), ("cuda", "cpu"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        for device, epochs in zip(devices, (1, 2), strict=True):
            parts, recipe = parts_of(tiny, f"quantizer.name=ste encoder.name={encoder}", tmp_path, device)
            progress = fit(parts, {**recipe["train"], "epochs": epochs}, folder)
        assert progress.epoch == 2
        assert all(np.isfinite(table).all() for table in codes_of(parts))
