"""Bench of devices: a whole measurement on each that one machine can have, and which were not run, and why.

    python examples/bench_devices.py [--quick] [--json]

The demo's student with random weights, as an .onnx and a .pte, goes through what `edgegen profile` does, on this
machine, over ssh to its own sshd, over adb to Debian's adbd (the real daemon of a phone, in a network of its own) and
on an emulated ARM64 (numbers only); SlimFlow's 15.7 M shape, as an .onnx, in headless Chromium: started by edgegen,
opened by Playwright, and that from an address that the browser does not trust. What these need: `apt install
openssh-server adb chromium g++-aarch64-linux-gnu`, then `python tests/device_parts.py`. `--quick` is the same: it
takes some minutes.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench_nets import demo_student, slimflow_cifar10

from edgegen.artifacts.build import build
from edgegen.artifacts.target import Target
from edgegen.errors import EdgegenError
from edgegen.profilers.devices.adb import AdbDevice
from edgegen.profilers.devices.browser import BrowserDevice, HeadlessDevice, runtime
from edgegen.profilers.devices.chromium import find_browser
from edgegen.profilers.devices.device import Device
from edgegen.profilers.devices.emulator import EmulatedDevice
from edgegen.profilers.devices.host import HostDevice
from edgegen.profilers.devices.host_info import probe
from edgegen.profilers.devices.page_server import PageServer
from edgegen.profilers.devices.ssh import SshDevice
from edgegen.profilers.files.profile import profile_files
from edgegen.program.fold import fold
from edgegen.program.one_step import OneStep
from edgegen.support.progress import Silent
from edgegen.types import Signature

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import device_parts  # the servers that the tests of devices use

Row = dict[str, Any]


class NotHere(Exception):
    """Why a device was not run."""


@contextmanager
def host(folder: Path) -> Iterator[Device]:
    yield HostDevice()


@contextmanager
def ssh(folder: Path) -> Iterator[Device]:
    if device_parts.SSHD is None:
        raise NotHere("no sshd: apt install openssh-server")
    with device_parts.sshd(folder):
        yield SshDevice("board", options=("-F", str(folder / "client")), python=sys.executable)


@contextmanager
def adb(folder: Path) -> Iterator[Device]:
    reason = device_parts.no_adbd()
    if reason is not None:
        raise NotHere(reason)
    with device_parts.adbd(folder) as environment:
        os.environ["ADB_SERVER_SOCKET"] = environment["ADB_SERVER_SOCKET"]
        yield AdbDevice(device_parts.SERIAL, python=sys.executable)


@contextmanager
def arm64(folder: Path) -> Iterator[Device]:
    device = EmulatedDevice()
    if not device.userland.ready:
        raise NotHere(f"no ARM64 Linux in {device.userland.folder}: python tests/device_parts.py")
    yield device


@contextmanager
def chromium(folder: Path) -> Iterator[Device]:
    if (reason := device_parts.no_browser()) is not None:
        raise NotHere(reason)
    yield HeadlessDevice("wasm")


@contextmanager
def somebody(folder: Path, *, host: str | None = None) -> Iterator[Device]:
    """The page of `edgegen serve-bench`, opened by Playwright; `host`: a name that the browser does not trust."""
    if (reason := device_parts.no_browser()) is not None:
        raise NotHere(reason)
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError as e:
        raise NotHere("no playwright: pip install playwright") from e
    with PageServer(runtime("wasm"), lan=host is not None) as server, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            folder,
            executable_path=find_browser(),
            headless=True,
            args=["--disable-gpu", f"--host-resolver-rules=MAP {host or 'none.test'} 127.0.0.1"],
        )
        address = server.address
        if host is not None:
            address = f"http://{host}:{server.port}/#{address.partition('#')[2]}"
        context.pages[0].goto(address)
        yield BrowserDevice("wasm", server)
        context.close()


DEVICES: dict[str, tuple[Any, tuple[str, ...], tuple[int, ...]]] = {
    "host": (host, ("student_onnx", "student_executorch"), (1,)),
    "ssh on loopback": (ssh, ("student_onnx", "student_executorch"), (1,)),
    "adb, a real adbd": (adb, ("student_onnx", "student_executorch"), (1,)),
    "ARM64, emulated: numbers only": (arm64, ("student_onnx", "student_executorch"), (1,)),
    "headless Chromium": (chromium, ("slimflow_onnx",), (1, 2)),
    "Chromium by Playwright": (somebody, ("slimflow_onnx",), (1, 2)),
    "Chromium by Playwright, insecure origin": (partial(somebody, host="phone.test"), ("slimflow_onnx",), (2,)),
}


def make_files(folder: Path) -> list[Path]:
    """Files with random weights: the demo's student, and SlimFlow's shape for browsers."""
    demo, cifar = Signature.of(channels=1, size=8, num_classes=10), Signature.of(channels=3, size=32, num_classes=0)
    files = []
    for name, net, signature, targets in (
        ("student", demo_student(), demo, ("onnx-fp32", "executorch-w8a8")),
        ("slimflow", slimflow_cifar10(), cifar, ("onnx-fp32",)),
    ):
        module = fold(OneStep(net, time=1.0), signature).module
        for text in targets:
            built = build(module, signature, name=name, target=Target.parse(text), folder=folder, seed=1, metadata={})
            files.append(folder / built.artifact.file)
    return files


def run(name: str, files: Sequence[Path]) -> list[Row]:
    """A row for each file and number of threads; one that says why, where the device was not run."""
    connected, prefixes, threads = DEVICES[name]
    chosen = [path for start in prefixes for path in files if path.name.startswith(start)]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edgegen-") as folder:
        try:
            with connected(Path(folder)) as device:
                results = profile_files(chosen, device, threads=threads, progress=Silent()).results
        except NotHere as e:
            return [{"device": name, "ran": False, "why": str(e)}]
        except EdgegenError as e:
            return [{"device": name, "ran": True, "right": False, "why": str(e)}]
    return [
        {
            "device": name,
            "ran": True,
            "file": record.artifact.name,
            "runtime": record.config.runtime,
            "threads": record.config.threads_requested,
            "threads_actual": record.config.threads_actual,
            "right": bool(record.numerics.passed) and record.verdict.status != "failed",
            "snr_db": record.numerics.snr_db,
            "p50_ms": None if record.latency is None else record.latency.p50_ms,
            "verdict": record.verdict.status,
            "reasons": record.verdict.reasons,
            "seconds": time.monotonic() - began,
        }
        for record in results
    ]


def bench() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="edgegen-") as folder:
        files = make_files(Path(folder))
        rows = []
        for name in DEVICES:
            print(f"{name} ...", file=sys.stderr, flush=True)
            rows += run(name, files)
    return rows


def goals(rows: Sequence[Row]) -> list[Row]:
    """One for each device; one that was not run is not met, and says why."""
    rated = []
    for name in DEVICES:
        own = [row for row in rows if row["device"] == name]
        right = all(row["ran"] and row["right"] for row in own)
        value = "right" if right else "; ".join(dict.fromkeys(str(row.get("why", "wrong")) for row in own))
        value = value if own[0]["ran"] else f"not run: {value}"
        rated.append({"name": f"{name}: a whole measurement", "target": "right", "value": value, "met": right})
    return rated


def table(rows: Sequence[Row]) -> str:
    lines = ["| device | file | runtime | threads | right | p50 ms | verdict |", "|" + "---|" * 7]
    for row in rows:
        if "file" not in row:
            lines.append(f"| {row['device']} | - | - | - | - | - | {'not run: ' * (not row['ran'])}{row['why']} |")
            continue
        snr = "equal" if row["snr_db"] is None else f"{row['snr_db']:.0f} dB"
        p50 = "-" if row["p50_ms"] is None else f"{row['p50_ms']:.3g}"
        threads = "/".join(str(row[name] or "-") for name in ("threads", "threads_actual"))
        verdict = "; ".join([row["verdict"], *row["reasons"]])
        cells = (row["device"], row["file"], row["runtime"], threads, snr if row["right"] else "no", p50, verdict)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the same")
    parser.add_argument("--json", action="store_true", help="goals and rows on stdout")
    options = parser.parse_args()
    rows = bench()
    if options.json:
        print(json.dumps({"machine": probe(), "goals": goals(rows), "rows": rows}, indent=2))
        return
    print(table(rows))
    for goal in goals(rows):
        print(f"{'met' if goal['met'] else 'NOT met'}: {goal['name']}: {goal['value']}")


if __name__ == "__main__":
    main()
