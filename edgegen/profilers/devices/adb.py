"""An Android phone by the system's adb: USB or network, pairing and keys are adb's own."""

import shutil

from edgegen.errors import DeviceError, UsageError
from edgegen.profilers.devices.shell import SHORT_S, ShellDevice
from edgegen.support.printable import printable
from edgegen.support.processes import finish

# Where a shell may write and start programs; elsewhere than on Android there is no such folder.
FOLDER = "mktemp -d /data/local/tmp/edgegen.XXXXXX 2>/dev/null || mktemp -d /tmp/edgegen.XXXXXX"


class AdbDevice(ShellDevice):
    """The device with this serial number, always named: a second one may be plugged in at any time.

    adb's exit code is not used (version 29 exits with 0 when the device is unplugged), but the mark at the end of an
    answer, the hash of a file and the nonce of a runner.
    """

    def __init__(self, serial: str, *, python: str = "python3") -> None:
        super().__init__()
        self.name, self.serial, self.python = "adb", serial, python

    def shell(self, script: str) -> list[str]:
        return ["adb", "-s", self.serial, "shell", "-T", script]

    def folder_script(self) -> str:
        return FOLDER

    def explain(self, stderr: str) -> str:
        reason = (stderr.strip().splitlines() or ["the connection was lost"])[-1]
        return f"{reason}; `adb devices` must list {self.serial} as 'device'"


def attached() -> dict[str, str]:
    """By serial number, the state of what is attached: "device", "unauthorized", "offline". Raises DeviceError."""
    if shutil.which("adb") is None:
        raise DeviceError("no adb on this machine: apt install adb, or Android's platform tools")
    done = finish(["adb", "devices"], name="adb devices (if it hangs: adb kill-server)", timeout_s=SHORT_S)
    if done.code:
        raise DeviceError(f"adb devices: {printable((done.stderr or done.stdout).strip()[-200:])}")
    rows = (line.split("\t") for line in done.stdout.splitlines() if "\t" in line)
    return {printable(serial): printable(state.strip()) for serial, state in rows}


def connect(place: str) -> AdbDevice:
    """What `--device adb` names, where one device is attached, or `--device adb:SERIAL`."""
    devices = attached()
    if not place and len(devices) > 1:
        raise UsageError(f"{len(devices)} devices are attached: give one, such as --device adb:{next(iter(devices))}")
    serial = place or next(iter(devices), "")
    state = devices.get(serial)
    if state is None:
        known = f"attached: {', '.join(devices)}" if devices else "none is attached: plug it in, with USB debugging on"
        raise DeviceError(f"adb: no device {serial or 'to measure on'}; {known}")
    if state != "device":
        advice = "confirm this computer on its screen" if state == "unauthorized" else "unplug it, and plug it in again"
        raise DeviceError(f"adb: {serial} is {state}: {advice}")
    return AdbDevice(serial)
