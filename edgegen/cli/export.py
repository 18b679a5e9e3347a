"""`edgegen export`: the files of a generator that exists already, or of a recipe's student."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from edgegen.cli.run import DryOption, ForceOption, JsonOption, RunsOption, carry_out
from edgegen.errors import DataError, UsageError, unknown_name

if TYPE_CHECKING:
    from edgegen.recipe import Method

TARGETS = "onnx,executorch,coreml"
TEXT = """Write ONNX, ExecuTorch and Core ML files, and prove that each computes what PyTorch computes.

SOURCE is a recipe (its student is exported, and what is missing runs before); a generator or diffusers folder with
config.json; a pipeline folder with model_index.json; your own network as package.module:factory or file.py:factory with
--signature; or a .pt2 of torch.export.save.

Example: edgegen export digits

  edgegen export ./my-unet --to onnx,executorch,coreml -o phone

  edgegen export ./config-only --random-weights 0 --to onnx:batch1,executorch:vulkan

  edgegen export net.py:make --signature net.toml --to onnx-fp16,coreml:generate

  edgegen export ./my-unet --to onnx:any_size,coreml:sizes --sizes 64x64,64x96

  edgegen export ./my-unet --to onnx-w8a8,coreml-w4-block --ios 18 --recover 300

  edgegen export ./my-unet --to onnx-mixed,executorch-mixed --budget "psnr>=45\""""


def register(app: typer.Typer) -> None:
    app.command("export", help=TEXT)(export)


def export(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="What to export; see above.")],
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="LIST", help=f"RUNTIME[-SCHEME][:VARIANT], separated by commas. Default: {TARGETS}"
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="DIR", help="Default: exports/NAME.")] = None,
    signature: Annotated[
        Path | None,
        typer.Option("--signature", metavar="FILE", help="TOML: inputs and outputs of a factory or .pt2."),
    ] = None,
    random_weights: Annotated[
        int | None,
        typer.Option("--random-weights", metavar="SEED", min=0, help="Draw the weights: latency before training."),
    ] = None,
    fuse_decoder: Annotated[
        bool, typer.Option("--fuse-decoder", help="A pipeline's denoiser and decoder in one file.")
    ] = False,
    license_name: Annotated[
        str | None, typer.Option("--license", metavar="NAME", help="Written into every file; default: the folder's.")
    ] = None,
    opset: Annotated[int, typer.Option("--opset", min=18, max=24, help="ONNX opset.")] = 18,
    ios: Annotated[str, typer.Option("--ios", metavar="17|18|26", help="Oldest system of the Core ML files.")] = "17",
    generate: Annotated[
        bool, typer.Option("--generate/--no-generate", help="Second method of the .pte: noise to uint8 image.")
    ] = True,
    sizes: Annotated[
        str | None,
        typer.Option("--sizes", metavar="HxW,...", help="Further sizes of the noise that a coreml:sizes file takes."),
    ] = None,
    recover: Annotated[
        int | None,
        typer.Option("--recover", metavar="STEPS", min=1, help="Train the weights of w8a8, w8, w4-block for rounding."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="TEXT", help="Of compressed files, such as psnr>=40,size<=0.3; else exit 5."),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            metavar="LIST",
            help="Done to the weights beforehand: equalization, smoothing, rounding, bias_correction.",
        ),
    ] = None,
    ranges: Annotated[
        str | None,
        typer.Option("--ranges", metavar="NAME", help="Of activations: minmax (default), percentile, mse or entropy."),
    ] = None,
    float_layers: Annotated[
        str | None, typer.Option("--float-layers", metavar="LIST", help="Patterns of layers that stay float.")
    ] = None,
    etrecord: Annotated[bool, typer.Option("--etrecord", help="Write ExecuTorch's profiling record.")] = False,
    memory_limit: Annotated[
        str | None, typer.Option("--memory-limit", metavar="SIZE", help="Of each exporting process, such as 8GB.")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="Host latency of each file.")] = True,
    runs: RunsOption = Path("runs"),
    force: ForceOption = False,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """A recipe goes through its stages; everything else is exported directly."""
    if is_recipe(source):
        given = {"--to": to, "-o": output, "--signature": signature, "--random-weights": random_weights}
        given |= {"--recover": recover, "--budget": budget, "--methods": methods, "--ranges": ranges}
        given |= {"--float-layers": float_layers}
        wrong = [name for name, value in given.items() if value is not None]
        if wrong:
            raise UsageError(f"{wrong[0]} does not go with the recipe {source}: its tables say what is made")
        carry_out(source, runs, to=None, only="export", force=force, dry_run=dry_run, as_json=as_json)
        return
    from edgegen.artifacts.target import Target, check_quantization, check_targets
    from edgegen.exporters.base import LowerOptions
    from edgegen.quantize.budget import Budget
    from edgegen.quantize.schemes import AS_USUAL, QuantizeOptions
    from edgegen.recipe import Recover

    targets = tuple(dict.fromkeys(map(Target.parse, _parts(to or TARGETS))))
    if not targets:
        raise UsageError(f"--to {to!r} names nothing; for example --to {TARGETS}")
    target = f"iOS{ios.lower().removeprefix('ios')}"
    if target not in ("iOS17", "iOS18", "iOS26"):
        raise UsageError(f"--ios {ios}: there are 17, 18 and 26")
    lower = LowerOptions(
        opset=opset,
        coreml_target=target,  # type: ignore[arg-type]
        generate=generate,
        etrecord=etrecord,
        heights_widths=_sizes(sizes),
    )
    check_targets(targets, lower)
    left = _parts(float_layers)
    if float_layers is not None and not left:
        raise UsageError(
            f"--float-layers {float_layers!r} names nothing; for example --float-layers 'net.head,net.up.*'"
        )
    quantization = QuantizeOptions(ranges=ranges or AS_USUAL.ranges, float_layers=left)
    chosen = _methods(methods)
    asked = None if budget is None else Budget.parse(budget)
    if asked is not None and asked.fd_local is not None:
        raise UsageError(f"--budget {budget}: fd_local needs images to compare with, which a recipe has")
    check_quantization(targets, quantization, budget=asked, trains=bool(recover or chosen))
    folder = output or Path("exports") / name_of(source)
    if ":" not in source and not Path(source).exists():
        raise DataError(f"no source {source!r}: nothing is there; see `edgegen export --help`")
    if dry_run:
        _print_plan(folder, [str(one) for one in targets], as_json=as_json)
        return
    from edgegen.artifacts.export import ExportSettings, export_source, raise_failures
    from edgegen.support.progress import progress

    settings = ExportSettings(
        targets,
        lower,
        quantization=quantization,
        methods=chosen,
        recover=None if recover is None else Recover(steps=recover),
        budget=asked,
        license=license_name,
        memory_limit=_bytes(memory_limit),
        measure=measure,
    )
    exported = export_source(
        source,
        folder,
        settings,
        signature=signature,
        random_weights=random_weights,
        fuse_decoder=fuse_decoder,
        progress=progress(),
    )
    _print([one.to_dict() for one in exported], as_json=as_json)
    raise_failures(exported)


def name_of(source: str) -> str:
    """A folder name for what was exported: the last part of the path, or the factory's name."""
    return Path(source).resolve().stem if ":" not in source else source.rpartition(":")[2]


def is_recipe(source: str) -> bool:
    """Whether SOURCE is a recipe's file or the name of one that is shipped; a folder of that name comes first."""
    from edgegen.recipe import shipped

    return not Path(source).is_dir() and (source.endswith(".toml") or source in shipped())


def _parts(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _methods(text: str | None) -> "tuple[Method, ...]":
    """In the order in which they are applied. Raises UsageError for one that does not exist."""
    from edgegen.recipe import Method

    known: tuple[Method, ...] = get_args(Method)
    parts = _parts(text)
    if text is not None and not parts:
        raise UsageError(f"--methods {text!r} names nothing; there are {', '.join(known)}")
    for part in parts:
        if part not in known:
            raise UsageError(unknown_name("method", part, known))
    return tuple(method for method in known if method in parts)


def _sizes(text: str | None) -> tuple[tuple[int, int], ...]:
    """64x64,64x96 -> ((64, 64), (64, 96)), heights first. Raises UsageError."""
    parts = _parts(text)
    found = [re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", part) for part in parts]
    if text is not None and (not parts or not all(found)):
        raise UsageError(f"--sizes {text}: give height x width of the noise, such as 64x64,64x96")
    return tuple((int(one[1]), int(one[2])) for one in found if one)


def _bytes(text: str | None) -> int | None:
    """8GB, 500MB -> bytes. Raises UsageError."""
    if text is None:
        return None
    units = {"GB": 10**9, "MB": 10**6, "GIB": 2**30, "MIB": 2**20}
    number = text.upper().rstrip("GMIB ")
    unit = text.upper()[len(number) :].strip()
    try:
        size = float(number) * units[unit]
    except (KeyError, ValueError) as e:
        raise UsageError(f"--memory-limit {text}: give a size such as 8GB or 500MB") from e
    if not size >= 1:
        raise UsageError(f"--memory-limit {text}: must be more than nothing")
    return int(size)


def _print_plan(folder: Path, targets: list[str], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"folder": str(folder), "targets": targets}, indent=2))
        return
    print(f"into {folder}: {', '.join(targets)}")


def _print(exported: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"exported": exported}, indent=2))
        return
    for one in exported:
        if not one["artifacts"]:
            continue
        print(f"{one['name']}: {one['folder']}")
        for row in one["artifacts"]:
            parity, latency = row["parity"], (row["latency"] or {}).get("p50_ms")
            psnr = "" if parity["psnr_db"] is None else f" {parity['psnr_db']:.1f} dB"
            timed = "" if latency is None else f", p50 {latency:.2f} ms here"
            reason = f" ({parity['reason']})" if parity["reason"] else ""
            print(f"  {row['file']}: {row['nbytes'] / 1e6:.2f} MB, {parity['status']}{psnr}{reason}{timed}")
            if parity["arithmetic"]:
                print(f"    {parity['arithmetic']}")
            if "caution" in row["details"]:
                print(f"    {row['details']['caution']}")
