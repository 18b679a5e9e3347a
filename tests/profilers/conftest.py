"""Devices that can be had on one machine: a server that only this test can log in to, a phone's daemon."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import device_parts
import psutil
import pytest

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")


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
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="session")
def _adbd() -> Iterator[dict[str, str]]:
    """The environment by which adb reaches a phone's daemon that runs for all tests."""
    reason = device_parts.no_adbd()
    if reason is not None:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="edgegen-") as folder, device_parts.adbd(Path(folder)) as environment:
        yield dict(environment)


@pytest.fixture
def phone(_adbd: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The serial number of an attached device."""
    monkeypatch.setenv("ADB_SERVER_SOCKET", _adbd["ADB_SERVER_SOCKET"])
    return device_parts.SERIAL
