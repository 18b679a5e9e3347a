"""How the command line ends by a signal: Ctrl-C with exit code 130, SIGTERM with 143, both after cleaning up."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from edgegen.support import guardian

INTERRUPTED, TERMINATED = 130, 143  # 128 + the number of the signal, as shells have it
STOPPED = "stopped; a recipe goes on from the last checkpoint (same command, no --force)"

_is_interrupted = False


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """Around the whole command line, its imports too. A second Ctrl-C does not wait for the end of the cleaning up."""
    _install()
    try:
        try:
            yield
        finally:
            _ignore(signal.SIGINT)
    except BaseException as e:
        # A vendor's code may turn the exception of Ctrl-C into another one.
        if _is_interrupted or isinstance(e, KeyboardInterrupt):
            print(STOPPED, file=sys.stderr)
            raise SystemExit(INTERRUPTED) from e
        raise


def _install() -> None:
    source, target = os.pipe()
    os.set_blocking(target, False)
    signal.set_wakeup_fd(target, warn_on_full_buffer=False)  # at once, even while a vendor's code runs
    guardian.watch_signals(source)
    for number, handler in ((signal.SIGINT, _interrupt), (signal.SIGTERM, _terminate)):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as of a job in the background
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    global _is_interrupted
    if _is_interrupted:
        os._exit(INTERRUPTED)  # the guardian does the rest
    _is_interrupted = True
    raise KeyboardInterrupt


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    _ignore(signal.SIGTERM)
    raise SystemExit(TERMINATED)


def _ignore(number: int) -> None:
    signal.signal(number, signal.SIG_IGN)
