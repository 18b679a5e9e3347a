"""A small process that outlives this one, then ends what this one had started and removes its temporary folders.

Whatever ends a program (Ctrl-C, kill -9, lack of memory), the system closes its pipes: that of the guardian is how it
learns it. A child could watch its parent in the same way, but not while a vendor's code holds the interpreter, and
browsers, compilers and runners in C++ do not.

    this process                                            guardian
    watch_process(PID), watch_folder(PATH)   -- stdin -->   remembers, until stdin ends; then kills and removes
    numbers of signals (watch_signals)       -- pipe  -->   after SIGTERM ends this process itself when it takes longer
"""

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

CHILD = "EDGEGEN_CHILD"  # set in the environment of our children: what they start is in their session, and ends with it
GRACE_S = 1.2  # from SIGTERM, for a process to end by itself: its devices want to be left clean
ENDING_S = 3.0  # for killed processes to be gone, before their folders are removed all the same
LOOK_S = 0.02
BLOCK = 1 << 16


def is_child() -> bool:
    """Whether this process was started by edgegen, whose guardian watches it."""
    return CHILD in os.environ


def watch_process(pid: int) -> None:
    """Have the leader of a session killed, with all its descendants and its session, when this process ends."""
    _GUARDIAN.send(f"+process {pid}")


def forget_process(pid: int) -> None:
    """It has ended."""
    _GUARDIAN.send(f"-process {pid}")


def watch_folder(folder: Path) -> None:
    """Have a folder removed when this process ends."""
    _GUARDIAN.send(f"+folder {folder}")


def watch_signals(source: int) -> None:
    """The file descriptor from which the numbers of this process's signals come, see signal.set_wakeup_fd."""
    _GUARDIAN.signals = source


class _Guardian:
    """The connection to it; it is started for the first message."""

    def __init__(self) -> None:
        self.signals = -1
        self.pipe, self.owner = -1, 0
        self.lock = threading.Lock()

    def send(self, line: str) -> None:
        if is_child():
            return
        with self.lock:
            if self.owner != os.getpid():  # a fork has a guardian of its own
                self._start()
            with contextlib.suppress(BrokenPipeError):  # killed: folders are swept by the next start all the same
                os.write(self.pipe, os.fsencode(f"{line}\n"))

    def _start(self) -> None:
        source, self.pipe = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(os.getpid()), str(self.signals)],
            stdin=source,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[] if self.signals < 0 else [self.signals],
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(path).absolute()) for path in sys.path)},
        )
        process.returncode = 0  # it outlives us: nobody waits for it
        os.close(source)
        self.owner = os.getpid()


_GUARDIAN = _Guardian()


class Watched:
    """The guardian's part: processes with the time of their start, because numbers are used again; and folders."""

    def __init__(self) -> None:
        self.processes: dict[int, psutil.Process] = {}
        self.folders: set[str] = set()

    def obey(self, line: str) -> None:
        """One line of `watch_process` and its like."""
        command, _, text = line.partition(" ")
        if command == "+folder":
            self.folders.add(text)
        elif command == "-process":
            self.processes.pop(int(text), None)
        else:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.processes[int(text)] = psutil.Process(int(text))

    def end(self) -> None:
        """Kill them until none is left, and remove the folders."""
        seen: dict[int, psutil.Process] = {}
        until = time.monotonic() + ENDING_S
        while time.monotonic() < until:
            seen |= self._family()
            alive = [process for process in seen.values() if _is_alive(process)]
            if not alive:
                break
            for process in alive:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            time.sleep(LOOK_S)
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _family(self) -> dict[int, psutil.Process]:
        """The processes, their descendants, and the members of their sessions, whose parents may have ended."""
        family = {pid: process for pid, process in self.processes.items() if _is_alive(process)}
        for process in list(family.values()):
            with contextlib.suppress(psutil.Error):
                family |= {child.pid: child for child in process.children(recursive=True)}
        for pid in psutil.pids() if self.processes else ():
            with contextlib.suppress(OSError, psutil.Error):
                leader = self.processes.get(os.getsid(pid))
                process = psutil.Process(pid)
                if leader is not None and process.create_time() >= leader.create_time():
                    family[pid] = process
        return family


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def main() -> None:
    """The guardian of the process with the number of the first argument; its signals come from the second, -1: none."""
    parent, signals = int(sys.argv[1]), int(sys.argv[2])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    watched, rest, deadline = Watched(), b"", None
    selector = selectors.DefaultSelector()
    for source in {0, signals} - {-1}:
        selector.register(source, selectors.EVENT_READ)
    while True:
        ready = {key.fd for key, _ in selector.select(deadline and max(0.0, deadline - time.monotonic()))}
        if deadline is not None and time.monotonic() >= deadline and os.getppid() == parent:
            os.kill(parent, signal.SIGKILL)
            deadline = None
        if signals in ready:
            block = os.read(signals, BLOCK)
            if not block:
                selector.unregister(signals)
            elif signal.SIGTERM in block:
                deadline = deadline or time.monotonic() + GRACE_S
        if 0 in ready:
            block = os.read(0, BLOCK)
            if not block:
                break
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                watched.obey(os.fsdecode(line))
    watched.end()


if __name__ == "__main__":
    main()
