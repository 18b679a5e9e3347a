"""A browser of this machine without a window, in a profile folder of its own that is removed with it."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Sequence

import psutil

from edgegen.errors import DeviceError
from edgegen.support import processes
from edgegen.support.printable import printable
from edgegen.support.scratch import new_folder

VARIABLE = "EDGEGEN_BROWSER"  # another browser of this family, by name or path
NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "microsoft-edge-stable",
    "msedge",
)
APPS = tuple(f"/Applications/{app}.app/Contents/MacOS/{app}" for app in ("Chromium", "Google Chrome", "Microsoft Edge"))
FLAGS = (
    "--headless=new",
    # No background work and no connections of the browser's own.
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-quic",
    "--disable-breakpad",
    # A page without a window must not be slowed down as one in the background is.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
)
GRACE_S = 5.0
MOST_FOLDER = 54
SHOWN = 300


def find_browser() -> str:
    """Its program. Raises DeviceError that says what to install."""
    chosen = os.environ.get(VARIABLE)
    program = next(filter(None, map(shutil.which, [chosen] if chosen else [*NAMES, *APPS])), None)
    if program is None:
        reason = f"no program {chosen} ({VARIABLE})" if chosen else "no Chromium, Chrome or Edge on this machine"
        advice = f"apt install chromium, or set {VARIABLE} to the program; any browser can open edgegen serve-bench"
        raise DeviceError(f"{reason}: {advice}")
    return program


class Browser:
    """Runs until `close`, which ends all its processes."""

    def __init__(self, address: str, *, flags: Sequence[str] = ()) -> None:
        program = find_browser()
        self.folder = new_folder()
        # Not on the command line, which all users of this machine may read: the address holds the token.
        start = self.folder / "start.html"
        start.write_text(f'<!doctype html><meta http-equiv="refresh" content="0; url={address}">', encoding="ascii")
        # As root, Chromium does not start with its sandbox; it opens no page but ours.
        root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        # Killed, it leaves a folder with a socket there; a socket's path has some 100 characters, half of them its own.
        here = {"TMPDIR": str(self.folder)} if len(str(self.folder)) < MOST_FOLDER else {}
        try:
            self.process = processes.start(
                [program, *FLAGS, *root, *flags, f"--user-data-dir={self.folder / 'profile'}", start.as_uri()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, **here},
            )
        except OSError as e:
            shutil.rmtree(self.folder)
            raise DeviceError(f"{program} cannot be run: {e.strerror}") from e
        assert self.process.stderr is not None, "a pipe"
        self.errors = processes.Tail(self.process.stderr)

    def ended(self) -> str:
        """How it ended, "" while it runs."""
        code = self.process.poll()
        if code is None:
            return ""
        last_line = "".join(self.errors.close().decode(errors="replace").strip().splitlines()[-1:])
        return f"the browser ended with {code}{': ' if last_line else ''}{printable(last_line[:SHOWN])}"

    def cpu_s(self) -> float:
        """Core-seconds of all its processes up to now."""
        total = 0.0
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def close(self) -> None:
        """Ends it, politely first, and removes its folder; may be called twice."""
        family = self._processes()
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_S)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        processes.end(self.process)
        psutil.wait_procs(family, GRACE_S)
        self.errors.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _processes(self) -> list[psutil.Process]:
        """Its main process, all its descendants, and the rest of its session, whose parents may have ended."""
        family: dict[int, psutil.Process] = {}
        for pid in psutil.pids():
            with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
                if os.getsid(pid) == self.process.pid:
                    process = psutil.Process(pid)
                    family |= {each.pid: each for each in (process, *process.children(recursive=True))}
        return list(family.values())
