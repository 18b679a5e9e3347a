"""Bench of ARM64: do the files compute on an ARM processor what they compute here? Numbers only, no times: emulated.

    python examples/bench_arm.py --fetch [--quick] [--json]

Needs Debian, or Ubuntu with `debian-archive-keyring` (apt-get and dpkg-deb install nothing and need no root), and the
compiler for ARM64: `apt install g++-aarch64-linux-gnu`. `--fetch` downloads 115 MB, once, as `edgegen devices arm64
--fetch` does: qemu 10 (7.2 computes 8-bit files wrongly, without an error), Debian's C library for ARM64, and the ARM64
wheels of the onnxruntime and executorch that are installed here. Then each net of the export bench (`--quick`: the
demo's student) goes through the runners of `edgegen profile`, here and on an emulated Cortex-A76, with the same noises.
Before all that a runner holds the emulator's 8-bit dot products against plain arithmetic.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bench_nets import ddpm_cifar10, demo_student, slimflow_cifar10
from numpy.typing import NDArray
from torch import nn

from edgegen.artifacts.build import build
from edgegen.artifacts.target import Target
from edgegen.profilers.devices.emulator import PROCESSOR, EmulatedDevice
from edgegen.profilers.devices.host_info import probe
from edgegen.profilers.files.subject import FORMATS
from edgegen.profilers.timing.process import Worker
from edgegen.program.capture import reference
from edgegen.program.fold import fold
from edgegen.program.inputs import example_inputs
from edgegen.program.one_step import OneStep
from edgegen.registry import load
from edgegen.types import Signature
from edgegen.verification.parity import psnr_db, psnr_range

CELLS = ("executorch-fp32", "executorch-w8a8", "onnx-fp32", "onnx-w8a8")  # the runner with its known answers first
ALIKE_DB = {"fp32": 90.0, "w8a8": 45.0}  # the kernels differ: an 8-bit number on the edge may round the other way
ANSWER_S = 1800.0  # emulated
SEED = 1

Inputs = dict[str, NDArray[Any]]

NETS: dict[str, tuple[Callable[[], nn.Module], Signature]] = {
    "demo student": (demo_student, Signature.of(channels=1, size=8, num_classes=10)),
    "slimflow 15.7 M": (slimflow_cifar10, Signature.of(channels=3, size=32, num_classes=0)),
    "ddpm 35.7 M": (ddpm_cifar10, Signature.of(channels=3, size=32, num_classes=0)),
}


def images_on_arm(model: Path, inputs: Inputs, shape: tuple[int, ...], folder: Path) -> NDArray[np.float32]:
    """A file's images, made on the emulated processor. Raises DeviceError with the runner's message."""
    device = EmulatedDevice()
    worker = Worker(device, device.runner(FORMATS[model.suffix], str(model)), timeout_s=ANSWER_S)
    images, output = [], folder / "output.bin"
    try:
        for number in range(shape[0]):
            files = []
            for name, array in inputs.items():
                path = folder / f"{name}.bin"
                array[number : number + 1].tofile(path)
                files.append(f"{'x'.join(map(str, (1, *array.shape[1:])))}:{path}")
            if number == 0:
                worker.ask("open", 1, *files)
            worker.ask("run", output, *files)
            images.append(np.fromfile(output, np.float32))
    finally:
        worker.stop()
    return np.concatenate(images).reshape(shape)


def net(name: str) -> tuple[nn.Module, Signature]:
    """The network with fixed weights, folded, and its signature."""
    make, signature = NETS[name]
    return fold(OneStep(make(), time=1.0), signature).module, signature


def bench(name: str, noises: int, folder: Path) -> list[dict[str, Any]]:
    """A row for every cell: the images of both machines compared with each other and with PyTorch's."""
    module, signature = net(name)
    inputs = example_inputs(signature, noises, SEED)
    expected = reference(module, inputs)
    data_range = psnr_range(signature, expected)
    rows = []
    for cell in CELLS:
        print(f"{name}, {cell} ...", file=sys.stderr, flush=True)
        target = Target.parse(cell)
        built = build(module, signature, name="net", target=target, folder=folder, seed=SEED, metadata={})
        path = folder / built.artifact.file
        session = load("backend", target.backend).open(path)
        parts = [session({key: value[i : i + 1] for key, value in inputs.items()}) for i in range(noises)]
        here = np.concatenate([part["out_sample"] for part in parts]).astype(np.float32)
        there = images_on_arm(path, inputs, expected.shape, folder)
        rows.append(
            {
                "net": name,
                "cell": cell,
                "noises": noises,
                "here_db": psnr_db(expected, here, data_range=data_range),
                "arm_db": psnr_db(expected, there, data_range=data_range),
                "alike_db": psnr_db(here, there, data_range=data_range),
                "equal": float(np.mean(here == there)),
            }
        )
    return rows


def goals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each cell, how near the two machines are at the worst of the nets."""
    rated = []
    for cell in CELLS:
        limit = ALIKE_DB[cell.partition("-")[2]]
        value = min(row["alike_db"] for row in rows if row["cell"] == cell)
        name = f"{cell}: ARM64 and here alike, dB"
        rated.append({"name": name, "target": f">= {limit}", "value": value, "met": value >= limit})
    return rated


def table(rows: list[dict[str, Any]]) -> str:
    columns = ("net", "cell", "to PyTorch here, dB", "on ARM64, dB", "the two alike, dB", "equal numbers")
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        figures = [f"{row[key]:.1f}" for key in ("here_db", "arm_db", "alike_db")]
        lines.append("| " + " | ".join([row["net"], row["cell"], *figures, f"{row['equal']:.1%}"]) + " |")
    lines.append("")
    for goal in goals(rows):
        met = "met" if goal["met"] else "NOT met"
        lines.append(f"{met}: {goal['name']} {goal['value']:.1f}, {goal['target']}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the demo's student alone")
    parser.add_argument("--json", action="store_true", help="rows and goals as JSON on stdout")
    parser.add_argument("--fetch", action="store_true", help="download what is missing into --tools")
    options = parser.parse_args()
    device = EmulatedDevice()
    if not device.userland.ready:
        if not options.fetch:
            raise SystemExit(f"no ARM64 Linux in {device.userland.folder}: give --fetch to download it (115 MB)")
        print(f"fetching into {device.userland.folder} ...", file=sys.stderr, flush=True)
        device.fetch()
    rows = []
    nets = {"demo student": 16} if options.quick else {"demo student": 16, "slimflow 15.7 M": 2, "ddpm 35.7 M": 1}
    for name, noises in nets.items():
        with tempfile.TemporaryDirectory(prefix="edgegen-") as folder:
            rows += bench(name, noises, Path(folder))
    if options.json:
        print(json.dumps({"machine": probe(), "processor": PROCESSOR, "goals": goals(rows), "rows": rows}, indent=2))
    else:
        print(table(rows))


if __name__ == "__main__":
    main()
