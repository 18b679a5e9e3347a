"""The stages that make and judge files: export, quantize, verify and profile."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgegen.budgeting import Budgeted
from edgegen.build import MANIFEST, build, write_manifest
from edgegen.capture import NOISE_TIME, OneStep, example_inputs, reference
from edgegen.data import to_uint8
from edgegen.folding import Folds
from edgegen.models import folder as generators
from edgegen.models.program_archive import load_program
from edgegen.parity import OUTPUT, Session
from edgegen.pipeline import Context, stage_seed
from edgegen.profilers.host import DEVICE
from edgegen.profilers.jobs import Job
from edgegen.profilers.protocol import ProfileOptions, timed
from edgegen.quantize.budget import Budget
from edgegen.quantize.schemes import QuantizeOptions
from edgegen.racing import Race
from edgegen.recipe import FLOAT_SCHEMES
from edgegen.runs import GENERATOR
from edgegen.stages.evaluation import SHOWN, Judge
from edgegen.storage import read_json, save_tensors, storage_errors, write_json
from edgegen.targets import Target, lower_options, quantize_options, runs_here
from edgegen.types import Artifact, Latency, Parity
from edgegen.verification import Verifier

ARTIFACTS = "artifacts"  # in verify's folder: all files of the run, and the manifest with their parity


def export(context: Context) -> None:
    """The float files, manifest.json, and fold.json: what folding the time removed, and that it changed nothing."""
    proof = {key: value for key, value in vars(_folds(context)()).items() if key != "module"}
    write_json(context.folder / "fold.json", proof)
    _build(context, context.recipe.export.targets(floating=True))


def quantize(context: Context) -> None:
    """The compressed files and manifest.json."""
    _build(context, context.recipe.export.targets(floating=False))


def _folds(context: Context) -> Folds:
    loaded = generators.load(context.inputs["distill"] / GENERATOR)
    return Folds(OneStep(loaded.net, time=NOISE_TIME), loaded.signature)


def _build(context: Context, targets: list[str]) -> None:
    folds, recipe = _folds(context), context.recipe
    lineage = {
        "recipe": recipe.name,
        "recipe_sha256": recipe.sha256(),
        "generator": context.inputs["distill"].name,
        "license": recipe.export.license,
    }
    made: list[Artifact] = []
    with context.progress.task(context.stage, len(targets)) as task:
        for number, text in enumerate(targets):
            task.update(number, text)
            target = Target.parse(text)
            module, numbers = _refined(context, target.scheme)
            artifact = build(
                module or folds(any_size=target.kind().any_size).module,
                folds.signature,
                name=recipe.name,
                target=target,
                folder=context.folder,
                seed=stage_seed(recipe.seed, "quantize"),
                metadata=lineage,
                quantization=numbers,
                options=lower_options(recipe.export),
            ).artifact
            made.append(artifact)
            task.update(number + 1, f"{artifact.file} {artifact.nbytes / 1e6:.2f} MB")
    write_manifest(context.folder, made, folds.signature, lineage=lineage, parity={})


def _refined(context: Context, scheme: str) -> tuple[torch.nn.Module | None, QuantizeOptions]:
    """What the stage `refine` made for a scheme, None where it made nothing; and how its numbers are chosen."""
    numbers = quantize_options(context.recipe.quantize)
    folder = context.inputs.get("refine")
    if folder is None or not (folder / f"{scheme}.pt2").exists():
        return None, numbers
    (row,) = (row for row in read_json(folder / "refine.json")["schemes"] if row["scheme"] == scheme)
    numbers = replace(numbers, float_layers=tuple(row["float_layers"]))
    return load_program(folder / f"{scheme}.pt2").module(check_guards=False), numbers


def artifacts_of(folders: Mapping[str, Path]) -> list[tuple[Artifact, Path]]:
    """The artifacts of the export and quantize stages, each with its file or folder."""
    found: list[tuple[Artifact, Path]] = []
    for stage in ("export", "quantize"):
        for row in read_json(folders[stage] / MANIFEST)["artifacts"]:
            fields = {key: value for key, value in row.items() if key != "parity"}
            found.append((Artifact(**fields), folders[stage] / row["file"]))
    return found


def verify(context: Context) -> None:
    """parity.json, pictures of every file, and a folder with all files and the manifest that says how true they are."""
    recipe = context.recipe
    folds = _folds(context)
    sizes = recipe.export.heights_widths
    check = Verifier(folds, folds.signature, samples=recipe.verify.samples, seed=context.seed, sizes=sizes)
    shown = example_inputs(folds.signature, min(SHOWN, recipe.verify.samples), context.seed)
    judge = Judge(recipe, context.inputs)
    artifacts = artifacts_of(context.inputs)
    budget = None if recipe.quantize.budget is None else Budget.parse(recipe.quantize.budget)
    of_floats = judge.fd_local(_pictures(folds, judge)) if budget and budget.fd_local is not None else None
    parities: dict[str, Parity] = {}
    rows: list[dict[str, Any]] = []
    pictures: dict[str, torch.Tensor] = {}
    with (
        context.progress.task("verify", len(artifacts)) as task,
        tempfile.TemporaryDirectory(prefix="edgegen-") as temporary,
    ):
        budgeted = _budgeted(context, folds, budget, Path(temporary)) if budget else None
        for number, (artifact, path) in enumerate(artifacts):
            fd_local: float | None = None
            parity, session = check(artifact, path)
            if session is not None and parity.psnr_db is not None:  # else its output is no picture
                outputs = session(shown)[OUTPUT]
                pictures[artifact.file] = torch.from_numpy(to_uint8(np.asarray(outputs, np.float32)))
                asked = of_floats is not None and artifact.scheme not in FLOAT_SCHEMES
                if (
                    runs_here(artifact.backend) or asked
                ):  # our evaluator takes minutes for what a runtime does in seconds
                    fd_local = judge.fd_local(_sampled(session, judge))
            parities[artifact.file] = parity
            change = None if fd_local is None or of_floats is None else fd_local / of_floats - 1
            broken = budgeted.broken(artifact, path, parity, fd_change=change) if budgeted else []
            rows.append({**artifact.to_dict(), "fd_local": fd_local, "parity": parity.to_dict(), "budget": broken})
            note = parity.status if parity.psnr_db is None else f"{parity.status}, {parity.psnr_db:.1f} dB"
            task.update(number + 1, f"{artifact.file}: {note}")
    gather(context.folder / ARTIFACTS, artifacts)
    lineage = read_json(context.inputs["export"] / MANIFEST)["lineage"]
    write_manifest(
        context.folder / ARTIFACTS,
        [artifact for artifact, _ in artifacts],
        folds.signature,
        lineage=lineage,
        parity=parities,
    )
    save_tensors(context.folder / "pictures.safetensors", pictures)
    write_json(context.folder / "parity.json", {"samples": recipe.verify.samples, "artifacts": rows})


def _sampled(session: Session, judge: Judge) -> torch.Tensor:
    return torch.from_numpy(np.asarray(session(_judged(judge))[OUTPUT], np.float32))


def _pictures(folds: Folds, judge: Judge) -> torch.Tensor:
    return torch.from_numpy(reference(folds().module, _judged(judge)))


def _judged(judge: Judge) -> dict[str, NDArray[Any]]:
    labels = judge.labels()
    return {"sample": judge.noise(0).numpy()} | ({} if labels is None else {"class_labels": labels.numpy()})


def _budgeted(context: Context, folds: Folds, budget: Budget, temporary: Path) -> Budgeted:
    def ready(scheme: str) -> tuple[torch.nn.Module, QuantizeOptions]:
        module, numbers = _refined(context, scheme)
        return module or folds().module, numbers

    seed = stage_seed(context.recipe.seed, "quantize")
    options = lower_options(context.recipe.export)
    return Budgeted(
        budget,
        folds.signature,
        ready,
        parameters=folds().parameters_after,
        race=Race(folds, folder=temporary, options=options, seed=seed, progress=context.progress),
        seed=seed,
        progress=context.progress,
    )


def gather(target: Path, artifacts: list[tuple[Artifact, Path]]) -> None:
    """All files in one folder: hard links where the file system has them, else copies."""
    with storage_errors(target):
        if target.exists():
            shutil.rmtree(target)
        target.mkdir(parents=True)
        for artifact, path in artifacts:
            if path.is_dir():
                shutil.copytree(path, target / artifact.file)
                continue
            for name in (artifact.file, *artifact.details["extra_files"]):
                try:
                    os.link(path.parent / name, target / name)
                except OSError:
                    shutil.copy2(path.parent / name, target / name)


def profile(context: Context) -> None:
    """latency.json: each file that runs here and is true, the student in PyTorch, and the teacher at many steps.

    samples.json has every warm run of each, in blocks, in the order in which they ran.
    """
    recipe = context.recipe
    statuses = {
        row["file"]: row["parity"]["status"] for row in read_json(context.inputs["verify"] / "parity.json")["artifacts"]
    }
    jobs: list[Job] = []
    latencies: dict[str, Latency] = {}
    for artifact, path in artifacts_of(context.inputs):
        if not runs_here(artifact.backend):
            latencies[artifact.file] = Latency(None, reason="Core ML runs on Apple devices only: not measured here")
        elif statuses[artifact.file] != "ok":
            latencies[artifact.file] = Latency(
                None, reason=f"parity {statuses[artifact.file]}: no latency for a wrong file"
            )
        else:
            arguments = {"backend": artifact.backend, "path": str(path), "manifest": str(path.parent / MANIFEST)}
            jobs.append(Job(artifact.file, "edgegen.openers:artifact", arguments))
    torch_jobs = _torch_jobs(context)
    options = ProfileOptions(
        min_runs=recipe.profile.min_runs,
        max_seconds=recipe.profile.max_seconds,
        cold_starts=recipe.profile.cold_starts,
    )
    machine = DEVICE.probe()
    timings, _ = timed([*jobs, *(job for job, _, _ in torch_jobs)], options=options, progress=context.progress)
    measured = {timing.job.label: timing.latency() for timing in timings}
    latencies |= {job.label: measured[job.label] for job in jobs}
    rows = [
        {"label": job.label, "network": network, "steps": steps, "latency": measured[job.label].to_dict()}
        for job, network, steps in torch_jobs
    ]
    content = {
        "artifacts": {file: latency.to_dict() for file, latency in latencies.items()},
        "torch": rows,
        "machine": machine,
    }
    write_json(context.folder / "latency.json", content)
    samples = {timing.job.label: [block.tolist() for block in timing.blocks] for timing in timings}
    write_json(context.folder / "samples.json", {"blocks_ms": samples})


def _torch_jobs(context: Context) -> list[tuple[Job, str, int]]:
    jobs = []
    for network, stage, steps in (
        ("teacher", "teacher", max(context.recipe.evaluate.steps)),
        ("student", "distill", 1),
    ):
        arguments = {"folder": str(context.inputs[stage] / GENERATOR), "steps": steps}
        label = f"{network} in PyTorch, {steps} step{'s' * (steps > 1)}, 1 thread"
        jobs.append((Job(label, "edgegen.openers:network", arguments, threads=1), network, steps))
    return jobs
