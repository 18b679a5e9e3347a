"""Bench of measuring: can the figures of `edgegen profile` be believed?

    python examples/bench_profile.py [--quick] [--json]

On SlimFlow's 15.7 M shape with fixed random weights, in onnxruntime and ExecuTorch, on this machine: five `full`
measurements one after the other (`--quick`: three `quick` ones) and how far apart their p50 are; the verdict beside a
busy loop; 20 tries (5) of the same file twice and once 10 % slower by a sleep in its runner, measured in turn and
judged by `edgegen compare`; p50 against a loop around the runtime's API that knows nothing of edgegen; the runners in
C++ against those in Python, in turn; a whole measurement on every device that one machine can have (bench_devices.py);
and the ONNX part of bench_plan.py, three budgets of `edgegen plan`. `--overhead` measures the runners alone.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench_devices
import bench_plan
import numpy as np
from bench_nets import slimflow_cifar10

from edgegen.artifacts.build import build
from edgegen.artifacts.target import Target
from edgegen.profilers.compare import Limit, difference
from edgegen.profilers.devices.device import NONCE, Command
from edgegen.profilers.devices.host import DEVICE, PYTHON_RUNNER
from edgegen.profilers.devices.host_info import probe
from edgegen.profilers.files.check import Check
from edgegen.profilers.files.profile import profile_files
from edgegen.profilers.files.record import measured_file
from edgegen.profilers.files.subject import Placement, place, read_subject
from edgegen.profilers.schema import Profile
from edgegen.profilers.timing.protocol import PROFILES, measure, timed
from edgegen.program.fold import fold
from edgegen.program.one_step import OneStep
from edgegen.support.progress import Silent
from edgegen.types import Signature

TARGETS = ("onnx-fp32", "executorch-fp32")
BUSY = "while True: pass"
PLANTED = 0.10
# The runner, with a sleep after each inference: its share of p50 is known from a measurement before.
SLOW = f"""
import sys, time
sys.path.insert(0, {str(PYTHON_RUNNER.parent)!r})
from python_runner import OnnxModel, serve
class Slow(OnnxModel):
    def infer(self):
        made = super().infer()
        time.sleep(float(sys.argv[3]))
        return made
serve(sys.argv[1], Slow(sys.argv[2]), peak_rss_bytes=lambda: None)
"""
BARE = {
    "onnx": """
import sys, time, json, numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options)
noise = {"sample": np.random.default_rng(0).standard_normal((1, 3, 32, 32), np.float32)}
run = lambda: session.run(None, noise)
""",
    "executorch": """
import sys, time, json, torch
from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
from executorch.runtime import Runtime
_unsafe_reset_threadpool(1)
program = Runtime.get().load_program(sys.argv[1])
method = program.load_method("forward")
noise = [torch.randn(1, 3, 32, 32)]
run = lambda: method.execute(noise)
""",
}
LOOP = """
samples = []
for _ in range(int(sys.argv[2])):
    began = time.perf_counter()
    run()
    samples.append(1e3 * (time.perf_counter() - began))
print(json.dumps(samples[len(samples) // 4:]))
"""

Row = dict[str, Any]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def make_files(folder: Path) -> dict[str, Path]:
    """The files, by target."""
    signature = Signature.of(channels=3, size=32, num_classes=0)
    module = fold(OneStep(slimflow_cifar10(), time=1.0), signature).module
    files = {}
    for text in TARGETS:
        target = Target.parse(text)
        built = build(module, signature, name="slimflow", target=target, folder=folder, seed=1, metadata={})
        files[text] = folder / built.artifact.file
    return files


def measured(path: Path, kind: str) -> Profile:
    return profile_files([path], DEVICE, profile=kind, progress=Silent())


def repeated(name: str, path: Path, times: int, kind: str) -> Row:
    """How far the p50 of runs one after the other are apart; None where one was called noisy."""
    records = [measured(path, kind).results[0] for _ in range(times)]
    p50 = [record.latency.p50_ms for record in records if record.latency is not None]
    reasons = sorted({reason for record in records for reason in record.verdict.reasons})
    spread = (max(p50) - min(p50)) / statistics.median(p50)
    return {"what": f"{times} runs of {name}", "p50_ms": p50, "spread": spread, "noisy": reasons}


def beside_a_busy_loop(name: str, path: Path) -> Row:
    loop = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        (record,) = measured(path, "quick").results
    finally:
        loop.kill()
        loop.wait()
    return {"what": f"{name} beside a busy loop", "verdict": record.verdict.status, "why": list(record.verdict.reasons)}


def in_python(placement: Placement, script: Path = PYTHON_RUNNER, *words: str) -> Placement:
    """The same file in a runner of Python's."""
    command = Command((sys.executable, "-P", str(script), NONCE, str(placement.subject.path), *words))
    return replace(placement, command=command)


def planted(path: Path, tries: int, folder: Path) -> Row:
    """The same file, itself again, and 10 % slower: how often `compare` says what is true."""
    limits = Limit.parse("p50>+5%")
    placement = in_python(place(read_subject(path), DEVICE, folder))
    pair = [placement.job(label, 1) for label in ("before", "same")]
    p50_ms = statistics.median(latency.p50_ms or 0.0 for latency in measure(pair, options=PROFILES["quick"]).values())
    script = folder / "slow.py"
    script.write_text(SLOW)
    slow = in_python(placement, script, str(PLANTED * p50_ms / 1e3))
    right = {"same": 0, "slow": 0}
    changes: dict[str, list[float]] = {"same": [], "slow": []}
    for number in range(tries):
        jobs = [*pair, slow.job("slow", 1)]
        timings, interference = timed(jobs, options=PROFILES["quick"])
        records = {
            timing.job.label: measured_file(Check(placement), 1, timing, interference, target={}) for timing in timings
        }
        for label in right:
            change = difference(label, records["before"], records[label])
            right[label] += bool(change.broken(limits)) == (label == "slow")
            changes[label].append(change.changes["p50"] or 0.0)
        say(f"  try {number + 1}: {changes['same'][-1]:+.1%}, slow {changes['slow'][-1]:+.1%}")
    return {"what": "10 % planted, and nothing", "tries": tries, "right": right, "changes": changes}


def overhead(name: str, path: Path, rounds: int) -> Row:
    """p50 of our runner over that of a bare loop, in turn: the median of the rounds."""
    ratios, runs = [], 60
    for _ in range(rounds):
        script = BARE[name.partition("-")[0]] + LOOP
        done = subprocess.run([sys.executable, "-c", script, str(path), str(runs)], capture_output=True, text=True)
        bare = float(np.median(json.loads(done.stdout.splitlines()[-1])))
        ours = measured(path, "quick").results[0].latency
        assert ours is not None, "it ran before"
        ratios.append(ours.p50_ms / bare)
    return {"what": f"{name}: runner over a bare loop", "ratios": ratios, "ratio": statistics.median(ratios)}


def against_python(name: str, path: Path, rounds: int, folder: Path) -> Row:
    """p50 of the runner in C++ over that of the one in Python, in turn block by block: the median of the rounds."""
    placement = place(read_subject(path), DEVICE, folder)
    jobs = [placement.job("C++", 1), in_python(placement).job("Python", 1)]
    ratios = []
    for _ in range(rounds):
        cpp, python = (latency.p50_ms for latency in measure(jobs, options=PROFILES["quick"]).values())
        assert cpp is not None, "it ran before"
        assert python is not None, "it ran before"
        ratios.append(cpp / python)
    return {"what": f"{name}: C++ over Python", "ratios": ratios, "ratio": statistics.median(ratios)}


def bench(options: argparse.Namespace, folder: Path) -> tuple[list[Row], list[Row]]:
    quick = options.quick
    files, rows, goals = make_files(folder), [], []

    def add(row: Row, name: str, target: str, value: Any, holds: Callable[[Any], bool]) -> None:
        say(json.dumps(row))
        rows.append(row)
        goals.append({"name": name, "target": target, "value": value, "met": value is not None and holds(value)})

    for name, path in files.items():
        say(f"{name}: runners ...")
        row = overhead(name, path, 3 if quick else 5)
        add(row, f"{name}: overhead of the runner", "within 0.02", row["ratio"] - 1, lambda value: abs(value) <= 0.02)
        row = against_python(name, path, 5 if quick else 9, folder)
        add(row, f"{name}: runner in C++ over Python", "<= 0.02", row["ratio"] - 1, lambda value: value <= 0.02)
        if options.overhead:
            continue
        say(f"{name}: repeated ...")
        row = repeated(name, path, 3 if quick else 5, "quick" if quick else "full")
        add(
            row,
            f"{name}: p50 of runs apart, or noisy",
            "<= 0.05",
            row["spread"],
            lambda v, r=row: v <= 0.05 or r["noisy"],
        )
        row = beside_a_busy_loop(name, path)
        add(row, f"{name}: verdict beside a busy loop", "noisy", row["verdict"], lambda value: value == "noisy")
    if options.overhead:
        return rows, goals
    say("planted ...")
    tries = 5 if quick else 20
    row = planted(files["onnx-fp32"], tries, folder)
    add(row, "10 % planted: found", f"{tries} of {tries}", row["right"]["slow"], lambda value: value == tries)
    goals.append(
        {
            "name": "nothing planted: none found",
            "target": f"{tries} of {tries}",
            "value": row["right"]["same"],
            "met": row["right"]["same"] == tries,
        }
    )
    device_rows = bench_devices.bench()
    rows += device_rows
    goals += bench_devices.goals(device_rows)
    say("plan ...")
    plan_rows, plan_goals = bench_plan.bench("onnx-fp32", folder, minutes=2.0 if quick else bench_plan.MINUTES)
    return [*rows, *plan_rows], [*({**goal, "met": bool(goal["met"])} for goal in goals), *plan_goals]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs, in minutes")
    parser.add_argument("--overhead", action="store_true", help="of the runners alone")
    parser.add_argument("--json", action="store_true", help="goals and rows on stdout")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgegen-") as folder:
        rows, goals = bench(options, Path(folder))
    if options.json:
        print(json.dumps({"machine": probe(), "goals": goals, "rows": rows}, indent=2))
        return
    print("| goal | target | value | |\n|---|---|---|---|")
    for goal in goals:
        value = f"{goal['value']:.3f}" if isinstance(goal["value"], float) else goal["value"]
        print(f"| {goal['name']} | {goal['target']} | {value} | {'met' if goal['met'] else 'NOT met'} |")
    machine = probe()
    print(f"\n{machine['cpu']}, {machine['threads']} threads, {machine['os']}")


if __name__ == "__main__":
    main()
