"""Text on the terminal: the one place where names and words of others, from files and devices, become harmless."""

import sys
from typing import TextIO

from edgegen.support.printable import printable


def show(*lines: str, file: TextIO | None = None) -> None:
    """Prints lines on stdout, or on `file`; a line end within one is escaped as any other control code is."""
    for line in lines:
        print(printable(line), file=file or sys.stdout)
