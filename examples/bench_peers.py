"""Bench of peers: the same networks made and run by edgegen and by others, in one interleaved run at 1 thread.

    python examples/bench_peers.py [--quick] [--json] [--net NAME] [--peer NAME] [--into FILE.json]
                                   [--venvs DIR] [--work DIR] [--table]

Peers: torch.onnx with onnxruntime's own quantization, plain executorch with its XNNPACKQuantizer; with --venvs DIR also
olive, optimum-onnx, ncnn by pnnx, mnn and litert, each in a venv in DIR, made there by pip from pinned versions (some 4
GB, of which most is PyTorch). examples/peers/converters.py says how each is called, examples/peers/runner.py runs
files in a child process for each interpreter. All get the one-step network with its time fixed, batch 1, and the same
calibration noises.

Each round runs every file once, after a run of warm-up, in another order. A row: the file's bytes; PSNR to PyTorch on
the same noises; least and median milliseconds; the median of its processor time over that of edgegen's fp32 ONNX file
in the same round; and over edgegen's best file of the same scheme. Processor time is of all of the process: at 1 thread
it is what a run takes when no other program wants the core. A peer that cannot make or run a net has its error.

`--quick`: the demo's student and the 15.7 M net, fewer rounds. `--into FILE.json` keeps the rows of earlier runs and
makes those nets that it lacks; `--work DIR` keeps the files, so that an interrupted run makes none twice. `--table`
prints the table of --into and measures nothing; examples/bench_peers.json was made in parts.
"""

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import bench_export
import numpy as np
import torch
from bench_export import IMAGE_NETS, LARGE, BenchNet
from bench_nets import slimflow_respelled
from numpy.typing import NDArray

from edgegen.artifacts.build import build
from edgegen.artifacts.target import Target
from edgegen.errors import EdgegenError
from edgegen.profilers.devices.host_info import probe
from edgegen.program.capture import reference
from edgegen.program.fold import fold
from edgegen.program.inputs import CALIBRATION_FIRST, example_inputs, samples_of
from edgegen.program.one_step import OneStep
from edgegen.recipe import Quantize
from edgegen.support.storage import nbytes_of, write_json
from edgegen.verification.parity import psnr_db, psnr_range

HERE = Path(__file__).parent
RESPELLED = "slimflow 15.7 M, respelled"  # for the converters that refuse views of six axes
NETS = {**bench_export.NETS, RESPELLED: replace(bench_export.NETS[LARGE[0]], make=slimflow_respelled)}
SCHEMES = {"fp32": "fp32", "int8": "w8a8"}  # of the bench, and edgegen's name of it
OURS = {"edgegen onnx": "onnx", "edgegen executorch": "executorch"}
REFERENCE = ("edgegen onnx", "fp32")
TORCH = "torch==2.13.0"  # in a step of its own, so that a CPU build at hand is taken
SAMPLES, CALIBRATION = 4, 16
SEED = 0


@dataclass(frozen=True)
class Peer:
    """What runs a peer's files; `packages` of its own venv, after PyTorch if `torch`; none: edgegen's interpreter."""

    runtime: str
    packages: tuple[str, ...] = ()
    torch: bool = True


ONNXRUNTIME = ("onnxruntime==1.32.0", "onnx==1.23.2", "onnxscript==0.7.2")
PEERS = {
    "torch.onnx": Peer("onnx"),
    "executorch": Peer("executorch"),
    "olive": Peer("onnx", ("olive-ai==0.13.0", "requests==2.34.2", *ONNXRUNTIME)),
    "optimum-onnx": Peer("onnx", ("optimum-onnx==0.1.0", *ONNXRUNTIME)),
    "ncnn": Peer("ncnn", ("ncnn==1.0.20261020", "pnnx==20261020", "numpy==2.4.6")),
    "mnn": Peer("mnn", ("MNN==3.6.1", "numpy==2.4.6"), torch=False),
    "litert": Peer("litert", ("litert-torch==0.10.0",)),
}


class Failed(Exception):
    """A peer could not make or run a file: one line."""


@dataclass(frozen=True)
class File:
    """A file in the race: who made it, what runs it."""

    peer: str
    scheme: str
    path: Path
    nbytes: int
    python: str
    runtime: str


class Runner:
    """A child process that holds the files of one runtime: examples/peers/runner.py says what it is told."""

    def __init__(self, python: str, runtime: str, log: Path) -> None:
        self.log: IO[bytes] = log.open("wb")
        self.process = subprocess.Popen(
            [python, str(HERE / "peers" / "runner.py"), runtime, "1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=environment(),
            text=True,
        )

    def ask(self, **order: Any) -> dict[str, Any]:
        """Its answer. Raises Failed with what it says, or with its signal if it is gone."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise Failed(ending(self.process.wait(), Path(self.log.name)))
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            said = last_line(Path(self.log.name))
            raise Failed(f"{answer['error']} ({said})" if said else answer["error"])
        return answer

    def close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout, self.log):
            with contextlib.suppress(BrokenPipeError):  # what a dead one was not told
                if stream is not None:
                    stream.close()
        self.process.wait()


def environment() -> dict[str, str]:
    """One thread, and nothing of edgegen's own path for the peers' interpreters."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "OLIVE_DISABLE_TELEMETRY": "1"}


def ending(code: int, log: Path) -> str:
    how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{how}: {last_line(log)}"


def last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def interpreter(name: str, venvs: Path | None) -> str:
    """The Python of a peer: edgegen's own, or that of its venv, which pip makes first where it is missing."""
    peer = PEERS[name]
    if not peer.packages:
        return sys.executable
    assert venvs is not None, "such peers are left out without --venvs"
    folder = venvs.resolve() / name
    python, done = folder / "bin" / "python", folder / "packages.json"
    wanted = list(peer.packages)
    if not done.is_file() or json.loads(done.read_text()) != wanted:
        print(f"{folder}: pip install {' '.join(wanted)} ...", file=sys.stderr, flush=True)
        steps = [[sys.executable, "-m", "venv", "--clear", str(folder)]]
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        steps += [[*pip, TORCH]] if peer.torch else []
        for step in [*steps, [*pip, *wanted]]:
            subprocess.run(step, check=True, stdout=sys.stderr)
        done.write_text(json.dumps(wanted))
    return str(python)


def prepare(case: BenchNet, folder: Path) -> NDArray[np.float32]:
    """What the converters start from, in `folder`; PyTorch's output for the noises, (samples, ...)."""
    net = case.make().eval().requires_grad_(False)
    module = (OneStep(net, time=1.0) if case.has_time else net).eval()
    inputs = example_inputs(case.signature, SAMPLES, SEED)
    expected = reference(module, inputs)
    if (folder / "inputs.json").is_file():
        return expected
    drawn = samples_of(case.signature, range(CALIBRATION_FIRST, CALIBRATION_FIRST + CALIBRATION), SEED)
    for part, arrays in (("inputs", inputs), ("calibration", drawn)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for name, array in arrays.items():
            np.save(folder / part / f"{name}.npy", array)
    first = tuple(torch.from_numpy(array[:1]) for array in inputs.values())
    program = torch.export.export(module, first)
    torch.export.save(program, folder / "net.pt2")
    torch.jit.trace(module, first, check_trace=False).save(str(folder / "net.pt"))
    names: dict[str, Any] = {"input_names": list(inputs), "output_names": ["out_sample"]}
    torch.onnx.export(module, first, folder / "plain.onnx", dynamo=True, external_data=False, verbose=False, **names)
    write_json(folder / "inputs.json", list(inputs))
    return expected


def our_files(case: BenchNet, folder: Path) -> Iterator[File]:
    """edgegen's, made once in `folder`."""
    made, generator = folder / "edgegen", None
    made.mkdir(exist_ok=True)
    for peer, backend in OURS.items():
        for scheme, cell in SCHEMES.items():
            target = Target(backend, cell)
            path = made / target.file("net")
            if not path.is_file():
                if generator is None:
                    net = case.make().eval().requires_grad_(False)
                    generator = fold(OneStep(net, time=1.0) if case.has_time else net, case.signature).module
                quantization = Quantize(samples=CALIBRATION)
                build(
                    generator,
                    case.signature,
                    name="net",
                    target=target,
                    folder=made,
                    seed=SEED,
                    metadata={},
                    quantization=quantization,
                )
            yield File(peer, scheme, path, nbytes_of(path), sys.executable, backend)


def peer_file(name: str, scheme: str, folder: Path, venvs: Path | None) -> File:
    """A peer's, made once in `folder`. Raises Failed with its error."""
    record, log = folder / f"{name}_{scheme}.json", folder / f"{name}_{scheme}.log"
    python = interpreter(name, venvs)
    if not record.is_file():
        command = [python, str(HERE / "peers" / "converters.py"), name, scheme, str(folder)]
        with log.open("wb") as errors:
            # In the folder: some leave files where they run.
            piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": errors, "cwd": folder}
            done = subprocess.run(command, **piped, env=environment(), check=False)
        if done.returncode:
            raise Failed(ending(done.returncode, log))
        record.write_bytes(done.stdout.splitlines()[-1])
    made = json.loads(record.read_text())
    paths = [folder / part for part in (made["file"], *made["parts"])]
    return File(name, scheme, paths[0], sum(path.stat().st_size for path in paths), python, PEERS[name].runtime)


def bench(net: str, peers: Sequence[str], folder: Path, *, rounds: int, venvs: Path | None) -> list[dict[str, Any]]:
    """The rows of one network: edgegen's files and the peers', raced together."""
    case = NETS[net]
    expected = prepare(case, folder)
    files, rows = list(our_files(case, folder)), []
    for name in peers:
        for scheme in SCHEMES:
            print(f"{net}, {name}, {scheme} ...", file=sys.stderr, flush=True)
            try:
                files.append(peer_file(name, scheme, folder, venvs))
            except Failed as e:
                rows.append({"net": net, "peer": name, "scheme": scheme, "error": str(e)})
    inputs = [str(folder / "inputs" / f"{name}.npy") for name in json.loads((folder / "inputs.json").read_text())]
    runners: list[Runner] = []
    racing: list[tuple[File, Runner, int]] = []
    try:
        for file in files:
            row: dict[str, Any] = {"net": net, "peer": file.peer, "scheme": file.scheme}
            try:
                # One process a file: a runtime that dies takes no other with it.
                runner = Runner(file.python, file.runtime, folder / f"{file.peer}_{file.scheme}_run.log")
                runners.append(runner)
                number = runner.ask(open=str(file.path), inputs=inputs)["file"]
                runner.ask(compute=number, into=str(folder / "out.npy"))
                row["psnr_db"] = _psnr(case, expected, np.load(folder / "out.npy", allow_pickle=False))
                row |= {"bytes": file.nbytes, "operations": runner.ask(operations=number)}
            except Failed as e:
                rows.append(row | {"error": str(e)})
                continue
            rows.append(row)
            racing.append((file, runner, number))
        times = race(racing, rounds)
    finally:
        for runner in runners:
            runner.close()
    for row in rows:
        row |= figures((row["peer"], row["scheme"]), times) if "error" not in row else {}
    return rows


def _psnr(case: BenchNet, expected: NDArray[np.float32], actual: NDArray[Any]) -> float:
    return psnr_db(expected, actual.reshape(expected.shape), data_range=psnr_range(case.signature, expected))


Key = tuple[str, str]  # peer, scheme


def race(racing: Sequence[tuple[File, Runner, int]], rounds: int) -> dict[Key, list[dict[str, float]]]:
    """The times of each file in every round: another order each time, the others wait for orders meanwhile."""
    times: dict[Key, list[dict[str, float]]] = {(file.peer, file.scheme): [] for file, _, _ in racing}
    turns, order = list(racing), random.Random(SEED)
    for _ in range(rounds):
        order.shuffle(turns)
        for file, runner, number in turns:
            times[file.peer, file.scheme].append(runner.ask(time=number))
    return times


def figures(key: Key, times: Mapping[Key, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """Of one file: milliseconds, and ratios of processor time by rounds."""

    def ratio(other: Key) -> float:
        pairs = zip(times[key], times[other], strict=True)
        return statistics.median(a["cpu_ms"] / b["cpu_ms"] for a, b in pairs)

    mine = [(peer, scheme) for peer, scheme in times if peer in OURS and scheme == key[1]]
    best = min(mine, key=lambda other: statistics.median(turn["cpu_ms"] for turn in times[other]))
    return {
        "least_ms": min(turn["ms"] for turn in times[key]),
        "median_ms": statistics.median(turn["ms"] for turn in times[key]),
        "cpu_ms": statistics.median(turn["cpu_ms"] for turn in times[key]),
        "ratio": ratio(REFERENCE),
        "over_best": ratio(best),
        "rounds": len(times[key]),
    }


def goals(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """On the large nets no peer is faster than edgegen's best file of the scheme; a net that was not run: not met."""
    listed = []
    for net in (*LARGE, RESPELLED):
        for scheme in SCHEMES:
            ran = [row for row in rows if (row["net"], row["scheme"]) == (net, scheme) and row["peer"] not in OURS]
            timed = {row["peer"]: row["over_best"] for row in ran if "over_best" in row}
            least = min(timed, key=lambda peer: timed[peer]) if {row["peer"] for row in ran} >= PEERS.keys() else None
            listed.append(
                {
                    "name": f"{net}, {scheme}: fastest peer / edgegen's best" + (f" ({least})" if least else ""),
                    "target": ">= 1",
                    "value": None if least is None else timed[least],
                    "met": least is not None and timed[least] >= 1,
                }
            )
    return listed


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = ("net", "scheme", "made by", "MB", "dB", "processor ms", "/ edgegen's fp32 ONNX")
    lines = ["| " + " | ".join((*columns, "/ edgegen's best of the scheme")) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        head = f"| {row['net']} | {row['scheme']} | {row['peer']} |"
        if "error" in row:
            lines.append(f"{head} {row['error'].replace('|', '/')} |" + " |" * 4)
            continue
        cells = [f"{row['bytes'] / 1e6:.2f}", f"{row['psnr_db']:.1f}"]
        cells += [f"{row[key]:.2f}" for key in ("cpu_ms", "ratio", "over_best")]
        lines.append(f"{head} {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    nets = ["demo student", *LARGE, IMAGE_NETS[0], RESPELLED]
    parser.add_argument("--quick", action="store_true", help="two nets, fewer rounds")
    parser.add_argument("--json", action="store_true", help="goals and rows on stdout")
    parser.add_argument("--net", action="append", choices=list(NETS), help="only this net; may be given again")
    parser.add_argument("--peer", action="append", choices=list(PEERS), help="only this peer; may be given again")
    parser.add_argument("--into", type=Path, metavar="FILE.json", help="keep its rows, and make those that it lacks")
    parser.add_argument("--venvs", type=Path, metavar="DIR", help="folder of the peers' venvs, made where missing")
    parser.add_argument("--work", type=Path, metavar="DIR", help="folder that keeps what was made")
    parser.add_argument("--table", action="store_true", help="print the table of --into and measure nothing")
    options = parser.parse_args()
    peers = [name for name in options.peer or PEERS if options.venvs or not PEERS[name].packages]
    for name in [name for name in options.peer or PEERS if name not in peers]:
        print(f"{name} is left out: it needs --venvs DIR", file=sys.stderr)
    kept = json.loads(options.into.read_text()) if options.into and options.into.is_file() else {}
    rows: list[dict[str, Any]] = kept.get("rows", [])
    machine: dict[str, Any] = kept.get("machine") or probe()
    failures = False
    for net in (options.net or (nets[:2] if options.quick else nets)) if not options.table else ():
        there = {row["peer"] for row in rows if row["net"] == net}
        if there >= {*peers}:
            continue
        rounds = (200 if net == "demo student" else 20) // (2 if options.quick else 1)
        with tempfile.TemporaryDirectory(prefix="edgegen-") as temporary:
            folder = (options.work or Path(temporary)).resolve() / net.replace(" ", "_")
            folder.mkdir(parents=True, exist_ok=True)
            try:
                new = bench(net, peers, folder, rounds=rounds, venvs=options.venvs)
            except (EdgegenError, subprocess.CalledProcessError) as e:
                print(f"{net} failed: {e}", file=sys.stderr, flush=True)
                failures = True
                continue
        names = {(row["net"], row["peer"]) for row in new}
        rows = [row for row in rows if (row["net"], row["peer"]) not in names] + new
        if options.into:
            write_json(options.into, {"machine": machine, "goals": goals(rows), "rows": rows})
    if options.json:
        print(json.dumps({"machine": machine, "goals": goals(rows), "rows": rows}, indent=1))
    else:
        print(json.dumps(machine))
        print(table(rows))
        for goal in goals(rows):
            met = "not run" if goal["value"] is None else "met    " if goal["met"] else "NOT MET"
            value = "" if goal["value"] is None else f": {goal['value']:.2f}"
            print(f"{met}  {goal['name']}{value} (goal {goal['target']})")
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
