"""This machine as a device: nothing is copied, and programs are its own processes."""

import re
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgegen.errors import DeviceError, UsageError
from edgegen.profilers.devices.device import NONCE, Busy, Command, Finished
from edgegen.profilers.devices.host_info import probe
from edgegen.profilers.runners import programs
from edgegen.profilers.runners.programs import CPU
from edgegen.profilers.runners.toolchain import NoProgramError, this_system
from edgegen.profilers.timing.process import Pipes
from edgegen.support import isolation
from edgegen.support.memory import memory_limit_of
from edgegen.support.processes import finish
from edgegen.support.scratch import new_folder

PYTHON_RUNNER = Path(__file__).parents[1] / "runners" / "python_runner.py"
NO_CORE_ML = "Core ML runs on Apple's systems only: measure a .mlpackage on a Mac, or with --device ssh:USER@MAC"
TICKS_PER_S = 100  # of /proc/stat: USER_HZ of every Linux


class HostDevice:
    """Files stay where they are; what is written goes to a temporary folder."""

    name = "host"
    traces = True
    providers = True

    def __init__(self) -> None:
        self.folder: Path | None = None

    def probe(self) -> dict[str, Any]:
        return probe()

    def put(self, path: Path, name: str) -> str:
        return str(path.resolve())

    def get(self, path: str, target: Path) -> None:
        shutil.copyfile(path, target)

    def place(self, name: str) -> str:
        self.folder = self.folder or new_folder()
        return str(self.folder / name)

    def runner(self, form: str, model: str, provider: str = CPU) -> Command:
        if form == "mlpackage" and sys.platform != "darwin":
            raise DeviceError(NO_CORE_ML)
        limit = memory_limit_of(Path(model))
        in_python = Command((sys.executable, "-P", str(PYTHON_RUNNER), NONCE, model), memory_limit=limit)
        if form == "mlpackage":
            programs.check_provider(form, provider)
            return in_python
        try:
            program = programs.program(form, this_system(), provider)
        except NoProgramError as e:
            if provider != CPU:
                raise
            return replace(in_python, argv=(*in_python.argv, e.why))  # its runtime says so in every table
        variable = "DYLD_LIBRARY_PATH" if sys.platform == "darwin" else "LD_LIBRARY_PATH"
        argv = (str(program.runner), NONCE, *program.words, model)
        return Command(argv, {variable: str(program.folder)}, memory_limit=limit)

    def start(self, command: Command) -> Pipes:
        environment = {**isolation.environment(), **command.environment}
        return Pipes(command.argv, environment=environment, memory_limit=command.memory_limit)

    def run(self, argv: Sequence[str], *, timeout_s: float) -> Finished:
        return finish(argv, name=self.name, timeout_s=timeout_s)

    def busy(self) -> Busy | None:
        stat = Path("/proc/stat")
        busy = busy_of(stat.read_text(encoding="ascii")) if stat.exists() else None
        return busy and replace(busy, used_s=busy.used_s - time.process_time())

    def fetch(self) -> None:
        programs.fetch(this_system())

    def close(self) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None


def busy_of(stat: str) -> Busy | None:
    """What the first line of /proc/stat says: user, nice, system, idle, iowait, irq, softirq, steal, in ticks."""
    line = re.match(r"cpu +((?:[0-9]{1,18} ?){8})", stat)
    if line is None:
        return None
    user, nice, system, _, _, irq, softirq, steal = (int(ticks) / TICKS_PER_S for ticks in line[1].split())
    return Busy(user + nice + system + irq + softirq, steal)


DEVICE = HostDevice()


def connect(place: str) -> HostDevice:
    """What `--device host` names."""
    if place:
        raise UsageError(f"--device host:{place}: the host has no other name")
    return DEVICE
