"""Bench of ARM64: do the files compute on an ARM processor what they compute here? Numbers only, no times: emulated.

    python examples/bench_arm.py --fetch [--quick] [--json] [--tools DIR]

Needs Debian, or Ubuntu with `debian-archive-keyring` (apt-get and dpkg-deb install nothing and need no root), and the
compiler for ARM64: `apt install g++-aarch64-linux-gnu`. `--fetch` downloads 170 MB, once, into --tools: qemu 10 (7.2
computes 8-bit files wrongly, without an error), Debian's Python for ARM64, and the ARM64 wheels of the onnxruntime and
executorch that are installed here. Then each net of the export bench (`--quick`: the demo's student) goes through the
runners of `edgegen profile` (edgegen/profilers/runners), here and on an emulated Cortex-A76, with the same noises.
Before all that the .pte runner holds the emulator's 8-bit dot products against plain arithmetic.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from bench_nets import ddpm_cifar10, demo_student, slimflow_cifar10
from numpy.typing import NDArray
from torch import nn

from edgegen.build import build
from edgegen.capture import OneStep, example_inputs, reference
from edgegen.folding import fold
from edgegen.parity import psnr_db, psnr_range
from edgegen.profilers.device import NONCE, Command
from edgegen.profilers.host import ONNX_RUNNER, HostDevice
from edgegen.profilers.machine import probe
from edgegen.profilers.process import Worker
from edgegen.profilers.toolchain import compiled
from edgegen.registry import load
from edgegen.targets import Target
from edgegen.types import Signature

HERE = Path(__file__).parent
SUITE, PYTHON = "trixie", "3.13"  # Debian's release, and the Python that is in it
PACKAGES = ("qemu-user:amd64", "python3-minimal", "libpython3-stdlib", "libstdc++6", "libgomp1")
PROCESSOR = "cortex-a76"  # qemu's default, "max", has given wrong 8-bit results
CELLS = ("executorch-fp32", "executorch-w8a8", "onnx-fp32", "onnx-w8a8")  # the runner with its known answers first
ALIKE_DB = {"fp32": 90.0, "w8a8": 45.0}  # the kernels differ: an 8-bit number on the edge may round the other way
ANSWER_S = 1800.0  # emulated
SEED = 1

Inputs = dict[str, NDArray[Any]]


class Tools:
    """An ARM64 userland in a folder: emulator, libraries, and Python with onnxruntime."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root, self.wheels, self.marker = folder / "root", folder / "wheels", folder / "complete"
        self.qemu = self.root / "usr/bin/qemu-aarch64"

    @property
    def ready(self) -> bool:
        return self.marker.exists()

    def fetch(self) -> None:
        """Downloads; the marker comes last, so that where it is, all is there. Raises SystemExit."""
        missing = [tool for tool in ("apt-get", "dpkg-deb", "aarch64-linux-gnu-g++") if shutil.which(tool) is None]
        if missing:
            raise SystemExit(f"no {missing[0]} on this machine: apt install g++-aarch64-linux-gnu, on Debian or Ubuntu")
        for folder in (self.root, self.wheels):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        (self.root / "usr/lib").mkdir(parents=True)
        (self.root / "lib").symlink_to("usr/lib")
        for archive in self._debian(PACKAGES):
            _call("dpkg-deb", "-x", archive, self.root)
        self._wheel(f"onnxruntime=={version('onnxruntime')}", PYTHON)
        self._wheel("numpy", PYTHON)
        self._wheel(f"executorch=={version('executorch')}", f"{sys.version_info.major}.{sys.version_info.minor}")
        for other in set(self.qemu.parent.glob("qemu-*")) - {self.qemu}:  # 500 MB of other processors
            other.unlink()
        for folder in ("apt", "downloads"):
            shutil.rmtree(self.folder / folder)
        self.marker.touch()

    def _debian(self, packages: Sequence[str]) -> list[Path]:
        """Packages of SUITE with all they need, by an apt that knows nothing of this machine's."""
        state = self.folder / "apt"
        for name in ("lists/partial", "archives/partial", "etc/preferences.d", "etc/apt.conf.d"):
            (state / name).mkdir(parents=True, exist_ok=True)
        (state / "status").touch()
        keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
        source = f"deb [arch=arm64,amd64 signed-by={keys}] http://deb.debian.org/debian {SUITE} main\n"
        (state / "sources.list").write_text(source)
        options = {
            "APT::Architecture": "arm64",
            "APT::Architectures": "arm64,amd64",
            "APT::Sandbox::User": "",
            "Dir::Etc": state / "etc",
            "Dir::Etc::sourcelist": state / "sources.list",
            "Dir::State": state,
            "Dir::State::lists": state / "lists",
            "Dir::State::status": state / "status",
            "Dir::Cache": state,
            "Dir::Cache::archives": state / "archives",
        }
        given = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
        _call("apt-get", *given, "update")
        _call("apt-get", *given, "install", "-y", "--download-only", "--no-install-recommends", *packages)
        return sorted((state / "archives").glob("*.deb"))

    def _wheel(self, requirement: str, python: str) -> None:
        place = self.folder / "downloads" / requirement
        platforms = [part for tag in ("2_28", "2_27") for part in ("--platform", f"manylinux_{tag}_aarch64")]
        pip = [sys.executable, "-m", "pip", "download", "--quiet", *platforms, "--only-binary=:all:", "--no-deps"]
        _call(*pip, "--python-version", python, "--dest", place, requirement)
        (wheel,) = place.glob("*.whl")
        shutil.unpack_archive(wheel, self.wheels, "zip")

    def run(self, model: Path, inputs: Inputs, shape: tuple[int, ...], folder: Path) -> NDArray[np.float32]:
        """A file's pictures, on the emulated processor. Raises DeviceError with what the runner said."""
        device = Emulated(self)
        command = (device.pte_runner if model.suffix == ".pte" else device.onnx_runner)(str(model))
        worker = Worker(device, command, timeout_s=ANSWER_S)
        pictures, output = [], folder / "output.bin"
        try:
            for number in range(shape[0]):
                files = []
                for name, array in inputs.items():
                    one = folder / f"{name}.bin"
                    array[number : number + 1].tofile(one)
                    files.append(f"{'x'.join(map(str, (1, *array.shape[1:])))}:{one}")
                if number == 0:
                    worker.ask("open", 1, *files)
                worker.ask("run", output, *files)
                pictures.append(np.fromfile(output, np.float32))
        finally:
            worker.stop()
        return np.concatenate(pictures).reshape(shape)


class Emulated(HostDevice):
    """This machine's files, and an ARM64 processor that runs them."""

    def __init__(self, tools: Tools) -> None:
        super().__init__()
        self.tools = tools
        self.emulator = (str(tools.qemu), "-cpu", PROCESSOR, "-L", str(tools.root))

    def onnx_runner(self, model: str) -> Command:
        python = str(self.tools.root / f"usr/bin/python{PYTHON}")
        settings = ("-E", f"PYTHONPATH={self.tools.wheels}", "-E", f"PYTHONHOME={self.tools.root}/usr")
        return Command((*self.emulator, *settings, python, str(ONNX_RUNNER), NONCE, model))

    def pte_runner(self, model: str) -> Command:
        home = self.tools.wheels / "executorch"
        runner = compiled("aarch64-linux-gnu-g++", home, flags=("-march=armv8.2-a+dotprod",))
        libraries = ("-E", f"LD_LIBRARY_PATH={home}/lib")
        return Command((*self.emulator, *libraries, str(runner), NONCE, model))


def _call(*command: object) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise SystemExit(f"{Path(str(command[0])).name} ended with {done.returncode}:\n{said}")


def net(name: str) -> tuple[nn.Module, Signature]:
    """The net with fixed weights, folded, and what it takes."""
    makers: dict[str, tuple[Callable[[], nn.Module], Signature]] = {
        "demo student": (demo_student, Signature.of(channels=1, size=8, num_classes=10)),
        "slimflow 15.7 M": (slimflow_cifar10, Signature.of(channels=3, size=32, num_classes=0)),
        "ddpm 35.7 M": (ddpm_cifar10, Signature.of(channels=3, size=32, num_classes=0)),
    }
    make, signature = makers[name]
    return fold(OneStep(make(), time=1.0), signature).module, signature


def bench(name: str, noises: int, tools: Tools, folder: Path) -> list[dict[str, Any]]:
    """A row for every cell: both machines' pictures beside each other and beside PyTorch's."""
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
        there = tools.run(path, inputs, expected.shape, folder)
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
    found = []
    for cell in CELLS:
        limit = ALIKE_DB[cell.partition("-")[2]]
        value = min(row["alike_db"] for row in rows if row["cell"] == cell)
        name = f"{cell}: ARM64 and here alike, dB"
        found.append({"name": name, "target": f">= {limit}", "value": value, "met": value >= limit})
    return found


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
    parser.add_argument("--tools", type=Path, default=Path.home() / ".cache/edgegen/arm64", metavar="DIR")
    options = parser.parse_args()
    tools = Tools(options.tools.resolve())
    if not tools.ready and not options.fetch:
        raise SystemExit(f"no ARM64 tools in {tools.folder}: give --fetch to download them (170 MB)")
    if not tools.ready:
        print(f"fetching into {tools.folder} ...", file=sys.stderr, flush=True)
        tools.fetch()
    rows = []
    wanted = {"demo student": 16} if options.quick else {"demo student": 16, "slimflow 15.7 M": 2, "ddpm 35.7 M": 1}
    for name, noises in wanted.items():
        with tempfile.TemporaryDirectory(prefix="edgegen-") as folder:
            rows += bench(name, noises, tools, Path(folder))
    if options.json:
        print(json.dumps({"machine": probe(), "processor": PROCESSOR, "goals": goals(rows), "rows": rows}, indent=2))
    else:
        print(table(rows))


if __name__ == "__main__":
    main()
