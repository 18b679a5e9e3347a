"""Bench of export times: whole processes of `edgegen export` against the vendor's exporter, in turn.

    python examples/bench_export_time.py [--quick] [--json] [--net NAME] [--runtime NAME]

Each round starts one process a side: `edgegen export`, which also folds the time and compares the file with PyTorch,
and a script with torch.onnx.export, to_edge_transform_and_lower or ct.convert of the same network (bench_export.plain).
Medians of the rounds and their ratio; the goal is at most 1.15.
`--quick` runs one round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgegen.profilers.devices.host_info import probe

if TYPE_CHECKING:
    from torch import nn

HERE = Path(__file__).parent
LIMIT = 1.15
ROUNDS = 3
SUFFIXES = {"onnx": ".onnx", "executorch": ".pte", "coreml": ".mlpackage"}
# The factory below, the size of the picture, its channels, and the number of classes (0: none).
NETS = {"demo student": ("demo", 8, 1, 10), "slimflow 15.7 M": ("slimflow", 32, 3, 0)}
PLAIN = """import sys
sys.path.insert(0, sys.argv[1])
from bench_export import plain
plain(net=sys.argv[2], runtime=sys.argv[3], path=sys.argv[4])"""


def demo() -> "nn.Module":
    """For `edgegen export`: one step of the student of the digits recipe."""
    return _one_step("demo_student")


def slimflow() -> "nn.Module":
    """For `edgegen export`: one step of SlimFlow's CIFAR-10 student."""
    return _one_step("slimflow_cifar10")


def _one_step(name: str) -> "nn.Module":
    import bench_nets

    from edgegen.program.one_step import OneStep

    return OneStep(getattr(bench_nets, name)().eval(), time=1.0)


def signature(net: str) -> str:
    """The signature file of one of NETS."""
    _, size, channels, classes = NETS[net]
    shape = f'["batch_size", {channels}, {size}, {size}]'
    text = f'[[inputs]]\nname = "sample"\nshape = {shape}\nrole = "noise"\n'
    if classes:
        text += '[[inputs]]\nname = "class_labels"\nshape = ["batch_size"]\ndtype = "int64"\nrole = "class"\n'
        text += f"high = {classes - 1}\n"
    return text + f'[[outputs]]\nname = "out_sample"\nshape = {shape}\nrole = "signal"\n'


def commands(net: str, runtime: str, folder: Path) -> dict[str, list[str]]:
    (folder / "net.toml").write_text(signature(net))
    source = f"{HERE / 'bench_export_time.py'}:{NETS[net][0]}"
    ours = [sys.executable, "-m", "edgegen", "export", source, "--signature", str(folder / "net.toml")]
    ours += ["--to", runtime, "-o", str(folder / "edgegen"), "--no-measure"]
    theirs = [sys.executable, "-c", PLAIN, str(HERE), net, runtime, str(folder / f"plain{SUFFIXES[runtime]}")]
    return {"plain": theirs, "edgegen": ours}


def bench(net: str, runtime: str, rounds: int) -> dict[str, Any]:
    """The median seconds of both sides; None where a side fails."""
    seconds: dict[str, list[float]] = {"plain": [], "edgegen": []}
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="edgegen-") as folder:
        both = commands(net, runtime, Path(folder))
        paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]  # bench_nets lies beside this file
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        for _ in range(rounds):
            for side in (side for side in both if side not in failures):
                began = time.perf_counter()
                done = subprocess.run(both[side], capture_output=True, text=True, check=False, env=environment)
                seconds[side].append(time.perf_counter() - began)
                if done.returncode:
                    failures[side] = (done.stderr.strip().splitlines() or ["no message"])[-1]
    medians = {side: None if side in failures else statistics.median(times) for side, times in seconds.items()}
    plain_s, ours_s = medians["plain"], medians["edgegen"]
    ratio = None if plain_s is None or ours_s is None else ours_s / plain_s
    return {"net": net, "runtime": runtime, "plain_s": plain_s, "edgegen_s": ours_s, "ratio": ratio, **failures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--json", action="store_true", help="goals and rows on stdout")
    parser.add_argument("--net", action="append", choices=list(NETS), help="only this net; may be given again")
    parser.add_argument("--runtime", action="append", choices=list(SUFFIXES), help="only this; may be given again")
    options = parser.parse_args()
    rows = []
    for net in options.net or NETS:
        for runtime in options.runtime or SUFFIXES:
            rows.append(bench(net, runtime, 1 if options.quick else ROUNDS))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    goals = [
        {
            "name": f"{row['net']}, {row['runtime']}: export time / plain",
            "target": f"<= {LIMIT}",
            "value": row["ratio"],
            "met": row["ratio"] is not None and row["ratio"] <= LIMIT,
        }
        for row in rows
        if row["net"] == "slimflow 15.7 M" and row["plain_s"] is not None
    ]
    if options.json:
        print(json.dumps({"machine": probe(), "goals": goals, "rows": rows}, indent=2))
        return
    print(json.dumps(probe()))
    print("| net | runtime | plain s | edgegen s | ratio |\n|---|---|---|---|---|")
    for row in rows:
        figures = ["fails" if row[key] is None else f"{row[key]:.2f}" for key in ("plain_s", "edgegen_s")]
        print(f"| {row['net']} | {row['runtime']} | {' | '.join(figures)} | {row['ratio'] or 0:.2f} |")
    for goal in goals:
        print(f"{'met    ' if goal['met'] else 'NOT MET'}  {goal['name']}: {goal['value']} (goal {goal['target']})")


if __name__ == "__main__":
    main()
