"""The memory that a process holds, and how much it may hold."""

import re
import subprocess
import sys
from pathlib import Path

import psutil

# Of a process that opens and runs an exported file. A runtime with torch takes 0.7 GB; the evaluator unpacks weights of
# 4 bits into float32, eight times the bytes of the file; the rest is for what a network computes on the way.
LEAST_LIMIT, LIMIT_BY_SIZE = 4_000_000_000, 16


def memory_limit_of(path: Path) -> int:
    """How many bytes a process may hold to open and run an exported file, where no option says it."""
    from edgegen.support.storage import nbytes_of

    weights = path.with_name(f"{path.name}.data")  # those above 2 GB lie beside the file
    return LEAST_LIMIT + LIMIT_BY_SIZE * sum(nbytes_of(file) for file in (path, weights) if file.exists())


def over_limit(process: subprocess.Popen[bytes], limit: int | None) -> str:
    """In words, that the process holds more than `limit` bytes of memory; "" where it does not."""
    nbytes = resident_bytes(process.pid) if limit is not None else 0
    if limit is None or nbytes <= limit:
        return ""
    return f"held {nbytes / 1e9:.2f} GB of memory, {limit / 1e9:.2f} GB are allowed: stopped"


def resident_bytes(pid: int) -> int:
    """The memory that a process holds; 0 where it has just ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def peak_rss_bytes() -> int | None:
    """Peak memory of this process, Python and the runtime included; None where it is unknown.

    On Linux VmHWM, because ru_maxrss keeps the size of the parent across fork and exec (measured: 611 MB for a child
    that used 11 MB). Elsewhere ru_maxrss: bytes on macOS, KiB on the BSDs.
    """
    if sys.platform == "linux":
        peak_kib = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
        return int(peak_kib[1]) * 1024 if peak_kib else None
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak() -> bool:
    """Lets `peak_rss_bytes` begin again at what this process holds; False where the system cannot (all but Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True
