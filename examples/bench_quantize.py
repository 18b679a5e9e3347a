"""Bench of quantization: every cell on trained and on large nets, against the float generator and the fp32 file.

    python examples/bench_quantize.py [--quick] [--json] [--net NAME] [--cell CELL] [--into FILE.json]
                                      [--runs DIR] [--fashion FILE.npz] [--profile]

Nets: the demo's student and a Fashion-MNIST student, both trained here once (minutes; kept in --runs), SlimFlow's
15.7 M shape and the 35.7 M ddpm shape with fixed random weights, the latter two for size and speed. Each cell: bytes of
the file over the same runtime's fp32 file, PSNR of the same noises' pictures to PyTorch's, the change of fd_local with
a paired bootstrap interval of 95 %, the time of one picture over fp32's (both files in turn in one process, medians),
and what making it took. Core ML's pictures are by edgegen's evaluator, and have no times. "+recovery" is learned
rounding and the training of [recover]. `--quick`: the demo's student alone, fewer noises. `--into FILE.json` keeps
the rows of earlier runs, so that an hour's work can be done in parts; examples/bench_quantize.json was made so.
`--profile`: nothing of that, but where the time of the large nets' fp32 and w8a8 files goes, by the runtimes' profiles.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_nets import ddpm_cifar10, slimflow_cifar10
from bench_race import measure
from numpy.typing import NDArray
from torch import nn

from edgegen.artifacts.build import BuildResult, build
from edgegen.artifacts.refine import refine
from edgegen.artifacts.target import Target
from edgegen.errors import EdgegenError
from edgegen.formats.recipe_file import find
from edgegen.metrics.distances import frechet
from edgegen.models.load import load as load_generator
from edgegen.pipeline.run import run_recipe
from edgegen.pipeline.stages.evaluate import Judge
from edgegen.profilers.devices.host import DEVICE
from edgegen.profilers.devices.host_info import probe
from edgegen.profilers.files.profile import per_operation
from edgegen.profilers.trace.operators import OperatorTime
from edgegen.program.capture import reference
from edgegen.program.fold import fold
from edgegen.program.generator import Generator
from edgegen.program.inputs import example_inputs
from edgegen.program.one_step import OneStep
from edgegen.recipe import Export, Quantize, Recover, read
from edgegen.registry import load
from edgegen.support.progress import progress
from edgegen.support.storage import write_json
from edgegen.types import Signature
from edgegen.verification.parity import psnr_db, psnr_range

HERE = Path(__file__).parent
DEMO, FASHION, SLIMFLOW, DDPM = "demo student", "fashion student", "slimflow 15.7 M", "ddpm 35.7 M"
TRAINED, LARGE = (DEMO, FASHION), (SLIMFLOW, DDPM)
RUNTIMES = ("onnx", "executorch", "coreml")
CELLS = (
    "onnx-w8",
    "onnx-w8a8",
    "onnx-w8a8+recovery",
    "executorch-w8a8",
    "executorch-w8a8+recovery",
    "coreml-w8a8",
    "coreml-w8",
    "coreml-w6",
    "coreml-w4",
    "coreml-w4-block",
    "coreml-w4-block+recovery",
)
FOR_SPEED = ("onnx-w8a8", "executorch-w8a8")
RECOVERY = {"w8a8": Recover(steps=300, learning_rate=1e-4), "w4-block": Recover(steps=300, learning_rate=1e-3)}
NOISES, FEW = 1000, 16  # of trained nets; of the large ones, whose pictures mean nothing
RESAMPLED = 400
PROFILED = 0.01  # of a file's time, from which on a kind of operation is listed
SEED = 1
FASHION_RECIPE = """
name = "bench-fashion"
[data]
source = {source}
[teacher]
steps = 900
learning_rate = 2e-3
model = {{ channels = [32, 64, 96], blocks = 1 }}
[pairs]
count = 1024
steps = 10
[slim]
keep = 0.4
steps = 700
learning_rate = 2e-3
decay = "none"
[distill]
steps = 500
learning_rate = 2e-3
[evaluate]
extractor_steps = 400
"""


@dataclass
class Net:
    """A folded generator, and how to judge its pictures: None where the weights are random."""

    name: str
    module: nn.Module
    signature: Signature
    noises: int
    features: Callable[[NDArray[np.float32]], NDArray[np.float64]] | None = None
    real: NDArray[np.float64] | None = None


def trained(name: str, recipe: str, runs: Path, noises: int) -> Net:
    tell = progress()
    results = {result.stage: result for result in run_recipe(recipe, runs=runs, to="distill", progress=tell)}
    results |= {result.stage: result for result in run_recipe(recipe, runs=runs, only="extractor", progress=tell)}
    loaded = load_generator(results["distill"].folder / "generator")
    module = fold(OneStep(loaded.net, time=1.0), loaded.signature).module
    judge = Judge(read(find(recipe)), {stage: result.folder for stage, result in results.items()})
    return Net(
        name,
        module,
        loaded.signature,
        noises,
        features=lambda pictures: judge.features(torch.from_numpy(pictures)),
        real=judge.real,
    )


def random_net(name: str, make: Callable[[], nn.Module]) -> Net:
    signature = Signature.of(channels=3, size=32, num_classes=0)
    return Net(name, fold(OneStep(make(), time=1.0), signature).module, signature, FEW)


def nets(options: argparse.Namespace, folder: Path) -> list[Callable[[], Net]]:
    """Those asked for, each made when its turn comes."""
    noises = 200 if options.quick else NOISES
    makers: dict[str, Callable[[], Net]] = {
        DEMO: partial(trained, DEMO, "digits", options.runs, noises),
        SLIMFLOW: partial(random_net, SLIMFLOW, slimflow_cifar10),
        DDPM: partial(random_net, DDPM, ddpm_cifar10),
    }
    if options.fashion.is_file():
        recipe = folder / "fashion.toml"
        recipe.write_text(FASHION_RECIPE.format(source=json.dumps(str(options.fashion.resolve()))))
        makers[FASHION] = partial(trained, FASHION, str(recipe), options.runs, noises)
    else:
        print(f"no {options.fashion}: the {FASHION} is left out", file=sys.stderr)
    wanted = options.net or ([DEMO] if options.quick else [DEMO, FASHION, SLIMFLOW, DDPM])
    return [makers[name] for name in wanted if name in makers]


def bench(net: Net, folder: Path, cells: Sequence[str], *, quick: bool) -> Iterator[dict[str, Any]]:
    """A row for every cell of a net, those of one runtime after its fp32 file."""
    inputs = example_inputs(net.signature, net.noises, SEED)
    expected = reference(net.module, inputs)
    pictures: dict[str, NDArray[np.float32]] = {}
    if net.name == DDPM:
        cells = [cell for cell in cells if cell in FOR_SPEED]
    if net.name == SLIMFLOW:  # hours of training on a CPU
        cells = [cell for cell in cells if "+" not in cell]
    recovered: dict[str, nn.Module] = {}
    for runtime in RUNTIMES:
        runtime_cells = [cell for cell in cells if cell.startswith(runtime)]
        if not runtime_cells:
            continue
        unquantized, _ = _build(net, Target(runtime, "fp32"), net.module, folder)
        for cell in runtime_cells:
            print(f"{net.name}, {cell} ...", file=sys.stderr, flush=True)
            target = Target.parse(cell.partition("+")[0])
            module, recovery_seconds = net.module, 0.0
            if "+" in cell:
                if target.scheme not in recovered:
                    began = time.perf_counter()
                    recovered[target.scheme] = _recover(net, target.scheme, folder)
                    recovery_seconds = time.perf_counter() - began
                module = recovered[target.scheme]
            built, path = _build(net, target, module, folder)
            session = load("backend", runtime).open(path)
            pictures[cell] = _run(session, inputs)
            row: dict[str, Any] = {
                "net": net.name,
                "cell": cell,
                "engine": built.artifact.engine,
                "size_ratio": built.artifact.nbytes / unquantized.artifact.nbytes,
                "noises": net.noises,
                "psnr_db": psnr_db(expected, pictures[cell], data_range=psnr_range(net.signature, expected)),
                "seconds": built.seconds + recovery_seconds,
                "peak_gb": (built.peak_rss_bytes or 0) / 1e9,
                **_fd_change(net, expected, pictures[cell]),
                "time_ratio": {},
            }
            if runtime != "coreml":
                sample = list(example_inputs(net.signature, 1, 0).values())
                rounds = (40 if quick else 100) if net.name in TRAINED else 20
                for threads in (1, 2):
                    samples = measure(
                        runtime,
                        [(folder / unquantized.artifact.file, sample), (path, sample)],
                        threads=threads,
                        rounds=rounds,
                    )
                    floating, rounded, _ = map(statistics.median, samples)
                    row["time_ratio"][str(threads)] = rounded / floating
            yield row
    by_runtime = [pictures[cell] for cell in ("onnx-w8a8", "executorch-w8a8", "coreml-w8a8") if cell in pictures]
    if len(by_runtime) == 3:
        data_range = psnr_range(net.signature, expected)
        pairs = [(0, 1), (0, 2), (1, 2)]
        alike = min(psnr_db(by_runtime[a], by_runtime[b], data_range=data_range) for a, b in pairs)
        yield {"net": net.name, "alike_db": alike}


def profile(net: Net, folder: Path) -> Iterator[str]:
    """A table for each runtime: ms by kind of operation in the fp32 and in the w8a8 file, and their shares."""
    for runtime in ("onnx", "executorch"):
        times: dict[str, dict[str, OperatorTime]] = {}
        for scheme in ("fp32", "w8a8"):
            _, path = _build(net, Target(runtime, scheme), net.module, folder)
            times[scheme] = {operator.kind: operator for operator in per_operation(path, DEVICE, threads=1, runs=20)}
        yield f"| {net.name}, {runtime} | fp32, ms | w8a8, ms |\n|---|---|---|"
        kinds: dict[str, float] = {}
        for operator in [operator for rows in times.values() for operator in rows.values()]:
            kinds[operator.kind] = max(operator.ms, kinds.get(operator.kind, 0.0))
        totals = {scheme: sum(operator.ms for operator in rows.values()) for scheme, rows in times.items()}
        for kind in sorted(kinds, key=lambda kind: -kinds[kind]):
            if kinds[kind] >= PROFILED * max(totals.values()):
                cells = [_share(times[scheme].get(kind), totals[scheme]) for scheme in times]
                yield f"| {kind} | {' | '.join(cells)} |"
        yield f"| all | {' | '.join(f'{total:.1f}' for total in totals.values())} |\n"


def _share(operator: OperatorTime | None, total: float) -> str:
    return "" if operator is None else f"{operator.ms:.1f} ({operator.ms / total:.0%}, {operator.count})"


def _build(net: Net, target: Target, module: nn.Module, folder: Path) -> tuple[BuildResult, Path]:
    options = Export(coreml_target="iOS18")  # w4-block needs it
    built = build(
        module, net.signature, name="net", target=target, folder=folder, seed=SEED, metadata={}, options=options
    )
    return built, folder / built.artifact.file


def _recover(net: Net, scheme: str, folder: Path) -> nn.Module:
    recovery_folder = folder / f"recover-{scheme}"
    recovery_folder.mkdir()
    refined = refine(
        Generator(net.module, net.signature),
        scheme,
        options=Quantize(methods=("rounding",)),
        recover=RECOVERY[scheme],
        seed=SEED,
        folder=recovery_folder,
        progress=progress(),
    )
    module: nn.Module = refined.program.module(check_guards=False)
    return module


def _run(session: Any, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    count = len(next(iter(inputs.values())))
    parts = [session({k: v[i : i + 8] for k, v in inputs.items()})["out_sample"] for i in range(0, count, 8)]
    return np.concatenate(parts).astype(np.float32)


def _fd_change(net: Net, expected: NDArray[np.float32], actual: NDArray[np.float32]) -> dict[str, Any]:
    """fd_local of the float pictures and its sd, and how much the file's is above it, with an interval.

    A paired bootstrap: each replicate draws the same noises for both.
    """
    if net.features is None or net.real is None:
        return {"fd_float": None, "fd_float_sd": None, "fd_change": None, "fd_interval": None}
    before, after = net.features(expected), net.features(actual)
    start = frechet(net.real, before)
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, len(before), len(before)) for _ in range(RESAMPLED)]
    pairs = np.array([(frechet(net.real, before[rows]), frechet(net.real, after[rows])) for rows in drawn])
    low, high = np.percentile(pairs[:, 1] - pairs[:, 0], [2.5, 97.5]) / start
    change = frechet(net.real, after) / start - 1
    return {
        "fd_float": start,
        "fd_float_sd": float(pairs[:, 0].std()),
        "fd_change": change,
        "fd_interval": [float(low), float(high)],
    }


def goals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each figure of issue 4, from this run; what was not run for every net that it speaks of is not met."""
    listed: list[dict[str, Any]] = []
    by_cell = {(row["net"], row["cell"]): row for row in rows if "cell" in row}

    def add(name: str, target: str, values: list[float | None], holds: Callable[[float], bool], worst: Any) -> None:
        measured = [value for value in values if value is not None]
        value = worst(measured) if measured and len(measured) == len(values) else None
        listed.append({"name": name, "target": target, "value": value, "met": value is not None and holds(value)})

    def of(key: str, nets: tuple[str, ...], *cells: str) -> list[Any]:
        return [by_cell.get((net, cell), {}).get(key) for net in nets for cell in cells]

    def at_most(name: str, limit: float, values: list[Any]) -> None:
        add(name, f"<= {limit}", values, lambda value: value <= limit, max)

    def at_least(name: str, limit: float, values: list[Any]) -> None:
        add(name, f">= {limit}", values, lambda value: value >= limit, min)

    w8a8 = ("onnx-w8a8", "executorch-w8a8")
    at_most("w8a8: size, 15.7 M", 0.30, of("size_ratio", (SLIMFLOW,), *w8a8))
    at_least("w8a8 by calibration: PSNR of trained nets, dB", 30.0, of("psnr_db", TRAINED, *w8a8))
    at_least(
        "w8a8 with recovery: PSNR of trained nets, dB",
        35.0,
        of("psnr_db", TRAINED, *(f"{cell}+recovery" for cell in w8a8)),
    )
    trained_rows = [by_cell.get((net, cell)) for net in TRAINED for cell in w8a8]
    within = [None if row is None else _fd_excess(row) for row in trained_rows]
    at_most("w8a8: rise of fd_local over what is allowed (5 %, or one sd of the float's)", 0.0, within)
    for runtime, limit in (("onnx", 0.5), ("executorch", 0.38)):
        for net in LARGE:
            ratios = of("time_ratio", (net,), f"{runtime}-w8a8")[0] or {}
            for threads in ("1", "2"):
                at_most(f"w8a8, {runtime}, {net}: time, {threads} threads", limit, [ratios.get(threads)])
    at_most("w8: size, 15.7 M, ONNX and Core ML", 0.30, of("size_ratio", (SLIMFLOW,), "onnx-w8", "coreml-w8"))
    at_least("w8: PSNR of trained nets, dB", 40.0, of("psnr_db", TRAINED, "onnx-w8", "coreml-w8"))
    at_most("w6: size, 15.7 M", 0.22, of("size_ratio", (SLIMFLOW,), "coreml-w6"))
    at_least("w6: PSNR of trained nets, dB", 35.0, of("psnr_db", TRAINED, "coreml-w6"))
    at_most("w4-block: size, 15.7 M", 0.16, of("size_ratio", (SLIMFLOW,), "coreml-w4-block"))
    at_least(
        "w4-block with recovery: PSNR of trained nets, dB", 25.0, of("psnr_db", TRAINED, "coreml-w4-block+recovery")
    )
    alike = {row["net"]: row["alike_db"] for row in rows if "alike_db" in row}
    at_least("w8a8: the three runtimes' pictures alike, dB", 30.0, [alike.get(net) for net in (*TRAINED, SLIMFLOW)])
    return listed


def _fd_excess(row: dict[str, Any]) -> float:
    return float(row["fd_change"] - max(0.05, row["fd_float_sd"] / row["fd_float"]))


def table(rows: list[dict[str, Any]]) -> str:
    columns = ("net", "cell", "size", "PSNR dB", "fd_local", "time, 1 / 2 threads", "made in s", "GB")
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in [row for row in rows if "cell" in row]:
        times = " / ".join(f"{value:.2f}" for value in row["time_ratio"].values()) or "-"
        change = "-"
        if row["fd_change"] is not None:
            low, high = row["fd_interval"]
            change = f"{row['fd_change']:+.1%} ({low:+.1%} to {high:+.1%})"
        cells = [row["net"], row["cell"], f"{row['size_ratio']:.3f}", f"{row['psnr_db']:.1f}", change, times]
        lines.append("| " + " | ".join([*cells, f"{row['seconds']:.0f}", f"{row['peak_gb']:.1f}"]) + " |")
    lines += [
        f"{row['net']}: w8a8 of the three runtimes {row['alike_db']:.1f} dB alike" for row in rows if "alike_db" in row
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the demo's student alone, fewer noises")
    parser.add_argument("--json", action="store_true", help="goals and rows on stdout")
    parser.add_argument("--net", action="append", choices=[*TRAINED, *LARGE], help="only this net; may be given again")
    parser.add_argument("--cell", action="append", choices=CELLS, help="only this cell; may be given again")
    parser.add_argument("--into", type=Path, metavar="FILE.json", help="keep its other rows, and write it anew")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the trained nets are kept")
    parser.add_argument("--fashion", type=Path, default=HERE.parent.parent / "shared/data/fashion_mnist.npz")
    parser.add_argument("--profile", action="store_true", help="where the large nets' time goes, and nothing else")
    options = parser.parse_args()
    if options.profile:
        options.net = options.net or list(LARGE)
    failures: list[str] = []
    rows: list[dict[str, Any]] = []
    if options.into is not None and options.into.is_file():
        rows = json.loads(options.into.read_text())["rows"]
    with tempfile.TemporaryDirectory(prefix="edgegen-") as temporary:
        for number, make in enumerate(nets(options, Path(temporary))):
            folder = Path(temporary) / str(number)
            folder.mkdir()
            try:
                if options.profile:
                    print("\n".join(profile(make(), folder)), flush=True)
                    continue
                for row in bench(make(), folder, options.cell or CELLS, quick=options.quick):
                    rows = [
                        other for other in rows if (other["net"], other.get("cell")) != (row["net"], row.get("cell"))
                    ]
                    rows.append(row)
                    print(json.dumps(row), file=sys.stderr, flush=True)
                    if options.into is not None:
                        write_json(options.into, {"machine": probe(), "goals": goals(rows), "rows": rows})
            except EdgegenError as e:
                failures.append(str(e))
                print(f"failed: {e}", file=sys.stderr, flush=True)
    if options.profile:
        sys.exit(1 if failures else 0)
    if options.json:
        print(json.dumps({"machine": probe(), "goals": goals(rows), "rows": rows}, indent=2))
    else:
        print(json.dumps(probe()))
        print(table(rows))
        for goal in goals(rows):
            value = "not run" if goal["value"] is None else f"{goal['value']:.3g}"
            print(f"{'met    ' if goal['met'] else 'NOT MET'}  {goal['name']}: {value} (goal {goal['target']})")
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
