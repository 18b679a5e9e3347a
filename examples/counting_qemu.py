"""The instructions of 64-bit ARM that an inference takes, by class, counted on an emulated Cortex-A76: never a time.

Debian builds its qemu-aarch64 without plug-ins. `fetch` downloads Debian's source of the same version (40 MB) and
builds this one program with them: 5 minutes of a processor, 20 beside other work. The plug-in, instruction_classes.c,
notes its counts before each write to the standard output, which each answer of the runners of `edgegen profile` is: an
inference is what lies between two answers, without loading and packing. The emulator tells programs that it is a
Cortex-A76 (in /proc/cpuinfo, too), so that the runtimes choose their kernels for one.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from edgegen.errors import DeviceError
from edgegen.profilers.devices.emulator import PROCESSOR, SUITE, EmulatedDevice, Userland
from edgegen.profilers.files.subject import FORMATS
from edgegen.profilers.runners import debian
from edgegen.profilers.runners.toolchain import called
from edgegen.profilers.timing.process import Worker

PLUGIN = Path(__file__).with_name("instruction_classes.c")
NEEDED = "apt install gcc pkg-config libglib2.0-dev"
BUILD_PACKAGES = ("meson>=1.5", "ninja", "pycotap", "distlib", "setuptools", "wheel")  # of QEMU's own build
OPTIONS = (
    "--target-list=aarch64-linux-user",
    "--enable-plugins",
    "--without-default-features",
    *(f"--disable-{part}" for part in ("system", "tools", "docs", "install-blobs", "download")),
)
ANSWER_S = 7200.0  # emulated, on a busy machine

Counts = dict[str, int]  # by class


class CountingUserland(Userland):
    """The ARM64 Linux of `edgegen devices arm64`, with a qemu that has plug-ins; counts go to the file `out`."""

    def __init__(self, folder: Path | None = None, out: Path | None = None) -> None:
        super().__init__(folder)
        self.out = out
        self.built = self.folder.with_name(f"{self.folder.name}-counting")
        self.qemu, self.plugin = self.built / "qemu-aarch64", self.built / "instruction_classes.so"

    @property
    def emulator(self) -> tuple[str, ...]:
        plugin = ("-plugin", f"{self.plugin},out={self.out}")
        return (str(self.qemu), *plugin, "-cpu", PROCESSOR, "-L", str(self.root))

    @property
    def ready(self) -> bool:
        return super().ready and self.plugin.exists()

    def fetch(self) -> None:
        """Builds the qemu, and the plug-in anew. Raises DeviceError: not Debian, no connection, no compiler."""
        super().fetch()
        if shutil.which("pkg-config") is None or subprocess.run(["pkg-config", "--exists", "glib-2.0"]).returncode:
            raise DeviceError(f"qemu is built with a C compiler and glib, and there is no glib-2.0 here: {NEEDED}")
        if not self.qemu.exists():
            self._build()
        flags = called("pkg-config", "--cflags", "glib-2.0").split()
        shared = ("-O2", "-shared", "-fPIC", "-fvisibility=hidden")
        called("cc", *shared, *flags, f"-I{self.built}", PLUGIN, "-o", self.plugin)

    def _build(self) -> None:
        """The qemu and its header, by QEMU's build with tools of its own."""
        self.built.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.built, prefix=".build-") as temporary:
            folder = Path(temporary)
            with tarfile.open(debian.download_source("qemu", folder / "apt", suite=SUITE)) as archive:
                archive.extractall(folder, filter="tar")
            (source,) = folder.glob("qemu-*")
            python = folder / "venv/bin/python"
            called(sys.executable, "-m", "venv", folder / "venv")
            called(python, "-m", "pip", "install", "--quiet", *BUILD_PACKAGES)
            (build := source / "build").mkdir()
            path = f"PATH={python.parent}:{os.environ['PATH']}"
            called("env", "-C", build, path, "../configure", f"--python={python}", *OPTIONS)
            called("env", "-C", build, path, "ninja", "qemu-aarch64")
            shutil.copy(source / "include/qemu/qemu-plugin.h", self.built)
            (build / "qemu-aarch64").replace(self.qemu)


def counted(userland: CountingUserland) -> list[Counts]:
    """What the plug-in has noted so far: the counts at each write to the standard output, and at the end."""
    assert userland.out is not None, "given for a run"
    names, *lines = userland.out.read_text().splitlines()
    return [dict(zip(names.split(), map(int, line.split()), strict=True)) for line in lines]


def difference(before: Counts, after: Counts) -> Counts:
    """What was executed in between. The runners and runtimes hold nothing that a Cortex-A76 does not have."""
    spent = {name: after[name] - before[name] for name in after}
    if spent["unknown"]:
        raise DeviceError(f"{spent['unknown']} instructions are of no class that is known")
    return spent


def inferences(model: Path, inputs: Sequence[str], *, runs: int = 1) -> tuple[list[Counts], bytes]:
    """The counts of each of `runs` inferences behind the first one, at one thread, and the last one's output.

    Inputs are SHAPE:FILE, as runner.h takes them. Raises DeviceError with the runner's message.
    """
    with tempfile.TemporaryDirectory(prefix="edgegen-") as folder:
        userland, output = CountingUserland(out=Path(folder) / "counts"), Path(folder) / "output.bin"
        device = EmulatedDevice(userland)
        with Worker(device, device.runner(FORMATS[model.suffix], str(model)), timeout_s=ANSWER_S).ready() as worker:
            worker.ask("open", 1, *inputs)
            for _ in range(runs):
                worker.ask("run", output)
            noted = counted(userland)
        if len(noted) != runs + 2:
            raise DeviceError(
                f"{len(noted)} writes of the runner were counted, not {runs + 2}: one answer is not one write"
            )
        return [difference(a, b) for a, b in pairwise(noted[1:])], output.read_bytes()
