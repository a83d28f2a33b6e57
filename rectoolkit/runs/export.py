"""Export of codes for other tools: our own file, numpy, parquet, or a faiss index.

``codes``    ``users.codes``, ``items.codes``: docs/reference/file-format.md, read by ``Index.open``.
``npy``      ``{users,items}.codes.npy`` uint8 (N, D), ``.scale.npy`` and ``.offset.npy`` float32 (N or 1, S).
``parquet``  ``users.parquet``, ``items.parquet``: columns id, codes (D bytes), scale and offset (lists of S floats).
``faiss``    ``items.faiss`` and ``users.faiss.npy``, the rows to search it with. The index is the smallest one that
             ranks as the codes do:

             - one bit on both sides, symmetric about 0, one scale: ``IndexBinaryFlat``, D / 8 bytes per item. Its
               distance is Hamming, so smaller is better.
             - one grid for all items: ``IndexScalarQuantizer`` of 4 bits (D / 2 bytes per item) for codes of up to
               4 bits, else of 8 bits (D bytes). Its range is set so that it decodes our codes to our values.
             - a scale or offset per item: ``IndexFlatIP`` of the decoded values, 4 D bytes per item.

             faiss breaks ties and rounds sums in its own way, so items of equal or nearly equal score may swap.

If the data has its own ids, they are in the column id of parquet, in ``{users,items}.ids`` beside ``codes``, and in
``{users,items}.ids.npy`` (N,) beside ``npy`` and ``faiss``.

``export.json`` lists the files, how to score, and the run that the codes are from. A folder holds the codes of one run,
because codes of two runs do not rank together and nothing would show it. So only the run that its ``export.json`` names
may write to a folder with such files again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rectoolkit.errors import UserError, nearest, needed
from rectoolkit.files import atomic_write, write_text
from rectoolkit.runs.layout import ENVIRONMENT, SIDES, codes_file, ids_file
from rectoolkit.search.codes import PackedTable, check_comparable, ranks_by_hamming

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rectoolkit.data import Ids

    Writer = Callable[[PackedTable, PackedTable, Path, dict[str, Ids]], dict[str, str]]


def export(
    users: PackedTable,
    items: PackedTable,
    to: str | Path,
    formats: Sequence[str] = ("codes",),
    source: Mapping[str, Any] | None = None,
    user_ids: Ids | None = None,
    item_ids: Ids | None = None,
) -> dict[str, dict[str, str]]:
    """Write both tables into the folder ``to`` in each of ``formats``.

    Returns format -> file -> a description of the file. ``source`` names the run that the tables are from, and
    ``user_ids`` and ``item_ids`` are the ids of their rows in the data. Raises UserError if a format is unknown, the
    tables do not belong together, a library is missing, or the folder holds files of another run.
    """
    if isinstance(formats, str):
        raise UserError(f"export formats must be a list, such as ['{formats}']")
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"unknown export format '{name}'; {nearest(str(name), FORMATS)}")
    if not formats:
        raise UserError(f"name at least one export format: {', '.join(FORMATS)}")
    try:
        check_comparable(users, items)
    except ValueError as error:
        raise UserError(str(error)) from None
    folder = Path(to)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder to export to")
    before = _exported_before(folder, source)
    folder.mkdir(parents=True, exist_ok=True)
    ids = {side: one for side, one in (("users", user_ids), ("items", item_ids)) if one is not None}
    facts = {"dim": items.dim, "segments": list(items.segments), "user_bits": users.bits, "item_bits": items.bits}
    rule = "value = scale * code + offset by segment; score = inner product of values, larger is better"
    described = {"run": source, **facts, "score": rule, "files": before}
    write_text(
        folder / EXPORT, json.dumps(described, indent=2) + "\n"
    )  # first, so that a partial export belongs to this run
    written = {name: FORMATS[name](users, items, folder, ids) for name in formats}
    described["files"] = {**before, **written}
    write_text(folder / EXPORT, json.dumps(described, indent=2) + "\n")
    return written


def _exported_before(folder: Path, source: Mapping[str, Any] | None) -> dict[str, Any]:
    """The files that the same run exported to ``folder`` before. Raises UserError if there are files of another run."""
    if (folder / ENVIRONMENT).exists():
        raise UserError(f"{folder}: is a run folder; name another folder to export to")
    names = (f"{side}.{end}" for side in SIDES for end in ENDS)
    there = [name for name in (EXPORT, *names) if (folder / name).exists()]
    if not there:
        return {}
    try:
        earlier = json.loads((folder / EXPORT).read_text(encoding="utf-8"))
        run, files = earlier["run"], dict(earlier["files"])
    except (OSError, ValueError, KeyError, TypeError):
        run, files = None, {}
    if run is None or source is None or run != dict(source):
        of = f"the run {run.get('name')}" if isinstance(run, dict) else "an export that does not name its run"
        raise UserError(
            f"{folder}: holds {', '.join(there[:3])} of {of}; codes of two runs must not mix: name another folder, or "
            "remove these files"
        )
    return files


def _codes(users: PackedTable, items: PackedTable, folder: Path, ids: dict[str, Ids]) -> dict[str, str]:
    for name, table in (("users", users), ("items", items)):
        table.save(folder / codes_file(name))
    for name, one in ids.items():
        one.save(folder / ids_file(name))
    written = {codes_file(name): "packed codes, docs/reference/file-format.md" for name in SIDES}
    return written | {ids_file(name): "the id of each row, docs/reference/file-format.md" for name in ids}


def _npy(users: PackedTable, items: PackedTable, folder: Path, ids: dict[str, Ids]) -> dict[str, str]:
    written = {}
    for name, table in (("users", users), ("items", items)):
        whole = table.unpack()
        parts: dict[str, Any] = {"codes": whole.codes, "scale": whole.scale, "offset": whole.offset}
        for part, array in parts.items():
            _save_npy(folder / f"{name}.{part}.npy", array)
            written[f"{name}.{part}.npy"] = f"{array.dtype} {array.shape}"
    return written | _npy_ids(folder, ids)


def _npy_ids(folder: Path, ids: dict[str, Ids]) -> dict[str, str]:
    for name, one in ids.items():
        _save_npy(folder / f"{name}.ids.npy", one.array())
    return {f"{name}.ids.npy": f"the id of each row ({len(one)},)" for name, one in ids.items()}


def _parquet(users: PackedTable, items: PackedTable, folder: Path, ids: dict[str, Ids]) -> dict[str, str]:
    arrow, parquet = _require("pyarrow"), _require("pyarrow.parquet")
    for name, table in (("users", users), ("items", items)):
        rows, segments = table.num_rows, len(table.segments)
        columns = {
            "id": arrow.array(ids[name].array() if name in ids else np.arange(rows)),
            "codes": arrow.FixedSizeBinaryArray.from_buffers(
                arrow.binary(table.dim), rows, [None, arrow.py_buffer(table.unpack().codes.tobytes())]
            ),
        }
        for part, array in zip(("scale", "offset"), table.affine(), strict=True):
            values = np.broadcast_to(array, (rows, segments)).ravel()
            columns[part] = arrow.FixedSizeListArray.from_arrays(arrow.array(values), segments)
        facts = {"bits": str(table.bits), "segments": json.dumps(list(table.segments))}
        with atomic_write(folder / f"{name}.parquet") as file:
            parquet.write_table(arrow.table(columns).replace_schema_metadata(facts), file)
    return {f"{name}.parquet": "columns id, codes, scale, offset" for name in SIDES}


def _faiss(users: PackedTable, items: PackedTable, folder: Path, ids: dict[str, Ids]) -> dict[str, str]:
    faiss = _require("faiss")
    index: Any
    asked: Any = users.unpack().decode()
    if users.bits == 1 and ranks_by_hamming(*users.affine(), items):
        users, items = (PackedTable.pack(table.unpack()) for table in (users, items))  # faiss counts unused bits too
        index = faiss.IndexBinaryFlat(8 * items.planes.shape[2])
        index.add(np.ascontiguousarray(items.planes[:, 0]))
        asked, data = users.planes[:, 0], faiss.serialize_index_binary(index)
    else:
        if items.one_grid:
            index = _scalar_quantizer(faiss, items)
        else:
            index = faiss.IndexFlatIP(items.dim)
            index.add(items.unpack().decode())
        data = faiss.serialize_index(index)
    with atomic_write(folder / "items.faiss") as file:
        file.write(np.asarray(data, np.uint8).data)
    _save_npy(folder / "users.faiss.npy", asked)
    written = {"items.faiss": type(index).__name__, "users.faiss.npy": "the users' rows, to search items.faiss with"}
    return written | _npy_ids(folder, ids)


def _scalar_quantizer(faiss: Any, items: PackedTable) -> Any:
    """faiss decodes code c of w bits as low + range * (c + 1/2) / (2^w - 1). Low and range follow from our grid."""
    width = 4 if items.bits <= 4 else 8
    quantizer = faiss.ScalarQuantizer
    index = faiss.IndexScalarQuantizer(
        items.dim, quantizer.QT_4bit if width == 4 else quantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    scale, offset = (np.repeat(a[0].astype(np.float64), items.segments) for a in (items.scale, items.offset))
    trained = np.concatenate((offset - scale / 2, scale * ((1 << width) - 1)))
    faiss.copy_array_to_vector(trained.astype(np.float32), index.sq.trained)
    index.is_trained = True
    stored: Any = items.unpack().codes
    if width == 4:
        stored = np.pad(stored, ((0, 0), (0, items.dim % 2)))
        stored = stored[:, ::2] | (stored[:, 1::2] << 4)
    index.add_sa_codes(np.ascontiguousarray(stored))
    return index


def _save_npy(path: Path, array: Any) -> None:
    with atomic_write(path) as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)


def _require(module: str) -> Any:
    import importlib

    with needed("this export"):
        return importlib.import_module(module)


EXPORT = "export.json"
ENDS = ("codes", "codes.npy", "scale.npy", "offset.npy", "parquet", "faiss", "faiss.npy", "ids", "ids.npy")
FORMATS: dict[str, Writer] = {"codes": _codes, "npy": _npy, "parquet": _parquet, "faiss": _faiss}
