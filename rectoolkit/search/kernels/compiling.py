"""Compilation of the kernels: numba's options and cache, the processor's instructions, pieces of LLVM IR.

The loops are Python that numba compiles (``compiled`` and ``part``). Code that needs a certain vector instruction is
written as LLVM IR (``inlined``) and becomes part of these loops.
"""

from __future__ import annotations

import math
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba.core import config
from numba.extending import intrinsic

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

Function = TypeVar("Function", bound="Callable[..., Any]")

LANES = 64  # items of a tile, bytes of a vector
I1, I8, I16, I32, I64, F32 = (*(ir.IntType(n) for n in (1, 8, 16, 32, 64)), ir.FloatType())
CONFIG: Any = config


def digest_of_sources() -> str:
    """One digest of every file in this folder.

    A loop is made of many of them, but numba looks only at the file of the loop itself.
    """
    digest = sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


SOURCES = digest_of_sources()


def compiled(function: Function) -> Function:
    """Compile ``function`` on its first call, and keep it on disk if a folder for it can be written.

    numba's reference counts are off (``_nrt``): they would cost 40 atomic operations a tile on counters that all
    threads share. So no kernel may allocate an array. A scan works in the arrays of ``queries.Work``.
    """
    compiler: Any = numba.njit
    try:
        result: Any = compiler(nogil=True, cache=True, error_model="numpy", _nrt=False)(function)
        kept = result._cache._cache_file
        kept._source_stamp = SOURCES if kept._source_stamp else ""  # numba put the time and size of one file there
    except (RuntimeError, AttributeError):  # no folder to write to, or a numba without these private attributes:
        result = compiler(nogil=True, error_model="numpy", _nrt=False)(function)  # compile again in each process
    return result  # type: ignore[no-any-return]


def part(function: Function) -> Function:
    """Compile ``function`` into the loops that call it."""
    compiler: Any = numba.njit
    result: Function = compiler(forceinline=True, error_model="numpy", _nrt=False)(function)
    return result


def aligned(shape: tuple[int, ...], kind: type) -> npt.NDArray[Any]:
    """Zeros that begin at a cache line: a vector load across two lines takes twice as long."""
    size = math.prod(shape) * np.dtype(kind).itemsize
    room = np.zeros(size + 64, np.uint8)
    start = -room.__array_interface__["data"][0] % 64  # a tenth of the time of room.ctypes
    return room[start : start + size].view(kind).reshape(shape)


def features() -> set[str]:
    """The instructions of the processor that numba compiles for, by LLVM's names."""
    if CONFIG.CPU_NAME or CONFIG.CPU_FEATURES:
        return {name[1:] for name in (CONFIG.CPU_FEATURES or "").split(",") if name.startswith("+")}
    return {name for name, present in llvmlite.binding.get_host_cpu_features().items() if present}


def instruction_set(features: set[str]) -> str:
    """The 8-bit dot product that a processor with these ``features`` offers."""
    if {"avx512vnni", "avx512bw"} <= features:
        return "vnni512"
    if "avxvnni" in features:
        return "vnni256"
    return "avx2" if "avx2" in features else "plain"


FEATURES = features()
INSTRUCTION_SET = instruction_set(FEATURES)


def inlined(function: Callable[..., Any]) -> Any:
    """Make a function of compiled code of ``function``, which returns a numba signature and writes the LLVM IR."""
    return intrinsic(function)


def vector(element: Any, lanes: int) -> Any:
    return ir.VectorType(element, lanes)


def splat(builder: Any, value: Any, lanes: int) -> Any:
    kind = vector(value.type, lanes)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, I32(0))
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), ir.Constant(vector(I32, lanes), [0] * lanes))


def call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    kind = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(declare(builder.module, kind, name), arguments)


def declare(module: Any, kind: Any, name: str) -> Any:
    return module.globals.get(name) or ir.Function(module, kind, name)


def pointer(context: Any, builder: Any, signature: Any, arguments: Any, place: int) -> Any:
    """The data of the array argument at ``place``, as bytes, moved by the offset (in bytes) that follows it."""
    array = context.make_array(signature.args[place])(context, builder, arguments[place])
    data = builder.bitcast(array.data, I8.as_pointer())
    return builder.gep(data, [arguments[place + 1]])


def load(builder: Any, pointer: Any, offset: Any, kind: Any, align: int = 1) -> Any:
    place = builder.gep(pointer, [offset if isinstance(offset, ir.Value) else I64(offset)])
    return builder.load(builder.bitcast(place, kind.as_pointer()), align=align)


def store(builder: Any, value: Any, pointer: Any, offset: int) -> None:
    place = builder.gep(pointer, [I64(offset)])
    builder.store(value, builder.bitcast(place, value.type.as_pointer()), align=1)


def shuffle(builder: Any, first: Any, second: Any, places: list[int]) -> Any:
    return builder.shuffle_vector(first, second, ir.Constant(vector(I32, len(places)), places))


def transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Vectors of as many elements as there are vectors, transposed."""
    size, step = len(rows), len(rows) // 2
    while step:  # swap blocks of step x step across the diagonal
        low = [n if not n & step else size + n - step for n in range(size)]
        high = [n + step if not n & step else size + n for n in range(size)]
        following = list(rows)
        for n in range(size):
            if not n & step:
                pair = rows[n], rows[n + step]
                following[n], following[n + step] = shuffle(builder, *pair, low), shuffle(builder, *pair, high)
        rows, step = following, step // 2
    return rows


def cases(builder: Any, value: Any, chosen: dict[int, Callable[[], None]]) -> None:
    """Run the code of the case that equals ``value``, if there is one."""
    done = builder.append_basic_block("done")
    for case, generate in chosen.items():
        matching, following = builder.append_basic_block("case"), builder.append_basic_block("next")
        builder.cbranch(builder.icmp_signed("==", value, I64(case)), matching, following)
        builder.position_at_end(matching)
        generate()
        builder.branch(done)
        builder.position_at_end(following)
    builder.branch(done)
    builder.position_at_end(done)


class Loop:
    """A counted loop whose body maps carried values to their next: ``builder`` stands after it when it is done."""

    def __init__(self, builder: Any, count: Any, start: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> None:
        before = builder.block
        head, tail = builder.append_basic_block("loop"), builder.append_basic_block("done")
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(I64)
        carried = [builder.phi(value.type) for value in start]
        following = body(index, carried)
        step = builder.add(index, I64(1))
        index.add_incoming(I64(0), before)
        index.add_incoming(step, builder.block)
        for phi, first, following_value in zip(carried, start, following, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(following_value, builder.block)
        builder.cbranch(builder.icmp_signed("<", step, count), head, tail)
        builder.position_at_end(tail)
        self.values = following
