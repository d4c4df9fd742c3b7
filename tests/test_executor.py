"""Carrying out kernels: instructions, threads, forks, and what happens to the floating-point mode."""

import ctypes
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")

from kernels import plan
from kernels.numba_cpu import executor, threads
from kernels.numba_cpu.compiler import compile_kernel
from kernels.numba_cpu.executor import LIMIT, address, emit, execute, float_word, launch, pack

ROOT = Path(__file__).parent.parent


def _note():
    """args: address of a log, its length so far in word 0 of the log; appends 100 * args[1] + part."""
    from kernels.numba_cpu.jit.vector import int64, pointer

    def kernel(args, part, parts):
        log = pointer(args[0], int64)
        log[0] += 1
        log[log[0]] = 100 * args[1] + part

    return kernel


def _square():
    """x, out, n: out[i] = x[i] * x[i], shared out over parts, slowly where args[3] says so."""
    from kernels.numba_cpu.jit.vector import float64, pointer

    def kernel(args, part, parts):
        x, out, n = pointer(args[0], float64), pointer(args[1], float64), args[2]
        for _ in range(args[3]):
            for i in range(n * part // parts, n * (part + 1) // parts):
                out[i] = x[i] * x[i]

    return kernel


@pytest.fixture(scope="module")
def note():
    return compile_kernel("test/note", _note)


@pytest.fixture(scope="module")
def square():
    return compile_kernel("test/square", _square)


def instruction(kernel, parts, *words):
    return pack(kernel, 3 + len(words), parts, *words)


def log_of(log):
    return list(log[1 : 1 + log[0]])


def test_instructions_run_in_order_for_each_part_and_repetition(note):
    log = np.zeros(100, np.int64)
    code = instruction(note, 1, address(log), 7) + instruction(note, 0, address(log), 8)
    with threads.single_thread():
        assert execute(code + instruction(note, 3, address(log), 9), times=2) == 2
    assert log_of(log) == [700, 900, 901, 902] * 2


def test_nothing_to_do():
    assert execute(b"") == 1
    assert execute(b"", times=0) == 0


def test_the_stop_word_ends_between_repetitions(note):
    log, stop = np.zeros(100, np.int64), np.zeros(1, np.int64)
    assert execute(instruction(note, 1, address(log), 1), 5, address(stop)) == 5
    stop[0] = 1
    assert execute(instruction(note, 1, address(log), 1), 5, address(stop)) == 1
    # the word may be one that the plan itself writes
    stop[0] = 0
    code = instruction(note, 1, address(log), 1) + instruction(note, 1, address(log), 2)
    log[:] = 0
    assert execute(code, 9, address(log)) == 1


@pytest.mark.parametrize("run", ["native", "python"])
def test_arguments_of_a_launch(run, monkeypatch):
    if run == "python":
        monkeypatch.setattr(executor, "_launch", executor._packed_launch)
        monkeypatch.setattr(executor, "_execute", executor._foreign_execute())

    class Sub(np.ndarray):
        pass

    def make():
        from kernels.numba_cpu.jit.vector import int64, pointer

        def kernel(args, part, parts):
            out = pointer(args[0], int64)
            for i in range(7):
                out[i] = args[i]

        return kernel

    out = np.zeros(7, np.int64)
    x = np.arange(12.0).reshape(3, 4)
    view, sub = x[1:, ::-1], x.view(Sub)
    launch("test", compile_kernel("test/copy arguments", make), 1, out, -5, 2**62, 0.1, view, sub, np.int64(3))
    expected = [out.ctypes.data, -5, 2**62, float_word(0.1), view.ctypes.data, sub.ctypes.data, 3]
    assert out.tolist() == expected
    assert address(view) == view.ctypes.data == executor._slow_address(view)


@pytest.mark.parametrize("run", ["native", "python"])
def test_packed_words_of_a_launch(note, run, monkeypatch):
    if run == "python":
        monkeypatch.setattr(executor, "_launch", executor._packed_launch)
        monkeypatch.setattr(executor, "_execute", executor._foreign_execute())
    log = np.zeros(5, np.int64)
    launch("test", note, 1, log, executor.pack(7))
    assert log_of(log) == [700]
    if run == "native":
        with pytest.raises(TypeError):
            launch("test", note, 1, log, executor.pack(*[0] * LIMIT))


@pytest.mark.parametrize("signature", [executor.signature, executor._slow_signature], ids=["native", "python"])
def test_a_signature_tells_apart_what_a_kernel_depends_on(signature):
    x = np.zeros((3, 4), np.float32)
    others = [
        *(x[:, ::-1], x[:2], x.T, x.ravel(), x[0, 0:0], x[..., None], np.zeros((3, 4), np.int32)),
        *(np.zeros((3, 4)), np.zeros((3, 4), ">f4"), np.zeros((3, 4), "m8[s]"), np.zeros((3, 4), bool), x[0, 0, ...]),
    ]
    keys = [signature(array, 1) for array in (x, *others)] + [signature(x, 2), signature(x), signature(1, x)]
    assert len(set(keys)) == len(keys)
    assert signature(x, 1) == signature(np.ones((3, 4), np.float32).view(), 1)
    assert signature(*[x] * 70) == signature(*[x.copy()] * 70)


@pytest.mark.parametrize("bad", ["text", None, [1], 2**70])
def test_an_argument_of_another_kind_is_refused(note, bad):
    with pytest.raises((TypeError, OverflowError)):
        launch("test", note, 1, np.zeros(5, np.int64), bad)


def test_too_many_arguments(note):
    log = np.zeros(5, np.int64)
    launch("test", note, 1, log, *[0] * (LIMIT - 1))
    with pytest.raises(TypeError):
        launch("test", note, 1, log, *[0] * LIMIT)
    assert log[0] == 1


def test_calls_enter_the_plan_that_is_recorded(note):
    log = np.zeros(100, np.int64)
    recorder = plan.Recorder()
    with plan.recording(recorder):
        launch("first", note, 1, log, 1)
        emit(note, 1, pack(address(log), 2), (log,), "second")
        with plan.paused():
            launch("not recorded", note, 1, log, 3)
    assert log_of(log) == [100, 200, 300]
    recorded = recorder.plan()
    assert recorded.names == ["first", "second"]
    log[:] = 0
    recorded.run(2)
    assert log_of(log) == [100, 200, 100, 200]


def test_denormals_count_as_zero_during_a_call_and_only_then(square):
    x, out = np.full(4, 1e-160), np.full(4, np.nan)
    for parts in (1, 4):
        launch("square", square, parts, x, out, 4, 1)
        assert (out == 0).all()
    assert (x * x > 0).all()
    assert np.float64(5e-324) * 1.0 > 0


def test_no_gil_is_held(square):
    x, out = np.ones(1000), np.zeros(1000)
    done = []
    thread = threading.Thread(target=lambda: done.append(launch("square", square, 1, x, out, 1000, 100_000)))
    thread.start()
    turns = 0
    while not done:
        turns += 1
        time.sleep(0)
    thread.join()
    assert turns > 10


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_parts_are_shared_out_among_threads(square, count):
    before = threads.get_num_threads()
    try:
        threads.set_num_threads(count)
        x = np.random.default_rng(0).standard_normal(1000)
        for parts, turns in ((1, 50), (2, 50), (7, 50), (64, 50), (70_000, 1)):
            out = np.full(1000, np.nan)
            for _ in range(turns):
                launch("square", square, parts, x, out, 1000, 1)
                np.testing.assert_array_equal(out, x * x)
                out[:] = np.nan
    finally:
        threads.set_num_threads(before)


def test_python_threads_that_all_want_the_pool(square):
    def run(seed):
        x, out = np.random.default_rng(seed).standard_normal(500), np.empty(500)
        for _ in range(300):
            out[:] = np.nan
            launch("square", square, 4, x, out, 500, 1)
            if not (out == x * x).all():
                wrong.append(seed)

    wrong = []
    workers = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_number_of_threads():
    before = threads.get_num_threads()
    assert before >= 1
    try:
        threads.set_num_threads(3)
        assert threads.get_num_threads() == 3
        with threads.single_thread():
            with threads.single_thread():
                assert threads.get_num_threads() == 1 and threads.pool() == 0
            assert threads.get_num_threads() == 1
            seen = []
            other = threading.Thread(target=lambda: seen.append(threads.get_num_threads()))
            other.start()
            other.join()
            assert seen == [3]
        assert threads.get_num_threads() == 3
        assert threads.parts_for(10, 100) == 1 and threads.parts_for(1000, 100) == 3
    finally:
        threads.set_num_threads(before)


@pytest.mark.parametrize("bad", [0, -1, 1.5, "2", True, None])
def test_a_bad_number_of_threads_is_named(bad):
    with pytest.raises(ValueError, match="threads"):
        threads.set_num_threads(bad)


# ---------------------------------------------------------------------- whole processes, with a time limit

USE = """
    import os, signal, sys, threading, time
    import numpy as np
    from kernels.numba_cpu import threads
    from kernels.numba_cpu.compiler import compile_kernel
    from kernels.numba_cpu.executor import launch

    def make():
        from kernels.numba_cpu.jit.vector import float64, pointer

        def kernel(args, part, parts):
            x, out, n = pointer(args[0], float64), pointer(args[1], float64), args[2]
            for _ in range(args[3]):
                for i in range(n * part // parts, n * (part + 1) // parts):
                    out[i] = x[i] * x[i]

        return kernel

    kernel = compile_kernel("test/square", make)

    def use(turns=20):
        x, out = np.random.default_rng(0).standard_normal(500), np.empty(500)
        for _ in range(turns):
            out[:] = np.nan
            launch("square", kernel, 4, x, out, 500, 1)
            assert (out == x * x).all()
"""


def python(code, **environment):
    """What a fresh Python prints; it has a minute."""
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(USE) + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, "NANONET_NUM_THREADS": "3", **environment},
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def test_exit_with_sleeping_and_with_busy_workers():
    assert python("use(); time.sleep(0.2); print('end')") == "end"
    assert python("use(); print('end')") == "end"


def test_exit_while_a_python_thread_computes():
    code = """
    use()
    threading.Thread(target=lambda: use(10**9), daemon=True).start()
    time.sleep(0.1)
    print("end")
    """
    assert python(code) == "end"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("when", ["at rest", "while another thread computes"])
@pytest.mark.filterwarnings("ignore")
def test_a_forked_child_computes_and_has_its_own_pool(when):
    code = """
    import warnings
    warnings.simplefilter("ignore")
    use()
    going = WHEN != "at rest"
    def compute():
        while going:
            use()
    other = threading.Thread(target=compute)
    other.start()
    for _ in range(5):
        child = os.fork()
        if child == 0:
            assert threads.pool_address == 0
            use()
            kernel = compile_kernel("test/in the child", make)
            use()
            assert threads.pool_address != 0
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        use()
    going = False
    other.join()
    print("end")
    """.replace("WHEN", repr(when))
    assert python(code) == "end"


def test_idle_workers_use_no_processor_time():
    code = """
    use()
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.5)
    print(time.process_time() - before < 0.1)
    use()
    """
    assert python(code) == "True"


def test_workers_are_as_many_as_asked_for():
    code = """
    use()
    print(threading.active_count())
    threads.set_num_threads(2)
    use()
    print(threading.active_count())
    threads.set_num_threads(1)
    use()
    print(threading.active_count())
    """
    assert python(code).split() == ["3", "2", "1"]


def test_a_bad_environment_is_named():
    code = """
    try:
        threads.get_num_threads()
    except ValueError as error:
        print(error)
    """
    assert "NANONET_NUM_THREADS" in python(code, NANONET_NUM_THREADS="many")


def test_ctypes_and_built_in_execution_agree(note):
    log = np.zeros(100, np.int64)
    code = instruction(note, 2, address(log), 5)
    run = executor._foreign_execute()
    assert run(code, 3, 0, 0) == 3
    assert log_of(log) == [500, 501] * 3
    assert ctypes.c_int64.from_address(address(log)).value == 6


def test_threads_that_need_a_function_first_at_once_share_its_definition(monkeypatch):
    """A function points to its definition, which has to last: a second one would go with the thread that made it."""
    compiled, both = executor.compile_function, threading.Barrier(2)

    def compile_function(*arguments):
        both.wait(timeout=30)
        return compiled(*arguments)

    monkeypatch.setattr(executor, "_methods", {})
    monkeypatch.setattr(executor, "compile_function", compile_function)
    found = []
    together = [threading.Thread(target=lambda: found.append(executor._method("execute"))) for _ in range(2)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    assert len(found) == 2 and found[0] is found[1] is executor._methods["execute"]
