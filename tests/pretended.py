"""A pretended device: its tensors cannot be mixed with those of the CPU, as on a GPU.

torch without CUDA cannot take gradients of tensors that claim to be on "cuda", so the pretended device is torch's
"meta". Its tensors do hold values here: ``OnDevice`` wraps a CPU tensor, and the mode ``Pretended`` runs every
operation on the wrapped tensors, wraps the results, and fails where CUDA fails: operands of two devices (but for CPU
scalars, and CPU indices), and draws for one device from a generator of another.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils import _pytree as tree
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("meta")
aten = torch.ops.aten


class MixedDevicesError(AssertionError):
    """An operation that CUDA would refuse."""


class OnDevice(Tensor):
    """A tensor that says it lies on DEVICE."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnDevice:
        made = Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=DEVICE, strides=inner.stride())
        made.inner = inner
        return made

    def tolist(self) -> Any:
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError("only under Pretended")


def inner(value: Any) -> Any:
    return tree.tree_map_only(OnDevice, lambda tensor: tensor.inner, value)


class Pretended(TorchDispatchMode):
    """While it is active, DEVICE is a device."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [value for value in tree.tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        here = any(isinstance(tensor, OnDevice) for tensor in tensors)
        assert all(isinstance(t, OnDevice) or t.device != DEVICE for t in tensors), f"{operation}: values were lost"
        device = kwargs.get("device")
        if device is not None:
            here, kwargs["device"] = torch.device(device) == DEVICE, torch.device("cpu")
        elif here:
            self._check(operation, args, kwargs)
        if kwargs.get("generator") is not None and (kwargs["generator"].initial_seed() in Generator.seeds) != here:
            raise MixedDevicesError(f"{operation}: a generator of another device")
        found = operation(*inner(args), **inner(kwargs))
        if operation._schema.is_mutable:
            return kwargs.get("out", args[0] if args else None) if found is not None else None
        return tree.tree_map_only(Tensor, OnDevice, found) if here and not self._leaves(operation) else found

    def _leaves(self, operation: Any) -> bool:
        return operation is aten._local_scalar_dense.default

    def _check(self, operation: Any, args: Any, kwargs: Any) -> None:
        if operation.overloadpacket is aten.copy_:
            return
        if operation.overloadpacket in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
            assert isinstance(args[0], OnDevice), f"{operation}: a table of the CPU by indices of the device"
            args = (args[0], *args[2:])  # indices may lie on the CPU
        for tensor in tree.tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor) and not isinstance(tensor, OnDevice) and tensor.dim():
                raise MixedDevicesError(f"{operation}: {tuple(tensor.shape)} lies on the CPU, the rest on the device")


class Generator(torch._C.Generator):
    """In place of ``torch.Generator``: one on DEVICE draws as on the CPU, and the seeds it has had are remembered."""

    seeds: ClassVar[set[int]] = set()

    def __new__(cls, device: Any = "cpu") -> Generator:
        made = super().__new__(cls)
        made.here = torch.device(device) == DEVICE
        return made

    def manual_seed(self, seed: int) -> Generator:
        super().manual_seed(seed)
        if self.here:
            self.seeds.add(seed)
        return self
