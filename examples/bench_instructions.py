"""Bench of the rewrites on ARM64: the instructions of an inference with and without each, beside the time on x86.

    python examples/bench_instructions.py --fetch --folder FOLDER [--quick] [--json] [--net NAME] [--cell CELL]
                                          [--rewrite NAME]

Instructions, not time: what they cost depends on the processor, and nothing here knows its caches. Every file is made
with all rewrites of its runtime and again without one of them; both run at one thread on an emulated Cortex-A76 (8-bit
dot products, no 8-bit matrix products), whose instructions of one inference are counted by class, and in turn on this
machine. In 8 bits, what becomes a convolution does so before the quantization, in every file: such rewrites have no row
there. `--quick` takes the demo's student alone. Files and counts are kept in FOLDER and found again by the next run.

examples/counting_qemu.py says what `--fetch` builds and downloads; Debian, with `apt install g++ g++-aarch64-linux-gnu
pkg-config libglib2.0-dev`. An inference of the larger nets takes the emulator one to several minutes.
"""

import argparse
import filecmp
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench_arm import NETS, net
from bench_race import measure
from counting_qemu import CountingUserland, Counts, inferences

from edgegen.artifacts.build import build
from edgegen.artifacts.lower import CANONICAL
from edgegen.artifacts.target import Target
from edgegen.profilers.devices.emulator import PROCESSOR
from edgegen.profilers.devices.host_info import probe
from edgegen.profilers.runners import programs, toolchain
from edgegen.profilers.runners.toolchain import called
from edgegen.program.inputs import example_inputs
from edgegen.recipe import Export, Quantize
from edgegen.registry import load
from edgegen.support.extras import version_of

CELLS = ("onnx-fp32", "onnx-w8a8", "executorch-fp32", "executorch-w8a8")
WINOGRAD = "winograd"  # of ONNX files, where it is no rewrite of the program but an option
NEEDED = ("modulated_conv", "batch_chunk", "quantized_cat")  # so that a file can be made or loaded, and not for speed
ROUNDS = 30
SEED = 1
CONTRADICTS = 0.10  # so much more or less on one processor than on the other
MULTIPLIES = ("float_multiply", "dot_product")
MEMORY = ("load", "store", "vector_load", "vector_store")


@dataclass(frozen=True)
class Variant:
    """A file of a network in a cell, without one rewrite, or ("") with all of them."""

    net: str
    cell: str
    without: str

    def folder(self, root: Path) -> Path:
        name = f"without {self.without}" if self.without else "all"
        return root / self.net / self.cell / name


def rewrites_of(cell: str) -> list[str]:
    """Those of a cell that are a matter of speed, and can be left out one by one."""
    runtime, _, scheme = cell.partition("-")
    names = [name for name in load("backend", runtime).rewrites if name not in NEEDED]
    if scheme != "fp32":
        return [name for name in names if name not in (*CANONICAL, "winograd_rows")]
    return [*names, WINOGRAD] if runtime == "onnx" else names


folded = cache(net)  # which takes a while, for every file of a net


def inputs_of(name: str) -> dict[str, Any]:
    return example_inputs(NETS[name][1], 1, SEED)


def file_of(variant: Variant, root: Path) -> Path:
    """The variant's file, made where it is not there."""
    folder, target = variant.folder(root), Target.parse(variant.cell)
    path = folder / target.file("net")
    if not path.exists():
        print(f"{variant} ...", file=sys.stderr, flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        module, signature = folded(variant.net)
        build(
            module,
            signature,
            name="net",
            target=target,
            folder=folder,
            seed=SEED,
            metadata={},
            rewrites=load("backend", target.backend).rewrites,
            quantization=Quantize(samples=1),
            options=Export(rewrites={variant.without: False} if variant.without else {}),
        )
    return path


def counts_of(variant: Variant, root: Path) -> Counts:
    """The instructions of one inference by class, counted where that is not there."""
    noted = variant.folder(root) / "counts.json"
    if not noted.exists():
        path = file_of(variant, root)
        print(f"{variant}: counting ...", file=sys.stderr, flush=True)
        inputs = []
        for name, array in inputs_of(variant.net).items():
            array.tofile(noted.with_name(f"{name}.bin"))
            inputs.append(f"{'x'.join(map(str, array.shape))}:{noted.with_name(f'{name}.bin')}")
        (counts,), _ = inferences(path, inputs)
        noted.write_text(json.dumps(counts))
    found: Counts = json.loads(noted.read_text())
    return found


def times_of(variants: list[Variant], root: Path) -> list[list[float]]:
    """Milliseconds of this machine's processor for each, in turn, at one thread."""
    inputs = list(inputs_of(variants[0].net).values())
    runtime = variants[0].cell.partition("-")[0]
    files = [(file_of(variant, root), inputs) for variant in variants]
    return measure(runtime, files, threads=1, rounds=ROUNDS, processor_time=True)


def rows_of(name: str, cell: str, root: Path, chosen: list[str] | None) -> Iterator[dict[str, Any]]:
    """A row for the file with all rewrites, and one for each rewrite that changes it."""
    every = Variant(name, cell, "")
    whole = file_of(every, root)
    rewrites = [rewrite for rewrite in rewrites_of(cell) if chosen is None or rewrite in chosen]
    others = [Variant(name, cell, rewrite) for rewrite in rewrites]
    changed = [other for other in others if not filecmp.cmp(whole, file_of(other, root), shallow=False)]
    base = counts_of(every, root)
    counts = [counts_of(other, root) for other in changed]
    times = times_of([every, *changed], root)
    shared = {"net": name, "cell": cell}
    yield {**shared, "rewrite": None, "counts": base, "host_ms": statistics.median(times[0])}
    for variant, without, there in zip(changed, counts, times[1:], strict=False):
        arm = sum(base.values()) / sum(without.values())
        host = statistics.median(a / b for a, b in zip(times[0], there, strict=True))
        yield {
            **shared,
            "rewrite": variant.without,
            "counts_without": without,
            "instructions_with_over_without": arm,
            "host_time_with_over_without": host,
            "contradicts": contradicts(arm, host),
        }
    same = [other.without for other in others if other not in changed]
    yield from ({**shared, "rewrite": rewrite, "changes_nothing": True} for rewrite in same)


def contradicts(arm: float, host: float) -> bool:
    """Whether a rewrite that pays here costs a tenth more instructions on ARM, or the other way round."""
    return (arm > 1 + CONTRADICTS and host < 1) or (arm < 1 - CONTRADICTS and host > 1)


def table(rows: list[dict[str, Any]]) -> str:
    columns = ("net", "cell", "instructions, M", "multiplies", "other vector, float", "memory", "integer, branches")
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in [row for row in rows if row["rewrite"] is None]:
        lines.append("| " + " | ".join([row["net"], row["cell"], *shares(row["counts"])]) + " |")
    columns = (
        "net",
        "cell",
        "rewrite",
        "instructions with / without",
        "multiplies",
        "memory",
        "time here with / without",
    )
    lines += ["", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    whole = {(row["net"], row["cell"]): row["counts"] for row in rows if row["rewrite"] is None}
    for row in [row for row in rows if "counts_without" in row]:
        base, without = whole[row["net"], row["cell"]], row["counts_without"]
        ratios = [row["instructions_with_over_without"], *(ratio(base, without, part) for part in (MULTIPLIES, MEMORY))]
        cells = [*(f"{value:.3f}" for value in ratios), f"{row['host_time_with_over_without']:.3f}"]
        lines.append("| " + " | ".join([row["net"], row["cell"], row["rewrite"], *cells]) + " |")
    for row in [row for row in rows if row.get("changes_nothing")]:
        lines.append(f"{row['net']}, {row['cell']}: {row['rewrite']} changes nothing")
    against = [f"{row['net']}, {row['cell']}, {row['rewrite']}" for row in rows if row.get("contradicts")]
    return "\n".join([*lines, "", f"ARM64's instructions contradict the time here: {'; '.join(against) or 'nowhere'}"])


def ratio(base: Counts, without: Counts, names: tuple[str, ...]) -> float:
    return sum(base[name] for name in names) / max(1, sum(without[name] for name in names))


def shares(counts: Counts) -> list[str]:
    """The total in millions, and the shares of groups of classes."""
    total = sum(counts.values())
    groups = (MULTIPLIES, ("other_vector", "scalar_float"), MEMORY, ("integer", "branch", "system"))
    return [f"{total / 1e6:.1f}", *(f"{sum(counts[name] for name in names) / total:.0%}" for names in groups)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where files and counts are kept")
    parser.add_argument("--fetch", action="store_true", help="download and build what is missing")
    parser.add_argument("--quick", action="store_true", help="the demo's student alone")
    parser.add_argument("--json", action="store_true", help="rows as JSON on stdout")
    parser.add_argument("--net", action="append", choices=NETS, help="only this net; may be given again")
    parser.add_argument("--cell", action="append", choices=CELLS, help="only this cell; may be given again")
    rewrites = sorted({rewrite for cell in CELLS for rewrite in rewrites_of(cell)})
    parser.add_argument("--rewrite", action="append", choices=rewrites, help="only this rewrite; may be given again")
    options = parser.parse_args()
    userland = CountingUserland()
    if options.fetch:
        programs.fetch(toolchain.ARM64)
        userland.fetch()
    elif not userland.ready:
        raise SystemExit(f"no emulator that counts in {userland.built}: give --fetch to build it")
    rows: list[dict[str, Any]] = []
    for name in options.net or list(NETS)[: 1 if options.quick else None]:
        for cell in options.cell or CELLS:
            rows += rows_of(name, cell, options.folder, options.rewrite)
    if options.json:
        emulator = called(userland.qemu, "--version").splitlines()[0]
        runtimes = {name: version_of(name) for name in ("onnxruntime", "executorch")}
        about = {"machine": probe(), "processor": PROCESSOR, "emulator": emulator, "runtimes": runtimes}
        print(json.dumps({**about, "rows": rows}, indent=2))
    else:
        print(table(rows))


if __name__ == "__main__":
    main()
