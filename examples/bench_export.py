"""Bench of the exporters: edgegen's files against what each vendor's exporter writes by itself, interleaved.

    python examples/bench_export.py [--quick] [--json] [--net NAME] [--runtime NAME] [--big] [--rewrites]

Both files of a pair are opened in one process of their own and run in turn, so that a noisy machine slows both alike;
medians and their ratio. "Plain" is torch.onnx.export with the default session, and to_edge_transform_and_lower with
the XNNPACK partitioner, and ct.convert, of the network with its time as an input. Core ML runs on Apple's devices
only: its rows have no times, and its parity is by edgegen's evaluator. The share is of the machine's fp32 matrix
product (torch.mm, 1024 x 1024, same threads): the physical limit of direct convolutions; Winograd's may pass it.
Image-to-image networks have no time. `--quick` leaves out the largest net and runs fewer rounds; `--big` adds a U-Net
of 860 M parameters; `--rewrites` runs, in place of all that, each file beside the same without one of its rewrites.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_image_nets import STYLES, image_signature, residual_dense, style_transfer, super_resolution
from bench_nets import ddpm_cifar10, demo_student, slimflow_cifar10
from bench_race import SIZE, Entry, measure
from numpy.typing import NDArray
from torch import Tensor, nn

from edgegen.artifacts.build import BuildResult, build
from edgegen.artifacts.target import Target
from edgegen.errors import EdgegenError, ExportError
from edgegen.inspection.record import inspect
from edgegen.profilers.devices.host_info import probe
from edgegen.program.capture import reference
from edgegen.program.fold import fold
from edgegen.program.inputs import example_inputs
from edgegen.program.one_step import OneStep
from edgegen.recipe import Export, Quantize
from edgegen.registry import load
from edgegen.support import isolation
from edgegen.support.storage import nbytes_of
from edgegen.types import Signature
from edgegen.verification.parity import psnr_db, psnr_range

RUNTIMES = ("onnx", "executorch", "coreml")
BIG_RUNTIMES = ("onnx", "coreml")
LARGE = ("slimflow 15.7 M", "ddpm 35.7 M")
LIMIT = {"onnx": 0.90, "executorch": 0.70}
IMAGE_NETS = ("srvgg x4 0.6 M", "rdn x2 2.7 M", "style 1.7 M")
IMAGE_LIMIT, WORST, BESIDE_ONNX = 0.90, 1.02, 1.10
BIG_LIMIT_GB = 20.0


@dataclass(frozen=True)
class BenchNet:
    """A network of the bench; `has_time`: it is a velocity, and edgegen's file has its one step at a fixed time."""

    make: Callable[[], nn.Module]
    signature: Signature
    has_time: bool = True


NETS = {
    "demo student": BenchNet(demo_student, Signature.of(channels=1, size=8, num_classes=10)),
    LARGE[0]: BenchNet(slimflow_cifar10, Signature.of(channels=3, size=32, num_classes=0)),
    LARGE[1]: BenchNet(ddpm_cifar10, Signature.of(channels=3, size=32, num_classes=0)),
    IMAGE_NETS[0]: BenchNet(super_resolution, image_signature(64, scale=4), has_time=False),
    IMAGE_NETS[1]: BenchNet(residual_dense, image_signature(64, scale=2), has_time=False),
    IMAGE_NETS[2]: BenchNet(style_transfer, image_signature(128, styles=STYLES), has_time=False),
}

# Stable Diffusion 1.5's U-Net, from its published config: 860 M parameters.
BIG = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
BIG_NET = "sd-1.5 860 M"


class TimeInput(nn.Module):
    """The network as its author exports it: the time is an input."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None) -> Tensor:
        labels = () if class_labels is None else (class_labels,)
        out: Tensor = sample - self.net(sample, timestep, *labels)
        return out


def plain(*, net: str, runtime: str, path: str) -> None:
    """The vendor's own exporter, called in a child process as edgegen's is."""
    case = NETS[net]
    module = (TimeInput(case.make()) if case.has_time else case.make()).eval().requires_grad_(False)
    arguments = [torch.from_numpy(array) for array in arguments_of(case, has_time=case.has_time)]
    if runtime == "onnx":
        torch.onnx.export(module, tuple(arguments), path, dynamo=True, external_data=False, verbose=False)
        return
    program = torch.export.export(module, tuple(arguments))
    if runtime == "coreml":
        import coremltools

        target = coremltools.target.iOS17
        model = coremltools.convert(
            program.run_decompositions({}), minimum_deployment_target=target, skip_model_load=True
        )
        model.save(path)
        return
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    Path(path).write_bytes(lowered.to_executorch().buffer)


def arguments_of(case: BenchNet, *, has_time: bool) -> list[NDArray[Any]]:
    """Inputs of a file in its order: edgegen's takes no time."""
    first, *others = example_inputs(case.signature, 1, 0).values()
    return [first, *([np.ones(1, np.float32)] if has_time else []), *others]


def timed(net: str, path: Path, *, is_plain: bool = False) -> Entry:
    """A file to be timed, with its inputs."""
    return path, arguments_of(NETS[net], has_time=is_plain and NETS[net].has_time)


def make(net: str, runtime: str, folder: Path, **options: Any) -> tuple[nn.Module, BuildResult]:
    """The network as one step with a fixed time, and edgegen's file of it."""
    case = NETS[net]
    module = case.make().eval().requires_grad_(False)
    module = OneStep(module, time=1.0) if case.has_time else module
    fixed: dict[str, Any] = {"name": "net", "quantization": Quantize(samples=1), "seed": 0, "metadata": {}}
    folded = fold(module, case.signature).module
    return module, build(folded, case.signature, target=Target.parse(runtime), folder=folder, **fixed, **options)


def bench(net: str, runtime: str, folder: Path, *, rounds: int) -> list[dict[str, Any]]:
    """edgegen's file beside the plain one: a row for each number of threads."""
    signature = NETS[net].signature
    module, built = make(net, runtime, folder)
    edgegen_file = folder / built.artifact.file
    plain_file = folder / f"plain{edgegen_file.suffix}"
    outcome, failure = None, ""
    try:
        outcome = isolation.call("bench_export:plain", {"net": net, "runtime": runtime, "path": str(plain_file)})
    except ExportError as e:
        failure = str(e).strip().splitlines()[-1]
        print(f"{net}, {runtime}: the plain way fails: {failure}", file=sys.stderr, flush=True)
    inputs = example_inputs(signature, 1, 0)
    expected = reference(module, inputs)
    actual = load("backend", runtime).open(edgegen_file)(inputs)["out_sample"]
    psnr = psnr_db(expected, actual, data_range=psnr_range(signature, expected))
    facts = inspect(edgegen_file).main
    before = inspect(plain_file).main if outcome else None
    macs = before.macs.total if before and before.macs else None
    rows: list[dict[str, Any]] = []
    for threads in (1, 2) if runtime in LIMIT and outcome else (None,):
        times: dict[str, float | None] = dict.fromkeys(("plain_ms", "edgegen_ms", "ratio"))
        if threads is not None:
            plain_ms, ours_ms, product_ms = map(
                statistics.median,
                measure(
                    runtime,
                    [timed(net, plain_file, is_plain=True), timed(net, edgegen_file)],
                    threads=threads,
                    rounds=rounds,
                ),
            )
            rate = 2 * SIZE**3 / product_ms / 1e6
            times = {
                "plain_ms": plain_ms,
                "edgegen_ms": ours_ms,
                "ratio": ours_ms / plain_ms,
                "matmul_gflops": rate,
                "plain_share": 2 * macs / plain_ms / 1e6 / rate if macs else None,
                "edgegen_share": 2 * macs / ours_ms / 1e6 / rate if macs else None,
            }
        rows.append(
            {
                "net": net,
                "runtime": runtime,
                "threads": threads,
                **times,
                "plain_failure": failure,
                "size_ratio": built.artifact.nbytes / nbytes_of(plain_file) if outcome else None,
                "partitions": [_count(before.partitions) if before else None, _count(facts.partitions)],
                "nodes_outside": [before.nodes_outside if before else None, facts.nodes_outside],
                "psnr_db": psnr,
                "export_seconds": [outcome.seconds if outcome else None, built.seconds],
                "export_peak_gb": [_gb(outcome.peak_rss_bytes) if outcome else None, _gb(built.peak_rss_bytes)],
            }
        )
    return rows


def _count(value: Any) -> int | None:
    return len(value) if isinstance(value, (list, tuple, dict)) else value


def _gb(value: int | None) -> float | None:
    return None if value is None else value / 1e9


def without_one(net: str, runtime: str, folder: Path, *, rounds: int) -> list[dict[str, Any]]:
    """edgegen's file beside the same without one rewrite: a row for each rewrite of the runtime, 1 thread."""
    names = list(load("backend", runtime).rewrites)
    variants: dict[str, dict[str, Any]] = {
        left_out: {"rewrites": [name for name in names if name != left_out]} for left_out in names
    }
    if runtime == "onnx":
        variants["winograd"] = {"options": Export(rewrites={"winograd": False})}
    files = []
    for label, options in {"": {}, **variants}.items():
        variant_folder = folder / (label or "all")
        variant_folder.mkdir()
        files.append(variant_folder / make(net, runtime, variant_folder, **options)[1].artifact.file)
    with_all, *others = measure(runtime, [timed(net, path) for path in files], threads=1, rounds=rounds)[:-1]
    return [
        {
            "net": net,
            "runtime": runtime,
            "rewrite": label,
            "time_with_over_without": statistics.median(a / b for a, b in zip(with_all, without, strict=True)),
            "size_with_over_without": nbytes_of(files[0]) / nbytes_of(path),
        }
        for label, without, path in zip(variants, others, files[1:], strict=True)
    ]


def big(runtime: str, folder: Path) -> list[dict[str, Any]]:
    """Stable Diffusion 1.5's U-Net with random weights, by the command line: time and most memory of all processes."""
    import psutil

    (folder / "net").mkdir()
    (folder / "net" / "config.json").write_text(json.dumps(BIG))
    command = [sys.executable, "-m", "edgegen.cli.main", "export", str(folder / "net"), "--random-weights", "0"]
    command += ["--to", runtime, "-o", str(folder / "made"), "--no-measure"]
    began, peak = time.perf_counter(), 0
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        time.sleep(0.5)
        with contextlib.suppress(psutil.Error):
            peak = max(peak, sum(member.memory_info().rss for member in [process, *process.children(recursive=True)]))
    row: dict[str, Any] = {"big": runtime, "exit": process.returncode, "seconds": time.perf_counter() - began}
    if process.returncode == 0:
        (artifact,) = json.loads((folder / "made" / "manifest.json").read_text())["artifacts"]
        row |= {"bytes": artifact["nbytes"], "parity": artifact["parity"]}
    return [{**row, "peak_gb": peak / 1e9}]


def collect(label: str, work: Callable[..., list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The rows of one piece of work, also on stderr as soon as they are made; one that fails stops no other."""
    print(f"{label} ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="edgegen-") as folder:
        try:
            rows = work(folder=Path(folder))
        except (EdgegenError, subprocess.CalledProcessError) as e:
            rows = [{"failed": label, "reason": f"{e} {getattr(e, 'stderr', '')}".strip()}]
    for row in rows:
        print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def goals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each figure of the issues, from this run; what was not run, or not for all nets that it speaks of, is not met."""
    listed: list[dict[str, Any]] = []

    def add(name: str, target: str, values: list[float], holds: Callable[[float], bool], worst: Any = max) -> None:
        value = worst(values) if values else None
        listed.append({"name": name, "target": target, "value": value, "met": value is not None and holds(value)})

    net_rows = [row for row in rows if "ratio" in row]
    timed = [row for row in net_rows if row["ratio"] is not None]
    for runtime, limit in LIMIT.items():
        for net in LARGE:
            ratios = [row["ratio"] for row in timed if row["runtime"] == runtime and row["net"] == net]
            add(f"{runtime}, {net}: time / plain", f"<= {limit}", ratios, lambda v, most=limit: v <= most)
    # What holds for any net is known only where none is missing.
    ran = {(row["net"], row["runtime"]) for row in net_rows}
    in_onnx = [row["ratio"] for row in timed if row["runtime"] == "onnx"] if ran >= _pairs(NETS, ["onnx"]) else []
    add("onnx, any net: time / plain", "<= 1.02", in_onnx, lambda v: v <= 1.02)
    large = [row for row in net_rows if row["runtime"] == "executorch" and row["net"] in LARGE]
    outside = [row["nodes_outside"][1] for row in large] if ran >= _pairs(LARGE, ["executorch"]) else []
    add("executorch, large nets: nodes outside the delegate", "<= 10", outside, lambda v: v <= 10)
    every = net_rows if ran >= _pairs(NETS, RUNTIMES) else []
    sizes = [row["size_ratio"] for row in every if row["size_ratio"] and row["net"] not in IMAGE_NETS]
    add("any generator: size / plain", "<= 1.02", sizes, lambda v: v <= 1.02)
    in_fp32 = [row["psnr_db"] for row in every if row["runtime"] != "coreml"]
    add("any fp32 file: parity, dB", ">= 60", in_fp32, lambda v: v >= 60, min)
    _image_goals(timed, ran, add)
    for runtime in BIG_RUNTIMES:
        peaks = [r["peak_gb"] for r in rows if r.get("big") == runtime and r["exit"] == 0]
        add(f"{runtime}, 860 M parameters: peak memory, GB", "<= 20", peaks, lambda v: v <= BIG_LIMIT_GB)
    return listed


def _image_goals(timed: list[dict[str, Any]], ran: set[tuple[str, str]], add: Callable[..., None]) -> None:
    """Issue 16's of the image-to-image nets: two of three, and the worst; ExecuTorch beside ONNX Runtime, one thread.

    The runtimes are not timed in turn: each in units of the matrix product that ran beside it.
    """
    for runtime in LIMIT:
        rows = [row for row in timed if row["runtime"] == runtime and row["net"] in IMAGE_NETS]
        complete = ran >= _pairs(IMAGE_NETS, [runtime]) and rows
        of_net = sorted(max(row["ratio"] for row in rows if row["net"] == net) for net in IMAGE_NETS if complete)
        add(
            f"{runtime}, two of three image nets: time / plain",
            f"<= {IMAGE_LIMIT}",
            of_net[1:2],
            lambda v: v <= IMAGE_LIMIT,
        )
        add(f"{runtime}, any image net: time / plain", f"<= {WORST}", of_net, lambda v: v <= WORST)
    units = {
        (row["net"], row["runtime"]): row["edgegen_ms"] * row["matmul_gflops"] for row in timed if row["threads"] == 1
    }
    beside = [
        units[net, "executorch"] / units[net, "onnx"]
        for net in IMAGE_NETS
        if _pairs([net], LIMIT) <= units.keys() and ran >= _pairs(IMAGE_NETS, LIMIT)
    ]
    add("image nets: executorch / onnx, 1 thread", f"<= {BESIDE_ONNX}", beside, lambda v: v <= BESIDE_ONNX)


def _pairs(nets: Iterable[str], runtimes: Iterable[str]) -> set[tuple[str, str]]:
    return {(net, runtime) for net in nets for runtime in runtimes}


def table(rows: list[dict[str, Any]]) -> str:
    columns = ("net", "runtime", "threads", "plain ms", "edgegen ms", "ratio", "share of matmul", "size", "partitions")
    columns += ("outside", "PSNR dB", "export s", "export GB")
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in [row for row in rows if "ratio" in row]:
        share = " -> ".join(_shown(row.get(key)) for key in ("plain_share", "edgegen_share"))
        cells = [row["net"], row["runtime"], row["threads"] or "-"]
        cells += [_shown(row[key]) for key in ("plain_ms", "edgegen_ms", "ratio")]
        cells += [share, _shown(row["size_ratio"]) if row["size_ratio"] else "plain fails"]
        counts = (row["partitions"], row["nodes_outside"])
        cells += [" -> ".join("-" if v is None else str(v) for v in pair) for pair in counts]
        cells += [f"{row['psnr_db']:.0f}"]
        cells += [
            " -> ".join("-" if v is None else f"{v:.1f}" for v in row[key])
            for key in ("export_seconds", "export_peak_gb")
        ]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    for row in [row for row in rows if "big" in row]:
        parity = row.get("parity", {})
        process = f"exit code {row['exit']}, {row['seconds']:.0f} s, at most {row['peak_gb']:.1f} GB of memory"
        artifact = (
            f"{row.get('bytes', 0) / 1e9:.2f} GB, parity {parity.get('status')} {_shown(parity.get('psnr_db'))} dB"
        )
        lines.append(f"{BIG_NET}, {row['big']}: {process}; {artifact}")
    lines += [f"{row['failed']} FAILED: {row['reason']}" for row in rows if "failed" in row]
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def table_of_rewrites(rows: list[dict[str, Any]]) -> str:
    lines = ["| net | runtime | rewrite | time with / without | size with / without |", "|---|---|---|---|---|"]
    for row in [row for row in rows if "rewrite" in row]:
        numbers = (f"{row[key]:.3f}" for key in ("time_with_over_without", "size_with_over_without"))
        lines.append("| " + " | ".join([row["net"], row["runtime"], row["rewrite"], *numbers]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without the largest net, fewer rounds")
    parser.add_argument("--json", action="store_true", help="goals and rows on stdout")
    parser.add_argument("--net", action="append", choices=[*NETS, BIG_NET], help="only this net; may be given again")
    parser.add_argument("--runtime", action="append", choices=RUNTIMES, help="only this runtime; may be given again")
    parser.add_argument("--big", action="store_true", help=f"also the net {BIG_NET}")
    parser.add_argument("--rewrites", action="store_true", help="what each rewrite of ONNX and ExecuTorch brings")
    options = parser.parse_args()
    rows = run(options)
    if options.json:
        print(json.dumps({"machine": probe(), "goals": goals(rows), "rows": rows}, indent=2))
    else:
        print(json.dumps(probe()))
        print(table_of_rewrites(rows) if options.rewrites else table(rows))
        for goal in goals(rows) if not options.rewrites else ():
            value = "not run" if goal["value"] is None else f"{goal['value']:.3g}"
            print(f"{'met    ' if goal['met'] else 'NOT MET'}  {goal['name']}: {value} (goal {goal['target']})")
    if any("failed" in row or row.get("exit") for row in rows):
        sys.exit(1)


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    nets = options.net or [net for net in NETS if not options.quick or net != LARGE[1]]
    nets += [BIG_NET] * (options.big and BIG_NET not in nets)
    rows: list[dict[str, Any]] = []
    for net in nets:
        rounds = (200 if net == "demo student" else 20) // (2 if options.quick else 1)
        for runtime in options.runtime or RUNTIMES:
            if net == BIG_NET:
                rows += collect(f"{net}, {runtime}", partial(big, runtime)) if runtime in BIG_RUNTIMES else []
            elif not options.rewrites:
                rows += collect(f"{net}, {runtime}", partial(bench, net, runtime, rounds=rounds))
            elif runtime in LIMIT:
                rows += collect(f"{net}, {runtime}", partial(without_one, net, runtime, rounds=rounds))
    return rows


if __name__ == "__main__":
    main()
