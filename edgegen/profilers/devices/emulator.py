"""A 64-bit ARM processor that this machine emulates: it shows whether files compute the same there, never how fast.

The userland lies in a folder of the cache: qemu, and Debian's C library for ARM64. The runners and their runtimes are
those of ARM64 boards and phones.
"""

import shutil
from pathlib import Path
from typing import Any

from edgegen.errors import DeviceError, UsageError
from edgegen.profilers.devices.device import NONCE, Command
from edgegen.profilers.devices.host import NO_CORE_ML, HostDevice
from edgegen.profilers.runners import debian, programs, toolchain
from edgegen.profilers.runners.programs import CPU
from edgegen.profilers.runners.toolchain import called

SUITE = "trixie"  # Debian's release
# qemu 10: 7.2 computes 8-bit files wrongly, without an error.
PACKAGES = ("qemu-user:amd64", "libstdc++6")
PROCESSOR = "cortex-a76"  # qemu's default, "max", has given wrong 8-bit results


class Userland:
    """An ARM64 Linux in a folder; the marker is written once it is complete."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or toolchain.cache() / "arm64"
        self.root, self.marker = self.folder / "root", self.folder / "complete"
        self.qemu = self.root / "usr/bin/qemu-aarch64"

    @property
    def emulator(self) -> tuple[str, ...]:
        return (str(self.qemu), "-cpu", PROCESSOR, "-L", str(self.root))

    @property
    def ready(self) -> bool:
        return self.marker.exists()

    def fetch(self) -> None:
        """Downloads it, installs nothing and needs no root. Raises DeviceError: not Debian, no connection."""
        debian.require_tools("the emulated ARM64 Linux")
        if self.marker.exists():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.root / "usr/lib").mkdir(parents=True)
        (self.root / "lib").symlink_to("usr/lib")
        for archive in debian.download(PACKAGES, self.folder / "apt", suite=SUITE, architectures=("arm64", "amd64")):
            called("dpkg-deb", "-x", archive, self.root)
        for other in set(self.qemu.parent.glob("qemu-*")) - {self.qemu}:  # 500 MB of other processors
            other.unlink()
        shutil.rmtree(self.folder / "apt")
        self.marker.touch()


class EmulatedDevice(HostDevice):
    """This machine's files, and an ARM64 processor that runs them."""

    name = "arm64"

    def __init__(self, userland: Userland | None = None) -> None:
        super().__init__()
        self.userland = userland or Userland()

    def probe(self) -> dict[str, Any]:
        here = super().probe()
        by = f"qemu on {here['cpu'] or here['arch']}"
        return {**here, "cpu": PROCESSOR, "arch": "aarch64", "python": None, "virtual": True, "emulated": by}

    def runner(self, form: str, model: str, provider: str = CPU) -> Command:
        userland = self.userland
        if not userland.ready:
            raise DeviceError(f"its Linux is not in {userland.folder}: `edgegen devices arm64 --fetch` downloads it")
        if form == "mlpackage":
            raise DeviceError(NO_CORE_ML)
        program = programs.program(form, toolchain.ARM64, provider)
        libraries = ("-E", f"LD_LIBRARY_PATH={program.folder}")
        return Command((*userland.emulator, *libraries, str(program.runner), NONCE, *program.words, model))

    def fetch(self) -> None:
        programs.fetch(toolchain.ARM64)
        self.userland.fetch()


def connect(place: str) -> EmulatedDevice:
    """What `--device arm64` names."""
    if place:
        raise UsageError(f"--device arm64:{place}: the emulated device has no other name")
    return EmulatedDevice()
