"""How equal and how fast the noise is in the languages of the apps, in docs/noise.md.

python tests/noise_table.py [DRAWS]     writes its table there; each draw is 2^24 numbers more, of a seed of its own
"""

import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import app_parts
import numpy as np
from noise_programs import CASES, LANGUAGES, Answer, ulps
from noise_vectors import PAGE

from edgegen.noise import normal
from edgegen.profilers.devices.chromium import find_browser

MARKS = "<!-- figures: python tests/noise_table.py -->", "<!-- end of the figures -->"
DRAW = (0, 16, 1 << 20)
TIMED = (0, 16, 3 * 64 * 64)
HEAD = """| | numbers | differ | by at most | 16 images of 3x64x64 |
|---|---|---|---|---|
"""


def versions() -> dict[str, str]:
    """Of what runs each program."""

    def said(*command: str) -> str:
        finished = subprocess.run(command, capture_output=True, text=True, check=True)
        return finished.stdout.strip() or finished.stderr.strip()

    java = said("java", "-version").split('"')[1]
    swift = (
        said(*app_parts.swift(Path(tempfile.gettempdir()), "swiftc", "--version")).split("Swift version ")[1].split()[0]
    )
    return {
        "node": f"TypeScript {app_parts.NPM['typescript']}, node {said('node', '--version')[1:]}",
        "chromium": f"TypeScript {app_parts.NPM['typescript']}, {said(find_browser(), '--version').split(' built')[0]}",
        "kotlin": f"Kotlin {app_parts.NPM['kotlin-compiler']}, JVM {java}",
        "swift": f"Swift {swift}, Linux",
    }


def row(answer: Answer, draws: int) -> str:
    """Cells of the table after the first."""
    cases = [*CASES, *((100 + draw, *DRAW) for draw in range(draws))]
    total = differing = most = 0
    for case in cases:
        seed, first, count, size = case
        drawn = np.frombuffer(answer(f"normal {' '.join(map(str, case))}\n"), "<f4")
        apart = ulps(drawn, normal(seed, first, count, (size,)).ravel())
        total, differing = total + drawn.size, differing + np.count_nonzero(apart)
        most = max(most, int(apart.max(initial=0)))
    fastest = np.frombuffer(answer(f"time 1 {' '.join(map(str, TIMED))}\n"), "<f4")[0]
    return f"{total:,} | {differing} | {most} ulp | {fastest:.1f} ms |"


def python_ms() -> float:
    """Of the fastest of 100 draws by numpy."""
    times = []
    for _ in range(100):
        began = time.perf_counter()
        normal(1, *TIMED[:2], TIMED[2:])
        times.append(1e3 * (time.perf_counter() - began))
    return min(times)


def table(draws: int) -> str:
    lines = [f"| Python {platform.python_version()}, numpy {np.__version__} | | | | {python_ms():.1f} ms |"]
    names = versions()
    for name, language in LANGUAGES.items():
        if (reason := language.missing()) is not None:
            raise SystemExit(f"{name}: {reason}")
        with tempfile.TemporaryDirectory() as folder:
            lines.append(f"| {names[name]} | {row(language.compiled(Path(folder)), draws)}")
        print(lines[-1], file=sys.stderr)
    return HEAD + "\n".join(lines)


def main() -> None:
    before, _, rest = PAGE.read_text().partition(MARKS[0])
    figures = table(int(sys.argv[1]) if sys.argv[1:] else 0)
    PAGE.write_text(f"{before}{MARKS[0]}\n{figures}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}")


if __name__ == "__main__":
    main()
