"""What every device must do, on each that can be had here: this machine, and a real sshd on loopback."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from edgegen.errors import DeviceError, UsageError
from edgegen.profilers.device import NONCE, Command, Device
from edgegen.profilers.host import HostDevice
from edgegen.profilers.machine import describe
from edgegen.profilers.process import Worker
from edgegen.profilers.protocol import ProfileOptions
from edgegen.profilers.remote import ShellDevice
from edgegen.profilers.ssh import SshDevice
from edgegen.storage import sha256_of

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
ODD = "ein Bild; rm -rf $HOME `x` 'q' \"ü\".bin"
TALKING = 'import sys; print(\'{"nonce": "\' + sys.argv[1] + \'", "number": 0, "event": "ready"}\', flush=True); '


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the client's configuration of a server that only this test can log in to."""
    if SSHD is None:
        pytest.skip("no sshd: apt install openssh-server")
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    port = _free_port()
    server = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "user.pub",
        "PasswordAuthentication": "no",
        "UsePAM": "no",
        "StrictModes": "no",
        "PidFile": folder / "pid",
    }
    (folder / "server").write_text("".join(f"{name} {value}\n" for name, value in server.items()))
    key = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known").write_text(f"[127.0.0.1]:{port} {key}\n")
    client = {
        "HostName": "127.0.0.1",
        "Port": port,
        "User": psutil.Process().username(),
        "IdentityFile": folder / "user",
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": folder / "known",
    }
    (folder / "client").write_text("Host board\n" + "".join(f"  {name} {value}\n" for name, value in client.items()))
    Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen([SSHD, "-D", "-f", str(folder / "server")], stderr=subprocess.DEVNULL)
    for _ in range(100):
        if (folder / "pid").exists():
            break
        time.sleep(0.05)
    yield folder
    process.terminate()
    process.wait()


def _free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Shell(ShellDevice):
    """A shell of this machine as the device's: what ssh adds is not in the way, and a word of it can be spoilt."""

    name, python = "shell", sys.executable

    def __init__(self, *, spoil: tuple[str, str] = ("", "")) -> None:
        super().__init__()
        self.spoil = spoil

    def shell(self, script: str) -> list[str]:
        return ["sh", "-c", script.replace(*self.spoil) if self.spoil[0] else script]

    def make_folder(self) -> str:
        return self._sh("mktemp -d").stdout.strip()

    def explain(self, stderr: str) -> str:
        return f"lost: {stderr}"


@pytest.fixture(params=["host", "shell", "ssh"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    made: Device
    if request.param == "ssh":
        made = board(request.getfixturevalue("sshd"))
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
    worker = Worker(device, Command((sys.executable, "-c", program, NONCE, word)), timeout_s=3.0)
    with pytest.raises(DeviceError, match="no answer within 3 s: the process was ended"):
        worker.ask("open", 1)
    worker.stop()
    _gone(word)


def test_a_worker_whose_connection_ends_is_an_error(device: Device) -> None:
    program = f"{TALKING}import os; sys.stdin.readline(); os.kill(os.getpid(), 9)"
    if isinstance(device, SshDevice):  # the server's process for us
        program = f"{TALKING}import os; sys.stdin.readline(); os.kill(os.getppid(), 9); os.kill(os.getpid(), 9)"
    worker = Worker(device, Command((sys.executable, "-c", program, NONCE)), timeout_s=30.0)
    with pytest.raises(DeviceError, match="ended"):
        worker.ask("open", 1)
    worker.stop()


def test_it_says_what_it_is_and_how_busy(device: Device) -> None:
    told = device.probe()
    assert set(told) == set(HostDevice().probe())
    assert told["threads"] == psutil.cpu_count()
    assert told["memory_bytes"] == pytest.approx(psutil.virtual_memory().total, rel=0.01)
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


def test_a_shell_that_ends_early_is_no_answer() -> None:
    """An adb of version 29 exits with 0 when its device dies: only what was said counts."""
    with pytest.raises(DeviceError, match="shell: lost: "):
        Shell(spoil=("uname", "exit 0; uname")).probe()


def test_a_device_that_is_gone_does_not_keep_our_end_of_a_worker(tmp_path: Path) -> None:
    device = Shell()
    worker = Worker(device, Command((sys.executable, "-c", f"{TALKING}sys.stdin.readline()", NONCE)), timeout_s=30.0)
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


def test_files_are_measured_over_ssh(sshd: Path, tmp_path: Path, in_process: None) -> None:
    import onnx
    from onnx import TensorProto, helper

    from edgegen.profiling import profile_files
    from edgegen.progress import Silent

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("sample", "out")]
    graph = helper.make_graph([helper.make_node("Sigmoid", ["sample"], ["out"])], "g", values[:1], values[1:])
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    few = ProfileOptions(min_runs=3, max_seconds=0.05, timeout_seconds=60.0, warm_seconds=0.0)
    found = profile_files([path], board(sshd), per_op=True, options=few, progress=Silent())
    (one,) = found.results
    assert found.device == "ssh"
    assert one.numerics.passed
    assert one.latency is not None
    assert [row.kind for row in one.ops] == ["Sigmoid"]


def test_a_phone_s_proc_recorded_is_read() -> None:
    """From recorded lines of an aarch64 Linux, not from a phone at hand."""
    told = {
        "arch": "aarch64\n",
        "system": "Linux 6.1.25-android14\n",
        "threads": "8\n",
        "cpuinfo": "processor\t: 0\nBogoMIPS\t: 38.40\nHardware\t: Some SoC 8\n",
        "meminfo": "MemTotal:        7654321 kB\nMemFree: 1 kB\n",
        "loadavg": "1.20 0.80 0.40 1/900 1234\n",
    }
    found = describe(told)
    assert (found["cpu"], found["arch"], found["threads"]) == ("Some SoC 8", "aarch64", 8)
    assert (found["memory_bytes"], found["load_average"]) == (7654321 * 1024, [1.2, 0.8, 0.4])
    assert found["virtual"] is None
    nothing = describe(dict.fromkeys(told, ""))
    assert not {key: value for key, value in nothing.items() if value is not None}


def _gone(word: str) -> None:
    """No process of that word is left, within a moment."""
    for _ in range(50):
        if not any(word in (one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])):
            return
        time.sleep(0.1)
    pytest.fail("the program still runs")
