"""`edgegen tune`: of many files of a generator the one that is the fastest on a device."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgegen.cli.export import (
    InputsOption,
    MemoryOption,
    NameOption,
    RandomWeightsOption,
    RecipeOption,
    SignatureOption,
    SourceArgument,
    YesOption,
    checked_name,
    name_of,
    require_source,
    settings_of,
    target_names,
)
from edgegen.cli.profile import thread_counts
from edgegen.cli.run import JsonOption, is_recipe
from edgegen.cli.terminal import show
from edgegen.errors import UsageError

if TYPE_CHECKING:
    from edgegen.artifacts.target import Target
    from edgegen.recipe import Files

TARGETS = "onnx,onnx:batch1,executorch"
MOST_MINUTES = 1e5
TEXT = f"""Find the file of a generator that is the fastest on a device, and keep it with the evidence.

Of each file of --to, the rewrites that are a matter of speed are switched off or on one at a time, in 8-bit files kinds
of layers are left float, and then all that helped is done together. Every file is compared with PyTorch first, as
`edgegen export` does it, and one that is wrong is never measured. The times are taken in turn on the device, as
`edgegen profile` does it. The fastest is kept where it is surely faster than the first file of --to, which is the
default; manifest.json has all measurements.

Files and measurements stay in FOLDER/candidates: an interrupted search goes on from there, and a further device builds
nothing again. Different schemes (--to onnx,onnx-w8a8) compete as well: what is proven is as true as its scheme asks.

SOURCE is one of `edgegen export`, without recipes: there, tune_on in the table [export] does it.

Example: edgegen tune ./my-unet --device ssh:pi@raspberrypi -o board

  edgegen tune ./my-unet --device adb --to executorch,executorch-w8a8 --threads 1,2,4 -o phone

  edgegen tune ./my-unet --dry-run

Default of --to: {TARGETS}"""


DeviceOption = Annotated[
    str,
    typer.Option("--device", metavar="DEVICE", help="Where: host (default), ssh:USER@HOST, adb[:SERIAL], browser."),
]
ToOption = Annotated[
    str | None,
    typer.Option("--to", metavar="LIST", help="What competes, RUNTIME[-SCHEME][:VARIANT]; the first is the default."),
]
ThreadsOption = Annotated[
    str | None, typer.Option("--threads", metavar="LIST", help="Such as 1,2,4: the best is kept; default 1.")
]
MinutesOption = Annotated[
    float,
    typer.Option("--minutes", metavar="N", min=0.0, max=MOST_MINUTES, help="No new candidate after that; default 20."),
]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Default: tuned/NAME.")]
DryOption = Annotated[bool, typer.Option("--dry-run", help="List the candidates; build nothing.")]


def register(app: typer.Typer) -> None:
    app.command("tune", help=TEXT)(tune)


def tune(
    source: SourceArgument,
    device: DeviceOption = "host",
    to: ToOption = None,
    threads: ThreadsOption = None,
    minutes: MinutesOption = 20.0,
    output: OutputOption = None,
    name: NameOption = None,
    recipe: RecipeOption = None,
    signature: SignatureOption = None,
    inputs: InputsOption = None,
    random_weights: RandomWeightsOption = None,
    memory_limit: MemoryOption = None,
    yes: YesOption = False,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Writes the fastest file, manifest.json and README.md."""
    if math.isnan(minutes):  # which is neither below nor above a bound
        raise UsageError("--minutes nan: give a number of minutes")
    if is_recipe(source):
        raise UsageError(f'{source} is a recipe: write tune_on = "{device}" into its table [export]')
    from edgegen.artifacts.target import checked_targets
    from edgegen.artifacts.tuned_files import Tuning, check_tuning
    from edgegen.recipe import Files, read_files

    files = Files() if recipe is None else read_files(recipe)
    targets = checked_targets(target_names(to, files, default=TARGETS, from_file=recipe is not None), files)
    folder = output or Path("tuned") / (checked_name(name) or name_of(source, signature))
    tuning = Tuning(device, thread_counts(threads), 60 * minutes, one_of_all=True)
    require_source(source, "tune")
    check_tuning(targets, device)
    if dry_run:
        return _print_plan(files, targets, tuning.threads, as_json=as_json)
    from edgegen.artifacts.export import export_source
    from edgegen.artifacts.export_result import raise_failures
    from edgegen.support.progress import progress

    settings = settings_of(files, targets, memory_limit=memory_limit, yes=yes, name=name, inputs=inputs)
    results = export_source(
        source,
        folder,
        replace(settings, measure=False, tuning=tuning),
        signature=signature,
        random_weights=random_weights,
        progress=progress(),
    )
    _print([result.to_dict() for result in results], as_json=as_json)
    raise_failures(results)


def _print_plan(files: "Files", targets: "tuple[Target, ...]", threads: tuple[int, ...], *, as_json: bool) -> None:
    from edgegen.artifacts.tuning import FLOAT, Candidate
    from edgegen.artifacts.tuning_switches import speed_switches
    from edgegen.quantize.layers import LAYER_GROUPS

    plain = [Candidate(target, threads=count) for target in targets for count in threads]
    single = {
        target: [Candidate(target, (switch,)) for switch in speed_switches(target, files.export)] for target in targets
    }
    if as_json:
        candidates = [str(one) for one in plain], [str(one) for changed in single.values() for one in changed]
        print(json.dumps({"default": str(plain[0]), "plain": candidates[0], "changed": candidates[1]}, indent=2))
        return
    show(f"default: {plain[0]}", *(f"beside it: {one}" for one in plain[1:]))
    for target, changed in single.items():
        show(f"{target}, one at a time, with its best number of threads:")
        show(*(f"  {'with' if is_on else 'without'} {name}" for one in changed for name, is_on in one.changes))
        if target.cell().stage == "program":
            show(f"  with {FLOAT}layers of a kind: {', '.join(LAYER_GROUPS)}, as far as the network has them")
    show("then what helped together, and the best of all once more beside the default")


def _print(exported: list[dict[str, Any]], *, as_json: bool) -> None:
    from edgegen.formats.tuned import table

    if as_json:
        print(json.dumps({"tuned": exported}, indent=2))
        return
    for component in exported:
        for row in component["artifacts"]:
            show(*table(row["details"]))
            show("", f"{component['folder']}/{row['file']}: {row['verdict']}")
