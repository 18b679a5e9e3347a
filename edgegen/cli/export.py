"""`edgegen export`: the files of a generator that exists already, or of a recipe's student."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgegen.cli.run import DryOption, ForceOption, JsonOption, RunsOption, run_if_recipe
from edgegen.cli.terminal import show
from edgegen.errors import DataError, UsageError, unknown_name
from edgegen.support.numbers import LARGEST_WHOLE, number

if TYPE_CHECKING:
    from edgegen.artifacts.export import ExportSettings
    from edgegen.artifacts.real_inputs import InputFiles
    from edgegen.artifacts.target import Target
    from edgegen.recipe import Files

SAFE_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)  # of a folder and files, quoted by no shell
MOST_GB = 1e9
LONGEST_REFINEMENT_S = 600.0  # that starts without --yes
TARGETS = "onnx,executorch,coreml"
TEXT = """Write ONNX, ExecuTorch and Core ML files, and prove that each computes what PyTorch computes.

SOURCE is a recipe (its student is exported, and what is missing runs before); a generator or diffusers folder with
config.json; a pipeline folder with model_index.json; your own network as package.module:factory or file.py:factory with
--signature; or a .pt2 of torch.export.save.

How the files are written and their numbers rounded stands in the tables [export], [quantize] and [recover] of a TOML
file, as in a recipe: opset, coreml_target, heights_widths; methods, float_layers, budget; steps of recovery.

A generator from noise needs no data. A network that takes images, features or latents is calibrated and checked on real
ones of --inputs (or of the table [inputs] of the file, or `samples` in the signature), and else on synthetic ones.

Example: edgegen export digits

  edgegen export ./my-unet --to onnx,executorch,coreml -o phone

  edgegen export ./config-only --random-weights 0 --to onnx:batch1,executorch:vulkan

  edgegen export net.py:make --signature net.toml --to onnx-fp16,coreml:generate

  edgegen export upscale.py:make --signature upscale.toml --inputs photos/ --to onnx-w8a8,executorch-w8a8

  edgegen export ./my-unet --to onnx-w8a8:qnn,onnx-w8a16:qnn --chip 8gen3,8elite

  edgegen export ./my-unet --to onnx-mixed,coreml-w4-block --recipe files.toml"""


SourceArgument = Annotated[str, typer.Argument(metavar="SOURCE", help="What to export; see above.")]
ToOption = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="LIST",
        help=f"RUNTIME[-SCHEME][:VARIANT], separated by commas. Default: export.artifacts of FILE, or {TARGETS}",
    ),
]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", metavar="DIR", help="Default: exports/NAME.")]
NameOption = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="Of the folder in exports and of the files. Default: the source's."),
]
RecipeOption = Annotated[
    Path | None,
    typer.Option("--recipe", metavar="FILE", help="TOML with [export], [quantize], [recover]; or a recipe."),
]
SignatureOption = Annotated[
    Path | None, typer.Option("--signature", metavar="FILE", help="TOML: inputs and outputs of a factory or .pt2.")
]
RandomWeightsOption = Annotated[
    int | None,
    typer.Option(
        "--random-weights", metavar="SEED", min=0, max=LARGEST_WHOLE, help="Draw the weights: latency before training."
    ),
]
FuseOption = Annotated[bool, typer.Option("--fuse-decoder", help="Network and decoder in one file.")]
RecordOption = Annotated[bool, typer.Option("--etrecord", help="Write ExecuTorch's profiling record.")]
ChipOption = Annotated[
    str | None,
    typer.Option("--chip", metavar="LIST", help="Snapdragon chips of onnx-...:qnn files. Default: 8gen3,8elite."),
]
InputsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--inputs",
        metavar="[NAME=]PATH",
        help="Real inputs of a network that takes images, features, ...: a folder or .zip of images, an .npz or "
        ".safetensors. They calibrate and verify.",
    ),
]
MemoryOption = Annotated[
    str | None, typer.Option("--memory-limit", metavar="SIZE", help="Of each exporting process, such as 8GB.")
]
YesOption = Annotated[
    bool, typer.Option("--yes", help="Start learned rounding and recovery that take more than ten minutes.")
]
MeasureOption = Annotated[bool, typer.Option("--measure/--no-measure", help="Host latency of each file.")]


def register(app: typer.Typer) -> None:
    app.command("export", help=TEXT)(export)


def export(
    source: SourceArgument,
    to: ToOption = None,
    output: OutputOption = None,
    name: NameOption = None,
    recipe: RecipeOption = None,
    signature: SignatureOption = None,
    inputs: InputsOption = None,
    random_weights: RandomWeightsOption = None,
    fuse_decoder: FuseOption = False,
    etrecord: RecordOption = False,
    chip: ChipOption = None,
    memory_limit: MemoryOption = None,
    measure: MeasureOption = True,
    yes: YesOption = False,
    runs: RunsOption = Path("runs"),
    force: ForceOption = False,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """A recipe goes through its stages; everything else is exported directly."""
    flags: dict[str, Any] = {"--to": to, "-o": output, "--recipe": recipe, "--signature": signature, "--inputs": inputs}
    flags |= {"--random-weights": random_weights, "--name": name, "--chip": chip}
    options: dict[str, Any] = {"runs": runs, "force": force, "dry_run": dry_run, "as_json": as_json}
    if run_if_recipe(source, "export", flags, why="its tables say what is made", **options):
        return
    from edgegen.recipe import Files, read_files

    files = _with_flags(Files() if recipe is None else read_files(recipe), etrecord=etrecord, chip=chip)
    targets = _targets(to, files, from_file=recipe is not None)
    folder = output or Path("exports") / (checked_name(name) or name_of(source, signature))
    require_source(source, "export")
    if dry_run:
        return _print_plan(folder, [str(target) for target in targets], as_json=as_json)
    from edgegen.artifacts.export import export_source
    from edgegen.artifacts.export_result import raise_failures
    from edgegen.artifacts.tuned_files import Tuning
    from edgegen.support.progress import progress

    settings = settings_of(files, targets, memory_limit=memory_limit, yes=yes, name=name, inputs=inputs)
    tuning = None if files.export.tune_on is None else Tuning(files.export.tune_on)
    results = export_source(
        source,
        folder,
        replace(settings, measure=measure, tuning=tuning),
        signature=signature,
        random_weights=random_weights,
        fuse_decoder=fuse_decoder,
        progress=progress(),
    )
    _print([result.to_dict() for result in results], as_json=as_json)
    raise_failures(results)


def require_source(source: str, command: str) -> None:
    """Raises DataError where nothing is there, before any work."""
    if ":" not in source and not Path(source).exists():
        raise DataError(f"no source {source!r}: nothing is there; see `edgegen {command} --help`")


def settings_of(
    files: "Files",
    targets: "tuple[Target, ...]",
    *,
    memory_limit: str | None,
    yes: bool,
    name: str | None,
    inputs: list[str] | None,
) -> "ExportSettings":
    """What the flags and the tables of a file say. Raises UsageError for a flag that cannot be read."""
    from edgegen.artifacts.export import ExportSettings

    return ExportSettings(
        targets,
        export=files.export,
        quantize=files.quantize,
        recover=files.recover,
        memory_limit=_bytes(memory_limit),
        longest_refinement_s=None if yes else LONGEST_REFINEMENT_S,
        name=name,
        inputs=input_files(inputs, files),
    )


def _with_flags(files: "Files", *, etrecord: bool, chip: str | None) -> "Files":
    """The tables of a file with what the flags say. Raises UsageError for a chip that is not known."""
    changes: dict[str, Any] = {"etrecord": True} if etrecord else {}
    if chip is not None:
        from edgegen.exporters.onnx.chips import CHIPS

        changes["chips"] = tuple(dict.fromkeys(chip.split(",")))
        for name in changes["chips"]:
            if name not in CHIPS:
                raise UsageError(unknown_name("Snapdragon chip", name, CHIPS))
    return files.model_copy(update={"export": files.export.model_copy(update=changes)}) if changes else files


def checked_name(name: str | None) -> str | None:
    if name is not None and not SAFE_NAME.fullmatch(name):
        raise UsageError(f"--name {name!r}: give letters, digits, '.', '_' and '-', the first a letter or digit")
    return name


def _targets(to: str | None, files: "Files", *, from_file: bool) -> "tuple[Target, ...]":
    """Those of --to, or else the file's artifacts. Raises UsageError for one that cannot be made, before any work."""
    from edgegen.artifacts.target import checked_targets

    return checked_targets(target_names(to, files, default=TARGETS, from_file=from_file), files)


def target_names(to: str | None, files: "Files", *, default: str, from_file: bool) -> tuple[str, ...]:
    """Those of --to, or else the file's artifacts, or else the default's. Raises UsageError where --to is empty."""
    file_has_targets = from_file and "artifacts" in files.export.model_fields_set
    names = files.export.artifacts if to is None and file_has_targets else _parts(default if to is None else to)
    if not names:
        raise UsageError(f"--to {to!r} names nothing; for example --to {default}")
    return names


def input_files(texts: list[str] | None, files: "Files") -> "InputFiles | None":
    """Those of --inputs, or else the file's table [inputs]; None: those that the source names. Raises UsageError."""
    from edgegen.artifacts.real_inputs import InputFiles

    if texts:
        return InputFiles.parse(texts)
    return InputFiles({name: Path(path) for name, path in files.inputs.items()}) if files.inputs else None


def name_of(source: str, signature: Path | None) -> str:
    """The name of the output folder: the last part of the path; of a factory its file with the folder that is in, the
    factory, and the signature where it has another name, so that `net.py:make` of two folders are two exports.
    """
    if ":" not in source:
        return Path(source).resolve().stem
    place, _, factory = source.rpartition(":")
    file = Path(place).with_suffix("") if place.endswith(".py") else Path(*place.split("."))
    parts = [file.parent.name, file.name, factory]
    if signature is not None and signature.stem not in (*parts, "signature"):
        parts.append(signature.stem)
    return "-".join(part for part in parts if part.strip("."))


def _parts(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _bytes(text: str | None) -> int | None:
    """8GB, 500MB -> bytes. Raises UsageError."""
    if text is None:
        return None
    units = {"GB": 10**9, "MB": 10**6, "GIB": 2**30, "MIB": 2**20}
    figure = text.upper().rstrip("GMIB ")
    size, unit = number(figure, most=MOST_GB), units.get(text.upper()[len(figure) :].strip())
    if size is None or unit is None:
        raise UsageError(f"--memory-limit {text}: give a size such as 8GB or 500MB")
    if size * unit < 1:
        raise UsageError(f"--memory-limit {text}: must be more than nothing")
    return int(size * unit)


def _print_plan(folder: Path, targets: list[str], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"folder": str(folder), "targets": targets}, indent=2))
        return
    show(f"into {folder}: {', '.join(targets)}")


def _print(exported: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"exported": exported}, indent=2))
        return
    for component in exported:
        if not component["artifacts"]:
            continue
        show(f"{component['name']}: {component['folder']}")
        for note in component["about"]["notes"]:
            show(f"  {note}")
        for row in component["artifacts"]:
            parity, latency = row["parity"], (row["latency"] or {}).get("p50_ms")
            p50 = "" if latency is None else f", p50 {latency:.2f} ms here"
            reason = f" ({parity['reason']})" if parity["reason"] else ""
            show(f"  {row['file']}: {row['nbytes'] / 1e6:.2f} MB, {row['verdict']}{reason}{p50}")
            if parity["arithmetic"]:
                show(f"    {parity['arithmetic']}")
            if "caution" in row["details"]:
                show(f"    {row['details']['caution']}")
