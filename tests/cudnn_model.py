"""What the package `cudnn` does with its graphs of one convolution, by the reference on the host's memory."""

import ctypes
from types import SimpleNamespace

import numpy as np

from kernels import plan
from kernels.reference import reference

ORACLE = reference(np)


class NotSupported(Exception):
    pass


class Tensor:
    """A tensor of four axes, channels second."""

    def __init__(self, dim=None, stride=None, data_type=None):
        self.dim, self.stride, self.data_type, self.output = dim, stride, data_type, False

    def set_output(self, value):
        self.output = value
        return self

    def set_data_type(self, data_type):
        self.data_type = data_type
        return self

    def set_dim(self, dim):
        self.dim = dim
        return self

    def set_stride(self, stride):
        self.stride = stride
        return self

    def array(self, address):
        """Its values, channels last, in float64; and a function that writes them."""
        assert self.data_type == "float" and self.stride[1] == 1  # cuDNN's kernels for tensor cores want that
        extent = 1 + sum((n - 1) * step for n, step in zip(self.dim, self.stride, strict=True))
        memory = np.frombuffer((ctypes.c_float * extent).from_address(address), np.float32)
        view = np.lib.stride_tricks.as_strided(memory, self.dim, [4 * step for step in self.stride])
        return view.transpose(0, 2, 3, 1)


class Module:
    """The package. unsupported: its graphs cannot be built. workspace: bytes that they write there."""

    data_type = SimpleNamespace(FLOAT="float")
    heur_mode = SimpleNamespace(A="a", FALLBACK="fallback")
    numerical_note = SimpleNamespace(
        **{name: name for name in ("TENSOR_CORE", "DOWN_CONVERT_INPUTS", "NONDETERMINISTIC", "WINOGRAD", "FFT")}
    )
    cudnnGraphNotSupportedError = NotSupported

    def __init__(self, unsupported=False, workspace=0):
        self.unsupported, self.workspace = unsupported, workspace
        self.graphs, self.streams = [], []

    def create_handle(self):
        return "a handle"

    def set_stream(self, handle, stream):
        self.streams.append(stream)

    def pygraph(self, **options):
        assert options.pop("handle") == "a handle" and set(options.values()) == {"float"}
        graph = Graph(self)
        self.graphs.append(graph)
        return graph


class Graph:
    """Its methods are to be called in the order of STEPS."""

    STEPS = (
        "validate",
        "build_operation_graph",
        "create_execution_plans",
        "deselect_numeric_notes",
        "deselect_workspace_greater_than",
        "check_support",
        "build_plans",
    )

    def __init__(self, module):
        self.module, self.done, self.notes = module, [], ()

    def __getattr__(self, name):
        if name not in self.STEPS:
            raise AttributeError(name)
        return lambda *arguments: self._step(name, *arguments)

    def _step(self, name, *arguments):
        self.done.append(name)
        if name == "deselect_numeric_notes":
            (self.notes,) = arguments
        if name == "check_support" and self.module.unsupported:
            raise NotSupported

    def tensor(self, name, dim, stride, data_type):
        return Tensor(dim, stride, data_type)

    def conv_fprop(self, image, weight, **options):
        return self._operation(image, weight, Tensor(), options, 2)

    def conv_dgrad(self, loss, filter, **options):
        return self._operation(Tensor(), filter, loss, options, 0)

    def conv_wgrad(self, image, loss, **options):
        return self._operation(image, Tensor(), loss, options, 1)

    def _operation(self, image, filters, result, options, given):
        self.tensors, self.options, self.given = (image, filters, result), options, given
        return self.tensors[given]

    def get_workspace_size(self):
        return self.module.workspace

    def execute(self, places, workspace, handle):
        assert handle == "a handle" and tuple(self.done) == self.STEPS and self.tensors[self.given].output
        if self.module.workspace:
            ctypes.memset(workspace, 255, self.module.workspace)
        image, filters, result = (tensor.array(places[tensor]) for tensor in self.tensors)
        options = self.options
        padding = tuple(zip(options["pre_padding"], options["post_padding"], strict=True))
        groups = image.shape[3] // filters.shape[3]
        constants = options["stride"], padding, options["dilation"], groups
        w = filters.transpose(1, 2, 3, 0)
        out = np.empty((image, w, result)[self.given].shape)
        image64, w64, result64 = (x.astype(np.float64) for x in (image, w, result))
        with plan.paused():
            if self.given == 2:
                ORACLE.conv2d(image64, w64, None, *constants, None, out)
            elif self.given == 0:
                ORACLE.conv2d_transpose(result64, w64, None, *constants, None, out)
            else:
                ORACLE.conv2d_weight_gradient(image64, result64, *constants, out)
        (image, w, result)[self.given][...] = out
