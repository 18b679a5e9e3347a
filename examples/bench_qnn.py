"""Bench of Snapdragon's NPU without a phone: every family of networks in Qualcomm's compiler and HTP simulator.

    python examples/bench_qnn.py [--quick] [--json] [--net NAME] [--into FILE.json] [--table] [--runs DIR]

Needs the extra [qnn] (Linux on x86-64). Each net in onnx-fp16:qnn, onnx-w8a8:qnn and onnx-w8a16:qnn: nodes that the NPU
takes, of how many; PSNR of four noises' outputs to PyTorch's, the worse of two chips; bytes of the context of
Snapdragon 8 Gen 3; seconds from the captured network to the files, with both compilations. Nets: the tiny
configurations of tests/families.py with random weights, the demo's student (trained, from --runs), SlimFlow's 15.7 M
shape and the 35.7 M ddpm shape with random weights.

Then the forms of edgegen/exporters/onnx/htp_forms.py: a net that needs one, with all of them and without it, against
onnxruntime's CPU. `--quick`: two nets and no forms. `--into FILE.json` keeps the rows of earlier runs;
examples/bench_qnn.json was made so, in parts. `--table`: its Markdown, without measuring. The simulator's time says
nothing about a phone's and is not shown.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from bench_nets import ddpm_cifar10, slimflow_cifar10
from torch import nn

from edgegen.artifacts.export import ExportSettings, export_source
from edgegen.artifacts.target import Target
from edgegen.errors import ExportError
from edgegen.exporters.onnx import htp
from edgegen.exporters.onnx.backend import BACKEND
from edgegen.exporters.onnx.htp_forms import NPU_FORMS
from edgegen.program.inputs import example_inputs
from edgegen.recipe import Export, Quantize
from edgegen.support.progress import Silent
from edgegen.support.storage import write_json
from edgegen.types import Signature
from edgegen.verification.parity import psnr_db

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from families import NETWORKS  # noqa: E402  tests/families.py
from support_table import FAMILIES  # noqa: E402

SCHEMES = ("fp16", "w8a8", "w8a16")
CHIPS = ("8gen3", "8elite")
LARGE = {"slimflow 15.7 M": slimflow_cifar10, "ddpm 35.7 M": ddpm_cifar10}
STUDENT = "demo student, trained"
QUICK = ("edge_unet_class", "sana")
GIVE_UP_DB = -99.0  # in place of a number of an output that is not finite
# By form, a family and a scheme that need it.
NEEDED = {
    "plain_splits": ("sana", "fp32"),
    "filled_pads": ("sana", "fp32"),
    "few_axes": ("flux", "fp32"),
    "plain_mish": ("unet1d_trajectory", "fp32"),
    "longer_convolutions": ("unet1d_trajectory", "fp32"),
    "open_gelus": ("unet1d", "w8a8"),
}


def large(make: Callable[[], nn.Module], folder: Path) -> tuple[str, Path]:
    """A source for `export_source`: the file of a factory, and that of its signature."""
    code = f"import sys\nsys.path.insert(0, {str(HERE)!r})\nfrom bench_nets import {make.__name__} as net\n"
    code += "from edgegen.program.one_step import OneStep\n\n\ndef make():\n    return OneStep(net(), time=1.0)\n"
    (folder / "net.py").write_text(code)
    signature = Signature.of(channels=3, size=32, num_classes=0)
    tables = [("inputs", "noise", signature.inputs[0]), ("outputs", "image", signature.outputs[0])]
    lines = []
    for table, role, spec in tables:
        shape = json.dumps(list(spec.shape))
        lines += [f"[[{table}]]", f'name = "{spec.name}"', f'role = "{role}"', f"shape = {shape}"]
    (folder / "net.toml").write_text("\n".join([*lines, "low = -1.0", "high = 1.0", ""]))
    return f"{folder / 'net.py'}:make", folder / "net.toml"


def source_of(net: str, folder: Path, runs: Path) -> tuple[str, Path | None]:
    if net in LARGE:
        return large(LARGE[net], folder)
    if net == STUDENT:
        found = sorted(runs.glob("*/distill/latest/generator"))
        if not found:
            raise SystemExit(f"no student in {runs}: `edgegen run digits` makes one; or give --runs DIR")
        return str(found[0]), None
    return str(NETWORKS[net](folder / net)), None


def rows_of(net: str, folder: Path, runs: Path) -> Iterator[dict[str, Any]]:
    source, signature = source_of(net, folder, runs)
    for scheme in SCHEMES:
        options = Export(generate=False, chips=CHIPS)
        settings = ExportSettings(
            (Target.parse(f"onnx-{scheme}:qnn"),),
            export=options,
            quantize=Quantize(samples=64),
            measure=False,
            samples=4,
        )
        (done,) = export_source(source, folder / scheme, settings, signature=signature, progress=Silent())
        row: dict[str, Any] = {"net": net, "scheme": scheme}
        for failure in done.failures.values():
            yield row | {"error": str(failure)}
        for built in done.built:
            parity, artifact = done.parity[built.artifact.file], built.artifact
            context = htp.context_of(done.folder / artifact.file, CHIPS[0])
            npu = artifact.details["npu"]
            yield row | {
                "status": parity.status,
                "psnr_db": parity.psnr_db,
                "reason": parity.reason,
                "nodes": npu["nodes"],
                "on_npu": npu["on_npu"],
                "left": npu["left"],
                "context_bytes": context.with_name(f"{context.stem}_qnn.bin").stat().st_size,
                "seconds": round(built.seconds, 1),
            }


def form_row(form: str, folder: Path) -> dict[str, Any]:
    """What the net that needs it gives with all forms, and without this one, against onnxruntime's CPU."""
    family, scheme = NEEDED[form]
    target = Target.parse(f"onnx-{scheme}:batch1")
    settings = ExportSettings((target,), quantize=Quantize(samples=64), measure=False, samples=2)
    (done,) = export_source(str(NETWORKS[family](folder / "net")), folder / "out", settings, progress=Silent())
    file = done.folder / done.built[0].artifact.file
    inputs = example_inputs(done.signature, 1, 0)
    expected = BACKEND.open(file)(inputs)
    row: dict[str, Any] = {"form": form, "net": family, "scheme": scheme}
    for key, left_out in (("with", ""), ("without", form)):
        model = onnx.load(file)
        for name, change in NPU_FORMS.items():
            if name != left_out:
                change(model)
        path = folder / f"{key}.onnx"
        onnx.save(model, path)
        try:
            assignment = htp.compile_contexts(path, CHIPS[:1])
        except ExportError as e:
            row[key] = {"error": str(e)}
            continue
        outputs = htp.open_contexts(path, assignment)(inputs)
        (name,) = expected
        error = psnr_db(expected[name], outputs[name], data_range=float(np.ptp(expected[name])))
        row[key] = {
            "nodes": assignment.nodes,
            "on_npu": assignment.on_npu,
            "psnr_db": error if np.isfinite(error) else GIVE_UP_DB,
        }
    return row


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| net | scheme | nodes on the NPU | dB | context | seconds |", "|---" * 6 + "|"]
    for row in (row for row in rows if "form" not in row):
        if "error" in row:
            lines.append(f"| {row['net']} | {row['scheme']} | not made: {row['error']} | | | |")
            continue
        nodes = f"{row['on_npu']} of {row['nodes']}"
        if row["left"]:
            nodes += f" ({', '.join(f'{name} {why}' for name, why in row['left'].items())})"
        figures = "none" if row["psnr_db"] is None else f"{row['psnr_db']:.1f}"
        figures += "" if row["status"] == "ok" else f" ({row['status']}: {row['reason']})"
        size = f"{row['context_bytes'] / 1e6:.2f} MB"
        lines.append(f"| {row['net']} | {row['scheme']} | {nodes} | {figures} | {size} | {row['seconds']:.0f} |")
    forms = [row for row in rows if "form" in row]
    if forms:
        lines += ["", "| form | net | with it | without it |", "|---" * 4 + "|"]
    for row in forms:
        cells = [_cell(row[key]) for key in ("with", "without")]
        lines.append(f"| {row['form']} | {row['net']} {row['scheme']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(outcome: dict[str, Any]) -> str:
    if "error" in outcome:
        return outcome["error"].split(". ")[0]
    return f"{outcome['on_npu']} of {outcome['nodes']} nodes, {outcome['psnr_db']:.1f} dB"


def goals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made = [row for row in rows if "form" not in row]
    true = [row for row in made if row.get("status") == "ok"]
    whole = [row for row in made if row.get("nodes") and row["nodes"] == row["on_npu"]]
    return [
        {"name": "files that compute what PyTorch does", "target": len(made), "value": len(true)},
        {"name": "files whose every node is the NPU's", "target": len(made), "value": len(whole)},
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two nets, no forms")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--net", action="append", help="one of the nets, or of the forms; can be given several times")
    parser.add_argument("--into", type=Path, help="a JSON file whose rows are kept")
    parser.add_argument("--table", action="store_true", help="print the table of --into and measure nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder with a run of the recipe digits")
    options = parser.parse_args()
    kept = json.loads(options.into.read_text()) if options.into and options.into.exists() else {"rows": []}
    rows: list[dict[str, Any]] = kept["rows"]
    nets = options.net or (QUICK if options.quick else [*FAMILIES, STUDENT, *LARGE, *NEEDED])
    known = {row.get("form", row["net"]) for row in rows}
    for net in nets if not options.table else ():
        if net in known:
            continue
        print(f"{net} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as temporary:
            make = partial(form_row, net) if net in NEEDED else partial(rows_of, net, runs=options.runs)
            outcome = make(folder=Path(temporary))
            rows += [outcome] if isinstance(outcome, dict) else list(outcome)
        if options.into:
            write_json(options.into, {"compiler": f"onnxruntime-qnn {version('onnxruntime-qnn')}", "rows": rows})
    print(json.dumps({"rows": rows, "goals": goals(rows)}, indent=1) if options.json else table(rows))
    if not options.json:
        for goal in goals(rows):
            met = "met" if goal["value"] == goal["target"] else "NOT met"
            print(f"{met}: {goal['name']}: {goal['value']} of {goal['target']}")


if __name__ == "__main__":
    main()
