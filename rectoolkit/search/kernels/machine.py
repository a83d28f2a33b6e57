"""Writing vector code as LLVM IR: the few pieces that ``vectors`` is made of, and what the processor offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import llvmlite.binding
from llvmlite import ir
from numba.core import config
from numba.extending import intrinsic

if TYPE_CHECKING:
    from collections.abc import Callable

I1, I8, I16, I32, I64, F32 = (*(ir.IntType(n) for n in (1, 8, 16, 32, 64)), ir.FloatType())
CONFIG: Any = config


def features() -> set[str]:
    """What the machine that numba compiles for has, by LLVM's names."""
    if CONFIG.CPU_NAME or CONFIG.CPU_FEATURES:
        return {name[1:] for name in (CONFIG.CPU_FEATURES or "").split(",") if name.startswith("+")}
    return {name for name, present in llvmlite.binding.get_host_cpu_features().items() if present}


def instruction_set(features: set[str]) -> str:
    """Which 8-bit dot product they offer."""
    if {"avx512vnni", "avx512bw"} <= features:
        return "vnni512"
    if "avxvnni" in features:
        return "vnni256"
    return "avx2" if "avx2" in features else "plain"


FEATURES = features()
INSTRUCTION_SET = instruction_set(FEATURES)


def inlined(function: Callable[..., Any]) -> Any:
    """``function``, which gives a numba signature and writes the code for it, as a function of compiled code."""
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
