"""Which kernel makes a product on the GPU: cuBLASLt's descriptors, the choice among kernels and what is kept of it."""

import json
import threading

import apart
import emulator
import numpy as np
import pytest
from cublas_model import Model
from cudnn_model import ORACLE, Module
from test_gpu_products import rounded
from views import replayed, unset

import nanonet
from kernels import determinism, plan
from kernels.cupy_gpu import convolution
from kernels.cupy_gpu import gemm as gemms
from kernels.cupy_gpu.choice import OWN, Choice, File, Unfit
from kernels.cupy_gpu.convolution import Convolution
from kernels.cupy_gpu.cublas import CublasLt
from kernels.cupy_gpu.cudnn import Cudnn
from kernels.cupy_gpu.elementwise import Elementwise
from kernels.cupy_gpu.gemm import LIBRARY, Gemm
from nanonet.errors import OptionError

pytestmark = pytest.mark.skipif(
    emulator.COMPILER is None, reason="no C++ compiler, which the emulator of the GPU needs"
)


@pytest.fixture(autouse=True)
def switches(monkeypatch):
    """The switches as they are at first, now and after the test; no products are too small."""
    monkeypatch.setattr(determinism.mode, "deterministic", False)
    monkeypatch.setattr(determinism.mode, "benchmark", False)
    monkeypatch.delenv("NANONET_TUNED", raising=False)
    monkeypatch.setattr(gemms, "WORTH", 1)
    monkeypatch.setattr(convolution, "WORTH", 1)
    monkeypatch.setattr(gemms, "LARGE", {"tf32": 1, "bf16": 1})


class Hopper(emulator.Emulator):
    capability = (9, 0)


def numbers(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(dtype)


def with_library(model, precision=None, device=None, **options):
    """Products by the library wherever it serves."""
    device = device or Hopper()
    found = CublasLt(device, model, lambda: 7)
    return Gemm(device, precision, Always(LIBRARY), lambda: found, **options)


class Always(Choice):
    """One way wherever it serves."""

    def __init__(self, name):
        self.name = name

    def carry_out(self, key, precision, ways, out, rule=OWN):
        try:
            ways.get(self.name, ways[OWN])()
        except Unfit:
            ways[OWN]()


# -------------------------------------------------------------------------------------------- cuBLASLt


@pytest.mark.parametrize("a_turned", [False, True])
@pytest.mark.parametrize("b_turned", [False, True])
@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("workspace", [0, 512])
def test_products_by_cublas(a_turned, b_turned, lead, workspace):
    model = Model(workspace=workspace)
    gemm = with_library(model)
    a, b, bias = numbers(*lead, 5, 7), numbers(*lead, 7, 4, seed=1), numbers(4)
    a = np.ascontiguousarray(a.mT).mT if a_turned else a
    b = np.ascontiguousarray(b.mT).mT if b_turned else b
    out = unset((*lead, 5, 4), np.float64)
    for call, names, want in (
        (lambda: gemm.matmul(a, b, out), ["cublas"], a @ b),
        (lambda: gemm.linear(a, b, bias, None, out), ["cublas"], a @ b + bias),
        (lambda: gemm.linear(a, b, bias, "relu", out), ["cublas", "finish"], np.maximum(a @ b + bias, 0)),
        (lambda: gemm.linear(a, b, None, "tanh", out), ["cublas", "finish"], np.tanh(a @ b)),
        (lambda: gemm.linear(a, b, bias[::-1], None, out), ["cublas", "finish"], a @ b + bias[::-1]),
    ):
        assert replayed(call, out).names == names
        np.testing.assert_allclose(out, want, rtol=1e-12, atol=1e-12)
    assert set(model.streams) == {7}


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_the_precision_is_part_of_a_product(precision):
    model = Model()
    a, b, out = numbers(6, 8, dtype=np.float32), numbers(8, 4, dtype=np.float32), unset((6, 4), np.float32)
    with_library(model, precision).matmul(a, b, out)
    of_bf16 = precision == "bf16"
    np.testing.assert_allclose(out, rounded(a, "bf16") @ rounded(b, "bf16") if of_bf16 else a @ b, rtol=1e-5, atol=1e-6)
    (made,) = [values for kind, values, _ in model.things.values() if kind == "MatmulDesc"]
    assert made == [{"float32": 68, "tf32": 77, "bf16": 68}[precision], 0]
    kinds = [values[0] for kind, values, _ in model.things.values() if kind == "MatrixLayout"]
    assert kinds == ([14, 14, 0] if of_bf16 else [0, 0, 0])


def test_operands_for_cublas_are_rounded_where_they_lie():
    """Turned, of a batch, shared, with rows apart and of no multiple of 16 bytes."""
    gemm = with_library(Model(), "bf16")
    a, b, bias = numbers(3, 9, 5, dtype=np.float32).swapaxes(1, 2), numbers(9, 10, dtype=np.float32)[:, :7], numbers(7)
    out = unset((3, 5, 7), np.float32)
    gemm.linear(a, b, bias.astype(np.float32), "relu", out)
    want = np.maximum(rounded(a, "bf16") @ rounded(b, "bf16") + bias, 0)
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)


def test_parts_of_larger_arrays_and_products_that_share_an_operand():
    gemm = with_library(Model())
    a, b = numbers(3, 5, 9)[..., :7], numbers(7, 10)[:, 2:6]
    out = unset((3, 5, 4), np.float64)
    assert replayed(lambda: gemm.matmul(a, b, out), out).names == ["cublas"]
    np.testing.assert_allclose(out, a @ b, rtol=1e-12, atol=1e-12)
    inside = unset((5, 8), np.float64)
    gemm.matmul(a[0], b, inside[:, 2:6])
    np.testing.assert_allclose(inside[:, 2:6], a[0] @ b, rtol=1e-12, atol=1e-12)
    assert np.isnan(inside[:, :2]).all() and np.isnan(inside[:, 6:]).all()


def test_what_cublas_does_not_get():
    gemm = with_library(Model())
    a, b, out = numbers(4, 6), numbers(6, 10), unset((4, 5), np.float64)
    assert replayed(lambda: gemm.matmul(a, b[:, ::2], out), out).names == ["gemm"]  # elements are apart
    part = unset((4, 8), np.float64)[:, :5]  # what is added up later must lie together
    assert replayed(lambda: gemm.linear(a, b[:, :5], None, "relu", part), part).names == ["gemm"]
    refusing = with_library(Model(unfit=lambda product, preference: True))
    assert replayed(lambda: refusing.matmul(a, b[:, :5], out), out).names == ["gemm"]
    absent = Gemm(Hopper(), None, Always(LIBRARY), lambda: None)
    assert replayed(lambda: absent.matmul(a, b[:, :5], out), out).names == ["gemm"]


def test_a_bias_that_cublas_does_not_add_is_added_afterwards():
    gemm = with_library(Model(unfit=lambda product, preference: product[7] == 4))
    a, b, bias, out = numbers(4, 6), numbers(6, 5), numbers(5), unset((4, 5), np.float64)
    assert replayed(lambda: gemm.linear(a, b, bias, None, out), out).names == ["cublas", "finish"]
    np.testing.assert_allclose(out, a @ b + bias, rtol=1e-12)


def test_cublas_is_asked_once_for_each_shape_and_alignment():
    asked = []
    model = Model(unfit=lambda product, preference: asked.append(preference) or False)
    gemm = with_library(model)
    memory, b = np.zeros(600), numbers(7, 4)
    start = -memory.ctypes.data % 256 // 8
    for shift in (0, 0, 1, 32, 1):
        a = memory[start + shift : start + shift + 35].reshape(5, 7)
        gemm.matmul(a, b, unset((5, 4), np.float64))
    wanted = {one[6] for one in asked}  # of the second operand, which is a
    assert wanted == {256, 8} and model.asked == len(asked)
    assert not [kind for kind, *_ in model.things.values() if kind == "MatmulPreference"]


def test_many_threads_add_their_own_bias():
    """Though they share a descriptor, of which the address of the bias is a part."""
    gemm = with_library(Model(pause=1e-4))
    a, b, bias = numbers(5, 7), numbers(7, 4), np.arange(4.0 * 32).reshape(4, 32)[:, :4]
    outs = [unset((5, 4), np.float64) for _ in bias]

    def work(i):
        for _ in range(20):
            gemm.linear(a, b, bias[i], None, outs[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(bias))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, out in zip(bias, outs, strict=True):
        np.testing.assert_allclose(out, a @ b + one, rtol=1e-12)


def test_the_workspace_is_free_for_what_follows():
    gemm = with_library(Model(workspace=4096))
    a, b, out = numbers(5, 7), numbers(7, 4), unset((5, 4), np.float64)
    with plan.recording(plan.Recorder()) as recorder:
        gemm.matmul(a, b, out)
        gemm.matmul(a, b, out)
    assert recorder.plan().bytes == 4096


# ---------------------------------------------------------------------------------------------- choice


class Stopwatch:
    """Gives each way the seconds in `times`, by its name."""

    def __init__(self, **times):
        self.times, self.calls = times, 0

    def __call__(self, way):
        self.calls += 1
        way()
        return self.times[Ways.last]


class Ways:
    """Ways that write `value`, or what is said of them."""

    last = None

    def __init__(self, **values):
        self.out, self.values, self.done = np.zeros(3), values, []

    def __call__(self):
        return {name: lambda name=name: self._go(name) for name in self.values}

    def _go(self, name):
        value = self.values[name]
        if isinstance(value, Exception):
            raise value
        Ways.last = name
        self.done.append(name)
        self.out[...] = value


@pytest.fixture
def file(tmp_path):
    return File(tmp_path / "deep" / "chosen.json")


def chosen(choice, ways, key="k", rule=OWN):
    """The way that was taken in the end."""
    choice.carry_out(key, "float64", ways(), ways.out, rule)
    return ways.done[-1]


def test_by_rule_where_nothing_was_measured(file):
    stopwatch = Stopwatch()
    ways = Ways(own=1, other=1)
    choice = Choice(emulator.Emulator(), lambda: file, stopwatch)
    assert chosen(choice, ways) == "own" and chosen(choice, ways, rule="other") == "other"
    assert ways.done == ["own", "other"] and stopwatch.calls == 0 and not file.path.exists()


def test_the_fastest_is_kept_for_this_process_and_the_next(file):
    nanonet.set_kernel_benchmark(True)
    stopwatch, ways = Stopwatch(own=2.0, other=1.0, third=3.0), Ways(own=1, other=1, third=1)
    choice = Choice(emulator.Emulator(), lambda: file, stopwatch)
    assert chosen(choice, ways) == "other"
    assert chosen(choice, ways) == "other" and stopwatch.calls == 3
    stopwatch.times["other"] = 9.0
    assert chosen(choice, ways, key="another") == "own"
    nanonet.set_kernel_benchmark(False)
    later = Choice(emulator.Emulator(), lambda: file, stopwatch)
    assert chosen(later, ways) == "other" and stopwatch.calls == 6
    assert chosen(later, Ways(own=1), "k") == "own"  # the way is not there any more


def test_what_is_kept_can_be_left_aside(file, monkeypatch):
    file.add("k", "other")
    ways = Ways(own=1, other=1)
    assert chosen(Choice(emulator.Emulator(), lambda: file, Stopwatch()), ways) == "other"
    monkeypatch.setenv("NANONET_TUNED", "0")
    assert chosen(Choice(emulator.Emulator(), lambda: file, Stopwatch()), ways) == "own"


def test_deterministic_mode_takes_our_own_and_measures_nothing(file):
    file.add("k", "other")
    nanonet.set_kernel_benchmark(True)
    nanonet.use_deterministic_algorithms(True)
    stopwatch, ways = Stopwatch(own=2.0, other=1.0), Ways(own=1, other=1)
    choice = Choice(emulator.Emulator(), lambda: pytest.fail("the file is read"), stopwatch)
    assert chosen(choice, ways, rule="other") == "own" and chosen(choice, ways, key="new") == "own"
    assert ways.done == ["own", "own"] and stopwatch.calls == 0


def test_ways_that_do_not_serve_or_are_wrong_are_not_taken(file):
    nanonet.set_kernel_benchmark(True)
    ways = Ways(own=1, unfit=Unfit(), broken=RuntimeError("status 13"), wrong=1.001, nan=np.nan, near=1 + 1e-13)
    stopwatch = Stopwatch(own=2.0, unfit=0.1, broken=0.1, wrong=0.1, nan=0.1, near=1.0)
    assert chosen(Choice(emulator.Emulator(), lambda: file, stopwatch), ways) == "near"
    assert file.read() == {"k": "near"}
    with pytest.raises(RuntimeError, match="ours"):
        chosen(Choice(emulator.Emulator(), lambda: file, stopwatch), Ways(own=RuntimeError("ours"), near=1), "other")


def test_a_way_that_fails_is_left_with_a_warning(file):
    ways = Ways(own=1, other=RuntimeError("status 13"))
    choice = Choice(emulator.Emulator(), lambda: file, Stopwatch())
    with pytest.warns(RuntimeWarning, match="in the place of other: status 13"):
        assert chosen(choice, ways, rule="other") == "own"
    assert chosen(choice, ways, rule="other") == "own"  # without a warning, which would be an error here
    with pytest.raises(RuntimeError, match="ours"):
        chosen(choice, Ways(own=RuntimeError("ours")))


class Capturing(emulator.Emulator):
    capturing = True


@pytest.mark.parametrize(
    ("device", "value"), [(emulator.Emulator, np.nan), (Capturing, 1.0)], ids=["not finite", "within a capture"]
)
def test_when_nothing_can_be_found_out(file, device, value):
    nanonet.set_kernel_benchmark(True)
    ways, stopwatch = Ways(own=value, other=value), Stopwatch(own=2.0, other=1.0)
    choice = Choice(device(), lambda: file, stopwatch)
    assert chosen(choice, ways) == "own" and chosen(choice, ways, rule="other") == "other"
    assert stopwatch.calls == 0 and not file.path.exists()


def test_a_rule_that_does_not_serve_gives_way(file):
    ways = Ways(own=1, other=Unfit())
    assert chosen(Choice(emulator.Emulator(), lambda: file, Stopwatch()), ways, rule="other") == "own"


def damaged(text):
    yield "no JSON", text[:-9]
    yield "other content", text.replace("other", "third")
    yield "another kind", "[1, 2]"
    content = json.loads(text)
    yield "no checksum", json.dumps({name: content[name] for name in ("format", "ways")})
    yield "no text", "\xff"


def test_a_damaged_file_is_left_aside_and_replaced(file):
    file.add("k", "other")
    whole = file.path.read_text()
    for _, text in damaged(whole):
        file.path.write_bytes(text.encode("latin-1"))
        with pytest.warns(RuntimeWarning, match="left aside"):
            assert file.read() == {}
    file.add("new", "third")
    assert file.read() == {"new": "third"}
    assert [path.name for path in file.path.parent.iterdir()] == [file.path.name]


def test_several_processes_add_to_one_file(file):
    one, two = File(file.path), File(file.path)
    one.add("a", "own")
    two.add("b", "other")
    assert file.read() == {"a": "own", "b": "other"}


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path):
    (tmp_path / "plain").write_text("no folder")
    file = File(tmp_path / "plain" / "chosen.json")
    file.add("k", "own")
    assert (tmp_path / "plain").read_text() == "no folder"


def test_switches_take_true_and_false_alone():
    assert not nanonet.are_deterministic_algorithms_enabled() and not nanonet.kernel_benchmark_enabled()
    nanonet.use_deterministic_algorithms(True, warn_only=True)
    assert nanonet.are_deterministic_algorithms_enabled()
    for call in (nanonet.use_deterministic_algorithms, nanonet.set_kernel_benchmark):
        with pytest.raises(OptionError, match="wanted True or False"):
            call(1)


def test_the_environment_sets_them_from_the_start(monkeypatch):
    monkeypatch.setenv("NANONET_DETERMINISTIC", "1")
    assert determinism.Mode().deterministic and not determinism.Mode().benchmark


# ---------------------------------------------------------------------------- products that are chosen


def products(file, stopwatch, device=None, model=None, precision=None):
    device = device or Hopper()
    library = CublasLt(device, model or Model(), lambda: 0)
    return Gemm(device, precision, Choice(device, lambda: file, stopwatch), lambda: library)


def recorded(gemm, a, b, bias=None, activation=None):
    out = unset((a.shape[0], b.shape[1]), a.dtype)
    return replayed(lambda: gemm.linear(a, b, bias, activation, out), out).names


def test_the_rule_for_products(file, monkeypatch):
    a, b = numbers(20, 8, dtype=np.float32), numbers(8, 12, dtype=np.float32)
    for device, precision, names in (
        (Hopper(), "tf32", ["cublas"]),
        (Hopper(), "bf16", ["rounded", "rounded", "cublas"]),
        (Hopper(), "float32", ["gemm"]),
        (emulator.Emulator(), "tf32", ["gemm"]),
    ):
        assert recorded(products(file, Stopwatch(), device, precision=precision), a, b) == names
    monkeypatch.setattr(gemms, "LARGE", {"tf32": 2**30})
    assert recorded(products(file, Stopwatch(), precision="tf32"), a, b) == ["gemm"]
    nanonet.use_deterministic_algorithms(True)
    monkeypatch.setattr(gemms, "LARGE", {"tf32": 1, "bf16": 1})
    assert recorded(products(file, Stopwatch(), precision="tf32"), a, b) == ["gemm"]


def test_a_search_among_products_is_no_part_of_the_recording(file):
    nanonet.set_kernel_benchmark(True)
    order = []

    def stopwatch(way):
        with plan.recording(plan.Recorder()) as recorder:
            way()
        order.append(recorder.plan().names)
        return {"cublas": 1.0}.get(order[-1][0], 2.0)

    a, b, bias = numbers(20, 8), numbers(8, 12), numbers(12)
    gemm = products(file, stopwatch)
    assert recorded(gemm, a, b, bias, "relu") == ["cublas", "finish"]
    assert order[-1] == ["cublas", "finish"] and all(names == ["gemm"] for names in order[:-1])
    tried = len(order)
    assert tried > 2
    ((key, way),) = file.read().items()
    assert way == "cublas" and "float64" in key and "20x12x8" in key and "bias relu" in key
    assert recorded(gemm, a, b, bias, "relu") == ["cublas", "finish"] and len(order) == tried
    assert recorded(gemm, a, b) == ["cublas"] and len(order) == 2 * tried


@pytest.fixture
def eager(file, monkeypatch):
    """A device "cuda" whose products of tf32 are the library's, by rule, and the library."""
    from kernels import registry
    from kernels.cupy_gpu.backend import backend

    class Device(apart.ApartEmulator):
        capability = (9, 0)

    device, model = Device(), Model()
    library = CublasLt(device, model, lambda: 0)
    monkeypatch.setattr(registry, "others", {})
    registry.register(backend(device, "tf32", Choice(device, lambda: file, Stopwatch()), lambda: library))
    return device, model


def test_a_recorded_step_depends_on_the_mode(eager):
    x, w = (nanonet.tensor(numbers(6, 6, dtype=np.float32, seed=i), device="cuda") for i in (0, 1))
    step = nanonet.jit(lambda x, w: x @ w)
    step(x, w)
    assert step.plan.names == ["cublas"]
    nanonet.use_deterministic_algorithms(True)
    exact = step(x, w).numpy()
    assert step.plan.names == ["gemm"]
    np.testing.assert_array_equal(step(x, w).numpy(), exact)
    assert len(step.recordings) == 2
    nanonet.use_deterministic_algorithms(False)
    step(x, w)
    assert len(step.recordings) == 2


def test_eager_calls_that_are_remembered_depend_on_the_mode(eager):
    _, model = eager
    x, w = (nanonet.tensor(numbers(6, 6, dtype=np.float32, seed=i), device="cuda") for i in (0, 1))
    counts = []
    for deterministic in (True, True, False, True):
        nanonet.use_deterministic_algorithms(deterministic)
        x @ w
        counts.append(len(model.streams))
    assert counts == [0, 0, 1, 1]


# ---------------------------------------------------------------------------------------- convolutions

#: Image, w, and stride, padding, dilation, groups.
CONVOLUTIONS = {
    "plain": ((2, 7, 6, 8), (3, 3, 8, 12), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "strides and dilation": ((2, 9, 8, 5), (3, 2, 5, 7), (2, 3), ((1, 2), (0, 3)), (3, 1), 1),
    "groups": ((1, 6, 6, 8), (3, 3, 2, 12), (2, 1), ((1, 0), (1, 1)), (1, 2), 4),
}


def convolutions(module, precision="float32", choice=None):
    device = emulator.Emulator()
    found = Cudnn(device, module, lambda: 9)
    return Convolution(Gemm(device, precision, choice or Always("cudnn")), lambda: found, Elementwise(device).copy)


def drawn(name):
    x_shape, w_shape, *constants = CONVOLUTIONS[name]
    stride, padding, dilation, _ = constants
    sizes = [(x_shape[1 + i] + sum(padding[i]) - dilation[i] * (w_shape[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)]
    y_shape = (x_shape[0], *sizes, w_shape[3])
    x, w, y = (numbers(*shape, dtype=np.float32) for shape in (x_shape, w_shape, y_shape))
    return x, w, y, numbers(w_shape[3], dtype=np.float32), numbers(x_shape[3], dtype=np.float32, seed=1), constants


def three(slots, x, w, y, bias, input_bias, constants):
    """The three kinds, with the slots' names and shapes of what they write."""
    yield "conv2d", x.dtype, y.shape, lambda out: slots.conv2d(x, w, bias, *constants, "tanh", out)
    yield (
        "conv2d_transpose",
        x.dtype,
        x.shape,
        lambda out: slots.conv2d_transpose(y, w, input_bias, *constants, None, out),
    )
    yield "weight gradient", x.dtype, w.shape, lambda out: slots.conv2d_weight_gradient(x, y, *constants, out)


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("workspace", [0, 256])
def test_convolutions_by_cudnn(name, workspace):
    module = Module(workspace=workspace)
    x, w, y, bias, input_bias, constants = drawn(name)
    wide = [array.astype(np.float64) for array in (x, w, y, bias, input_bias)]
    names = {
        "conv2d": ["copy", "cudnn", "finish"],
        "conv2d_transpose": ["copy", "cudnn", "finish"],
        "weight gradient": ["cudnn", "copy"],
    }
    ours = three(convolutions(module), x, w, y, bias, input_bias, constants)
    theirs = three(ORACLE, *wide, constants)
    for (kind, dtype, shape, call), (_, exact, _, oracle) in zip(ours, theirs, strict=True):
        out, want = unset(shape, dtype), unset(shape, exact)
        oracle(want)
        assert replayed(lambda call=call, out=out: call(out), out).names == names[kind]
        np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)
    assert set(module.streams) == {9}


@pytest.mark.parametrize(("precision", "tensor_cores"), [("float32", False), ("tf32", True)])
def test_cudnn_is_asked_once_and_for_the_precision(precision, tensor_cores):
    module = Module()
    x, w, y, bias, _, constants = drawn("plain")
    for _ in range(2):
        convolutions_of = convolutions(module, precision)
        for _ in range(2):
            convolutions_of.conv2d(x, w, bias, *constants, None, unset(y.shape, np.float32))
    assert len(module.graphs) == 2
    for graph in module.graphs:
        assert ("TENSOR_CORE" in graph.notes) == ("DOWN_CONVERT_INPUTS" in graph.notes) == (not tensor_cores)
        assert "NONDETERMINISTIC" in graph.notes and "WINOGRAD" in graph.notes


def test_what_cudnn_does_not_get():
    x, w, y, bias, _, constants = drawn("plain")
    apart = unset((*y.shape[:3], 2 * y.shape[3]), np.float32)[..., : y.shape[3]]
    for module, precision, image, out in (
        (Module(unsupported=True), "float32", x, unset(y.shape, np.float32)),
        (Module(), "bf16", x, unset(y.shape, np.float32)),
        (Module(), "float32", x.astype(np.float64), unset(y.shape, np.float64)),
        (Module(), "float32", x[:, ::-1], unset(y.shape, np.float32)),
        (Module(), "float32", x, apart),
    ):
        slots = convolutions(module, precision)
        kernel, constant = w.astype(image.dtype), bias.astype(image.dtype)
        call = lambda: slots.conv2d(image, kernel, constant, *constants, None, out)  # noqa: B023, E731
        assert replayed(call, out).names[-1] == "gemm"


def test_a_convolution_is_chosen_with_what_its_own_kernels_choose(file):
    nanonet.set_kernel_benchmark(True)
    order = []

    def stopwatch(way):
        with plan.recording(plan.Recorder()) as recorder:
            way()
        order.append(recorder.plan().names)
        return {"cudnn": 1.0, "gemm": 2.0}["cudnn" if "cudnn" in order[-1] else "gemm"]

    x, w, y, bias, _, constants = drawn("plain")
    device = emulator.Emulator()
    found = convolutions(Module(), choice=Choice(device, lambda: file, stopwatch))
    out = unset(y.shape, np.float32)
    call = lambda: found.conv2d(x, w, bias, *constants, None, out)  # noqa: E731
    assert replayed(call, out).names == ["copy", "cudnn", "finish"]
    assert sorted(file.read().values()) == ["cudnn", "own"]
    assert sum("cudnn" in names for names in order) == 1
    assert order[-2:] == [["gemm"], ["copy", "cudnn", "finish"]]  # after those of the product within
    nanonet.use_deterministic_algorithms(True)
    assert replayed(call, out).names == ["gemm"]
