"""Where the time of a recorded training step goes: its plan's kernels, what stands between them, and the call."""

import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np

from benchmarks.harness import Row, interleave
from benchmarks.networks import repeated
from benchmarks.peak import copy_loop, fma_flop, fma_loop
from benchmarks.train_step import CONVNETS, CORES, MLPS, nanonet_step
from kernels.plan import Instruction, Plan

TITLE = "Where a training step goes"
NOTE = (
    "The instructions of each recorded step by their kernel, how many of them, and their time together when they are "
    "carried out one by one in the order of the plan. (Of a plan of less than a millisecond all beginnings are timed, "
    "and an instruction's time is what it adds.) An instruction's limit is the larger of its FLOP / peak on all cores "
    "and its bytes / bandwidth of a copy that stays in the caches; where several instructions pass over the same "
    "memory, each counts it. Winograd's products count as such, so they may not pass their limit. 'between' is what "
    "replaying takes beyond that, and 'call' what Python adds."
)
ENVIRONMENT: dict[str, str] = {}
#: Kernels that have a line of their own for each network.
LINES = 9
#: Bytes that the copy for the bandwidth reads: with what it writes, they fit into the second caches.
NEAR = 1 << 19


def run(quick: bool = False) -> list[Row]:
    """Rows for each network."""
    rounds = 5 if quick else 15
    return [row for network in (MLPS[:1] if quick else (*MLPS, *CONVNETS)) for row in _rows(network, rounds)]


def _rows(network, rounds: int) -> list[Row]:
    step = nanonet_step(network)
    for _ in range(3):
        step()
    plan = step.func.plan
    samples = interleave(
        {"step": repeated(step), "plan": plan.run, "peak": fma_loop(threads=CORES), "copy": copy_loop(NEAR)}, rounds
    )
    whole, replay, peak, copy = (float(np.median(samples[name])) for name in ("step", "plan", "peak", "copy"))
    whole = max(whole, replay)
    rate, bandwidth = CORES * fma_flop() / peak, CORES * 2 * NEAR / copy

    groups: dict[str, list[tuple[Instruction, float]]] = defaultdict(list)
    for instruction, seconds in zip(plan.instructions, in_turn(plan, rounds, replay), strict=True):
        groups[instruction.title].append((instruction, seconds))
    ordered = sorted(groups.items(), key=lambda group: -sum(seconds for _, seconds in group[1]))
    lines = [(f"{title} ({len(members)})", members) for title, members in ordered[:LINES]]
    rest = [member for _, members in ordered[LINES:] for member in members]
    if rest:
        lines.append((f"others ({len(rest)})", rest))

    rows = [
        Row(
            network.name, whole, flop=float(plan.flop), limit=sum(_limit(i, rate, bandwidth) for i in plan.instructions)
        )
    ]
    for title, members in lines:
        seconds = sum(seconds for _, seconds in members)
        flop = float(sum(instruction.flop or 0 for instruction, _ in members))
        limit = sum(_limit(instruction, rate, bandwidth) for instruction, _ in members)
        rows.append(Row(f"- {title}: {seconds / whole:.0%}", seconds, flop=flop or None, limit=limit))
    between = replay - sum(row.seconds for row in rows[1:])
    rows.append(Row(f"- between: {between / whole:.0%}", between))
    rows.append(Row(f"- call: {(whole - replay) / whole:.0%}", whole - replay))
    return rows


def _limit(instruction: Instruction, rate: float, bandwidth: float) -> float:
    share = min(instruction.parts, CORES) / CORES
    return max((instruction.flop or 0) / (rate * share), instruction.bytes / (bandwidth * share))


def in_turn(plan: Plan, rounds: int, replay: float) -> np.ndarray:
    """Seconds of each instruction, by the median. replay: seconds that the plan takes."""
    from kernels.numba_cpu.executor import execute

    codes = [instruction.code for instruction in plan.instructions]
    if replay < 1e-3 and all(codes):
        beginnings = [b"".join(codes[: place + 1]) for place in range(len(codes))]
        samples = [[_timed(lambda code=code: execute(code, 200)) / 200 for code in beginnings] for _ in range(rounds)]
        return np.diff(np.median(samples, axis=0), prepend=0.0)
    calls = [instruction.call or (lambda code=instruction.code: execute(code)) for instruction in plan.instructions]
    return np.median([[_timed(call) for call in calls] for _ in range(rounds)], axis=0)


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
