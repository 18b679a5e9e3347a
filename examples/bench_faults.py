"""Bench of bad input: over 600 wrong inputs and 2,000 mutants of good files through the command line.

    python examples/bench_faults.py [--quick] [--json] [--seed N] [--jobs N] [--only TEXT] [--faults FILE]

A child process runs many inputs, one after the other, by what the console script calls; it is replaced after a death, a
hang or when it has grown. Each input ends in one of these columns:

    clear           refused with a documented exit code, by one message on stderr
    accepted        exit code 0 where the input may be right: a mutant that no manifest contradicts, an optional file
    wrongly         exit code 0 for what the manual calls wrong, or for a file that differs from its manifest
    other code      refused with another code than the documented one, or without a message
    traceback       an exception that nobody caught, in any thread
    hang            no end within a minute
    over 2 GB       the memory that the main process held, Python and torch included
    death           of the main process, by a signal

`--faults` writes what was wrong with which input (a file for each of `--jobs`); `--quick` takes every tenth input and
leaves the runtimes' files out.
"""

import argparse
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

COLUMNS = ("clear", "accepted", "wrongly", "other code", "traceback", "hang", "over 2 GB", "death")
HANG_S, LOOK_S = 60.0, 0.1
MOST_BYTES, KILL_BYTES = 2 << 30, 4 << 30
GROWN_BYTES, GROWN_CASES = 1300 << 20, 400  # then a fresh child: what earlier inputs left behind is not this one's
LONGEST_MESSAGE = 4000  # without the arguments, which a message may repeat
QUICK_SHARE = 10
MUTANTS, QUICK_MUTANTS = 2000, 100


@dataclass(frozen=True)
class Outcome:
    """One input's column, and what it said."""

    column: str
    said: str
    seconds: float


@dataclass
class Child:
    """The process that runs the inputs."""

    process: "subprocess.Popen[bytes]"
    cases: int = 0

    @staticmethod
    def start() -> "Child":
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        process = subprocess.Popen(
            [sys.executable, __file__, "--child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        return Child(process)

    def run(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """The child's answer; or "ended", with how, where there is none."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.cases += 1
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()
        began = time.monotonic()
        while not select.select([self.process.stdout], [], [], LOOK_S)[0]:
            if time.monotonic() - began > HANG_S:
                return {"ended": "hang"}
            if self._nbytes() > KILL_BYTES:
                return {"ended": "over 2 GB"}
        line = self.process.stdout.readline()
        if not line:
            return {"ended": "death", "how": self.process.wait()}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _nbytes(self) -> int:
        try:
            return int(psutil.Process(self.process.pid).memory_info().rss)
        except psutil.Error:
            return 0

    @property
    def is_spent(self) -> bool:
        return self.cases >= GROWN_CASES or self._nbytes() > GROWN_BYTES

    def close(self) -> None:
        """Ends it and all processes that it started."""
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.Error:
            children = []
        self.process.kill()
        for child in children:
            try:
                child.kill()
            except psutil.Error:
                continue
        self.process.communicate()


def run_here() -> None:
    """The child: lines of orders in, lines of answers out."""
    orders, answers = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    from edgegen.cli.main import main

    for line in orders:
        order = json.loads(line)
        answers.write(json.dumps(_run_one(main, order)) + "\n")
        answers.flush()


def _run_one(main: Any, order: Mapping[str, Any]) -> dict[str, Any]:
    os.chdir(order["folder"])
    variables = dict(os.environ)
    os.environ.update(order["environment"] or {})
    sys.argv = ["edgegen", *order["arguments"]]
    began, kept = time.monotonic(), [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        _forget_peak()
        try:
            main()
            code: Any = 0
        except SystemExit as e:
            code = e.code or 0
        except BaseException:  # noqa: BLE001  what this bench looks for
            traceback.print_exc()
            code = "traceback"
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        err.seek(0)
        said = err.read().decode(errors="replace")
    os.environ.clear()
    os.environ.update(variables)
    return {"code": code, "said": said[-20_000:], "peak": _peak(), "seconds": time.monotonic() - began}


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM to what is held now


def _peak() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def judge(codes: Sequence[int], answer: Mapping[str, Any], arguments: Sequence[str]) -> str:
    """The column of an answer."""
    if "ended" in answer:
        return str(answer["ended"])
    code, said = answer["code"], answer["said"]
    if code == "traceback" or "Traceback (most recent call last)" in said:
        return "traceback"
    if answer["peak"] > MOST_BYTES:
        return "over 2 GB"
    if code == 0:
        return "accepted" if 0 in codes else "wrongly"
    is_clear = ("error: " in said or "Usage: " in said) and len(said) <= LONGEST_MESSAGE + 2 * sum(map(len, arguments))
    return "clear" if code in codes and is_clear else "other code"


@dataclass
class Bench:
    """Runs cases; the counts by kind of input, and what was not as it should be."""

    folder: Path
    child: Child | None = None
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    mutants: int = 0
    faults: list[str] = field(default_factory=list)
    longest: tuple[float, str] = (0.0, "")

    def run(self, case: Any, number: int) -> Outcome:
        place = self.folder / str(number)
        place.mkdir()
        arguments = list(case.write(place))
        if self.child is not None and self.child.is_spent:
            self.close()
        self.child = self.child or Child.start()
        began = time.monotonic()
        order = {"folder": str(place), "arguments": arguments, "environment": case.environment}
        answer = self.child.run(order)
        if "ended" in answer:
            self.close()
        shutil.rmtree(place, ignore_errors=True)
        column, seconds = judge(case.codes, answer, arguments), answer.get("seconds", time.monotonic() - began)
        self.counts.setdefault(case.kind, Counter())[column] += 1
        self.mutants += case.is_mutant
        self.longest = max(self.longest, (seconds, case.name))
        if column not in COLUMNS[:2]:
            shown = " ".join(text if len(text) < 60 else f"{text[:57]}..." for text in arguments)
            end = answer.get("said", "")[-1500:] or answer
            self.faults.append(
                f"{column} ({answer.get('code')}, {seconds:.1f} s): {case.name}\n  edgegen {shown}\n{end}\n"
            )
        return Outcome(column, str(answer.get("said", "")), seconds)

    def close(self) -> None:
        if self.child is not None:
            self.child.close()
            self.child = None


def cases_of(folder: Path, *, quick: bool, seed: int) -> list[Any]:
    """All inputs, or every QUICK_SHARE-th of them without the runtimes' files, by the seed alone."""
    from fault_inputs import hostile_files, wrong_texts
    from fault_subjects import hostile_phones, make_subjects, mutated_documents, wrong_inputs

    subjects = make_subjects(folder, exported=not quick)
    bad: list[Any] = []
    for subject in subjects:
        bad += [] if subject.recorded else hostile_files(subject)
        bad += wrong_texts(subject) if subject.text else []
    bad += [*wrong_inputs(subjects), *hostile_phones()]
    rng = random.Random(seed)
    if quick:
        bad = bad[rng.randrange(QUICK_SHARE) :: QUICK_SHARE]
    cases = [*bad, *mutated_documents(subjects, rng, QUICK_MUTANTS if quick else MUTANTS)]
    rng.shuffle(cases)
    return cases


def run_all(cases: Sequence[Any], folder: Path, *, jobs: int, faults: Path | None) -> Bench:
    """Runs the cases in so many children at once; gives all counts together."""
    total, began = Bench(folder), time.monotonic()

    def share(first: int) -> Bench:
        bench = Bench(folder)
        for number in range(first, len(cases), jobs):
            bench.run(cases[number], number)
            if number % 100 == 99:
                print(f"{number + 1} of {len(cases)}, {time.monotonic() - began:.0f} s", file=sys.stderr)
            if faults is not None:
                faults.with_suffix(f".{first}{faults.suffix}").write_text("\n".join(bench.faults))
        bench.close()
        return bench

    with ThreadPoolExecutor(jobs) as pool:
        for bench in pool.map(share, range(jobs)):
            for kind, counts in bench.counts.items():
                total.counts.setdefault(kind, Counter()).update(counts)
            total.mutants += bench.mutants
            total.longest = max(total.longest, bench.longest)
    return total


def table(bench: Bench) -> Iterator[str]:
    yield f"| input | {' | '.join(COLUMNS)} |"
    yield "|---" * (len(COLUMNS) + 1) + "|"
    for kind, counts in sorted(bench.counts.items()):
        yield f"| {kind} | {' | '.join(str(counts[column] or '') for column in COLUMNS)} |"
    total = sum(bench.counts.values(), Counter())
    yield f"| **all {sum(total.values()):,}** | {' | '.join(f'**{total[column]}**' for column in COLUMNS)} |"


def result(bench: Bench) -> dict[str, Any]:
    """Goals and rows, for --json."""
    total = sum(bench.counts.values(), Counter())
    goals = [{"name": column, "target": 0, "value": total[column], "met": total[column] == 0} for column in COLUMNS[2:]]
    rows = [{"input": kind, **{column: counts[column] for column in COLUMNS}} for kind, counts in bench.counts.items()]
    return {"goals": goals, "rows": rows, "mutants": bench.mutants, "longest_s": round(bench.longest[0], 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", metavar="TEXT", help="inputs whose name or kind has the text in it")
    parser.add_argument("--faults", metavar="FILE", type=Path)
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="inputs at once, each in its own process")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_here()
        return
    with tempfile.TemporaryDirectory(prefix="edgegen-") as folder:
        cases = cases_of(Path(folder) / "good", quick=options.quick, seed=options.seed)
        cases = [case for case in cases if options.only is None or options.only in case.name]
        bench = run_all(cases, Path(folder), jobs=options.jobs, faults=options.faults)
    if options.json:
        print(json.dumps(result(bench), indent=2))
        return
    from edgegen.profilers.devices.host_info import probe

    print("\n".join(table(bench)))
    machine, (seconds, slowest) = probe(), bench.longest
    print(
        f"\n{len(cases):,} inputs, {bench.mutants:,} of them mutants; seed {options.seed}; the longest took "
        f"{seconds:.0f} s ({slowest}); {machine['cpu']}, {machine['os']}, Python {machine['python']}"
    )


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    main()
