"""Bench of devices: a whole measurement on each that one machine can have, and which were not run, and why.

    python examples/bench_devices.py [--quick] [--json]

The demo's student with random weights, as an .onnx and a .pte, goes through `edgegen profile` on this machine, over ssh
to this machine's own sshd, over adb to Debian's adbd (the real daemon of a phone, in a network of its own), on an
emulated ARM64 (numbers only), and in headless Chromium: with 1 and 2 threads, and from an address that the browser does
not trust. What these need is fetched by `python tests/device_parts.py`; `apt install openssh-server adb chromium
g++-aarch64-linux-gnu`. `--quick` is the same: it takes a minute or two.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench_nets import demo_student

from edgegen.build import build
from edgegen.capture import OneStep
from edgegen.errors import EdgegenError
from edgegen.folding import fold
from edgegen.profilers.adb import AdbDevice
from edgegen.profilers.device import Device
from edgegen.profilers.emulator import EmulatedDevice
from edgegen.profilers.host import HostDevice
from edgegen.profilers.machine import probe
from edgegen.profilers.ssh import SshDevice
from edgegen.profiling import profile_files
from edgegen.progress import Silent
from edgegen.targets import Target
from edgegen.types import Signature

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import device_parts  # the servers that the tests of devices use

Row = dict[str, Any]
ONNX, PTE = "onnx-fp32", "executorch-w8a8"


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


DEVICES = {
    "host": (host, (ONNX, PTE), (1,)),
    "ssh on loopback": (ssh, (ONNX, PTE), (1,)),
    "adb, a real adbd": (adb, (ONNX, PTE), (1,)),
    "ARM64, emulated: numbers only": (arm64, (ONNX, PTE), (1,)),
}


def made(folder: Path) -> dict[str, Path]:
    """The files, by target."""
    signature = Signature.of(channels=1, size=8, num_classes=10)
    module = fold(OneStep(demo_student(), time=1.0), signature).module
    found = {}
    for text in (ONNX, PTE):
        built = build(module, signature, name="student", target=Target.parse(text), folder=folder, seed=1, metadata={})
        found[text] = folder / built.artifact.file
    return found


def run(name: str, files: Sequence[Path]) -> list[Row]:
    """A row for each file and number of threads; one that says why, where the device was not run."""
    connected, targets, threads = DEVICES[name]
    chosen = [path for target in targets for path in files if target.partition("-")[0] in path.name]
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
            "file": one.artifact.name,
            "runtime": one.config.runtime,
            "threads": one.config.threads_requested,
            "threads_actual": one.config.threads_actual,
            "right": bool(one.numerics.passed) and one.verdict.status != "failed",
            "snr_db": one.numerics.snr_db,
            "p50_ms": None if one.latency is None else one.latency.p50_ms,
            "verdict": one.verdict.status,
            "reasons": one.verdict.reasons,
            "seconds": time.monotonic() - began,
        }
        for one in results
    ]


def bench() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="edgegen-") as folder:
        files = list(made(Path(folder)).values())
        rows = []
        for name in DEVICES:
            print(f"{name} ...", file=sys.stderr, flush=True)
            rows += run(name, files)
    return rows


def goals(rows: Sequence[Row]) -> list[Row]:
    """One for each device; one that was not run is not met, and says why."""
    found = []
    for name in DEVICES:
        own = [row for row in rows if row["device"] == name]
        right = all(row["ran"] and row["right"] for row in own)
        value = "right" if right else "; ".join(dict.fromkeys(str(row.get("why", "wrong")) for row in own))
        value = value if own[0]["ran"] else f"not run: {value}"
        found.append({"name": f"{name}: a whole measurement", "target": "right", "value": value, "met": right})
    return found


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
