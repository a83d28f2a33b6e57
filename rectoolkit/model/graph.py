"""The user-item graph: the one file that builds a DGL graph and runs messages over it.

Nodes are users 0..U-1 and items U..U+I-1, edges go both ways, and only train interactions become edges. DGL
holds the structure, and on CPU ``dgl.ops.copy_u_sum`` sums float32 rows over neighbours: over Gowalla (71 k nodes,
1.62 M directed edges) at 64, 128 and 256 dims it took 18, 76 and 184 ms on two busy cores, where ``embedding_bag``
on the same CSC arrays took 60, 110 and 234 (6 and 7 ms at 64 dims on idle ones). Its fast kernel (libxsmm) knows
neither float64 nor, on most machines, bfloat16, and ends the process where the system reports no L3 cache: there
``embedding_bag`` takes over (bfloat16 at 64 dims: half of float32's time).

Normalisation factors: left (A (right x)), two row scalings around an unweighted sum, for D^-1/2 A D^-1/2 as for the
mean D^-1 A. Edge weights would leave the fast kernel (220 to 255 ms at 64 dims). A is symmetric, so the backward of
such a product is the same product with left and right exchanged, at any order of derivative.
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
    """What holds the graph and sums over neighbours: ``name`` is "dgl" or "torch", ``why`` says what decided it."""

    name: str
    why: str


@cache
def backend() -> Backend:
    """DGL where it is installed, else torch.

    The environment variable RECTOOL_GRAPH=dgl or torch overrules this. Raises UserError where DGL is asked for and
    cannot be imported.
    """
    wanted = os.environ.get("RECTOOL_GRAPH", "auto")
    if wanted not in ("auto", "dgl", "torch"):
        raise UserError(f"RECTOOL_GRAPH is '{wanted}'; it must be auto, dgl or torch")
    if wanted == "torch":
        return Backend("torch", "RECTOOL_GRAPH asks for it")
    try:
        return Backend("dgl", f"DGL {load_dgl().__version__}")
    except Exception as error:  # a build for another torch raises what it likes
        missing = isinstance(error, ModuleNotFoundError) and error.name == "dgl"
        why = "DGL is not installed" if missing else f"DGL cannot be imported ({error})"
        if wanted == "dgl":
            raise UserError(f"RECTOOL_GRAPH asks for DGL, but {why}") from error
        return Backend("torch", why)


def load_dgl() -> Any:
    """Import DGL.

    The backend is set first, so that DGL neither asks, prints nor writes into the home folder. DGL 2 loads a library
    (graphbolt) that fits one torch release and that we do not use: an empty module takes its place during the import.
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
    """Whether DGL's fast kernel can run: it sizes its blocks by the L3 cache, and where that is 0 the process ends."""
    return sys.platform != "linux" or os.sysconf(_L3_CACHE_SIZE) > 0


def dgl_graph(train: Interactions) -> tuple[Any, Tensor, Tensor]:
    """The homogeneous DGL graph of both directions (int32), with its CSC arrays."""
    users = torch.from_numpy(np.ascontiguousarray(train.users)).int()
    items = torch.from_numpy(np.ascontiguousarray(train.items)).int() + train.num_users
    nodes = train.num_users + train.num_items
    ends = torch.cat([items, users]), torch.cat([users, items])
    graph = load_dgl().graph(ends, num_nodes=nodes, idtype=torch.int32)
    graph = graph.formats("csc")  # the pairs themselves are not needed again: 8 bytes an edge
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
    """The train interactions as a symmetric DGL graph on ``device``, with its normalised propagation.

    ``dgl`` is the homogeneous DGLGraph (U + I nodes, 2 N edges, int32 ids) on the CPU, None without DGL; ``indptr``
    (U + I + 1,) and ``indices`` (2 N,) are its CSC arrays on ``device``. On a GPU sums run as torch sparse
    products, so that any build of DGL will do.
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
        self._adjacency: dict[torch.dtype, Tensor] = {}  # by the type of its ones, on other devices than the CPU

    def sum_neighbours(self, x: Tensor) -> Tensor:
        """A x without normalisation and outside autograd, (U + I, D) -> (U + I, D)."""
        if self.device.type != "cpu":
            return self._sparse(x.dtype) @ x
        if self._copy_u_sum is not None and x.dtype is torch.float32:
            return self._copy_u_sum(self.dgl, x.detach())  # type: ignore[no-any-return]
        return functional.embedding_bag(self.indices, x, self.indptr, mode="sum", include_last_offset=True)

    def _sparse(self, dtype: torch.dtype) -> Tensor:
        """A as torch's CSR matrix of ones of that type, which must be that of the rows it is multiplied with."""
        if dtype not in self._adjacency:
            ones = torch.ones(len(self.indices), dtype=dtype, device=self.device)
            size = (self.num_nodes, self.num_nodes)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that such matrices are in beta state
                self._adjacency[dtype] = torch.sparse_csr_tensor(
                    self.indptr, self.indices, ones, size=size, device=self.device
                )
        return self._adjacency[dtype]

    def propagate(self, x: Tensor) -> Tensor:
        """D^-1/2 A D^-1/2 x, differentiable any number of times, (U + I, D) -> (U + I, D)."""
        return self._scaled_sum(x, self.inverse_root_degree, self.inverse_root_degree)

    def smooth(self, x: Tensor, layers: int, precision: torch.dtype | None = None) -> Tensor:
        """The mean of x, A_hat x .. A_hat^layers x, A_hat = D^-1/2 A D^-1/2, (U + I, D) -> (U + I, D), differentiable.

        One linear map, symmetric as A_hat is, hence its own backward: nothing is kept for it. By Horner's rule on
        z = D^-1/2 x: t = z, then t = z + D^-1 A t, (layers - 1) times, and x + D^-1/2 A t is the sum. ``precision``
        is what neighbours are read in (x's own by default); bfloat16 halves the bytes and rounds t to 8 binary digits.
        """
        return _Smooth.apply(x, self, layers, precision)  # type: ignore[no-any-return, no-untyped-call]

    def mean_neighbours(self, x: Tensor) -> Tensor:
        """D^-1 A x, each node's mean over its neighbours (0 without any), differentiable as ``propagate`` is."""
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
