"""The benchmarks measure what they say: fair turns, right tables, and the same training step in every library."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # last, so that what is installed is what is tested

pytest.importorskip("numba", reason="the FMA peak is measured with Numba's LLVM")

from benchmarks import conv, convnets, harness, matmul, networks, normalization, overhead, peak, train_step  # noqa: E402

# ------------------------------------------------------------------------------------------------- harness


def test_every_candidate_gets_a_turn_in_each_round_in_alternating_order():
    turns = []

    def candidate(name):
        def run(times):
            if not turns or turns[-1] != name:
                turns.append(name)

        return run

    samples = harness.interleave({"a": candidate("a"), "b": candidate("b")}, rounds=4, turn=0.0, warm_up=0.0)
    assert {name: len(rounds) for name, rounds in samples.items()} == {"a": 4, "b": 4}
    # warm-up a b, then a b, b a, a b, b a, where neighbouring turns of one candidate count once
    assert turns == ["a", "b", "a", "b", "a", "b", "a"]


def test_a_repetition_is_timed_as_one_whatever_the_turn():
    samples = harness.interleave({"sleep": harness.repeat(lambda: _sleep(0.002))}, rounds=3, turn=0.01, warm_up=0.0)
    assert (samples["sleep"] > 0.0019).all()
    assert np.median(samples["sleep"]) < 0.02


def _sleep(seconds):
    import time

    time.sleep(seconds)


def test_the_ratio_is_taken_within_rounds():
    ours, theirs = np.array([1.0, 10.0, 1.0]), np.array([2.0, 20.0, 2.0])
    assert harness.ratio(theirs, ours) == 2.0


def test_the_best_setting_of_a_peer_stands_for_it():
    samples = {"nanonet": np.ones(3), "slow": np.full(3, 4.0), "fast": np.full(3, 2.0)}
    row = harness.Row.of("case", samples, peers={"slow": "peer", "fast": "peer", "absent": "other"})
    assert row.peers == {"peer": (2.0, 2.0)}


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        ({"faster_than": {"peer": 2.0}}, True),
        ({"faster_than": {"peer": 2.1}}, False),
        ({"faster_than": {"absent": 2.0}}, None),
        ({"of_limit": 0.5}, True),
        ({"of_limit": 0.51}, False),
        ({"faster_than": {"peer": 2.0}, "of_limit": 0.9}, False),
        ({"under": 1.5}, True),
        ({"under": 1.0}, False),
    ],
)
def test_goals_are_judged(goal, met):
    row = harness.Row("case", 1.0, limit=0.5, peers={"peer": (2.0, 2.0)}).want(**goal)
    assert row.met is met


def test_a_row_survives_json():
    row = harness.Row("case", 1e-3, flop=1e6, limit=5e-4, peers={"peer": (2e-3, 2.0)}).want({"peer": 1.0})
    assert harness.from_dict(json.loads(json.dumps(row.as_dict()))) == row


def test_the_table_leaves_out_empty_columns():
    rows = [harness.Row("one", 2e-6, peers={"peer": (4e-6, 2.0)}), harness.Row("two", 3e-9)]
    table = harness.markdown(rows).splitlines()
    assert [cell.strip() for cell in table[0].split("|")[1:-1]] == ["case", "nanonet", "peer"]
    assert [cell.strip() for cell in table[2].split("|")[1:-1]] == ["one", "2 us", "4 us (2.00 x)"]
    assert len({len(line) for line in table}) == 1


# ---------------------------------------------------------------------------------------------------- peak


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_peak_loop_computes(dtype):
    """x = x / 2 + 1 tends to 2 in each of the chains, which are added up."""
    assert peak._compile(dtype)(100, 0.5, 1.0) == pytest.approx(2.0 * peak.CHAINS)


def test_the_peak_is_plausible():
    samples = harness.interleave({"peak": peak.fma_loop()}, rounds=3, turn=0.005, warm_up=0.01)
    assert 1e9 < peak.fma_flop() / np.median(samples["peak"]) < 1e12


# ------------------------------------------------------------------------------------------- same answers

SMALL = [
    networks.Network("sgd", (12, 8, 6, 5), 15, "sgd", 0.05),
    networks.Network("adam", (12, 8, 6, 5), 15, "adam", 0.01),
]
LIBRARIES = [
    ("nanonet", "nanonet", networks.nanonet_step),
    ("nanonet, eager", "nanonet", lambda network: networks.nanonet_step(network, jit=False)),
    ("PyTorch", "torch", networks.torch_step),
    ("PyTorch, fused", "torch", lambda network: networks.torch_step(network, fused=True)),
    ("JAX", "jax", networks.jax_step),
    ("scikit-learn", "sklearn", networks.sklearn_step),
]


@pytest.mark.parametrize("network", SMALL, ids=lambda network: network.name)
@pytest.mark.parametrize(("name", "library", "make"), LIBRARIES, ids=[row[0] for row in LIBRARIES])
def test_every_library_does_the_same_training_step(network, name, library, make):
    if not harness.installed(library):
        pytest.skip(f"{library} is not installed")
    expected = networks.losses(networks.reference(network), 12)
    assert expected[-1] < expected[0]
    train_step.check_losses(name, networks.losses(make(network), 12), expected)


def test_wrong_losses_are_not_timed():
    with pytest.raises(AssertionError, match="somebody does not compute this training step"):
        train_step.check_losses("somebody", [1.0, 0.9], [1.0, 0.8])


def test_a_wrong_product_is_not_timed():
    a = b = np.ones((4, 4), np.float32)
    matmul.check_product(a, b, np.full((4, 4), 4.0, np.float32))
    with pytest.raises(AssertionError):
        matmul.check_product(a, b, np.full((4, 4), np.nan, np.float32))


def test_operations_of_a_network_are_counted():
    network = networks.Network("", (3, 5, 2), 7, "adam", 0.1)
    assert network.parameters == 3 * 5 + 5 + 5 * 2 + 2
    assert network.flop == 2 * 7 * (2 * 15 + 3 * 10)
    assert network.bytes == 4 * (6 * network.parameters + 7 * 3)


CONVNET = convnets.ConvNet(
    "small",
    (6, 6, 2),
    (
        convnets.Conv(4),
        convnets.Residual((convnets.Norm(), convnets.ReLU(), convnets.Conv(8, 3, 2)), (convnets.Conv(8, 1, 2),)),
        convnets.Residual((convnets.Norm(), convnets.Conv(8))),
        convnets.ReLU(),
        convnets.Pool(),
        convnets.Dense(5),
    ),
    batch=7,
    optimizer="adam",
    learning_rate=0.01,
    classes=5,
)
CONV_STEPS = [
    ("nanonet", "nanonet", convnets.nanonet_step),
    ("nanonet, eager", "nanonet", lambda network: convnets.nanonet_step(network, jit=False)),
    ("PyTorch, channels last", "torch", lambda network: convnets.torch_step(network, last=True)),
    ("JAX", "jax", convnets.jax_step),
]


@pytest.mark.parametrize(("name", "library", "make"), CONV_STEPS, ids=[row[0] for row in CONV_STEPS])
def test_every_library_does_the_same_step_of_a_convolutional_network(name, library, make):
    for needed in ("torch", library):
        if not harness.installed(needed):
            pytest.skip(f"{needed} is not installed")
    expected = networks.losses(train_step.answer(CONVNET), 8)
    assert expected[-1] < expected[0]
    train_step.check_losses(name, networks.losses(make(CONVNET), 8), expected)


def test_operations_of_a_convolutional_network_are_counted():
    network = convnets.ConvNet(
        "", (4, 4, 3), (convnets.Conv(5), convnets.ReLU(), convnets.Pool(), convnets.Dense(2)), 7, "sgd", 0.1
    )
    assert network.parameters == 27 * 5 + 20 * 2 + 2
    assert network.flop == 2 * 7 * (2 * 16 * 5 * 27 + 3 * 2 * 20)
    assert network.bytes == 4 * (4 * network.parameters + 7 * (5 * (80 + 20 + 2) + 48))


@pytest.mark.parametrize("kind", conv.KINDS)
def test_convolutions_are_checked_before_they_are_timed(kind):
    if not harness.installed("torch"):
        pytest.skip("torch is not installed")
    shape = conv.Shape(7, 4, 6, 3, n=2, stride=2, groups=2)
    arrays = conv.inputs(shape)
    call, out = conv.ours(shape, kind, arrays)
    call()
    for last in (False, True):
        conv.check(kind, out, conv.theirs(shape, kind, arrays, last)())
    out.flat[3] += 1
    with pytest.raises(AssertionError, match=f"the {kind} is wrong"):
        conv.check(kind, out, conv.theirs(shape, kind, arrays, False, wide=True)())


@pytest.mark.parametrize("case", normalization.CASES, ids=str)
def test_normalization_benchmarks_have_peers(case):
    assert {case.operation} <= set(normalization._OURS) & set(normalization._TORCH)


def test_eager_operations_have_the_gradients_of_pytorch():
    if not harness.installed("torch"):
        pytest.skip("torch is not installed")
    theirs = overhead.eager_torch()
    for name, (_, gradient) in overhead.eager_nanonet().items():
        np.testing.assert_allclose(gradient(), theirs[name][1](), rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_replayed_plan_counts():
    plan, counter = overhead.counting_plan(10)
    plan.run(3)
    assert counter == 40


# ------------------------------------------------------------------------------------------- command line


def test_the_command_runs_and_gives_json(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "matmul", "--quick", "--json", "--results", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)["benchmarks"]["matmul"]["rows"]
    assert [row["case"] for row in rows] == [
        "128 x 128 x 128",
        *[str(case) for case in (matmul.TRAINING[1], matmul.DOUBLES[0], matmul.shared(2)[3])],
    ]
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_benchmark_is_an_error():
    result = subprocess.run([sys.executable, "-m", "benchmarks", "matmull"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert "'matmull' is not one of matmul, conv," in result.stderr
