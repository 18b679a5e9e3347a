"""Devices that can be had on one machine: a server that only this test can log in to, a phone's daemon."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import device_parts
import pytest


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the file `client`, by which ssh reaches the host "board"."""
    if device_parts.SSHD is None:
        pytest.skip("no sshd: apt install openssh-server")
    folder = tmp_path_factory.mktemp("sshd")
    with device_parts.sshd(folder):
        yield folder


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
