"""How much memory this process has held."""

import re
import sys
from pathlib import Path


def peak_rss_bytes() -> int | None:
    """The most memory that this process has held so far, Python and the runtime included; None where it is unknown.

    On Linux VmHWM, because ru_maxrss keeps the size of the parent across fork and exec (measured: 611 MB for a child
    that used 11 MB). Elsewhere ru_maxrss: bytes on macOS, KiB on the BSDs.
    """
    if sys.platform == "linux":
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
        return int(found[1]) * 1024 if found else None
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
