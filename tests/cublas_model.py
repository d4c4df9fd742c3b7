"""What the functions of cuBLASLt do with their descriptors, by NumPy on the host's memory."""

import ctypes
import time

import numpy as np

FLOATS = {0: np.float32, 1: np.float64, 14: np.uint16}
COMPUTE = {68: np.float32, 77: np.float32, 70: np.float64}
TYPES_OF = {  # attributes as cublasLt.h numbers them, with their types
    "MatmulDesc": {3: ctypes.c_int32, 4: ctypes.c_int32, 7: ctypes.c_uint32, 8: ctypes.c_void_p},
    "MatrixLayout": {5: ctypes.c_int32, 6: ctypes.c_int64},
    "MatmulPreference": {
        1: ctypes.c_uint64,
        5: ctypes.c_uint32,
        6: ctypes.c_uint32,
        7: ctypes.c_uint32,
        8: ctypes.c_uint32,
    },
}


def widened(x):
    """bf16, which is the upper half of a float32, as float32."""
    return (x.astype(np.uint32) << 16).view(np.float32) if x.dtype == np.uint16 else x


class Model:
    """A library whose functions take what those of cuBLASLt take. unfit(product, preference): what it cannot do.

    workspace: bytes that each product writes there. pause: seconds that each takes to begin. streams: of the products
    that were made.
    """

    def __init__(self, unfit=lambda product, preference: False, workspace=0, pause=0.0):
        self.unfit, self.workspace, self.pause = unfit, workspace, pause
        self.things, self.asked, self.streams = {}, 0, []

    def __getattr__(self, name):
        for kind in TYPES_OF:
            if name == f"cublasLt{kind}Create":
                return lambda made, *rest: self._create(kind, made, *rest)
            if name == f"cublasLt{kind}SetAttribute":
                return lambda *rest: self._set(kind, *rest)
            if name == f"cublasLt{kind}Destroy":
                return lambda thing: self.things.pop(thing.value)[0] != kind
        raise AttributeError(name)

    def cublasLtCreate(self, handle):
        handle._obj.value = 1
        return 0

    def _create(self, kind, made, *rest):
        made._obj.value = 1000 + len(self.things)
        while made._obj.value in self.things:
            made._obj.value += 1
        values = [one if isinstance(one, int) else one.value for one in rest]
        self.things[made._obj.value] = (kind, values, {})
        return 0

    def _set(self, kind, thing, attribute, value, size):
        known, _, attributes = self.things[thing.value]
        wanted = TYPES_OF[kind][attribute]
        if known != kind or type(value._obj) is not wanted or size.value != ctypes.sizeof(wanted):
            return 7
        attributes[attribute] = value._obj.value
        return 0

    def cublasLtMatmulAlgoGetHeuristic(self, handle, product, a, b, c, d, preference, most, found, count):
        self.asked += 1
        kind, _, attributes = self.things[preference.value]
        assert kind == "MatmulPreference" and handle.value == 1 and most == 1 and c.value == d.value
        assert attributes[1] >= self.workspace and ctypes.sizeof(found._obj) == 96
        if self.unfit(self.things[product.value][2], attributes):
            return 15
        found._obj.way[:] = range(8)
        found._obj.workspace, found._obj.state = self.workspace, 0
        count._obj.value = 1
        return 0

    def cublasLtMatmul(self, handle, product, one, a, of_a, b, of_b, zero, c, of_c, d, of_d, way, space, size, stream):
        time.sleep(self.pause)
        _, (compute, scale), attributes = self.things[product.value]
        assert list(way._obj) == list(range(8)) and one._obj.value == 1 and zero._obj.value == 0 and c.value == d.value
        assert COMPUTE[compute] == FLOATS[scale] and size.value == self.workspace
        if size.value:
            ctypes.memset(space.value, 255, size.value)
        batch = self.things[of_d.value][2][5]
        assert batch == self.things[of_a.value][2][5] == self.things[of_b.value][2][5]
        for i in range(batch):
            first, second = widened(self._matrix(a, of_a, i)), widened(self._matrix(b, of_b, i))
            result = (first.T if attributes[3] else first) @ (second.T if attributes[4] else second)
            if attributes[7] & 4:
                result = result + self._array(attributes[8], result.shape[:1], FLOATS[scale], (0,))[:, None]
            self._matrix(d, of_d, i)[...] = result
        self.streams.append(stream.value)
        return 0

    def _matrix(self, start, layout, i):
        _, (kind, rows, columns, lead), attributes = self.things[layout.value]
        assert lead >= rows
        dtype = np.dtype(FLOATS[kind])
        start = start.value + i * attributes[6] * dtype.itemsize
        return self._array(start, (rows, columns), dtype, (dtype.itemsize, lead * dtype.itemsize))

    @staticmethod
    def _array(address, shape, dtype, strides):
        size = np.dtype(dtype).itemsize
        strides = (size,) if len(shape) == 1 else strides
        extent = size + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        return np.ndarray(shape, dtype, (ctypes.c_char * extent).from_address(address), 0, strides)
