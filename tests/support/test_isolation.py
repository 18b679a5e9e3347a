"""A function in a child process: its result, its exceptions, its death, its memory."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgegen.errors import DataError, ExportError, MissingExtraError
from edgegen.support import isolation, memory

HERE = "children"  # children.py in tmp_path, which the child finds by the sys.path of the parent


@pytest.fixture(autouse=True)
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "children.py").write_text(
        """
import os, signal, sys, time
from edgegen.errors import DataError, MissingExtraError

def add(a, b): print("noise on stdout"); return {"sum": a + b, "pid": os.getpid()}
def bad(): raise DataError("net.safetensors: cut short")
def lacking(): raise MissingExtraError("onnx", extra="onnx", purpose="writing")
def breaks(): raise RuntimeError("the vendor gave up")
def dies(): print("last words", file=sys.stderr, flush=True); os.kill(os.getpid(), signal.SIGSEGV)
def hoards():
    held = []
    while True:
        held.append(bytearray(10_000_000)); time.sleep(0.01)
"""
    )
    monkeypatch.syspath_prepend(tmp_path)


def test_the_result_comes_back_from_another_process() -> None:
    outcome = isolation.call(f"{HERE}:add", {"a": 2, "b": 3})
    assert outcome.value["sum"] == 5
    assert outcome.value["pid"] != os.getpid()
    assert outcome.seconds > 0
    assert outcome.peak_rss_bytes is not None
    assert 1_000_000 < outcome.peak_rss_bytes < 200_000_000


def test_errors_of_edgegen_come_back_unchanged() -> None:
    with pytest.raises(DataError, match=r"^net.safetensors: cut short$"):
        isolation.call(f"{HERE}:bad", {})
    with pytest.raises(MissingExtraError, match=r"pip install 'edgegen\[onnx\]'") as caught:
        isolation.call(f"{HERE}:lacking", {})
    assert caught.value.exit_code == 3


def test_any_other_failure_is_an_export_error_with_the_end_of_the_log() -> None:
    with pytest.raises(ExportError, match=r"ran children:breaks ended with exit code 1: RuntimeError: the vendor gave"):
        isolation.call(f"{HERE}:breaks", {})
    with pytest.raises(ExportError, match=r"ran children:dies ended by SIGSEGV: last words"):
        isolation.call(f"{HERE}:dies", {})


def test_a_kill_without_output_suggests_too_little_memory() -> None:
    assert isolation.ending(-signal.SIGKILL, b"") == "ended by SIGKILL, nothing on stderr; out of memory?"


def test_the_memory_limit_ends_the_child() -> None:
    began = time.monotonic()
    with pytest.raises(ExportError, match=r"it held 0\.\d\d GB of memory, 0.20 GB are allowed: stopped"):
        isolation.call(f"{HERE}:hoards", {}, memory_limit=200_000_000)
    assert time.monotonic() - began < 60
    assert not [pid for pid in _children() if pid != os.getpid()]


def _children() -> list[int]:
    import psutil

    return [process.pid for process in psutil.Process().children() if "edgegen.support.isolation" in process.cmdline()]


def test_modules_in_the_current_folder_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert isolation.call(f"{HERE}:add", {"a": 1, "b": 1}).value["sum"] == 2


def test_a_limit_follows_the_size_of_the_file_and_of_the_weights_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"x" * 1000)
    assert memory.memory_limit_of(path) == memory.LEAST_LIMIT + 16_000
    (tmp_path / "net.onnx.data").write_bytes(b"x" * 5000)
    assert memory.memory_limit_of(path) == memory.LEAST_LIMIT + 96_000


def test_a_full_disk_is_said_whatever_a_vendor_makes_of_it(tmp_path: Path) -> None:
    """TMPDIR on a tmpfs of 200 kB, which the child fills."""
    (tmp_path / "children.py").write_text(
        "import tempfile\n"
        "def fills():\n"
        "    with tempfile.NamedTemporaryFile(delete=False) as file:\n"
        "        try:\n"
        "            file.write(bytes(1_000_000)); file.flush()\n"
        "        except OSError:\n"
        "            raise RuntimeError('[MIL FileWriter]: Unknown error occurred') from None\n"
    )
    code = (
        "from edgegen.errors import StorageError\nfrom edgegen.support import isolation\n"
        "try:\n    isolation.call('children:fills', {})\nexcept StorageError as e:\n    print(e)\n"
    )
    (place := tmp_path / "small").mkdir()
    mount = f'mount -t tmpfs -o size=200k tmpfs {place} && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", mount, "sh"]
    trial = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if trial.returncode:
        pytest.skip(f"mounting a tmpfs is not allowed here: {trial.stderr.strip()}")
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(place)}
    program = [*command, sys.executable, "-c", code]
    done = subprocess.run(program, env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("disk full: ")
    assert f"bytes free at {place}/edgegen-" in done.stdout
    assert "too few to write temporary files" in done.stdout


def test_a_deadline_ends_what_holds_the_interpreter(tmp_path: Path) -> None:
    with (tmp_path / "children.py").open("a") as file:
        file.write(
            "\ndef hangs():\n    import itertools\n    from edgegen.support import isolation\n"
            "    with isolation.deadline(60, 'the first part'): pass\n"
            "    with isolation.deadline(0.5, 'the first run of net.pte'): sum(itertools.repeat(1))\n"
        )
    with pytest.raises(ExportError, match=r"^the first run of net\.pte did not end within 0\.5 s: stopped; does its"):
        isolation.call(f"{HERE}:hangs", {})
