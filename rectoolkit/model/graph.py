"""The user-item graph: the only file that builds a DGL graph and sums over its edges.

Nodes are users 0..U-1 and items U..U+I-1. Edges go both ways, and only train interactions become edges. DGL holds the
structure. On the CPU ``dgl.ops.copy_u_sum`` sums float32 rows over neighbours. Its fast kernel (libxsmm) does not
support float64, nor bfloat16 on most machines, and ends the process if the system reports no L3 cache. In these cases
``embedding_bag`` sums over the same CSC arrays.

Normalisation scales rows before and after an unweighted sum, left (A (right x)). This serves D^-1/2 A D^-1/2 and the
mean D^-1 A alike; edge weights would leave the fast kernel. A is symmetric, so the backward of such a product is the
same product with left and right exchanged, at any order of derivative. docs/notes/decisions.md has the timings.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rectoolkit.errors import UserError

if TYPE_CHECKING:
    from rectoolkit.data import Interactions

_L3_CACHE_SIZE = 194  # sysconf's number for it on Linux


@dataclass(frozen=True)
class Backend:
    """The library that holds the graph: ``name`` is "dgl" or "torch", ``why`` is the reason for the choice."""

    name: str
    why: str


@cache
def backend() -> Backend:
    """DGL if it is installed, else torch. The environment variable RECTOOL_GRAPH=dgl or torch overrules this.

    Raises UserError if DGL is asked for and cannot be imported.
    """
    wanted = os.environ.get("RECTOOL_GRAPH", "auto")
    if wanted not in ("auto", "dgl", "torch"):
        raise UserError(f"RECTOOL_GRAPH is '{wanted}'; it must be auto, dgl or torch")
    if wanted == "torch":
        return Backend("torch", "RECTOOL_GRAPH asks for it")
    try:
        return Backend("dgl", f"DGL {load_dgl().__version__}")
    except Exception as error:  # a build for another torch may raise any exception
        missing = isinstance(error, ModuleNotFoundError) and error.name == "dgl"
        why = "DGL is not installed" if missing else f"DGL cannot be imported ({error})"
        if wanted == "dgl":
            raise UserError(f"RECTOOL_GRAPH asks for DGL, but {why}") from error
        return Backend("torch", why)


def load_dgl() -> Any:
    """Import DGL.

    The backend is set first, so that DGL does not ask for one, print, or write into the home folder. DGL 2 loads a
    library (graphbolt) that fits only one torch release. We do not use it; an empty module takes its place during the
    import.
    """
    os.environ.setdefault("DGLBACKEND", "pytorch")
    os.environ.setdefault("HOME", tempfile.gettempdir())
    stand_in = "dgl" not in sys.modules and "dgl.graphbolt" not in sys.modules
    if stand_in:
        sys.modules["dgl.graphbolt"] = ModuleType("dgl.graphbolt")
    try:
        import dgl
    finally:
        if stand_in:
            sys.modules.pop("dgl.graphbolt", None)
    if not libxsmm_is_safe():
        dgl.use_libxsmm(False)
    return dgl


def libxsmm_is_safe() -> bool:
    """Whether DGL's fast kernel can run: it sizes its blocks by the L3 cache, and a size of 0 ends the process."""
    return sys.platform != "linux" or os.sysconf(_L3_CACHE_SIZE) > 0


def dgl_graph(train: Interactions) -> tuple[Any, Tensor, Tensor]:
    """The homogeneous DGL graph of both directions (int32), with its CSC arrays."""
    users = torch.from_numpy(np.ascontiguousarray(train.users)).int()
    items = torch.from_numpy(train.items + np.int32(train.num_users))  # a copy: torch warns of read-only memory maps
    nodes = train.num_users + train.num_items
    ends = torch.cat([items, users]), torch.cat([users, items])
    graph = load_dgl().graph(ends, num_nodes=nodes, idtype=torch.int32)
    graph = graph.formats("csc")  # drops the pairs, which are not needed again: 8 bytes per edge
    indptr, indices, _ = graph.adj_tensors("csc")
    return graph, indptr, indices


def compressed(train: Interactions) -> tuple[Tensor, Tensor]:
    """The CSC arrays of the same graph without DGL, in the same order: indptr (U + I + 1,), indices (2 N,), int32."""
    degrees = np.concatenate([train.user_degrees, train.item_degrees])
    indptr = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int32)
    by_item = np.argsort(train.items, kind="stable")
    indices = np.concatenate([train.items + np.int32(train.num_users), train.users[by_item]]).astype(np.int32)
    return torch.from_numpy(indptr), torch.from_numpy(indices)


class BipartiteGraph:
    """The train interactions as a symmetric graph, with its normalised propagation.

    Parameters
    ----------
    train
        N interactions of U users and I items.
    device
        The torch device of ``indptr``, ``indices`` and all rows. On a GPU sums are torch sparse products, so any build
        of DGL will do.

    Attributes
    ----------
    num_users, num_items, num_nodes
        U, I and U + I.
    indptr, indices
        The CSC arrays of the graph, int32 (U + I + 1,) and (2 N,).
    dgl
        The homogeneous DGLGraph on the CPU (U + I nodes, 2 N edges, int32 ids), or None without DGL.
    """

    def __init__(self, train: Interactions, device: str = "cpu") -> None:
        self.num_users, self.num_items = train.num_users, train.num_items
        self.num_nodes = self.num_users + self.num_items
        self.device = torch.device(device)
        self.dgl: Any = None
        if backend().name == "dgl":
            self.dgl, indptr, indices = dgl_graph(train)
        else:
            indptr, indices = compressed(train)
        self.indptr, self.indices = indptr.to(self.device), indices.to(self.device)
        degrees = (self.indptr[1:] - self.indptr[:-1]).float().unsqueeze(1)
        self.inverse_degree = torch.where(degrees > 0, 1 / degrees.clamp(min=1), 0.0)
        self.inverse_root_degree = self.inverse_degree.sqrt()
        self._copy_u_sum = load_dgl().ops.copy_u_sum if self.dgl is not None and libxsmm_is_safe() else None
        self._adjacency: dict[torch.dtype, Tensor] = {}  # by the type of its ones; unused on the CPU

    def sum_neighbours(self, x: Tensor) -> Tensor:
        """A x without normalisation and outside autograd, (U + I, D) -> (U + I, D)."""
        if self.device.type != "cpu":
            return self._sparse(x.dtype) @ x
        if self._copy_u_sum is not None and x.dtype is torch.float32:
            return self._copy_u_sum(self.dgl, x.detach())  # type: ignore[no-any-return]
        return functional.embedding_bag(self.indices, x, self.indptr, mode="sum", include_last_offset=True)

    def _sparse(self, dtype: torch.dtype) -> Tensor:
        """A as a CSR matrix of ones in torch. Its type must be that of the rows it is multiplied with."""
        if dtype not in self._adjacency:
            ones = torch.ones(len(self.indices), dtype=dtype, device=self.device)
            size = (self.num_nodes, self.num_nodes)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # about the beta state of such matrices
                self._adjacency[dtype] = torch.sparse_csr_tensor(
                    self.indptr, self.indices, ones, size=size, device=self.device
                )
        return self._adjacency[dtype]

    def propagate(self, x: Tensor) -> Tensor:
        """D^-1/2 A D^-1/2 x, differentiable any number of times, (U + I, D) -> (U + I, D)."""
        return self._scaled_sum(x, self.inverse_root_degree, self.inverse_root_degree)

    def smooth(self, x: Tensor, layers: int, precision: torch.dtype | None = None) -> Tensor:
        """The mean of x, A_hat x .. A_hat^layers x with A_hat = D^-1/2 A D^-1/2, (U + I, D) -> (U + I, D).

        This is one linear map. It is symmetric as A_hat is, so it is its own backward and autograd stores nothing. It
        is evaluated by Horner's rule on z = D^-1/2 x: t = z, then (layers - 1) times t = z + D^-1 A t, and the sum is
        x + D^-1/2 A t. Neighbours are read in ``precision`` (x's own type by default); bfloat16 halves the bytes and
        rounds t to 8 binary digits.
        """
        return _Smooth.apply(x, self, layers, precision)  # type: ignore[no-any-return, no-untyped-call]

    def mean_neighbours(self, x: Tensor) -> Tensor:
        """D^-1 A x, the mean of each node's neighbours (0 without any), differentiable any number of times."""
        return self._scaled_sum(x, self.inverse_degree, None)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Node rows (U + I, D) as user rows (U, D) and item rows (I, D), without a copy."""
        users, items = torch.split(x, [self.num_users, self.num_items])
        return users, items

    def _scaled_sum(self, x: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
        return _ScaledSum.apply(x, self, left, right)  # type: ignore[no-any-return, no-untyped-call]


class _ScaledSum(torch.autograd.Function):
    """left A right x for row scalings left and right; its transpose is right A left."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, graph: BipartiteGraph, left: Tensor | None, right: Tensor | None) -> Tensor:
        ctx.graph, ctx.left, ctx.right = graph, left, right
        total = graph.sum_neighbours(x if right is None else x * right.to(x.dtype))
        return total if left is None else total.mul_(left.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.graph._scaled_sum(gradients[0], ctx.right, ctx.left), None, None, None


class _Smooth(torch.autograd.Function):
    """The mean over layers of A_hat^k x; its transpose is itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, graph: BipartiteGraph, layers: int, precision: torch.dtype | None) -> Tensor:
        ctx.setting = graph, layers, precision
        if not layers:
            return x.clone()
        precision = precision or x.dtype
        z = (x * graph.inverse_root_degree.to(x.dtype)).to(precision)
        inverse, t = graph.inverse_degree.to(precision), z
        for _ in range(layers - 1):
            t = graph.sum_neighbours(t).mul_(inverse).add_(z)
        last = graph.sum_neighbours(t).to(x.dtype)
        return last.mul_(graph.inverse_root_degree.to(x.dtype)).add_(x).div_(layers + 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _Smooth.apply(gradients[0], *ctx.setting), None, None, None  # type: ignore[no-untyped-call]
