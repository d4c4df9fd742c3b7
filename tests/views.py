"""What the kernel tests share: arrays that lie in memory in every way, and a way to force the number of parts."""

from contextlib import contextmanager

import numpy as np
from hypothesis import strategies as st


@st.composite
def shapes(draw, least_axes=0, most_axes=4, most=12, least=0):
    return tuple(draw(st.lists(st.integers(least, most), min_size=least_axes, max_size=most_axes)))


@st.composite
def views(draw, shape, dtype, low=-3.0, high=3.0):
    """An array of random numbers: axes in any order in memory, each whole, part of a longer one, every other element,
    reversed or broadcast."""
    order = draw(st.permutations(range(len(shape))))
    kinds = [draw(st.sampled_from(["whole", "whole", "part", "other", "reversed", "broadcast"])) for _ in shape]
    sides = {"whole": 0, "part": 3, "reversed": 0}
    base = [
        2 * side if kind == "other" else 1 if kind == "broadcast" else side + sides[kind]
        for side, kind in zip(shape, kinds, strict=True)
    ]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    drawn = rng.uniform(low, high, [base[axis] for axis in order])
    made = (drawn > 0 if np.dtype(dtype).kind == "b" else drawn).astype(dtype).transpose(np.argsort(order))
    cuts = {"whole": slice(None), "other": slice(None, None, 2), "reversed": slice(None, None, -1)}
    cut = tuple(
        slice(1, 1 + side) if kind == "part" else cuts.get(kind, slice(None))
        for side, kind in zip(shape, kinds, strict=True)
    )
    return np.broadcast_to(made[cut], shape)


def unset(shape, dtype):
    """An array to write into: full of NaN, or of a number that no test expects."""
    return np.full(shape, np.nan if np.dtype(dtype).kind == "f" else 77, dtype)


@contextmanager
def in_parts(module, parts):
    """Kernels of this module of the compiled backend go in `parts` parts, however small the work is."""
    from kernels.numba_cpu import threads

    before = threads.get_num_threads()
    worths = {name: value for name, value in vars(module).items() if name.startswith("WORTH")}
    threads.set_num_threads(parts)
    for name in worths:
        setattr(module, name, 1)
    try:
        yield
    finally:
        threads.set_num_threads(before)
        for name, value in worths.items():
            setattr(module, name, value)


def same_in_parts(module, call, *outs):
    """`call()` writes the same bits into `outs` with 1, 2 and 3 parts."""
    results = []
    for parts in (1, 2, 3):
        for out in outs:
            out[...] = unset((), out.dtype)
        with in_parts(module, parts):
            call()
        results.append([out.tobytes() for out in outs])
    assert results[0] == results[1] == results[2]


def replayed(call, *outs):
    """What `call()` leaves in `outs` when it is recorded, its outs are overwritten, and the plan is run."""
    from kernels import plan

    with plan.recording(plan.Recorder()) as recorder:
        call()
    recorded = recorder.plan()
    del recorder
    results = []
    for out in outs:
        results.append(out.copy())
        out[...] = unset((), out.dtype)
    recorded.run()
    for out, result in zip(outs, results, strict=True):
        np.testing.assert_array_equal(out, result)
    return recorded
