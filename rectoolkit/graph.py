"""The user-item graph: the one file that builds a DGL graph and runs messages over it.

Nodes are users 0..U-1 and items U..U+I-1, edges go both ways, and only train interactions become edges. DGL
holds the structure (and samples neighbours); sums over neighbours run through ``embedding_bag`` on the graph's
own CSC arrays, which on CPU is as fast as ``dgl.ops.copy_u_sum`` at 64 dims, faster above, takes bfloat16, and
does not depend on libxsmm, which crashes where the system reports no L3 cache (docs/decisions.md).

Symmetric normalisation factors: A_hat x = D^-1/2 (A (D^-1/2 x)), two row scalings around an unweighted sum.
Edge weights would multiply the memory traffic of the sum and leave its fast path. A_hat is symmetric, so the
backward of a propagation is the propagation itself, at any order of derivative.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from rectoolkit.data import Interactions

_L3_CACHE_SIZE = 194  # sysconf's number for it on Linux


def load_dgl() -> Any:
    """Import dgl with its backend set, so that it neither asks, prints nor writes into the home folder."""
    os.environ.setdefault("DGLBACKEND", "pytorch")
    os.environ.setdefault("HOME", "/tmp")
    import dgl

    if sys.platform == "linux" and os.sysconf(_L3_CACHE_SIZE) == 0:
        dgl.use_libxsmm(False)  # sizes its blocks by the L3 cache: with 0 it ends the process
    return dgl


class BipartiteGraph:
    """The train interactions as a symmetric DGL graph on ``device``, with its normalised propagation.

    ``dgl`` is the homogeneous DGLGraph (U + I nodes, 2 N edges, int32 ids). On a GPU that the installed dgl cannot
    use, the DGL graph stays on the CPU for sampling and sums run as torch sparse products.
    """

    def __init__(self, train: Interactions, device: str = "cpu") -> None:
        self.num_users, self.num_items = train.num_users, train.num_items
        self.num_nodes = self.num_users + self.num_items
        self.device = torch.device(device)
        users = torch.from_numpy(np.ascontiguousarray(train.users)).int()
        items = torch.from_numpy(np.ascontiguousarray(train.items)).int() + self.num_users
        self.dgl: Any = load_dgl().graph(
            (torch.cat([items, users]), torch.cat([users, items])), num_nodes=self.num_nodes, idtype=torch.int32
        )
        indptr, indices, _ = self.dgl.adj_tensors("csc")
        self._indptr, self._indices = indptr.to(self.device), indices.to(self.device)
        degrees = (self._indptr[1:] - self._indptr[:-1]).float().unsqueeze(1)
        self.inverse_degree = torch.where(degrees > 0, 1 / degrees.clamp(min=1), 0.0)
        self.inverse_root_degree = self.inverse_degree.sqrt()
        self._adjacency = None
        if self.device.type != "cpu":
            size = (self.num_nodes, self.num_nodes)
            ones = torch.ones(len(self._indices), device=self.device)
            self._adjacency = torch.sparse_csr_tensor(self._indptr, self._indices, ones, size=size)

    def sum_neighbours(self, x: Tensor) -> Tensor:
        """A x without normalisation and outside autograd, (U + I, D) -> (U + I, D)."""
        if self._adjacency is not None:
            return self._adjacency @ x
        return functional.embedding_bag(self._indices, x, self._indptr, mode="sum", include_last_offset=True)

    def propagate(self, x: Tensor) -> Tensor:
        """A_hat x = D^-1/2 A D^-1/2 x, differentiable any number of times, (U + I, D) -> (U + I, D)."""
        return _Propagate.apply(x, self)  # type: ignore[no-any-return, no-untyped-call]

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Node rows (U + I, D) as user rows (U, D) and item rows (I, D), without a copy."""
        return x[: self.num_users], x[self.num_users :]


class _Propagate(torch.autograd.Function):
    """A_hat x, whose transpose is itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, graph: BipartiteGraph) -> Tensor:
        ctx.graph = graph
        return graph.sum_neighbours(x * graph.inverse_root_degree).mul_(graph.inverse_root_degree)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.graph.propagate(gradients[0]), None
