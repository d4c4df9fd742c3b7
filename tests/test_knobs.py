"""The kernels' settings: their table, their file, and that no value of any of them makes a result wrong."""

import json
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("llvmlite")

from kernels.numba_cpu import blocking, compiler, conv, elementwise, gemm, host, knobs, threads
from tuner.kernel_workloads import CLOSE, workloads


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty kernel cache, and the usual settings before and after."""
    monkeypatch.setattr(compiler, "_folder", lambda: tmp_path / "kernels" / "here")
    knobs.use({})
    yield tmp_path
    knobs.use({})


@pytest.fixture
def usual():
    yield
    knobs.use({})


def test_every_knob_is_a_constant_and_may_stay_as_it_is():
    defaults = knobs.defaults()
    for name, knob in knobs.KNOBS.items():
        assert defaults[name] in knob.values, name
        assert list(knob.values) == sorted(set(knob.values)), name
        for place in knob.places:
            module, constant = knobs._place(place)
            assert getattr(module, constant) == defaults[name], place
    places = [place for knob in knobs.KNOBS.values() for place in knob.places]
    assert len(places) == len(set(places))


def test_every_knob_has_work_that_it_matters_for():
    assert {knob.group for knob in knobs.KNOBS.values()} == {work.group for work in workloads()}


def test_values_are_set_wherever_they_stand_and_back(usual):
    knobs.use({"share.products": 1 << 15, "matmul.kc": 128})
    assert gemm.LEAST == conv.LEAST == 1 << 15
    assert gemm.KC == 128
    assert knobs.in_use() == knobs.defaults() | {"share.products": 1 << 15, "matmul.kc": 128}
    knobs.use({"matmul.kc": 256})
    assert (gemm.LEAST, gemm.KC) == (knobs.defaults()["share.products"], 256)
    knobs.use({})
    assert knobs.in_use() == knobs.defaults()


def test_what_was_worked_out_before_is_forgotten(usual):
    a = np.ones((64, 64), np.float32)
    gemm.matmul(a, a, np.empty_like(a))
    assert gemm._calls
    knobs.use({"matmul.kc": 128})
    assert not gemm._calls
    assert conv._plan.cache_info().currsize == 0
    assert not elementwise._calls


def test_wrong_names_and_values_change_nothing(usual):
    with pytest.raises(ValueError, match="there is no knob 'matmul.colour'; there are matmul.kc, "):
        knobs.use({"matmul.kc": 128, "matmul.colour": 1})
    with pytest.raises(ValueError, match="matmul.kc is 100; wanted one of 128, 192, "):
        knobs.use({"matmul.kc": 100})
    with pytest.raises(ValueError, match="matmul.panel is True"):
        knobs.use({"matmul.panel": True})
    assert knobs.in_use() == knobs.defaults()


def test_constants_of_compiled_code_are_in_its_name(usual):
    assert blocking.variant() == ""
    knobs.use({"matmul.nc": 512, "matmul.panel": 2})
    assert blocking.variant() == ":nc=512,panel=2"
    a = np.ones((8, 8), np.float32)
    gemm.matmul(a, a, np.empty_like(a))
    assert "gemm/float32:nc=512,panel=2" in compiler.compiled_names()


# ------------------------------------------------------------------------------------------ the results


@pytest.fixture(scope="module")
def work():
    """One workload of each group and kind, and its result with the usual settings."""
    knobs.use({})
    chosen = {}
    for one in workloads():
        chosen.setdefault((one.group, one.name.split(" ")[0], one.name.split(" ")[1]), one)
    for one in chosen.values():
        one.run()
    return [(one, one.out.copy()) for one in chosen.values()]


@pytest.mark.parametrize("name", knobs.KNOBS)
def test_no_value_makes_a_result_wrong(name, work, usual):
    before = threads.get_num_threads()
    knob = knobs.KNOBS[name]
    try:
        threads.set_num_threads(2)
        for value in (knob.values[0], knob.values[-1]):
            knobs.use({name: value})
            for one, expected in work:
                if one.group in (knob.group, "share"):
                    if not one.in_place:
                        one.out.fill(np.nan)
                    one.run()
                    np.testing.assert_allclose(one.out, expected, rtol=0, atol=CLOSE * np.abs(expected).max())
    finally:
        threads.set_num_threads(before)


def test_the_smallest_and_largest_values_together(work, usual):
    for pick in (0, -1):
        values = {name: knob.values[pick] for name, knob in knobs.KNOBS.items() if name != "matmul.panel"}
        knobs.use(values)
        for one, expected in work:
            one.run()
            np.testing.assert_allclose(one.out, expected, rtol=0, atol=CLOSE * np.abs(expected).max())
        first = [one.out.copy() for one, _ in work]
        knobs.use(values)
        for (one, _), before in zip(work, first, strict=True):  # the same settings, the same bits
            one.run()
            np.testing.assert_array_equal(one.out, before)


def test_a_plan_applies_relu_in_a_product_of_another_variant(usual):
    """The fusion of relu knows kernels by their names."""
    from kernels.numba_cpu.fusion import FINISHERS

    knobs.use({"matmul.nc": 512})
    a = np.ones((8, 8), np.float32)
    gemm.matmul(a, a, np.empty_like(a))
    variants = [name for name in compiler.compiled_names() if name.startswith("gemm/float32:nc=512")]
    assert variants and all(name.partition(":")[0] in FINISHERS for name in variants)


# --------------------------------------------------------------------------------------------- the file


def test_values_are_kept_for_the_next_process(folder):
    assert knobs.kept() is None
    target = knobs.save({"matmul.kc": 256}, {"when": "today", "speed": 1.1})
    assert target == knobs.path() and target.parent == folder / "kernels"
    assert knobs.kept() == {"values": {"matmul.kc": 256}, "about": {"when": "today", "speed": 1.1}}
    knobs.load()
    assert gemm.KC == 256
    assert knobs.forget() and not target.exists()
    assert knobs.kept() is None and not knobs.forget()
    assert [file.name for file in (folder / "kernels").iterdir()] == ["here"]  # nothing left beside it


def test_the_file_is_named_by_the_processor_and_its_cores(folder, monkeypatch):
    first = knobs.path()
    monkeypatch.setattr(threads, "usable_cores", lambda: 77)
    second = knobs.path()
    other = replace(host.host(), name="another")
    monkeypatch.setattr(knobs, "host", lambda: other)
    third = knobs.path()
    assert len({first, second, third}) == 3
    assert "another" in third.name and first.parent == second.parent == third.parent


def test_tuned_values_can_be_left_aside(folder, monkeypatch):
    knobs.save({"matmul.kc": 256}, {})
    monkeypatch.setenv("NANONET_TUNED", "0")
    knobs.load()
    assert gemm.KC == knobs.defaults()["matmul.kc"]


def change(target, **parts):
    content = json.loads(target.read_text())
    content.pop("checksum")
    content |= parts
    target.write_text(json.dumps(content | {"checksum": knobs._checksum(content)}))


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-20]), "is damaged: not what was written"),
        (lambda file: file.write_bytes(b"\xff\xfe\x00"), "cannot be read"),
        (lambda file: file.write_text("[]"), "is damaged"),
        (lambda file: file.write_text('{"values": {}}'), "is damaged"),
        (lambda file: file.write_text(file.read_text().replace("256", "512")), "its checksum is wrong"),
        (lambda file: change(file, table="another"), "made for another version"),
        (lambda file: change(file, format=99), "made for another version"),
        (lambda file: change(file, values={"matmul.kc": 1e9}), "cannot be used: matmul.kc is 1000000000.0"),
        (lambda file: change(file, values={"matmul.kc": [1]}), "cannot be used: matmul.kc is"),
        (lambda file: change(file, values=None), "cannot be used"),
        (lambda file: change(file, values={"open": 1}), "cannot be used: there is no knob 'open'"),
    ],
)
def test_a_file_that_is_no_good_is_left_aside_with_a_warning(folder, spoil, reason):
    spoil(knobs.save({"matmul.kc": 256}, {}))
    with pytest.warns(RuntimeWarning, match="tuned kernel settings are left aside: .*" + reason):
        knobs.load()
    assert knobs.in_use() == knobs.defaults()
    with pytest.raises(ValueError, match=reason):
        knobs.kept()


def test_a_file_of_another_table_is_left_aside(folder, monkeypatch):
    """Where a default has changed, the values that were found with the old one may mean something else."""
    knobs.save({"matmul.kc": 256}, {})
    changed = knobs.defaults() | {"matmul.many": 64}
    monkeypatch.setattr(knobs, "defaults", lambda: changed)
    with pytest.warns(RuntimeWarning, match="another version"):
        knobs.load()


def test_without_a_cache_nothing_is_kept(folder, monkeypatch):
    monkeypatch.setattr(compiler, "cache_folder", lambda: (None, "/nowhere cannot be written"))
    assert knobs.path() is None and knobs.kept() is None and not knobs.forget()
    with pytest.raises(OSError, match="/nowhere cannot be written"):
        knobs.save({}, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        knobs.load()


def test_the_backend_takes_what_is_kept_and_importing_reads_nothing(folder):
    code = (
        "import pathlib, sys, nanonet; assert 'kernels.numba_cpu.knobs' not in sys.modules; "
        "from kernels.numba_cpu import knobs; "
        f"knobs.path = lambda: pathlib.Path({str(folder)!r}) / 'tuned.json'; "
        "knobs.save({'matmul.kc': 256}, {}); "
        "from kernels import registry; registry.get('numba_cpu'); "
        "from kernels.numba_cpu import gemm; assert gemm.KC == 256"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
