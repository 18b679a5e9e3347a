"""What only a phone has, by outputs in Android's format, and what adb does when a device goes away."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import device_parts
import pytest
from small_nets import sigmoid

from edgegen.errors import DeviceError, UsageError
from edgegen.profilers.devices import adb
from edgegen.profilers.devices.adb import AdbDevice, connect
from edgegen.profilers.devices.host_info import describe
from edgegen.profilers.devices.shell import QUESTIONS
from edgegen.profilers.files.profile import profile_files
from edgegen.profilers.timing.protocol import ProfileOptions
from edgegen.support.processes import Finished
from edgegen.support.progress import Silent

FEW = ProfileOptions(min_runs=3, max_seconds=0.05, timeout_seconds=60.0, warm_seconds=0.0)
PHONE = {
    "arch": "aarch64\n",
    "system": "Linux 6.1.25-android14\n",
    "threads": "8\n",
    "cpuinfo": "processor\t: 0\nBogoMIPS\t: 38.40\nCPU implementer\t: 0x41\n",
    "meminfo": "MemTotal:        7654321 kB\nMemFree: 1 kB\n",
    "loadavg": "1.20 0.80 0.40 1/900 1234\n",
    "model": "Pixel 8 Pro\n",
    "soc": "Tensor G3\n",
    "release": "14\n",
    "battery": """Current Battery Service state:
  AC powered: false
  USB powered: true
  Max charging current: 500000
  status: 2
  health: 2
  present: true
  level: 87
  scale: 100
  voltage: 4123
  temperature: 312
  technology: Li-ion
""",
    "thermal": """IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 4
\tkilled: false
\tbroadcasts count: -1
Thermal Status: 2
Cached temperatures:
\tTemperature{mValue=84.208, mType=0, mName=CPU, mStatus=0}
HAL Ready: true
Current temperatures from HAL:
\tTemperature{mValue=57.9, mType=0, mName=CPU, mStatus=0}
""",
}


def test_a_phone_s_answers_written_after_android_s_format_are_read() -> None:
    """After outputs of getprop, dumpsys battery and dumpsys thermalservice that others published: no phone was here."""
    assert set(PHONE) == set(QUESTIONS)
    about = describe(PHONE)
    assert (about["model"], about["soc"], about["cpu"]) == ("Pixel 8 Pro", "Tensor G3", "Tensor G3")
    assert (about["arch"], about["threads"], about["os"]) == ("aarch64", 8, "Android 14, Linux 6.1.25-android14")
    assert (about["memory_bytes"], about["load_average"]) == (7654321 * 1024, [1.2, 0.8, 0.4])
    assert (about["battery_c"], about["thermal_status"], about["virtual"]) == (31.2, 2, None)


def test_an_android_of_which_nothing_is_known_is_unknown() -> None:
    """As where getprop and dumpsys are not there, or tell something else."""
    nothing = describe(dict.fromkeys(QUESTIONS, ""))
    assert not {key: value for key, value in nothing.items() if value is not None}
    other = describe({**PHONE, "battery": "Can't find service: battery\n", "thermal": "HAL Ready: false\n"})
    assert (other["battery_c"], other["thermal_status"]) == (None, None)


def listing(monkeypatch: pytest.MonkeyPatch, *rows: str) -> None:
    def finish(command: list[str], **_: object) -> Finished:
        assert command == ["adb", "devices"]
        return Finished(0, "\n".join(["List of devices attached", *rows, ""]), "")

    monkeypatch.setattr(adb.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(adb, "finish", finish)


def test_the_one_device_that_is_attached_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    listing(monkeypatch, "8A1X0F\tdevice")
    assert connect("").shell("true") == ["adb", "-s", "8A1X0F", "shell", "-T", "true"]


@pytest.mark.parametrize(
    ("rows", "place", "message"),
    [
        ([], "", "no device to measure on; none is attached: plug it in, with USB debugging on"),
        (["8A1X0F\tdevice"], "9B", "no device 9B; attached: 8A1X0F"),
        (["8A1X0F\tunauthorized"], "", "8A1X0F is unauthorized: confirm this computer on its screen"),
        (["8A1X0F\toffline"], "8A1X0F", "8A1X0F is offline: unplug it, and plug it in again"),
    ],
)
def test_a_device_that_cannot_be_used_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, rows: list[str], place: str, message: str
) -> None:
    listing(monkeypatch, *rows)
    with pytest.raises(DeviceError, match=message):
        connect(place)


def test_of_two_devices_one_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    listing(monkeypatch, "8A1X0F\tdevice", "9B\tdevice")
    with pytest.raises(UsageError, match="2 devices are attached: give one, such as --device adb:8A1X0F"):
        connect("")
    assert connect("9B").serial == "9B"


def test_without_adb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DeviceError, match="no adb on this machine: apt install adb"):
        connect("")


@pytest.mark.devices
def test_a_real_server_that_lists_two_devices(phone: str) -> None:
    """One daemon by two addresses; it may also be listed as emulator-5554."""
    second = "127.0.0.2:5555"
    subprocess.run(["adb", "connect", second], check=True, capture_output=True)
    try:
        with pytest.raises(UsageError, match=r"[23] devices are attached"):
            connect("")
        for serial in (phone, second):
            device = connect(serial)
            assert device.run(["echo", serial], timeout_s=20).stdout == f"{serial}\n"
            device.close()
    finally:
        subprocess.run(["adb", "disconnect", second], check=True, capture_output=True)


@pytest.mark.devices
def test_files_are_measured_over_a_real_adb(phone: str, tmp_path: Path, in_process: None) -> None:
    about = profile_files(
        [sigmoid(tmp_path / "net.onnx")],
        AdbDevice(phone, python=sys.executable),
        per_op=True,
        options=FEW,
        progress=Silent(),
    )
    (record,) = about.results
    assert (about.device, record.numerics.passed) == ("adb", True)
    assert record.latency is not None
    assert [row.kind for row in record.ops] == ["Sigmoid"]


class Unplugged(Silent):
    """Progress that ends the daemon of this process number when the warm runs begin."""

    def __init__(self, daemon: int) -> None:
        self.daemon = daemon

    def task(self, label: str, total: int, *, start: int = 0) -> Any:
        if label == "timing":
            os.kill(self.daemon, signal.SIGKILL)
        return super().task(label, total, start=start)


@pytest.mark.devices
def test_a_phone_that_is_unplugged_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: None
) -> None:
    """Its own daemon, by a real adb, which then exits with 0."""
    reason = device_parts.no_adbd()
    if reason is not None:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="edgegen-") as folder, device_parts.adbd(Path(folder)) as environment:
        monkeypatch.setenv("ADB_SERVER_SOCKET", environment["ADB_SERVER_SOCKET"])
        device = AdbDevice(device_parts.SERIAL, python=sys.executable)
        unplugged = Unplugged(int((Path(folder) / "pid").read_text()))
        with pytest.raises(DeviceError, match=f"adb: .*`adb devices` must list {device_parts.SERIAL} as 'device'"):
            profile_files([sigmoid(tmp_path / "net.onnx")], device, options=FEW, progress=unplugged)


@pytest.mark.parametrize("word", ["²", "9" * 400, "-1", "nan", "1e999", "", "\x1b[2J"])
def test_what_a_hostile_phone_says_is_not_known(word: str) -> None:
    answers = {**dict.fromkeys(QUESTIONS, ""), "threads": word, "meminfo": f"MemTotal: {word} kB"}
    answers |= {"loadavg": " ".join([word] * 3), "battery": f"  temperature: {word}9999"}
    answers |= {"thermal": f"Thermal Status: {word}"}
    about = describe(answers)
    keys = ("threads", "memory_bytes", "load_average", "battery_c", "thermal_status")
    assert [about[key] for key in keys] == [None] * 5
