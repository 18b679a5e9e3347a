"""What every device must do: this machine, a real sshd on loopback, a real adbd in a network of its own."""

import shlex
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import device_parts
import psutil
import pytest
from local_shell import Shell
from measured import needs_runners
from small_nets import net_files, scaling, sigmoid

from edgegen.errors import DeviceError, UsageError
from edgegen.profilers.devices.adb import AdbDevice
from edgegen.profilers.devices.device import NONCE, Command, Device
from edgegen.profilers.devices.host import HostDevice
from edgegen.profilers.devices.shell import ShellDevice
from edgegen.profilers.devices.ssh import SshDevice
from edgegen.profilers.files.profile import profile_files
from edgegen.profilers.timing.process import Worker
from edgegen.profilers.timing.protocol import ProfileOptions
from edgegen.support.progress import Silent
from edgegen.support.storage import sha256_of

FEW = ProfileOptions(min_runs=3, max_seconds=0.05, timeout_seconds=60.0, warm_seconds=0.0)
ODD = "ein Bild; rm -rf $HOME `x` 'q' \"ü\".bin"
TALKING = 'import sys; print(\'{"nonce": "\' + sys.argv[1] + \'", "number": 0, "event": "ready"}\', flush=True); '


@pytest.fixture(params=["host", "shell", "ssh", pytest.param("adb", marks=pytest.mark.devices)])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    made: Device
    if request.param == "ssh":
        made = board(request.getfixturevalue("sshd"))
    elif request.param == "adb":
        request.getfixturevalue("phone")
        made = AdbDevice(device_parts.SERIAL, python=sys.executable)
    else:
        made = HostDevice() if request.param == "host" else Shell()
    yield made
    made.close()


def board(folder: Path) -> SshDevice:
    return SshDevice("board", options=("-F", str(folder / "client")), python=sys.executable)


def test_the_exit_code_and_stderr_come_apart(device: Device) -> None:
    done = device.run(["sh", "-c", "echo out; echo 'wrong ü' >&2; exit 5"], timeout_s=30)
    assert (done.code, done.stdout, done.stderr.strip()) == (5, "out\n", "wrong ü")


def test_words_reach_the_program_as_they_are(device: Device) -> None:
    words = ["a b", "$HOME", "`x`", "'", '"', "ü", "", "*", "; exit 3"]
    done = device.run([sys.executable, "-c", "import sys; print(ascii(sys.argv[1:]))", *words], timeout_s=30)
    assert done.stdout.strip() == ascii(words)


def test_a_hundred_megabytes_and_an_odd_name_go_there_and_back(device: Device, tmp_path: Path) -> None:
    source, target = tmp_path / ODD, tmp_path / "back"
    source.write_bytes(bytes(range(256)) * (100_000_000 // 256))
    there = device.put(source, ODD)
    device.get(there, target)
    assert sha256_of(source) == sha256_of(target)


def test_what_takes_too_long_is_ended_over_there(device: Device) -> None:
    word = f"edgegen-test-{time.time_ns()}"
    with pytest.raises(DeviceError, match="within 2 s: it was ended"):
        device.run([sys.executable, "-c", "import time; time.sleep(600)", word], timeout_s=2)
    _gone(word)


def test_a_worker_that_hangs_is_ended_over_there(device: Device) -> None:
    word = f"edgegen-test-{time.time_ns()}"
    program = f"{TALKING}import time; time.sleep(600)"
    worker = Worker(device, Command((sys.executable, "-c", program, NONCE, word)), timeout_s=3.0).ready()
    with pytest.raises(DeviceError, match="no answer within 3 s: the process was ended"):
        worker.ask("open", 1)
    worker.stop()
    _gone(word)


def test_a_device_that_floods_is_ended_at_once(device: Device) -> None:
    """A line without end, many lines, and an answer without end: no memory fills, and nobody waits for a time limit."""
    began = time.monotonic()
    with pytest.raises(DeviceError, match="sent a line of more than 4194304 bytes: it was ended"):
        Worker(
            device, Command((sys.executable, "-c", "while True: print('x' * 4096, end='')")), timeout_s=600.0
        ).ready()
    with pytest.raises(DeviceError, match="the answer is not one of the protocol"):
        Worker(device, Command((sys.executable, "-c", "while True: print('x')")), timeout_s=600.0).ready()
    with pytest.raises(DeviceError, match="printed more than 16777216 bytes: it was ended"):
        device.run([sys.executable, "-c", "while True: print('x' * 4096)"], timeout_s=600)
    assert time.monotonic() - began < 120


def test_a_worker_whose_connection_ends_is_an_error(device: Device) -> None:
    program = f"{TALKING}import os; sys.stdin.readline(); os.kill(os.getpid(), 9)"
    if isinstance(device, SshDevice):  # the server's process for us
        program = f"{TALKING}import os; sys.stdin.readline(); os.kill(os.getppid(), 9); os.kill(os.getpid(), 9)"
    worker = Worker(device, Command((sys.executable, "-c", program, NONCE)), timeout_s=30.0).ready()
    with pytest.raises(DeviceError, match="ended"):
        worker.ask("open", 1)
    worker.stop()


def test_it_says_what_it_is_and_how_busy(device: Device) -> None:
    answer = device.probe()
    assert set(answer) == set(HostDevice().probe())
    assert answer["threads"] == psutil.cpu_count()
    assert answer["memory_bytes"] == pytest.approx(psutil.virtual_memory().total, rel=0.01)
    busy = device.busy()
    assert busy is None or busy.used_s > 0


def test_a_file_that_does_not_arrive_as_it_was_sent_is_refused(tmp_path: Path) -> None:
    source, target = tmp_path / "x", tmp_path / "back"
    source.write_bytes(b"0123456789")
    short = Shell(spoil=("cat >", "head -c 5 >"))
    with pytest.raises(DeviceError, match="shell: x did not arrive as it was sent"):
        short.put(source, "x")
    short.spoil = ("", "")
    there = short.put(source, "x")
    short.spoil = ("cat ", "head -c 5 ")
    with pytest.raises(DeviceError, match="shell: x did not come as it lies there"):
        short.get(there, target)
    assert not target.exists()
    short.close()


def test_a_device_whose_disk_is_full(tmp_path: Path) -> None:
    """The system's own words, by a file that is always full; nothing is left there."""
    full = Shell(spoil=("cat > ", "cat > /dev/full; e=$?; : > "))
    folder = Path(full.place(""))
    with pytest.raises(DeviceError, match=r"shell: net.onnx did not arrive as it was sent: .*No space left on device"):
        profile_files([sigmoid(tmp_path / "net.onnx")], full, progress=Silent())
    assert not folder.exists()


def test_a_device_without_a_folder_for_us_gets_nothing(tmp_path: Path) -> None:
    """An adbd away from Android once put everything into / instead."""
    full = Shell(spoil=("mktemp", "echo no room >&2; false mktemp"))
    with pytest.raises(DeviceError, match="shell: no folder for our files there: no room"):
        profile_files([sigmoid(tmp_path / "net.onnx")], full, progress=Silent())


@pytest.mark.parametrize("answer", ["/", "/home/me", "/tmp/x; touch PWNED", "/tmp/$(touch PWNED)/edgegen.a b", ""])
def test_what_a_device_says_of_a_folder_is_neither_run_nor_taken_away(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    strange = Shell(spoil=("mktemp -d /tmp/edgegen.XXXXXX", f"echo {shlex.quote(answer)}"))
    with pytest.raises(DeviceError, match="shell: no folder for our files there"):
        strange.place("x")
    strange.close()
    assert strange.folder is None
    assert not list(tmp_path.iterdir())


def test_a_pte_on_a_processor_that_no_runner_is_made_for() -> None:
    strange = Shell(spoil=("uname -sm", "echo Linux riscv64"))
    with pytest.raises(DeviceError, match=r"no runner can be made for Linux riscv64, only for .*Linux aarch64"):
        strange.runner("pte", "net.pte")
    strange.close()


def test_an_onnx_on_a_processor_that_no_runner_is_made_for(tmp_path: Path, in_process: None) -> None:
    """A Python there runs it, and the table says so; without one, nothing does."""
    strange = Shell(spoil=("uname -sm", "echo Linux riscv64"))
    (record,) = profile_files([sigmoid(tmp_path / "net.onnx")], strange, options=FEW, progress=Silent()).results
    assert record.config.runtime == f"onnxruntime {version('onnxruntime')} in Python (no C++ runner for Linux riscv64)"
    assert record.numerics.passed
    strange.python = "no-such-python"
    with pytest.raises(DeviceError, match="no runner can be made for Linux riscv64"):
        strange.runner("onnx", "net.onnx")
    with pytest.raises(DeviceError, match="no runner can be made for Linux riscv64"):
        strange.runner("onnx", "net.onnx", "xnnpack")
    strange.close()


def test_an_onnx_on_a_device_without_its_runtime(tmp_path: Path) -> None:
    """Python is there, onnxruntime is not: the pip line comes, and no latency."""
    bare = Shell(spoil=("uname -sm", "echo Linux riscv64"))
    bare.python = sys.executable
    Path(bare.place("onnxruntime.py")).write_text("raise ModuleNotFoundError(\"No module named 'onnxruntime'\")\n")
    (record,) = profile_files([sigmoid(tmp_path / "net.onnx")], bare, progress=Silent()).results
    assert record.verdict.status == "failed"
    assert "No module named 'onnxruntime'" in record.verdict.reasons[0]
    assert "-m pip install onnxruntime numpy" in record.verdict.reasons[0]


def test_a_shell_that_ends_early_is_no_answer() -> None:
    """An adb of version 29 exits with 0 when its device dies: only what was said counts."""
    with pytest.raises(DeviceError, match="shell: lost: "):
        Shell(spoil=("uname", "exit 0; uname")).probe()


def test_a_device_that_is_gone_does_not_keep_our_end_of_a_worker(tmp_path: Path) -> None:
    device = Shell()
    worker = Worker(
        device, Command((sys.executable, "-c", f"{TALKING}sys.stdin.readline()", NONCE)), timeout_s=30.0
    ).ready()
    device.spoil = ("kill", "exit 0; kill")
    worker.channel.kill()
    assert "SIGKILL" in worker.channel.close()
    device.close()


def test_nothing_is_left_there(device: Device, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    place = device.place("written")
    device.put(tmp_path / "x", "x")
    folder = Path(place).parent
    assert folder.is_dir() or not isinstance(device, HostDevice)
    device.close()
    assert not folder.exists()


def test_a_host_that_is_not_known_is_refused(sshd: Path, tmp_path: Path) -> None:
    (tmp_path / "client").write_text((sshd / "client").read_text().replace(str(sshd / "known"), str(tmp_path / "none")))
    lost = board(tmp_path)
    with pytest.raises(
        DeviceError, match=r"ssh: .*try `ssh board true`, which must work without a password and with a"
    ):
        lost.probe()
    lost.close()


def test_a_place_that_ssh_would_read_as_an_option_is_refused() -> None:
    for host in ("", "-oProxyCommand=touch /tmp/x"):
        with pytest.raises(UsageError, match=r"give ssh:USER@HOST"):
            SshDevice(host)


@pytest.mark.long
def test_files_with_weights_beside_them_keep_their_own(device: Device, tmp_path: Path, in_process: None) -> None:
    """As above 2 GB: candidates of a tuning share a name, and a file knows its weights by their name."""
    measured = profile_files(
        [scaling(tmp_path / "a" / "net.onnx", 1.0), scaling(tmp_path / "b" / "net.onnx", 2.0)],
        device,
        names=["a-net.onnx", "b-net.onnx"],
        options=FEW,
        progress=Silent(),
    )
    assert [record.verdict.reasons for record in measured.results if not record.numerics.passed] == []


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = net_files(tmp_path_factory.mktemp("files") / "net")
    return [folder / "net_onnx_fp32.onnx", folder / "net_executorch_fp32.pte"]


@pytest.mark.devices
def test_files_are_measured_without_python(device: Device, files: list[Path], in_process: None) -> None:
    """By the runners in C++, which bring their libraries, and the C library, too."""
    needs_runners()
    if isinstance(device, ShellDevice):
        device.python = "no-such-python"
    measured = profile_files(files, device, threads=(2,), per_op=True, options=FEW, progress=Silent())
    runtimes = [f"{name} {version(name)} in C++" for name in ("onnxruntime", "executorch")]
    assert [record.config.runtime for record in measured.results] == runtimes
    for record in measured.results:
        assert record.numerics.passed
        assert record.latency is not None
        assert record.config.threads_actual == 2
        assert {"net.first", "net.last"} <= {row.block for row in record.leaves}


def test_files_are_measured_over_ssh(sshd: Path, tmp_path: Path, in_process: None) -> None:
    path = sigmoid(tmp_path / "net.onnx")
    measured = profile_files([path], board(sshd), per_op=True, options=FEW, progress=Silent())
    (record,) = measured.results
    assert measured.device == "ssh"
    assert record.numerics.passed
    assert record.latency is not None
    assert [row.kind for row in record.ops] == ["Sigmoid"]


def _gone(word: str) -> None:
    """No process of that word is left, within a moment."""
    for _ in range(50):
        if not any(word in (record.info["cmdline"] or ()) for record in psutil.process_iter(["cmdline"])):
            return
        time.sleep(0.1)
    pytest.fail("the program still runs")
