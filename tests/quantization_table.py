"""The table of quantization in docs/quantize.md: every cell of the matrix, with what the bench measured of it.

python tests/quantization_table.py     writes it into docs/quantize.md, from examples/bench_quantize.json
"""

import json
import re
from pathlib import Path
from typing import Any

from edgegen.quantize.support_matrix import matrix

HERE = Path(__file__).parent
PAGE, BENCH = HERE.parent / "docs" / "quantize.md", HERE.parent / "examples" / "bench_quantize.json"
MARKS = "<!-- quantization table: python tests/quantization_table.py -->", "<!-- end of the quantization table -->"
RUNTIMES = {"onnx": "ONNX", "executorch": "ExecuTorch", "coreml": "Core ML"}
SCHEMES = ("fp32", "fp16", "w8", "w8a8", "mixed", "w6", "w4", "w4-block")
LARGE, TRAINED = "slimflow 15.7 M", ("demo student", "fashion student")


def table() -> str:
    """The table's lines: size of the 15.7 M net's file over fp32, PSNR of the trained nets, the worse first."""
    assert {scheme for scheme, _ in matrix()} == set(SCHEMES)
    rows = [row for row in json.loads(BENCH.read_text())["rows"] if "cell" in row]
    lines = ["| | " + " | ".join(SCHEMES) + " |", "|---" * (1 + len(SCHEMES)) + "|"]
    for backend, name in RUNTIMES.items():
        cells = [_cell(rows, backend, scheme) if (scheme, backend) in matrix() else "" for scheme in SCHEMES]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    lines.append("")
    lines.append(
        "Size of the 15.7 M net's file over the same runtime's fp32, and PSNR of the images of the two trained nets "
        "to PyTorch's, of 1,000 noises (→ with learned rounding and recovery); `yes` where the bench has no row."
    )
    return "\n".join(lines)


def _cell(rows: list[dict[str, Any]], backend: str, scheme: str) -> str:
    def of(net: str, key: str, suffix: str = "") -> Any:
        return next((r[key] for r in rows if r["net"] == net and r["cell"] == f"{backend}-{scheme}{suffix}"), None)

    size = of(LARGE, "size_ratio")
    before = [of(net, "psnr_db") for net in TRAINED]
    after = [of(net, "psnr_db", "+recovery") for net in TRAINED]
    parts = [] if size is None else [f"{size:.3f}"]
    if all(before):
        parts.append(_decibels(before) + (f" → {_decibels(after)}" if all(after) else "") + " dB")
    return ", ".join(parts) or "yes"


def _decibels(values: list[float]) -> str:
    return " and ".join(f"{value:.0f}" for value in sorted(values))


def in_manual() -> re.Match[str] | None:
    """What stands between the marks."""
    first, last = map(re.escape, MARKS)
    return re.search(f"{first}\n(.*?){last}", PAGE.read_text(), re.DOTALL)


if __name__ == "__main__":
    match = in_manual()
    assert match, f"{PAGE} has no marks"
    text = PAGE.read_text()
    PAGE.write_text(text[: match.start(1)] + table() + "\n" + text[match.end(1) :])
