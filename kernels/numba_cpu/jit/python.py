"""Functions that Python calls directly, as it calls its own built-in ones (METH_FASTCALL: self, args, count).

They spare the microsecond that ctypes takes to convert arguments. Every Python function used here belongs to the
stable ABI. Objects are handled as int64 addresses; a result of 0 means that an exception is set.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.numba_cpu.jit import executor, system
from kernels.numba_cpu.jit.helper import helper
from kernels.numba_cpu.jit.vector import int64, pointer

#: Arguments that `launch` can take.
LIMIT = 60
_WORD = ir.IntType(64)


def _c_function(name: str, count: int):
    """A C function of `count` words that returns a word, callable from compiled code."""

    def function(typingctx, *args):
        def codegen(context, builder, sig, values):
            kind = ir.FunctionType(_WORD, [_WORD] * count)
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values)

        return types.int64(*[types.int64] * count), codegen

    arguments = ", ".join(f"a{i}" for i in range(count))
    scope = {"function": function}
    exec(f"def {name}(typingctx{', ' if count else ''}{arguments}): return function(typingctx, {arguments})", scope)
    return intrinsic(scope[name])


_as_word = _c_function("PyLong_AsLongLong", 1)
_from_word = _c_function("PyLong_FromLongLong", 1)
_bytes_data = _c_function("PyBytes_AsString", 1)
_bytes_size = _c_function("PyBytes_Size", 1)
_bytes_new = _c_function("PyBytes_FromStringAndSize", 2)
_tuple_size = _c_function("PyTuple_Size", 1)
_tuple_item = _c_function("PyTuple_GetItem", 2)
_is_subtype = _c_function("PyType_IsSubtype", 2)
_refuse = _c_function("PyErr_BadArgument", 0)
_failed = _c_function("PyErr_Occurred", 0)
_drop = _c_function("Py_DecRef", 1)
_release = _c_function("PyEval_SaveThread", 0)
_acquire = _c_function("PyEval_RestoreThread", 1)


@intrinsic
def _float_word(typingctx, value):
    """The bits of a Python float."""

    def codegen(context, builder, sig, values):
        kind = ir.FunctionType(ir.DoubleType(), [_WORD])
        number = builder.call(cgutils.get_or_insert_function(builder.module, kind, "PyFloat_AsDouble"), values)
        return builder.bitcast(number, _WORD)

    return types.int64(types.int64), codegen


@intrinsic
def _block(typingctx):
    """Memory for one instruction, for the length of the call."""

    def codegen(context, builder, sig, values):
        return builder.ptrtoint(cgutils.alloca_once(builder, _WORD, size=LIMIT + 3), _WORD)

    return types.int64(), codegen


@intrinsic
def _low_int(typingctx, word):
    """The low 32 bits, signed: what a C function that returns int leaves in a word."""

    def codegen(context, builder, sig, values):
        return builder.sext(builder.trunc(values[0], ir.IntType(32)), _WORD)

    return types.int64(types.int64), codegen


def execute():
    """execute(code: bytes, times, stop, pool) -> repetitions done."""
    run = helper(executor.execute())

    def execute(self, args, count):
        given = pointer(args, int64)
        code = _bytes_data(given[0])
        times, stop, pool = _as_word(given[1]), _as_word(given[2]), _as_word(given[3])
        if code == 0 or _failed() != 0:
            return 0
        words = _bytes_size(given[0]) >> 3
        state = _release()
        done = run(pointer(code, int64), words, times, stop, pool)
        _acquire(state)
        return _from_word(done)

    return execute


def launch():
    """launch(kernel, parts, pool, arguments: tuple) -> the instruction, carried out once.

    An argument is an int, a float (its float64 bits), an array (its address) or bytes (words packed already). `self` is
    bytes of four words: the types ndarray, float and bytes, and the size of an object's header.
    """
    run = helper(executor.execute())

    def launch(self, args, count):
        given, table = pointer(args, int64), pointer(_bytes_data(self), int64)
        array, number, packed, header = table[0], table[1], table[2], table[3]
        arguments = given[3]
        size = _tuple_size(arguments)
        if size > LIMIT:
            _refuse()
            return 0
        block = _block()
        code = pointer(block, int64)
        pool = _as_word(given[2])
        at = 3
        for i in range(size):
            item = _tuple_item(arguments, i)
            kind = pointer(item + header - 8, int64)[0]
            if kind == packed:
                words, data = _bytes_size(item) >> 3, pointer(_bytes_data(item), int64)
                if at + words + size - i > LIMIT + 3:
                    _refuse()
                    return 0
                for word in range(words):
                    code[at + word] = data[word]
                at += words
                continue
            if kind == array:
                code[at] = pointer(item + header, int64)[0]
            elif kind == number:
                code[at] = _float_word(item)
            elif _low_int(_is_subtype(kind, array)) != 0:
                code[at] = pointer(item + header, int64)[0]
            else:
                word = _as_word(item)
                if word == -1 and _failed() != 0:
                    return 0
                code[at] = word
            at += 1
        code[0], code[1], code[2] = _as_word(given[0]), at, _as_word(given[1])
        if _failed() != 0:
            return 0
        state = _release()
        run(code, at, 1, 0, pool)
        _acquire(state)
        return _bytes_new(block, 8 * at)

    return launch


def signature():
    """signature(*arguments) -> bytes: of an array its dtype's code, ndim, shape and strides, of an int its value.

    `self` is bytes of three words: the type ndarray, the size of an object's header, and where a dtype's code lies.
    """

    @helper
    def is_array(item, header, array):
        kind = pointer(item + header - 8, int64)[0]
        return kind == array or _low_int(_is_subtype(kind, array)) != 0

    def signature(self, args, count):
        given, table = pointer(args, int64), pointer(_bytes_data(self), int64)
        array, header, place = table[0], table[1], table[2]
        words = 0
        for i in range(count):
            if is_array(given[i], header, array):
                words += 2 + 2 * (pointer(given[i] + header, int64)[1] & 0xFFFFFFFF)
            else:
                words += 1
        made = _bytes_new(0, 8 * words)
        if made == 0:
            return 0
        to, at = pointer(_bytes_data(made), int64), 0
        for i in range(count):
            if not is_array(given[i], header, array):
                to[at] = _as_word(given[i])
                if to[at] == -1 and _failed() != 0:
                    _drop(made)
                    return 0
                at += 1
                continue
            fields = pointer(given[i] + header, int64)  # data, ndim, shape, strides, base, dtype, flags
            ndim = fields[1] & 0xFFFFFFFF
            shape, strides = pointer(fields[2], int64), pointer(fields[3], int64)
            to[at], to[at + 1] = pointer(fields[5] + place, int64)[0], ndim
            for axis in range(ndim):
                to[at + 2 + axis], to[at + 2 + ndim + axis] = shape[axis], strides[axis]
            at += 2 + 2 * ndim
        return made

    return signature


#: Of an array's flags: its elements lie side by side in C order, each where its type may lie.
_PLAIN = 0x0101


def replay():
    """replay(pool, *arrays) -> 1 if the code was carried out on these arrays, 0 if they do not fit.

    `self` is a tuple; first in it are bytes of two words: the size of an object's header, and the address of a table:

        0 busy  1 type ndarray  2 arrays  3 written ranges  4 first word of code  5 words of code
        6 ... for each written range: first byte, byte after the last
        then for each array: words of this record, dtype object, bytes, ndim, shape ..., and pairs (word of the code,
        byte of the array whose address belongs there)

    An array fits if it has that dtype and shape, is contiguous and overlaps no range that the code writes.
    """
    run = helper(executor.execute())
    swap_if, store = system.atomic_swap_if, system.atomic_store

    @helper
    def fits(array, header, table, at):
        if pointer(array + header - 8, int64)[0] != table[1]:
            return False
        fields = pointer(array + header, int64)  # data, ndim, shape, strides, base, dtype, flags
        low, ndim = fields[0], fields[1] & 0xFFFFFFFF
        if fields[5] != table[at + 1] or ndim != table[at + 3] or fields[6] & _PLAIN != _PLAIN:
            return False
        shape = pointer(fields[2], int64)
        for i in range(ndim):
            if shape[i] != table[at + 4 + i]:
                return False
        high, overlaps = low + table[at + 2], 0
        for i in range(table[3]):
            overlaps += low < table[7 + 2 * i] and table[6 + 2 * i] < high
        return overlaps == 0

    def replay(self, args, count):
        given, state = pointer(args, int64), pointer(_bytes_data(_tuple_item(self, 0)), int64)
        header, base = state[0], state[1]
        table, pool = pointer(base, int64), _as_word(given[0])
        first = 6 + 2 * table[3]
        if count != table[2] + 1:
            return _from_word(0)
        at = first
        for i in range(1, count):
            if not fits(given[i], header, table, at):
                return _from_word(0)
            at += table[at]
        if not swap_if(base, 0, 1):  # another thread is at it
            return _from_word(0)
        at = first
        for i in range(1, count):
            data = pointer(given[i] + header, int64)[0]
            for k in range(at + 4 + table[at + 3], at + table[at], 2):
                table[table[4] + table[k]] = data + table[k + 1]
            at += table[at]
        released = _release()
        run(pointer(base + 8 * table[4], int64), table[5], 1, 0, pool)
        _acquire(released)
        store(base, 0)
        return _from_word(1)

    return replay
