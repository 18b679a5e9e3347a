"""An object in a child process: its answers, its exceptions, its death, its memory, and the death of its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from edgegen.errors import DataError, ExportError
from edgegen.support import isolation
from edgegen.support.service import Service

FACTORY = "served:Counter"  # served.py in tmp_path, which the child finds by the sys.path of the parent


@pytest.fixture(autouse=True)
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "served.py").write_text(
        """
import os, time
from edgegen.errors import DataError

class OwnError(DataError): pass

class Counter:
    def __init__(self): self.count = 0
    def add(self, number): print("noise on stdout", flush=True); self.count += number; return self.count
    def variable(self, name): return os.environ.get(name)
    def bad(self): raise OwnError("net.onnx: cut short")
    def breaks(self): raise RuntimeError("the vendor gave up")
    def aborts(self): os.write(2, b"last words\\n"); os.abort()
    def hoards(self):
        held = []
        while True:
            held.append(b"x" * 10_000_000); time.sleep(0.005)
    def waits(self): time.sleep(600)
"""
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def service(functions: None) -> Service:
    return Service(FACTORY, variables={"OF_A_TEST": "here"})


def test_the_object_stays_between_calls(service: Service) -> None:
    assert [service.call("add", {"number": number}, doing="added") for number in (1, 2, 3)] == [1, 3, 6]
    assert service.call("variable", {"name": "OF_A_TEST"}, doing="read") == "here"
    service.close()
    service.close()
    assert not service.alive
    assert not service.folder.exists()


def test_an_exception_comes_back_and_the_process_lives_on(service: Service) -> None:
    with pytest.raises(DataError, match=r"^net\.onnx: cut short$"):
        service.call("bad", {}, doing="tried")
    assert service.call("add", {"number": 1}, doing="added") == 1
    service.close()


def test_a_death_is_an_export_error_with_the_last_words(service: Service) -> None:
    with pytest.raises(ExportError, match=r"^the process that opened net\.pte ended by SIGABRT: last words$"):
        service.call("aborts", {}, doing="opened net.pte")
    assert not service.alive
    broken = Service(FACTORY, variables={})
    with pytest.raises(ExportError, match=r"ran x ended with exit code 1: RuntimeError: the vendor gave up"):
        broken.call("breaks", {}, doing="ran x")


def test_a_process_that_was_killed_between_two_calls(service: Service) -> None:
    assert service.call("add", {"number": 1}, doing="added") == 1
    service.process.kill()
    service.process.wait()
    with pytest.raises(ExportError, match=r"ended by SIGKILL"):
        service.call("add", {"number": 1}, doing="added")


def test_the_memory_limit_ends_the_process(service: Service) -> None:
    with pytest.raises(ExportError, match=r"ran x held 0\.\d\d GB of memory, 0\.20 GB are allowed: stopped"):
        service.call("hoards", {}, doing="ran x", memory_limit=200_000_000)
    assert not service.alive


def test_a_method_that_never_ends_is_ended(service: Service) -> None:
    late = r"^the process that ran x did not end within 0\.5 s: stopped; does its runtime hang, or"
    with pytest.raises(ExportError, match=late):
        service.call("waits", {}, doing="ran x", time_limit_s=0.5)
    assert not service.alive


def test_it_ends_when_nothing_uses_it() -> None:
    service = Service(FACTORY, variables={})
    process, folder = psutil.Process(service.process.pid), service.folder
    del service
    assert not process.is_running()
    assert not folder.exists()


@pytest.mark.parametrize("kind", ["waits", "runs"])
def test_a_child_ends_with_its_parent_even_while_it_works(kind: str, tmp_path: Path) -> None:
    """SIGKILL leaves the parent no time to end anything."""
    lines = [
        "from edgegen.support.isolation import Child",
        "child = Child()",
        "print(child.process.pid, flush=True)",
        "child.run('served:wait', {}, None, 'waited')" if kind == "runs" else "input()",
    ]
    with (tmp_path / "served.py").open("a") as file:
        file.write("\ndef wait(): open('began', 'w').close(); time.sleep(600)\n")
    parent = subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=isolation.environment(), text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    while kind == "runs" and not (tmp_path / "began").exists():
        time.sleep(0.05)
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    child.wait(20)  # psutil waits for what is not its child, too
