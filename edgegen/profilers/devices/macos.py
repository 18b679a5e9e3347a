"""A Mac as the device of its own Core ML packages, by compute unit. Never run by us: tested with a stand-in."""

import sys
from dataclasses import replace

from edgegen.errors import DeviceError, UsageError
from edgegen.profilers.devices.device import Command
from edgegen.profilers.devices.host import NO_CORE_ML, HostDevice
from edgegen.profilers.runners.programs import CPU

UNITS = ("all", "cpu_only", "cpu_and_gpu", "cpu_and_ne")


class MacDevice(HostDevice):
    """This machine; `units` is where Core ML may run a package."""

    name = "macos"

    def __init__(self, units: str) -> None:
        super().__init__()
        self.units = units

    def runner(self, form: str, model: str, provider: str = CPU) -> Command:
        command = super().runner(form, model, provider)
        return command if form != "mlpackage" else replace(command, argv=(*command.argv, self.units.upper()))


def connect(place: str) -> MacDevice:
    """What `--device macos` names, or `--device macos:cpu_and_ne`."""
    if place and place not in UNITS:
        raise UsageError(f"--device macos:{place}: there are {', '.join(UNITS)}")
    if sys.platform != "darwin":
        raise DeviceError(NO_CORE_ML)
    return MacDevice(place or "all")
