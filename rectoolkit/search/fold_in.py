"""Fold-in: embed new users from their items, without retraining.

A new user's row is a linear map of the user's items, learned from the trained users:

    x_u = sum over u's items of d_i^-p y_i / sqrt(n_u)        t_u = x_u W

y_i is the row of item i as it is served (its decoded codes), d_i the number of users of item i, and n_u the number of
items of user u. W (F, width) is the ridge regression of the trained users' t_u on their x_u. t_u is the row that a
user's code stands for, for example a rotated row if the quantizer rotates, so W includes such a transform. t_u is coded
on the users' own grid by taking the nearest value. The encoder chooses p: 1/2 if it propagates with D^-1/2 (LightGCN,
NGCF), else 0. An encoder that computes a user's row from items alone (GraphSAGE) gives its ``steps``, and x_u is that
row.

LightGCN's own formula with zeros for the new user's row does worse, because that row carries most of what tells users
apart (docs/notes/log.md has the figures). One W serves every encoder and quantizer, plugins too, for F x width numbers.

The map is kept in ``fold_in.bin`` (docs/reference/file-format.md). This module imports neither torch nor dgl.
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
SMALLEST_SQUARE = 1e-24  # of a row's mean square, so that rows of zeros have a unit too
LEAST_ALONG = 0.1  # of x's mean square, so that a row which its grid does not fit is stretched at most tenfold
MOST_USERS = 100_000  # enough for a map of some thousand numbers; a sample above


@dataclass(frozen=True)
class Step:
    """A layer of an encoder that computes users from items: act(own W_own + mean over u's items of ``rows`` W + b).

    ``rows`` (I, D) are the items' rows at this layer, ``own`` (D, D) or (0, 0) without one, ``neighbours`` (D, D),
    ``bias`` (D,). The last layer has no activation, the others have ReLU.
    """

    rows: Floats
    own: Floats
    neighbours: Floats
    bias: Floats


@dataclass(frozen=True)
class Aggregation:
    """The aggregation of a user's items by an encoder: by ``weight`` (the p above), or ``steps`` from ``start``."""

    weight: float = 0.0
    steps: tuple[Step, ...] = ()
    start: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    normalize: bool = False


@dataclass(frozen=True)
class RowGrid:
    """The grid of rows that have scales of their own, by segment, in units of a row's mean.

    ``order`` is 1 for the mean magnitude, 2 for the root mean square. ``reach`` (S,) is the distance between
    neighbouring values. ``low`` (S,) is the least value, and has length 0 if the grid is symmetric about zero.
    """

    reach: Floats
    low: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    order: int = 1

    def affine(self, rows: Floats, segments: tuple[int, ...], top: int) -> tuple[Floats, Floats]:
        """Scale and offset (n, S) of codes 0..``top`` for ``rows``."""
        unit = _means(rows, segments, self.order)
        scale = np.maximum(unit * self.reach, np.float32(1e-12))
        return scale, unit * self.low if len(self.low) else scale * np.float32(-top / 2)


@dataclass(frozen=True)
class FoldIn:
    """The map that embeds new users: the encoder's ``aggregation``, the map W (F, width), the ``grid`` of row scales.

    If rows have no scales of their own, ``grid`` has a ``reach`` of length 0, and the users' scale and offset are used.
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
        """Learn the map from the trained users.

        ``tables`` are users and items as served, and ``targets`` (U, width) the users' t_u. ``grid`` is that of users
        with scales of their own. By default it is symmetric, in mean magnitudes, and read off the users. If the
        encoder's own steps give a row, W maps ``real`` (U, D), the rows before the quantizer, to t_u.
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
        """Embed new users, each a list of item rows: their t_u, float32 (n, width).

        ``ids`` are the data's names of the items, for messages. Raises UserError if there is no user, or if none of a
        user's items was in training.
        """
        if not lists:
            raise UserError("no user given; a new user is a list of item ids")
        known = [_known(items_of, degrees, ids) for items_of in lists]
        return _features(self.aggregation, known, items, degrees) @ self.map

    def coded(self, rows: Floats, users: PackedTable) -> CodeTable:
        """Code ``rows`` (n, width) by the nearest values of the grid of ``users``."""
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
        scale, offset = two_bytes(
            scale * factor, offset * factor
        )  # the decoded row is then as long in the direction of the row
        return replace(table, scale=scale, offset=offset)

    def misfit(self, users: Table, items: Table) -> str:
        """Describe what does not fit the tables of its run. Empty if all of it fits."""
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
        """Write this as one file, atomically."""
        how = self.aggregation
        arrays: dict[str, npt.NDArray[Any]] = {"map": self.map, "start": how.start}
        arrays |= {"reach": self.grid.reach, "low": self.grid.low}
        for place, step in enumerate(how.steps):
            arrays |= {f"{name}_{place}": array for name, array in vars(step).items()}
        facts = {"weight": how.weight, "steps": len(how.steps), "normalize": how.normalize, "order": self.grid.order}
        save_arrays(path, "fold_in", arrays, facts)

    @classmethod
    def load(cls, path: Path) -> FoldIn:
        """Open a saved file by memory map. Raises FormatError if it is missing, damaged or of another kind."""
        if not path.exists():
            raise FormatError(
                f"{path}: no such file; a run of an earlier release cannot embed new users: "
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
    """One user's items that were in training, each once. Raises UserError if there is none."""
    known = np.unique(items[degrees[items] > 0])
    if not len(known):
        first = items[0] if ids is None else ids[int(items[0])]
        raise UserError(
            f"item {first}: no user had {'it' if len(items) == 1 else 'any of these items'} in training, so nothing "
            "is known about who likes it; name another item"
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
    """The rows (n, D) that an encoder's own steps give."""
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
    """A row's scale over its mean magnitude, by segment, the median over users. Empty if all rows share a scale."""
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
