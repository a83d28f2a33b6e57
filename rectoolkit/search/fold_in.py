"""Fold-in: a row for a user who was not there in training, from the user's items alone.

A new user's row is what training gives to users with such items, as a linear map learned from the trained users:

    x_u = sum over u's items of d_i^-p y_i / sqrt(n_u)        t_u = x_u W

y_i is item i's row as it is served (its decoded codes), d_i how many users it has, n_u how many items u has, and W
(F, width) the ridge regression of the trained users' t_u on their x_u. t_u is what a user's code stands for (a rotated
row, say, where the quantizer rotates), so W holds such a transform too, and t_u is coded on the users' own grid by
taking the nearest value. p is the encoder's own: 1/2 where it propagates with D^-1/2 (LightGCN, NGCF), else 0.

An encoder that makes a user's row from items alone (GraphSAGE) gives its ``steps``: x_u is then that row itself.

Why not LightGCN's formula with a zero row of the user's own: that row carries most of what tells users apart, and the
regression puts it back (docs/notes/log.md has the figures, and those of the implicit least squares solution). Why W
and not a formula an encoder: it serves every encoder and quantizer, plugins too, for F x width numbers.

One file, ``fold_in.bin`` (docs/reference/file-format.md). This module imports neither torch nor dgl.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.errors import FormatError, UserError
from rectoolkit.files import open_arrays, refuse, save_arrays
from rectoolkit.search.codes import CodeTable, PackedTable, two_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from rectoolkit.data import Ids, Interactions

    Floats = npt.NDArray[np.float32]
    Table = PackedTable | Floats

RIDGE, EXACT_RIDGE = 1e-3, 1e-9  # of the mean diagonal
SMALLEST_SQUARE = 1e-24  # of a row's mean square: rows of zeros have a unit too
LEAST_ALONG = 0.1  # of x's mean square: a row that its grid does not fit is not stretched more than tenfold
MOST_USERS = 100_000  # enough for a map of some thousand numbers; a sample above


@dataclass(frozen=True)
class Step:
    """A layer of an encoder that makes users from items: act(own W_own + mean over u's items of ``rows`` W + b).

    ``rows`` (I, D) are the items' rows at this layer, ``own`` (D, D) or (0, 0) without one, ``neighbours`` (D, D),
    ``bias`` (D,). The last layer has no activation; the others take ReLU.
    """

    rows: Floats
    own: Floats
    neighbours: Floats
    bias: Floats


@dataclass(frozen=True)
class Aggregation:
    """How an encoder puts a user's items together: ``weight`` is p above; or exact ``steps`` from the row ``start``."""

    weight: float = 0.0
    steps: tuple[Step, ...] = ()
    start: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    normalize: bool = False


@dataclass(frozen=True)
class RowGrid:
    """The grid of rows that have scales of their own, by segment, in units of a row's mean of ``order``.

    ``order`` 1: the mean magnitude; 2: the root mean square. ``reach`` (S,): distance of neighbouring values; ``low``
    (S,): the least of them, or (0,) where the grid is symmetric about zero.
    """

    reach: Floats
    low: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    order: int = 1

    def affine(self, rows: Floats, segments: tuple[int, ...], top: int) -> tuple[Floats, Floats]:
        """Scale and offset of codes 0..``top`` for ``rows``, (n, S) each."""
        unit = _means(rows, segments, self.order)
        scale = np.maximum(unit * self.reach, np.float32(1e-12))
        return scale, unit * self.low if len(self.low) else scale * np.float32(-top / 2)


@dataclass(frozen=True)
class FoldIn:
    """What a run keeps for new users: the encoder's ``aggregation``, the map W (F, width), the ``grid`` of row scales.

    Without scales by row ``grid`` has a ``reach`` of length 0, and the users' own scale and offset serve.
    """

    aggregation: Aggregation
    map: Floats
    grid: RowGrid

    @classmethod
    def fit(
        cls,
        aggregation: Aggregation,
        train: Interactions,
        degrees: npt.NDArray[np.int64],
        tables: tuple[Table, Table],
        real: Floats,
        targets: Floats,
        grid: RowGrid | None = None,
    ) -> FoldIn:
        """The map from the trained users: ``tables`` of users and items as served, ``targets`` (U, width) their t_u.

        ``grid``: that of users with scales of their own; None for a symmetric one in mean magnitudes, read off them.

        Where the encoder's own steps give a row, W is what the quantizer makes of one: from ``real`` (U, D) to t_u.
        """
        users, items = tables
        known = np.flatnonzero(train.user_degrees)
        asked = known[:: max(1, -(-len(known) // MOST_USERS))]
        width = targets.shape[1]
        gram: npt.NDArray[np.float64] | None = None
        for block in np.array_split(asked, max(1, len(asked) // 4096)):
            lists = [train.row(user) for user in block.tolist()]
            x = np.asarray(real[block] if aggregation.steps else _features(aggregation, lists, items, degrees), float)
            if gram is None:
                gram, cross = np.zeros((x.shape[1], x.shape[1])), np.zeros((x.shape[1], width))
            gram += x.T @ x
            cross += x.T @ targets[block]
        assert gram is not None
        ridge = (EXACT_RIDGE if aggregation.steps else RIDGE) * max(float(gram.trace()) / len(gram), 1e-12)
        found = np.linalg.solve(gram + ridge * np.eye(len(gram)), cross).astype(np.float32)
        return cls(aggregation, found, grid or RowGrid(_reach(users, targets)))

    def rows(
        self,
        lists: Sequence[npt.NDArray[np.int64]],
        items: Table,
        degrees: npt.NDArray[np.int64],
        ids: Ids | None = None,
    ) -> Floats:
        """t_u of new users, float32 (n, width), the rows of some items each; ``ids`` is what the data calls those.

        Raises UserError where there is no user, and for one of whose items none was in training.
        """
        if not lists:
            raise UserError("no user given; a new user is a list of item ids")
        known = [_known(items_of, degrees, ids) for items_of in lists]
        return _features(self.aggregation, known, items, degrees) @ self.map

    def coded(self, rows: Floats, users: PackedTable) -> CodeTable:
        """The nearest values of the users' grid: ``rows`` (n, width) as codes beside ``users``."""
        top, widths = (1 << users.bits) - 1, np.asarray(users.segments)
        scale, offset = users.affine(slice(0, 1))
        if len(self.grid.reach):
            scale, offset = self.grid.affine(rows, users.segments, top)
        spread, low = np.repeat(scale, widths, axis=1), np.repeat(offset, widths, axis=1)
        codes = np.clip(np.floor((rows - low) / spread + 0.5), 0, top).astype(np.uint8)
        table = CodeTable(codes, scale, offset, users.bits, users.segments)
        if not len(self.grid.reach):
            return table
        if self.grid.order == 1:
            scale, offset = two_bytes(scale, offset)
            return replace(table, scale=scale, offset=offset)
        starts = np.cumsum((0, *users.segments[:-1]))
        square, along = (np.add.reduceat(rows * other, starts, axis=1) for other in (rows, table.decode()))
        least = np.float32(LEAST_ALONG) * np.maximum(square, np.float32(SMALLEST_SQUARE))
        factor = np.asarray(square / np.maximum(along, least), np.float32)
        scale, offset = two_bytes(scale * factor, offset * factor)  # as long along the row as the row
        return replace(table, scale=scale, offset=offset)

    def misfit(self, users: Table, items: Table) -> str:
        """What of it does not go with the tables of its run; empty where all of it does."""
        (_, width), (num_items, inner) = _shape(users), _shape(items)
        start, steps = len(self.aggregation.start), self.aggregation.steps
        scaled = isinstance(users, PackedTable) and len(users.scale) > 1
        segments = len(users.segments) if isinstance(users, PackedTable) and scaled else 0
        wanted = (start if steps else inner, width)
        if self.map.shape != wanted:
            return f"a map of {self.map.shape} where its tables ask for {wanted}"
        if isinstance(users, PackedTable) and len(users.scale) == 1 == users.num_rows:
            segments = len(self.grid.reach) and len(users.segments)  # one user's scale may be its own or the table's
        if len(self.grid.reach) != segments or len(self.grid.low) not in (0, segments):
            found = f"{len(self.grid.reach)} of the users' scales and {len(self.grid.low)} of their offsets"
            return f"{found} where there are {segments}"
        for place, step in enumerate(steps):
            if len(step.rows) != num_items:
                return f"{len(step.rows)} item rows of layer {place} where there are {num_items} items"
            if step.own.shape != (start, start) and (step.own.size or place):
                return f"weights of {step.own.shape} for a user's own row at layer {place}, which has {start} dims"
        return ""

    def save(self, path: Path) -> None:
        """Write it as one file."""
        how = self.aggregation
        arrays: dict[str, npt.NDArray[Any]] = {"map": self.map, "start": how.start}
        arrays |= {"reach": self.grid.reach, "low": self.grid.low}
        for place, step in enumerate(how.steps):
            arrays |= {f"{name}_{place}": array for name, array in vars(step).items()}
        facts = {"weight": how.weight, "steps": len(how.steps), "normalize": how.normalize, "order": self.grid.order}
        save_arrays(path, "fold_in", arrays, facts)

    @classmethod
    def load(cls, path: Path) -> FoldIn:
        """Open a saved one by memory map. Raises FormatError where it is missing, damaged or of another kind."""
        if not path.exists():
            raise FormatError(
                f"{path}: no such file; a run of an earlier release has nothing to fold new users in by: "
                "run its recipe again in another folder of runs"
            )
        file = open_arrays(path, "fold_in")
        weight, normalize = file.facts.get("weight"), file.facts.get("normalize")
        if not isinstance(weight, float) or not isinstance(normalize, bool):
            refuse(path, "weight", f"must be a number, and normalize true or false, got {weight!r}, {normalize!r}")
        dims = {"rows": 2, "own": 2, "neighbours": 2, "bias": 1}
        steps = tuple(
            Step(**{name: file.array(f"{name}_{place}", "<f4", number) for name, number in dims.items()})
            for place in range(file.count("steps"))
        )
        aggregation = Aggregation(weight, steps, file.array("start", "<f4", 1), normalize)
        found, width = file.array("map", "<f4", 2), len(aggregation.start)
        for step in steps:
            if (step.rows.shape[1], step.neighbours.shape, step.bias.shape) != (width, (width, width), (width,)):
                refuse(path, "steps", f"rows and weights are not all {width} wide")
        none = np.zeros(0, np.float32)
        low = file.array("low", "<f4", 1) if "low" in file.arrays else none  # runs of an earlier release have none
        order = file.facts.get("order", 1)
        if order not in (1, 2):
            refuse(path, "order", f"must be 1 or 2, got {order!r}")
        return cls(aggregation, found, RowGrid(file.array("reach", "<f4", 1), low, order))


def _shape(table: Table) -> tuple[int, int]:
    """Rows and dims."""
    return (table.num_rows, table.dim) if isinstance(table, PackedTable) else (table.shape[0], table.shape[1])


def _known(items: npt.NDArray[np.int64], degrees: npt.NDArray[np.int64], ids: Ids | None) -> npt.NDArray[np.int64]:
    """Those of one user's items that were in training, each once. Raises UserError where nothing is left to go by."""
    known = np.unique(items[degrees[items] > 0])
    if not len(known):
        first = items[0] if ids is None else ids[int(items[0])]
        raise UserError(
            f"item {first}: no user had {'it' if len(items) == 1 else 'any of these items'} in training, so nothing "
            "is known of who likes it; name another item"
        )
    return known


def _features(
    aggregation: Aggregation, lists: Sequence[npt.NDArray[np.int64] | npt.NDArray[np.int32]], items: Table,
    degrees: npt.NDArray[np.int64],
) -> Floats:  # fmt: skip
    """x_u of each list of items, float32 (n, F); no list is empty."""
    lengths = np.asarray([len(items_of) for items_of in lists])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    flat, place = np.unique(np.concatenate(lists), return_inverse=True)
    if aggregation.steps:
        return _through(aggregation, lambda step: np.add.reduceat(step.rows[flat][place], starts) / lengths[:, None])
    rows = items.take(flat).unpack().decode() if isinstance(items, PackedTable) else items[flat]
    weighted = rows * (np.maximum(degrees[flat], 1.0) ** -aggregation.weight).astype(np.float32)[:, None]
    return np.asarray(np.add.reduceat(weighted[place], starts) / np.sqrt(lengths)[:, None], np.float32)


def _through(aggregation: Aggregation, mean_of: Callable[[Step], npt.NDArray[np.floating]]) -> Floats:
    """The rows that an encoder's own steps give, (n, D)."""
    layer: npt.NDArray[np.floating] | None = None
    for place, step in enumerate(aggregation.steps):
        mean = mean_of(step)
        if layer is None:
            layer = np.broadcast_to(aggregation.start, (len(mean), len(aggregation.start)))
        own = layer @ step.own if step.own.size else np.zeros((1, 1), np.float32)
        layer = own + mean @ step.neighbours + step.bias
        if place + 1 < len(aggregation.steps):
            layer = np.maximum(layer, 0)
    assert layer is not None
    if aggregation.normalize:
        layer = layer / np.maximum(np.linalg.norm(layer, axis=1, keepdims=True), 1e-12)
    return np.asarray(layer, np.float32)


def _reach(users: Table, targets: Floats) -> Floats:
    """A row's scale over its mean magnitude, by segment, the median over users; empty where all rows share a scale."""
    if not isinstance(users, PackedTable) or len(users.scale) == 1:
        return np.zeros(0, np.float32)
    size = _means(targets, users.segments, 1)
    ratios = np.where(size > 0, users.affine()[0] / np.maximum(size, np.float32(1e-30)), np.nan)
    return np.asarray(np.nan_to_num(np.nanmedian(ratios, axis=0), nan=1.0), np.float32)


def _means(rows: Floats, segments: tuple[int, ...], order: int) -> Floats:
    """The mean magnitude (``order`` 1) or root mean square (2) of each row's blocks, (n, S)."""
    starts = np.cumsum((0, *segments[:-1]))
    sizes = np.add.reduceat(np.abs(rows) if order == 1 else np.square(rows), starts, axis=1) / np.asarray(segments)
    return np.asarray(sizes if order == 1 else np.sqrt(sizes), np.float32)
