"""The loop over all parameters of an optimizer's group, and counters."""

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.formula import Formula
from kernels.numba_cpu.host import host
from kernels.numba_cpu.jit import formula as formulas
from kernels.numba_cpu.jit.elementwise import BYTES, SideBySide, for_each_vector
from kernels.numba_cpu.jit.values import DOUBLE, ELEMENTS, I64, Lanes, splat
from kernels.numba_cpu.jit.vector import float64, float_bits, int64, pointer
from kernels.updates import Update


def update(rule: Update, dtype: str) -> Callable:
    """args: address of the values, number of parameters, then for each its size and the addresses of the parameter,
    its gradient and its states. A part is a share of all elements."""
    numbers, step = _numbers(rule), _step(rule, dtype)
    words = 3 + len(rule.states)

    def kernel(args, part, parts):
        count, total = args[1], 0
        for i in range(count):
            total += args[2 + i * words]
        begin, end = total * part // parts, total * (part + 1) // parts
        known = numbers(args)
        done = 0
        for i in range(count):
            at = 2 + i * words
            low, high = max(begin - done, 0), min(end - done, args[at])
            if low < high:
                step(args, at + 1, known, low, high - low)
            done += args[at]

    return kernel


def advance(dtype: str) -> Callable:
    """args: address of the counter, amount."""
    if dtype == "int64":

        def kernel(args, part, parts):
            pointer(args[0], int64)[0] += args[1]

    else:

        def kernel(args, part, parts):
            pointer(args[0], float64)[0] += float_bits(args[1])

    return kernel


def _names(rule: Update) -> list[str]:
    """Of the numbers that the statements may use."""
    return [*rule.values, *[name for name, _ in rule.scalars]]


def _numbers(rule: Update):
    """numbers(args): the values and scalars as float64, in the order of `_names`."""

    @intrinsic
    def numbers(typing, args):
        def codegen(context, builder, sig, arguments):
            address = builder.load(arguments[0], typ=I64)
            values = SideBySide(builder, "float64", address)
            known = {name: values.read(I64(i), 1) for i, name in enumerate(rule.values)}
            for name, text in rule.scalars:
                known[name] = formulas.emit(Formula.of(text, *known), known, DOUBLE)
            return cgutils.pack_array(builder, [builder.extract_element(x.value, I64(0)) for x in known.values()])

        return types.UniTuple(types.float64, len(_names(rule)))(args), codegen

    return numbers


def _step(rule: Update, dtype: str):
    """step(args, at, numbers, low, n): the statements for elements low .. low + n - 1 of the parameter whose addresses
    are at args[at]."""
    element = ELEMENTS[dtype]

    @intrinsic
    def step(typing, args, at, numbers, low, n):
        def codegen(context, builder, sig, arguments):
            words, at, numbers, low, n = arguments
            scalars = dict(zip(_names(rule), cgutils.unpack_tuple(builder, numbers), strict=True))
            arrays = {}
            for k, name in enumerate(("w", "g", *rule.states)):
                address = builder.load(builder.gep(words, [builder.add(at, I64(k))], source_etype=I64), typ=I64)
                begin = builder.add(address, builder.mul(low, I64(BYTES[dtype])))
                arrays[name] = SideBySide(builder, dtype, begin)

            def block(index: ir.Value, lanes: int, count: ir.Value | None = None) -> None:
                known: dict[str, Lanes] = {name: x.read(index, lanes, count) for name, x in arrays.items()}
                known.update({name: splat(builder, x, lanes).to(element) for name, x in scalars.items()})
                for name, text in rule.statements:
                    known[name] = formulas.emit(Formula.of(text, *known), known, element)
                for name in ("w", *rule.states):
                    arrays[name].write(index, known[name], count)

            for_each_vector(builder, n, host().lanes(dtype), 2, block)
            return context.get_dummy_value()

        return types.none(args, types.int64, numbers, types.int64, types.int64), codegen

    return step
