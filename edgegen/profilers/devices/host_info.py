"""What a machine is, for the report: no host name, no user name, no path."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from edgegen.support.numbers import number, whole

# What a machine can have; a device that says more is not believed.
MOST_KIB, MOST_THREADS, MOST_LOAD, MOST_STATUS = 1 << 40, 1 << 16, 1e6, 6


def probe() -> dict[str, Any]:
    """Of this machine: cpu, arch, cores, threads, memory_bytes, os, python, virtual, load_average (1, 5, 15 minutes).

    "emulated" is None or what computes in the place of a processor. Of a phone also its model, soc, battery_c and
    thermal_status (Android's, 0 none to 6 shutdown). Unknown is None.
    """
    return {
        "cpu": cpu_model(),
        "arch": platform.machine(),
        "cores": psutil.cpu_count(logical=False),
        "threads": psutil.cpu_count(logical=True),
        "memory_bytes": psutil.virtual_memory().total,
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "virtual": _virtual(_cpuinfo()),
        "emulated": None,
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "model": None,
        "soc": None,
        "battery_c": None,
        "thermal_status": None,
    }


def describe(answers: Mapping[str, str]) -> dict[str, Any]:
    """The same of another machine, from the output of the commands in `shell.QUESTIONS` there, "" for none."""
    memory_kib = _after(r"MemTotal:", answers["meminfo"], most=MOST_KIB)
    loads = [number(text, most=MOST_LOAD) for text in answers["loadavg"].split()[:3]]
    tenths_c = _after(r"\s*temperature:", answers["battery"], least=-2000, most=2000)
    release = answers["release"].strip()
    return {
        "cpu": _model(answers["cpuinfo"]) or answers["soc"].strip() or None,
        "arch": answers["arch"].strip() or None,
        "cores": None,
        "threads": whole(answers["threads"], least=1, most=MOST_THREADS),
        "memory_bytes": None if memory_kib is None else 1024 * memory_kib,
        "os": ", ".join(filter(None, [release and f"Android {release}", answers["system"].strip()])) or None,
        "python": None,
        "virtual": _virtual(answers["cpuinfo"]),
        "emulated": None,
        "load_average": loads if len(loads) == 3 and None not in loads else None,
        "model": answers["model"].strip() or None,
        "soc": answers["soc"].strip() or None,
        "battery_c": None if tenths_c is None else tenths_c / 10,
        "thermal_status": _after(r"\s*Thermal Status:", answers["thermal"], most=MOST_STATUS),
    }


def _after(label: str, text: str, *, least: int = 0, most: int) -> int | None:
    """The whole number behind a label at the start of a line; None where there is none, or one out of range."""
    line = re.search(rf"^{label}\s*(\S+)", text, flags=re.MULTILINE)
    return None if line is None else whole(line[1], least=least, most=most)


def cpu_model() -> str | None:
    """The processor's name as the system gives it."""
    if sys.platform == "darwin":
        brand = subprocess.run(["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True)
        return brand.stdout.strip() or None
    return _model(_cpuinfo()) or platform.processor() or None


def _model(cpuinfo: str) -> str | None:
    line = re.search(
        r"^(?:model name|Model|Hardware|machdep\.cpu\.brand_string)\s*:\s*(.+)$", cpuinfo, flags=re.MULTILINE
    )
    return line[1].strip() if line else None


def _virtual(cpuinfo: str) -> bool | None:
    """Whether a hypervisor is below; None where the system does not say."""
    flags = re.search(r"^flags\s*:\s*(.+)$", cpuinfo, flags=re.MULTILINE)
    return "hypervisor" in flags[1].split() if flags else None


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8") if path.exists() else ""
