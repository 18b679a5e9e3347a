"""What this machine is, for the report: no host name, no user name, no path."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil


def probe() -> dict[str, Any]:
    """cpu, cores, threads, memory_bytes, os, python, virtual, load_average (1, 5, 15 minutes); unknown is None."""
    return {
        "cpu": cpu_model(),
        "arch": platform.machine(),
        "cores": psutil.cpu_count(logical=False),
        "threads": psutil.cpu_count(logical=True),
        "memory_bytes": psutil.virtual_memory().total,
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "virtual": _virtual(),
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }


def cpu_model() -> str | None:
    """The processor's name as the system tells it."""
    if sys.platform == "darwin":
        told = subprocess.run(["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True)
        return told.stdout.strip() or None
    found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", _cpuinfo(), flags=re.MULTILINE)
    return found[1].strip() if found else platform.processor() or None


def _virtual() -> bool | None:
    """Whether a hypervisor is below; None where the system does not say."""
    flags = re.search(r"^flags\s*:\s*(.+)$", _cpuinfo(), flags=re.MULTILINE)
    return "hypervisor" in flags[1].split() if flags else None


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8") if path.exists() else ""
