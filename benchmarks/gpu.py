"""python -m benchmarks.gpu: checks the GPU's answers, then times it against PyTorch and CuPy, in one call.

Products, the convolutions of ResNet-18, training steps (perceptrons, a small convolutional network, ResNet-20 and
ResNet-18 on images of 32 x 32), and 64 small runs trained as one stack, also by the tuner. Times are of work that is
done: each turn ends with a wait for the device. The limit of a row is the larger of its operations over the card's
measured rate and its bytes over the card's measured bandwidth. Writes gpu-<card>.json and gpu-<card>.md in --results.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import convnets, networks, train_step
from benchmarks.convnets import Conv, ConvNet, resnet18, walk
from benchmarks.harness import Candidate, Row, installed, interleave, markdown
from benchmarks.networks import Network

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]
SIDES = (256, 1024, 2048, 4096, 8192)
BATCHES = (64, 1024)
RESNET18 = ConvNet("ResNet-18 32x32x3, SGD", (32, 32, 3), resnet18(), 64, "sgd", 0.01)
STEPS: tuple[Network | ConvNet, ...] = (*train_step.MLPS, convnets.CNN, convnets.RESNET20, RESNET18)
STACK = 64  # runs
#: Precisions of products, and the goal as a share of the best peer's speed.
PRECISIONS = {"float32": 0.9, "tf32": 0.9, "bf16": 0.9}
GRAPH, EAGER = "PyTorch, CUDA graph", "PyTorch, eager"


class Bench:
    """A device and how long to measure on it. On "cpu", with small cases, it shows only that the script runs."""

    def __init__(self, device: str, quick: bool, compile: bool = False):
        self.device, self.quick, self.compile = device, quick, compile
        self.rounds = 3 if quick else 11
        self.torch = None
        if installed("torch"):
            import torch

            if device == "cpu" or torch.cuda.is_available():
                self.torch = torch
                torch.backends.cudnn.benchmark = True

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.device == "cuda":
            import cupy

            cupy.cuda.Device().synchronize()

    def done(self, call: Callable[[], Any]) -> Candidate:
        """A candidate that waits at the end of its turn."""

        def run(times: int) -> None:
            for _ in range(times):
                call()
            self.wait()

        return run

    def time(self, candidates: dict[str, Callable[[], Any]]) -> dict[str, np.ndarray]:
        """Seconds of each call, a number for each round."""
        turn = 0.01 if self.quick else 0.05
        return interleave({name: self.done(call) for name, call in candidates.items()}, self.rounds, turn, 4 * turn)

    def array(self, *shape: int, dtype: Any = np.float32) -> Any:
        """Random numbers on the device; zeros would be multiplied faster."""
        import nanonet

        rng = np.random.default_rng(sum(shape))
        return nanonet.tensor(rng.standard_normal(shape).astype(np.float32), dtype, device=self.device)

    def theirs(self, tensor: Any) -> Any:
        """The same values as PyTorch's tensor, in the same memory."""
        return self.torch.from_dlpack(tensor)

    @contextmanager
    def precision(self, name: str) -> Iterator[None]:
        """How products of float32 are made, by nanonet and by PyTorch."""
        import nanonet

        before = nanonet.get_float32_matmul_precision()
        nanonet.set_float32_matmul_precision("highest" if name == "float32" else "high")
        if self.torch is not None:
            self.torch.backends.cuda.matmul.allow_tf32 = self.torch.backends.cudnn.allow_tf32 = name != "float32"
        try:
            if name == "bf16":
                with nanonet.autocast("bf16"):
                    yield
            else:
                yield
        finally:
            nanonet.set_float32_matmul_precision(before)


# ---------------------------------------------------------------------------------------- the card's peak


def peaks(bench: Bench) -> dict[str, float]:
    """FLOP/s of large products in each precision, by cuBLAS, and bytes/s of a copy that passes the caches."""
    side, size = (256, 1 << 20) if bench.quick else (8192, 1 << 30)
    found = {}
    if bench.torch is not None:
        a, b = (bench.theirs(bench.array(side, side)) for _ in range(2))
        for name in PRECISIONS:
            with bench.precision(name):
                kind = bench.torch.bfloat16 if name == "bf16" else bench.torch.float32
                x, y = a.to(kind), b.to(kind)
                out = x @ y
                samples = bench.time({"peak": partial(bench.torch.mm, x, y, out=out)})
            found[name] = 2.0 * side**3 / float(np.median(samples["peak"]))
        source = bench.torch.zeros(size // 4, device=bench.device)
        target = bench.torch.empty_like(source)
        found["bandwidth"] = 2 * size / float(np.median(bench.time({"copy": lambda: target.copy_(source)})["copy"]))
    return found


def limit(peak: dict[str, float], precision: str, flop: float, size: float) -> float | None:
    """Seconds that the card needs at least."""
    if precision not in peak:
        return None
    return max(flop / peak[precision], size / peak["bandwidth"])


# --------------------------------------------------------------------------------------------- the parts


def matmul(bench: Bench, peak: dict[str, float]) -> list[Row]:
    """Square products in each precision."""
    from kernels import registry

    rows = []
    for precision, goal in PRECISIONS.items():
        for n in SIDES[:1] if bench.quick else SIDES:
            a, b = bench.array(n, n), bench.array(n, n)
            with bench.precision(precision):
                backend = registry.backend_of(a.array)
                out = (a @ b).array
                candidates: dict[str, Callable[[], Any]] = {
                    "nanonet": partial(backend.matmul, a.array, b.array, out)  # no autograd, no allocation
                }
                if bench.torch is not None:
                    kind = bench.torch.bfloat16 if precision == "bf16" else bench.torch.float32
                    x, y = (bench.theirs(t).to(kind) for t in (a, b))
                    candidates["PyTorch"] = partial(bench.torch.mm, x, y, out=x @ y)
                if bench.device == "cuda" and precision == "float32":
                    candidates["CuPy"] = partial(backend.xp.matmul, a.array, b.array, out=out.copy())
                samples = bench.time(candidates)
            size = (2 if precision == "bf16" else 4) * 3 * n * n
            bound = limit(peak, precision, 2.0 * n**3, size)
            row = Row.of(f"{precision} {n} x {n} x {n}", samples, peers=_own(samples), flop=2.0 * n**3, limit=bound)
            rows.append(row.want({"PyTorch": goal} if n >= 2048 else None))
    return rows


def conv(bench: Bench, peak: dict[str, float]) -> list[Row]:
    """The convolutions of ResNet-18, forward and both gradients, against PyTorch on channels-last tensors."""
    from kernels import registry

    rows = []
    found = {(layer, shape): None for layer, shape in walk(resnet18(), (32, 32, 3)) if isinstance(layer, Conv)}
    batch = 2 if bench.quick else 256
    for precision in ("tf32", "bf16"):
        for layer, (h, w, c) in list(found)[: 1 if bench.quick else None]:
            p, s = layer.size // 2, layer.stride
            oh, ow = ((side - 1) // s + 1 for side in (h, w))
            x, g = bench.array(batch, h, w, c), bench.array(batch, oh, ow, layer.out)
            k = bench.array(layer.size, layer.size, c, layer.out)
            backend = registry.backend_of(x.array)
            options = ((s, s), ((p, p), (p, p)), (1, 1), 1)
            y, dx, dk = g.clone().array, x.clone().array, k.clone().array
            calls = {
                "forward": partial(backend.conv2d, x.array, k.array, None, *options, None, y),
                "input gradient": partial(backend.conv2d_transpose, g.array, k.array, None, *options, None, dx),
                "weight gradient": partial(backend.conv2d_weight_gradient, x.array, g.array, *options, dk),
            }
            flop = 2.0 * batch * oh * ow * layer.out * layer.size**2 * c
            size = (2 if precision == "bf16" else 4) * (x.size + g.size + k.size)
            peers = _torch_conv(bench, x, k, g, s, p, precision)
            for name, call in calls.items():
                if name == "input gradient" and c == 3:
                    continue
                with bench.precision(precision):
                    samples = bench.time({"nanonet": call, **({"PyTorch": peers[name]} if peers else {})})
                case = f"{precision} {name}, {batch} x {h} x {w} x {c}, {layer.size} x {layer.size} / {s}, {layer.out}"
                bound = limit(peak, precision, flop, size)
                rows.append(Row.of(case, samples, peers=_own(samples), flop=flop, limit=bound).want({"PyTorch": 0.9}))
    return rows


def _torch_conv(bench: Bench, x: Any, k: Any, g: Any, s: int, p: int, precision: str) -> dict[str, Callable[[], Any]]:
    torch = bench.torch
    if torch is None:
        return {}
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    last = {"memory_format": torch.channels_last}
    xt, gt = (bench.theirs(t).permute(0, 3, 1, 2).to(kind).contiguous(**last) for t in (x, g))
    kt = bench.theirs(k).permute(3, 2, 0, 1).to(kind).contiguous(**last)

    def backward(*mask: bool) -> Any:
        options = (None, [s, s], [p, p], [1, 1], False, [0, 0], 1, [*mask, False])
        return torch.ops.aten.convolution_backward(gt, xt, kt, *options)

    return {
        "forward": lambda: torch.nn.functional.conv2d(xt, kt, None, s, p),
        "input gradient": partial(backward, True, False),
        "weight gradient": partial(backward, False, True),
    }


def steps(bench: Bench, peak: dict[str, float]) -> list[Row]:
    """Training steps of small and large batches, against PyTorch eager, its CUDA graphs and torch.compile."""
    rows = []
    for network in STEPS[:1] if bench.quick else STEPS:
        for batch in BATCHES[:1] if bench.quick else BATCHES:
            case = replace(network, batch=batch, name=re.sub(r", batch \d+", "", network.name) + f", batch {batch}")
            module = networks if isinstance(network, Network) else convnets
            small = isinstance(network, Network)
            with bench.precision("float32" if small else "tf32"):
                ours = module.nanonet_step(case, device=bench.device)
                candidates: dict[str, Callable[[], Any]] = {"nanonet": ours}
                if bench.torch is not None:
                    expected = networks.losses(module.torch_step(case, device=bench.device), 4)
                    found = networks.losses(ours, 4)
                    if not np.allclose(found, expected, rtol=2e-2, atol=2e-2):
                        raise AssertionError(f"{case.name}: losses {found}, wanted {expected}")
                    candidates |= _torch_steps(bench, case, module)
                samples = bench.time(candidates)
            bound = limit(peak, "float32" if small else "tf32", case.flop, case.bytes)
            row = Row.of(case.name, samples, peers=_own(samples), flop=case.flop, limit=bound)
            small = small and case.flop < 1e9
            rows.append(row.want({EAGER: 5.0, GRAPH: 1.0} if small else {EAGER: 0.9}))
    return rows


def _torch_steps(bench: Bench, case: Network | ConvNet, module: Any) -> dict[str, Callable[[], Any]]:
    torch, options = bench.torch, {"device": bench.device}
    if isinstance(case, ConvNet):
        options["last"] = True
    found = {EAGER: module.torch_step(case, fused=True, **options)}
    if bench.device == "cuda":
        found[GRAPH] = _captured(torch, module.torch_step(case, fused=True, capturable=True, **options))
        if bench.compile:
            compiled = torch.compile(module.torch_step(case, fused=True, **options))
            try:
                compiled()
            except Exception as error:  # it wants a compiler of C, and does not know every step
                print(f"{case.name}: torch.compile failed: {type(error).__name__}", file=sys.stderr)
            else:
                found["torch.compile"] = compiled
    return found


def _captured(torch: Any, step: Callable[[], Any]) -> Callable[[], Any]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def stacked(bench: Bench, peak: dict[str, float]) -> list[Row]:
    """An epoch of 64 small networks on digits, and 64 trials of `tuner.tune`: as one stack, against one by one."""
    from nanonet import data
    from nanonet.settings import Settings
    from nanonet.stacked import StackedRun
    from nanonet.training import Run

    digits = data.load("digits")
    rows = 200 if bench.quick else 1078
    x, y = (np.asarray(digits.x[:rows]).reshape(rows, -1) / 16).astype(np.float32), digits.y[:rows]
    count = 4 if bench.quick else STACK
    settings = [Settings(seed=k, learning_rate=1e-3 * (1 + k % 7)) for k in range(count)]
    stack = StackedRun(settings, x, y, (x[:100], y[:100]), device=bench.device)
    singles = [Run(each, x, y, (x[:100], y[:100]), device=bench.device) for each in settings[:4]]
    for run in (stack, *singles):
        run.advance(1)
    samples = bench.time({"nanonet": partial(stack.advance, 1), "four": lambda: [run.advance(1) for run in singles]})
    samples["one after another"] = samples.pop("four") * count / len(singles)
    found = [Row.of(f"an epoch of {count} networks on digits", samples, peers=_own(samples))]
    searches = {"nanonet": count, "one after another": False}
    for stack in searches.values():
        _search_seconds(bench, stack, 2)  # kernels are compiled
    rounds = [
        {name: _search_seconds(bench, stack, count) for name, stack in searches.items()} for _ in range(bench.rounds)
    ]
    samples = {name: np.array([each[name] for each in rounds]) for name in searches}
    epochs = _epochs(bench)
    found.append(Row.of(f"tune: {count} trials of {epochs} epochs on digits", samples, peers=_own(samples)))
    return [row.want({"one after another": 20.0}) for row in found]


def _epochs(bench: Bench) -> int:
    return 2 if bench.quick else 54


def _search_seconds(bench: Bench, stack: int | bool, trials: int) -> float:
    """From the begin of the first trial to the end of the last one; the model at the end and the test come after."""
    import tuner
    from nanonet import data
    from nanonet.settings import Settings

    result = tuner.tune(
        data.load("digits"),
        trials=trials,
        stack=stack,
        space=["learning_rate", "weight_decay", "dropout", "label_smoothing"],
        base=Settings(hidden=(128,), batch_size=64, schedule="cosine"),
        sampler=tuner.samplers.RandomSampler(seed=0),
        pruner=tuner.pruners.NopPruner(),
        validation="split",
        max_epochs=_epochs(bench),
        n_jobs=1,
        device=bench.device,
    )
    found = result.study.get_trials(deepcopy=False)
    span = max(t.datetime_complete for t in found) - min(t.datetime_start for t in found)
    return span.total_seconds()


def _own(samples: dict[str, np.ndarray]) -> dict[str, str]:
    return {name: name for name in samples if name != "nanonet"}


# -------------------------------------------------------------------------------------------- the answers


def check(bench: Bench) -> dict[str, Any]:
    """The test rows of the GPU; a plan replayed 1,000 times and the same steps eagerly; two runs' bits."""
    found: dict[str, Any] = {}
    if bench.device == "cuda":
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "tests", "-k"]
        wanted = "(cupy_gpu and not emulated) or devices or cuda_programs"
        begin = time.perf_counter()
        done = subprocess.run([*command, wanted], cwd=ROOT, capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        found["tests"] = {"last": done.stdout.strip().splitlines()[-1:], "failed": lines[:50], "code": done.returncode}
        found["tests"]["seconds"] = time.perf_counter() - begin
    network = train_step.MLPS[0]
    times = 20 if bench.quick else 1000
    runs = {}
    for name, jit in (("replayed", True), ("eager", False), ("replayed again", True)):
        step = networks.nanonet_step(network, jit=jit, device=bench.device)
        runs[name] = np.array(networks.losses(step, times))
    found["replays"] = times
    found["replayed and eager, greatest difference"] = float(np.abs(runs["replayed"] - runs["eager"]).max())
    found["the same bits twice"] = bool((runs["replayed"] == runs["replayed again"]).all())
    return found


PARTS: dict[str, Callable[[Bench, dict[str, float]], list[Row]]] = {
    "matmul": matmul,
    "conv": conv,
    "steps": steps,
    "stacked": stacked,
}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and keep; 1 if an answer is wrong."""
    parser = argparse.ArgumentParser("python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}, check; all unless given")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: only to see that it runs")
    parser.add_argument("--quick", action="store_true", help="small cases and few rounds")
    compiled = "time torch.compile too, which takes minutes (default: where Triton is installed)"
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=installed("triton"), help=compiled)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    options = parser.parse_args(arguments)
    unknown = set(options.parts) - {*PARTS, "check"}
    if unknown:
        parser.error(f"there is no {unknown.pop()!r}; wanted some of {', '.join(PARTS)}, check")
    bench = Bench(options.device, options.quick, options.compile)
    chosen = options.parts or ["check", *PARTS]
    report: dict[str, Any] = {"machine": _machine(bench), "peaks": peaks(bench)}
    if "check" in chosen:
        report["check"] = check(bench)
        print(json.dumps(report["check"], indent=1), flush=True)
    text = f"# GPU\n\n{json.dumps({**report['machine'], **report['peaks']}, indent=1)}\n"
    for name, part in PARTS.items():
        if name not in chosen:
            continue
        try:
            rows = part(bench, report["peaks"])
        except Exception as error:  # one part that fails does not lose the others
            report[name] = {"error": f"{type(error).__name__}: {error}"}
            text += f"\n## {name}\n\n{report[name]['error']}\n"
        else:
            report[name] = [row.as_dict() for row in rows]
            text += f"\n## {name}\n\n{part.__doc__}\n\n{markdown(rows)}\n"
        _keep(options.results, report, text)
    print(text)
    right = report.get("check", {})
    return int(right.get("tests", {}).get("code", 0) != 0 or not right.get("the same bits twice", True))


def _machine(bench: Bench) -> dict[str, Any]:
    found: dict[str, Any] = {"device": bench.device, "numpy": np.__version__}
    if bench.device == "cuda":
        from kernels.cupy_gpu.check import about

        found |= about()
    if bench.torch is not None:
        found["torch"] = bench.torch.__version__
    return found


def _keep(folder: Path, report: dict[str, Any], text: str) -> None:
    name = re.sub(r"[^a-z0-9]+", "-", str(report["machine"].get("name", report["machine"]["device"])).lower())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"gpu-{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    (folder / f"gpu-{name}.md").write_text(text)


if __name__ == "__main__":
    sys.exit(main())
