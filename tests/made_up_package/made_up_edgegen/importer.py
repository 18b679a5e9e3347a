"""An importer: lines such as "stopwatch: net.bin on the kitchen table 12.5 ms"."""

import re
from dataclasses import dataclass
from pathlib import Path

from edgegen.profilers.measurement import Measurement

LINE = re.compile(rb"stopwatch: (\S+) on (.+) ([0-9.]+) ms")


@dataclass(frozen=True)
class Stopwatch:
    source: str = "stopwatch"
    form: str = "the log of a stopwatch"

    def fits(self, path: Path, content: bytes) -> bool:
        return content.startswith(b"stopwatch: ")

    def read(self, path: Path, content: bytes) -> tuple[Measurement, ...]:
        rows = [tuple(part.decode() for part in line) for line in LINE.findall(content)]
        if not rows:
            raise ValueError("it has no line with a time")
        return tuple(
            Measurement(self.source, path.name, what, device, setting="by hand", times_ms={"mean": float(ms)})
            for what, device, ms in rows
        )


IMPORTER = Stopwatch()
