"""Bench of the exporters: edgegen's files against what each vendor's exporter writes by itself, interleaved.

    python examples/bench_export.py [--quick] [--big] [--json]

Both files of a pair are opened in one process of their own and run in turn, so that a noisy machine slows both alike;
medians and their ratio. "Plain" is torch.onnx.export with the default session, and to_edge_transform_and_lower with
the XNNPACK partitioner, and ct.convert, of the network with its time as an input. Core ML runs on Apple's devices
only: its rows have no times, and its parity is by edgegen's evaluator. The share is of the machine's fp32 matrix
product (torch.mm, 1024 x 1024, same threads): the physical limit of direct convolutions; Winograd's may pass it.
`--quick` leaves out the largest net and runs fewer rounds; `--big` adds a U-Net of 860 M parameters.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_nets import ddpm_cifar10, demo_student, slimflow_cifar10
from torch import Tensor, nn

from edgegen import child
from edgegen.build import Target, build
from edgegen.capture import OneStep, example_inputs, reference
from edgegen.errors import ExportError
from edgegen.exporters.inspection import inspect
from edgegen.folding import fold
from edgegen.parity import psnr_db, psnr_range
from edgegen.profilers.machine import probe
from edgegen.registry import load
from edgegen.storage import nbytes_of
from edgegen.types import Signature

TARGETS = {"onnx": "onnx", "executorch": "executorch", "coreml": "coreml"}
LARGE = ("slimflow 15.7 M", "ddpm 35.7 M")
LIMIT = {"onnx": 0.90, "executorch": 0.70}
BIG_LIMIT_GB = 20.0
SIZE = 1024  # of the matrix product
PAUSE = 0.02  # seconds: the idle threads of a runtime spin for a while, on the core that the next one needs
NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "demo student": (demo_student, 0),
    LARGE[0]: (slimflow_cifar10, 0),
    LARGE[1]: (ddpm_cifar10, 0),
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


class Untimed(nn.Module):
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
    module = Untimed(NETS[net][0]().eval()).requires_grad_(False)
    inputs = example_inputs(signature_of(net), 1, 0)
    arguments = [torch.from_numpy(inputs["sample"]), torch.ones(1)]
    arguments += [torch.from_numpy(inputs["class_labels"])] if "class_labels" in inputs else []
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


def signature_of(net: str) -> Signature:
    if net == "demo student":
        return Signature.of(channels=1, size=8, num_classes=10)
    return Signature.of(channels=3, size=32, num_classes=0)


def race() -> None:
    """A process of its own: both files in turn. Arguments on stdin, milliseconds on stdout."""
    job = json.loads(sys.stdin.read())
    threads, arrays = job["threads"], [np.array(values, dtype) for values, dtype in job["inputs"]]
    torch.set_num_threads(threads)
    runs = [_runner(job["runtime"], path, arrays, threads) for path in job["files"]]
    matrix = torch.randn(SIZE, SIZE)
    runs.append(lambda: torch.mm(matrix, matrix))
    samples: list[list[float]] = [[] for _ in runs]
    for _ in range(job["rounds"]):
        for run, kept in zip(runs, samples, strict=True):
            time.sleep(PAUSE)
            run()
            began = time.perf_counter()
            run()
            kept.append(1e3 * (time.perf_counter() - began))
    print(json.dumps([statistics.median(kept) for kept in samples]))


def _runner(runtime: str, path: str, arrays: list[Any], threads: int) -> Callable[[], object]:
    if runtime == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        given = _matched([(one.name, one.type) for one in session.get_inputs()], arrays)
        return lambda: session.run(None, given)
    from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
    from executorch.runtime import Runtime

    _unsafe_reset_threadpool(threads)
    program = Runtime.get().load_program(Path(path).read_bytes())
    method = program.load_method("forward")
    tensors = [torch.from_numpy(one) for one in arrays]
    if method.metadata.num_inputs() < len(tensors):  # edgegen's file takes no time
        del tensors[1]
    return lambda _alive=program: method.execute(tensors)  # the method points into its program


def _matched(inputs: list[tuple[str, str]], arrays: list[Any]) -> dict[str, Any]:
    given = list(arrays) if len(inputs) == len(arrays) else [arrays[0], *arrays[2:]]
    return {name: value for (name, _), value in zip(inputs, given, strict=True)}


def measure(runtime: str, files: list[Path], inputs: list[Any], threads: int, rounds: int) -> list[float]:
    job = {
        "runtime": runtime,
        "files": [str(path) for path in files],
        "threads": threads,
        "rounds": rounds,
        "inputs": [[one.tolist(), str(one.dtype)] for one in inputs],
    }
    done = subprocess.run(
        [sys.executable, __file__, "--race"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "2000"},
    )
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def bench(net: str, runtime: str, folder: Path, rounds: int) -> list[dict[str, Any]]:
    signature = signature_of(net)
    module = OneStep(NETS[net][0]().eval().requires_grad_(False), time=1.0)
    folded = fold(module, signature).module
    built = build(
        folded,
        signature,
        name="net",
        target=Target.parse(TARGETS[runtime]),
        folder=folder,
        calibration_samples=1,
        seed=0,
        metadata={},
    )
    ours = folder / built.artifact.file
    theirs = folder / f"plain{ours.suffix}"
    outcome, failure = None, ""
    try:
        outcome = child.call("bench_export:plain", {"net": net, "runtime": runtime, "path": str(theirs)})
    except ExportError as e:
        failure = str(e).strip().splitlines()[-1]
        print(f"{net}, {runtime}: the plain way fails: {failure}", file=sys.stderr, flush=True)
    inputs = example_inputs(signature, 1, 0)
    expected = reference(module, inputs)
    got = load("backend", runtime).open(ours)(inputs)["out_sample"]
    psnr = psnr_db(expected, got, data_range=psnr_range(signature, expected))
    arrays = [inputs["sample"], np.ones(1, np.float32), *list(inputs.values())[1:]]
    facts = inspect(ours).main
    before = inspect(theirs).main if outcome else None
    macs = before.macs.total if before and before.macs else None
    rows: list[dict[str, Any]] = []
    for threads in (1, 2) if runtime in LIMIT and outcome else (None,):
        timed: dict[str, float | None] = dict.fromkeys(("plain_ms", "edgegen_ms", "ratio"))
        if threads is not None:
            plain_ms, ours_ms, product_ms = measure(runtime, [theirs, ours], arrays, threads, rounds)
            rate = 2 * SIZE**3 / product_ms / 1e6
            timed = {
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
                **timed,
                "plain_failure": failure,
                "size_ratio": built.artifact.nbytes / nbytes_of(theirs) if outcome else None,
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


def big(folder: Path) -> list[dict[str, Any]]:
    """Stable Diffusion 1.5's U-Net with random weights to ONNX and Core ML: time and most memory."""
    import psutil

    (folder / "net").mkdir()
    (folder / "net" / "config.json").write_text(json.dumps(BIG))
    rows = []
    for runtime in ("onnx", "coreml"):
        command = [sys.executable, "-m", "edgegen.cli.main", "export", str(folder / "net"), "--random-weights", "0"]
        command += ["--to", runtime, "-o", str(folder / runtime), "--no-measure"]
        began, peak = time.perf_counter(), 0
        process = psutil.Popen(command, stdout=subprocess.DEVNULL)
        while process.poll() is None:
            time.sleep(0.5)
            with contextlib.suppress(psutil.Error):
                peak = max(peak, sum(one.memory_info().rss for one in [process, *process.children(recursive=True)]))
        seconds = time.perf_counter() - began
        rows.append({"big": runtime, "exit": process.returncode, "seconds": seconds, "peak_gb": peak / 1e9})
    return rows


def goals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each figure of issue 3, from this run; what was not run is not met."""
    found: list[dict[str, Any]] = []

    def add(name: str, target: str, values: list[float], holds: Callable[[float], bool], worst: Any = max) -> None:
        value = worst(values) if values else None
        found.append({"name": name, "target": target, "value": value, "met": value is not None and holds(value)})

    made = [row for row in rows if "ratio" in row]
    timed = [row for row in made if row["ratio"] is not None]
    for runtime, limit in LIMIT.items():
        for net in LARGE:
            ratios = [row["ratio"] for row in timed if row["runtime"] == runtime and row["net"] == net]
            add(f"{runtime}, {net}: time / plain", f"<= {limit}", ratios, lambda v, most=limit: v <= most)
    add(
        "onnx, any net: time / plain",
        "<= 1.02",
        [r["ratio"] for r in timed if r["runtime"] == "onnx"],
        lambda v: v <= 1.02,
    )
    outside = [r["nodes_outside"][1] for r in timed if r["runtime"] == "executorch" and r["net"] in LARGE]
    add("executorch, large nets: nodes outside the delegate", "<= 10", outside, lambda v: v <= 10)
    add("any file: size / plain", "<= 1.02", [r["size_ratio"] for r in made if r["size_ratio"]], lambda v: v <= 1.02)
    add("any fp32 file: parity, dB", ">= 60", [r["psnr_db"] for r in timed], lambda v: v >= 60, min)
    for runtime in ("onnx", "coreml"):
        peaks = [r["peak_gb"] for r in rows if r.get("big") == runtime and r["exit"] == 0]
        add(f"{runtime}, 860 M parameters: peak memory, GB", "<= 20", peaks, lambda v: v <= BIG_LIMIT_GB)
    return found


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
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the two smaller nets, fewer rounds")
    parser.add_argument("--big", action="store_true", help="also the 860 M-parameter U-Net")
    parser.add_argument("--json", action="store_true", help="goals and rows on stdout")
    parser.add_argument("--race", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.race:
        race()
        return
    nets = [net for net in NETS if not options.quick or net != LARGE[1]]
    rows = []
    for net in nets:
        for runtime in TARGETS:
            print(f"{net}, {runtime} ...", file=sys.stderr, flush=True)
            rounds = (200 if net == "demo student" else 20) // (2 if options.quick else 1)
            with tempfile.TemporaryDirectory(prefix="edgegen-") as folder:
                rows += bench(net, runtime, Path(folder), rounds)
    if options.big:
        with tempfile.TemporaryDirectory(prefix="edgegen-") as folder:
            rows += big(Path(folder))
    if options.json:
        print(json.dumps({"goals": goals(rows), "rows": rows}, indent=2))
        return
    print(json.dumps(probe()))
    print(table(rows))
    for goal in goals(rows):
        value = "not run" if goal["value"] is None else f"{goal['value']:.3g}"
        print(f"{'met    ' if goal['met'] else 'NOT MET'}  {goal['name']}: {value} (goal {goal['target']})")


if __name__ == "__main__":
    main()
