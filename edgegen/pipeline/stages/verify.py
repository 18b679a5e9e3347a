"""The stages that make and judge files: export, quantize, verify and profile."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgegen.artifacts.budget import Budgeted
from edgegen.artifacts.relative_latency import Race
from edgegen.artifacts.target import lower_options, runs_here
from edgegen.exporters.base import Session
from edgegen.formats.manifest import MANIFEST, write_manifest
from edgegen.pipeline.files import ARTIFACTS, _folds, _refined, artifacts_of
from edgegen.pipeline.graph import Context, stage_seed
from edgegen.pipeline.stages.evaluate import SHOWN, Judge
from edgegen.program.capture import reference
from edgegen.program.fold import Folds
from edgegen.program.inputs import example_inputs
from edgegen.quantize.budget import Budget
from edgegen.quantize.schemes import QuantizeOptions
from edgegen.recipe import FLOAT_SCHEMES
from edgegen.support.pixels import to_uint8
from edgegen.support.storage import read_json, save_tensors, storage_errors, write_json
from edgegen.types import Artifact, Parity
from edgegen.verification.parity import OUTPUT
from edgegen.verification.verify import Verifier


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
