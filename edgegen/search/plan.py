"""Finds the width and depth of a student that fit a latency budget, measured on the device before any training.

    recipe ── bound (its teacher) ── shapes ──> predict ──> export, measure ──> refit ──┐
                                                   └──────────────<────────────────────┘──> Pareto set, choice, recipe

Latency does not depend on the weights, so they are random. `selection.py` decides what is measured next and what is
chosen; predictions only order the shapes, and every reported number is measured.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgegen.artifacts.target import Target
from edgegen.data import local_path
from edgegen.errors import DeviceError, ParityError, RecipeError, UsageError
from edgegen.formats.recipe_file import find
from edgegen.formats.stage_folder import are_signals, sample_shape
from edgegen.pipeline.graph import check, select
from edgegen.pipeline.methods import has_teacher
from edgegen.pipeline.needed_extras import require_extras
from edgegen.pipeline.run import run_recipe
from edgegen.pipeline.run_folder import RunFolder
from edgegen.profilers.files.profile import connect, runners_of
from edgegen.recipe import Architecture, Recipe, read
from edgegen.search.complexity import DataSpec, complexity_of
from edgegen.search.recipe_edit import is_planned, with_student
from edgegen.search.results import SearchResult, page, recipe_text, search_result
from edgegen.search.selection import Search, ShapeLatency
from edgegen.search.space import shapes
from edgegen.search.trials import AT_ONCE, Trial, Trials, shape_label
from edgegen.support.bounded_files import user_path
from edgegen.support.children import Children
from edgegen.support.progress import Progress
from edgegen.support.storage import read_json, write_bytes, write_json


@dataclass(frozen=True)
class Request:
    """The arguments of `edgegen plan`; `artifact` None takes the recipe's first that runs on the device.

    `output` is the recipe to write, for one budget; None: RECIPE-8ms.toml beside the recipe.
    """

    recipe: str
    budgets_ms: tuple[float, ...]
    device: str = "host"
    artifact: str | None = None
    threads: int = 1
    minutes: float = 10.0
    runs: Path = Path("runs")
    output: Path | None = None
    force: bool = False


def search_students(request: Request, *, progress: Progress) -> SearchResult:
    """Searches; writes plan.json and plan.html into the run folder, and a recipe for each budget that a shape fits.

    Raises UsageError, RecipeError and DataError before any work for a request that cannot be carried out; DeviceError
    where the device is lost or nothing runs there; earlier measurements are kept.
    """
    began = time.monotonic()
    path = find(request.recipe)
    recipe, text = read(path), path.read_text(encoding="utf-8")
    check(recipe, select(recipe))  # whatever would end `edgegen run` later
    require_extras(recipe, select(recipe), base=path.parent)
    outputs = _outputs(request, recipe, path, text)
    data, largest = _bounds(request, recipe, path, progress)
    target, about_device = _target(request, recipe)
    with RunFolder(request.runs / recipe.name).open(recipe.name), Children() as children:
        folder = request.runs / recipe.name / "plan"
        trials = Trials(
            recipe,
            data,
            target,
            request.device,
            about_device,
            request.threads,
            folder=folder,
            children=children,
            progress=progress,
        )
        students = shapes(largest, sliced=recipe.slim.init == "teacher")
        search = Search({shape: complexity_of(shape, data) for shape in students})
        tried = _search(search, trials, request, began=began, progress=progress)
        seconds = time.monotonic() - began
        names = {budget: output.name for budget, output in outputs.items()}
        result = search_result(search, trials, tried, names=names, minutes=request.minutes, seconds=seconds)
        write_json(folder / "plan.json", result.to_json())
        write_bytes(folder / "plan.html", page(result).encode())
        for answer in result.answers:
            if answer.label is not None:
                write_bytes(outputs[answer.budget_ms], recipe_text(text, result, answer).encode())
    return result


def _outputs(request: Request, recipe: Recipe, path: Path, text: str) -> dict[float, Path]:
    """The recipe to be written for each budget. Raises UsageError and RecipeError where it cannot be, before any work.

    Those of a shipped recipe go to the current folder, others beside their recipe: its paths are relative to it.
    """
    shipped = not Path(request.recipe).is_file()
    base = Path() if shipped else path.parent
    outputs = {budget: base / f"{path.stem}-{budget:g}ms.toml" for budget in request.budgets_ms}
    if request.output is not None:
        if len(outputs) > 1:
            raise UsageError(f"-o {request.output} is one recipe, and there are {len(outputs)} budgets: leave it out")
        moved = request.output.resolve().parent != path.resolve().parent
        relative = [name for name in _paths_in(recipe) if not user_path(name).is_absolute()]
        if moved and relative:
            raise UsageError(f"-o {request.output}: '{relative[0]}' is relative to {path.parent}, where it has to stay")
        outputs = {request.budgets_ms[0]: request.output}
    with_student(text, Architecture(), note="")  # raises where the size cannot be replaced
    for output in outputs.values():
        if not output.resolve().parent.is_dir():
            raise UsageError(f"{output}: no folder {output.parent}")
        if output.exists() and not request.force and not _is_unchanged_plan(output):
            raise UsageError(f"{output} exists and is not as edgegen plan wrote it; --force replaces it")
    return outputs


def _paths_in(recipe: Recipe) -> list[str]:
    """The files and folders that a recipe names."""
    source = [recipe.data.source] if local_path(recipe.data.source, base=Path()) is not None else []
    return [*source, *([recipe.teacher.folder] if recipe.teacher.folder else [])]


def _is_unchanged_plan(path: Path) -> bool:
    return path.is_file() and is_planned(path.read_text(encoding="utf-8", errors="replace"))


def _bounds(request: Request, recipe: Recipe, path: Path, progress: Progress) -> tuple[DataSpec, Architecture]:
    """The recipe's data, by its stage data; and its teacher's architecture, or where it has none its [slim.network]."""
    from edgegen.models.student import architecture, architecture_of, student_architecture
    from edgegen.models.teacher_size import teacher_architecture
    from edgegen.pipeline.stages.data import signature_of_data
    from edgegen.pipeline.stages.teacher import load_teacher

    if isinstance(recipe.slim.network, str):
        raise RecipeError(
            f"slim.network = '{recipe.slim.network}': edgegen plan makes EdgeUNets smaller; give slim.keep or a table"
        )
    if recipe.data.upscale:
        raise RecipeError("data.upscale: edgegen plan knows students of noise and a class, none that take an image")
    if recipe.data.autoencoder is not None:
        raise RecipeError(
            "data.autoencoder: edgegen plan times students alone, and the files of this recipe hold a decoder, too; "
            "give [slim.network], and see `edgegen profile` of a run's files"
        )
    stage = run_recipe(request.recipe, runs=request.runs, only="data", progress=progress)[-1]
    about = read_json(stage.folder / "data.json")
    if are_signals(about):
        raise RecipeError(
            f"data.source = '{recipe.data.source}' has signals: edgegen plan knows students of images; give "
            "[slim.network], and see `edgegen profile` of a run's files"
        )
    signature, (channels, height, width) = signature_of_data(about), sample_shape(about)
    data = DataSpec(channels, height if height == width else (height, width), about["num_classes"])
    if recipe.teacher.folder is None:
        model: Architecture | None = teacher_architecture(recipe.teacher, about)
    else:
        loaded = load_teacher(user_path(recipe.teacher.folder, base=path.parent), about, recipe)
        model = architecture_of(loaded.net)
    if model is None or not has_teacher(recipe):
        student_architecture(recipe.slim, None, signature)  # raises without [slim.network]
        assert not isinstance(recipe.slim.network, str), "refused above"
        model = recipe.slim.network
    assert model is not None, "checked"
    architecture(model, signature)  # raises for resolutions that do not halve
    return data, model


def _target(request: Request, recipe: Recipe) -> tuple[Target, Mapping[str, Any]]:
    """The artifact to be measured, and what the device reports about itself. Raises UsageError, DeviceError."""
    listed = [Target.parse(text) for text in recipe.export.artifacts]
    if request.artifact is not None:
        wanted = Target.parse(request.artifact)
        if wanted not in listed:
            names = ", ".join(map(str, listed))
            raise UsageError(f"--artifact {request.artifact}: the recipe's export.artifacts are {names}")
        listed = [wanted]
    device = connect(request.device)
    try:
        about, runners = device.probe(), runners_of(device)
    finally:
        device.close()
    if about["emulated"]:
        raise DeviceError(f"nothing is timed on {device.name}: {about['emulated']} says nothing about a real device")
    reasons = []
    for target in listed:
        reason = _obstacle(target, runners)
        if not reason:
            return target, about
        reasons.append(f"{target}: {reason}")
    raise DeviceError(f"nothing to measure on {device.name}:\n  " + "\n  ".join(reasons))


def _obstacle(target: Target, runners: Mapping[str, str]) -> str:
    """Why a target cannot be measured; "" where it can."""
    suffix = target.kind().suffix
    if target.scheme == "mixed":
        return "the layers that stay float are chosen by the quality that they cost a trained student"
    if target.kind().any_size:
        return "a file for any size has no size at which to measure it"
    if suffix not in runners:
        return f"there is no runner for {suffix} files"
    return runners[suffix].removeprefix("no: ") if runners[suffix].startswith("no: ") else ""


def _search(
    search: Search, trials: Trials, request: Request, *, began: float, progress: Progress
) -> dict[Architecture, Trial]:
    """Measures until nothing promises to be better, or until another round would take too long."""
    tried = {trial.shape: trial for trial in trials.known(list(search.complexities))}
    _add_latencies(search, tried.values())
    progress.message(
        f"{len(search.complexities):,} shapes within the bound, {len(tried)} measured earlier; "
        f"{trials.target} on {request.device}"
    )
    longest_s = 0.0
    while proposed := search.proposals(request.budgets_ms, AT_ONCE):
        started = time.monotonic()
        if search.latencies and started - began + longest_s > 60.0 * request.minutes:
            progress.message(f"the limit of {request.minutes:g} minutes is reached")
            break
        round_trials = trials.measure(proposed)
        tried |= {trial.shape: trial for trial in round_trials}
        _add_latencies(search, round_trials)
        if not search.latencies:
            raise _nothing_measured(round_trials)
        for trial in round_trials:
            known = search.latencies.get(trial.shape)
            outcome = f"p50 {known.p50_ms:.3g} ms" if known else trial.reason
            progress.message(f"  {shape_label(trial.shape)}: {outcome}")
        longest_s = max(longest_s, time.monotonic() - started)
    return tried


def _add_latencies(search: Search, trials: Iterable[Trial]) -> None:
    for trial in trials:
        if trial.result is None or trial.result.latency is None:
            search.failed.add(trial.shape)
            continue
        latency, peak = trial.result.latency, trial.result.peak_rss_bytes
        search.latencies[trial.shape] = ShapeLatency(latency.p50_ms, latency.p50_ci95_ms[1], peak)


def _nothing_measured(trials: Sequence[Trial]) -> DeviceError | ParityError:
    reasons = "\n  ".join(f"{shape_label(trial.shape)}: {trial.reason}" for trial in trials)
    if any(trial.result is not None and trial.result.numerics.passed is False for trial in trials):
        return ParityError(f"no latency for a wrong file:\n  {reasons}")
    return DeviceError(f"none of the first shapes could be measured:\n  {reasons}")
