"""64-bit ARM by emulation: the same numbers, and never a time."""

from importlib.metadata import version
from pathlib import Path

import pytest
from local_shell import Shell
from measured import needs_runners
from small_nets import net_files

from edgegen.errors import DeviceError, UsageError
from edgegen.profilers.devices.device import Command
from edgegen.profilers.devices.emulator import PROCESSOR, EmulatedDevice, Userland, connect
from edgegen.profilers.files.profile import profile_files
from edgegen.profilers.runners import programs, toolchain
from edgegen.profilers.timing.protocol import ProfileOptions
from edgegen.support.progress import Silent

FEW = ProfileOptions(min_runs=3, max_seconds=0.05, timeout_seconds=60.0, warm_seconds=0.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = net_files(tmp_path_factory.mktemp("files") / "net")
    return [folder / "net_onnx_fp32.onnx", folder / "net_executorch_fp32.pte"]


def needs_userland() -> Userland:
    userland = Userland()
    if not userland.ready:
        pytest.skip(f"no ARM64 Linux in {userland.folder}: python tests/device_parts.py")
    needs_runners(toolchain.ARM64)
    return userland


@pytest.mark.devices
def test_an_emulated_processor_gives_numbers_and_no_latency(files: list[Path], in_process: None) -> None:
    needs_userland()
    measured = profile_files(files, EmulatedDevice(), options=FEW, progress=Silent())
    assert (measured.target["arch"], measured.target["cpu"]) == ("aarch64", PROCESSOR)
    for record in measured.results:
        assert record.numerics.passed
        assert (record.latency, record.cold, record.peak_rss_bytes) == (None, (), None)
        assert (record.verdict.status, record.verdict.performance_valid) == ("ok", False)
        assert "says nothing about a real device's time" in record.verdict.reasons[0]


class Phone(Shell):
    """A shell of this machine that calls itself 64-bit ARM and has no C library of that kind."""

    def __init__(self, emulator: tuple[str, ...]) -> None:
        super().__init__(spoil=("uname -sm", f"echo {toolchain.ARM64}"))
        self.emulator = emulator

    def _script(self, command: Command, pid: str) -> str:
        return super()._script(Command((*self.emulator, *command.argv), command.environment), pid)


@pytest.mark.devices
def test_a_phone_s_bundle_brings_its_own_c_library(files: list[Path], in_process: None) -> None:
    """The files that go to an Android phone, on the emulated processor without any system of its own."""
    userland = needs_userland()
    phone = Phone((str(userland.qemu), "-cpu", PROCESSOR))
    phone.python = "no-such-python"
    results = profile_files(files, phone, options=FEW, progress=Silent()).results
    assert all(record.numerics.passed for record in results)
    runtimes = [f"{name} {version(name)} in C++" for name in ("onnxruntime", "executorch")]
    assert [record.config.runtime for record in results] == runtimes


def test_without_its_linux_it_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"its Linux is not in .*: `edgegen devices arm64 --fetch` downloads it"):
        EmulatedDevice(Userland(tmp_path)).runner("onnx", "net.onnx")
    with pytest.raises(UsageError, match="arm64:there: the emulated device has no other name"):
        connect("there")


def test_a_board_whose_libraries_are_not_here_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for form in ("onnx", "pte"):
        with pytest.raises(DeviceError, match="for Linux aarch64 are not here: `edgegen devices DEVICE --fetch`"):
            programs.program(form, toolchain.ARM64)
