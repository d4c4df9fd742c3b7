"""Recording and replaying kernel calls, and the memory of a plan."""

import threading

import numpy as np
import pytest

import kernels
from kernels import plan
from kernels.formula import Formula

DOUBLE = Formula.of("x * 2", "x")
ADD = Formula.of("x + y", "x", "y")


def names():
    return [name for name in ("reference", "numba_cpu") if kernels.available()[name] is None]


@pytest.mark.parametrize("name", names())
def test_a_replay_computes_from_the_present_inputs(name):
    backend = kernels.get(name)
    x, out = np.arange(6, dtype=np.float32), np.empty(6, np.float32)
    recorder = plan.Recorder()
    with plan.recording(recorder):
        middle = plan.empty(np, (6,), np.float32)
        backend.elementwise(DOUBLE, x, out=middle)
        backend.elementwise(ADD, middle, x, out=out)
    replay = recorder.plan()
    np.testing.assert_array_equal(out, 3 * np.arange(6))
    x += 10
    replay.run()
    np.testing.assert_array_equal(out, 3 * (np.arange(6) + 10))
    assert len(replay.names) == 2


@pytest.mark.parametrize("name", names())
def test_many_replays_in_one_call(name):
    backend = kernels.get(name)
    counter, total = np.zeros((), np.int64), np.zeros(())
    recorder = plan.Recorder()
    with plan.recording(recorder):
        backend.advance(counter, 2)
        backend.elementwise(ADD, total, np.ones(()), out=total)
    recorder.plan().run(1000)
    assert counter == 2 * 1001 and total == 1001


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("last", ["kernel", "host call"])
def test_a_run_ends_with_the_repetition_that_asks_for_it(name, last):
    backend = kernels.get(name)
    counter, stop, calls = np.zeros((), np.int64), np.zeros(()), []
    recorder = plan.Recorder()
    with plan.recording(recorder):
        backend.advance(counter, 1)
        backend.elementwise(Formula.of("where(x < 7, 0, 1)", "x"), counter, out=stop)
        if last == "host call":
            recorder.host(lambda: calls.append(int(counter)), "note")
    replay = recorder.plan()
    assert replay.run(3, stop) == 3
    assert replay.run(10, stop) == 3
    assert counter == 7 and stop == 1
    assert replay.run(10) == 10
    assert counter == 17
    assert not calls or calls == list(range(2, 18))


def test_freed_memory_is_used_again_and_living_memory_never():
    recorder = plan.Recorder()
    with plan.recording(recorder):
        kept = plan.empty(np, (100,), np.float32)
        view = plan.empty(np, (10, 10), np.float32)[2:].T
        first = plan.empty(np, (100,), np.float32)
        place = first.ctypes.data
        del first
        second = plan.empty(np, (99,), np.float32)
        assert second.ctypes.data == place
        others = [plan.empty(np, (100,), np.float32) for _ in range(5)]
        assert not any(np.shares_memory(a, view) or np.shares_memory(a, kept) for a in [second, *others])
    assert recorder.arena.bytes == 448 * 8


def test_arena_arrays_are_aligned_and_shaped():
    recorder = plan.Recorder()
    with plan.recording(recorder):
        for shape in [(), (0,), (3, 0), (7,), (5, 3, 2)]:
            array = plan.empty(np, shape, np.float64)
            assert array.shape == shape and array.dtype == np.float64 and array.ctypes.data % 64 == 0
            assert array.flags.c_contiguous and array.flags.writeable and recorder.arena.owns(array)
    assert not recorder.arena.owns(np.zeros(3))


def test_recording_is_of_one_thread_and_does_not_nest():
    recorder, seen = plan.Recorder(), []
    with plan.recording(recorder):
        thread = threading.Thread(target=lambda: seen.append(plan.current()))
        thread.start()
        thread.join()
        assert plan.current() is recorder and seen == [None]
        with pytest.raises(RuntimeError, match="already"), plan.recording(plan.Recorder()):
            pass
        with plan.paused():
            assert plan.current() is None
        assert plan.current() is recorder
    assert plan.current() is None


def test_machine_code_and_host_calls_keep_their_order():
    backends = [kernels.get(name) for name in names()]
    x = np.ones(4, np.float32)
    recorder = plan.Recorder()
    with plan.recording(recorder):
        for backend in backends * 3:
            backend.elementwise(ADD, x, x, out=x)
            backend.elementwise(DOUBLE, x, out=x)
    expected = x.copy()
    x[:] = 1
    recorder.plan().run()
    np.testing.assert_array_equal(x, expected)


def test_side_by_side_replays_do_not_disturb_each_other():
    backend = kernels.get(names()[-1])

    def work(results, i):
        x, out = np.full((64, 64), i, np.float32), np.empty((64, 64), np.float32)
        recorder = plan.Recorder()
        with plan.recording(recorder):
            backend.matmul(x, x, out=out)
        replay = recorder.plan()
        replay.run(2000)
        results[i] = (out == 64 * i * i).all()

    results = {}
    workers = [threading.Thread(target=work, args=(results, i)) for i in range(1, 5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == dict.fromkeys(range(1, 5), True)
