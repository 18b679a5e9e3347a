"""The stage `verify`: every file against PyTorch on the same noise, its images, and the recipe's budget."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgegen.artifacts.budget import BudgetCheck
from edgegen.artifacts.model_card import card_row, write_card
from edgegen.artifacts.relative_latency import RelativeLatency
from edgegen.artifacts.target import runs_here
from edgegen.errors import DataError
from edgegen.exporters.base import Session
from edgegen.flow.condition import condition_spec
from edgegen.formats.manifest import MANIFEST, write_manifest
from edgegen.formats.signal_units import UNITS, SignalUnits
from edgegen.formats.stage_folder import ARTIFACTS
from edgegen.pipeline.files import artifacts_of, maker_of, student_of
from edgegen.pipeline.graph import Context, stage_seed
from edgegen.pipeline.stages.evaluate import SHOWN, Judge
from edgegen.pipeline.stored_images import shown
from edgegen.program.capture import reference
from edgegen.program.generator import Generator
from edgegen.program.one_step import NOISE_TIME
from edgegen.quantize.budget import Budget
from edgegen.recipe import FLOAT_SCHEMES
from edgegen.support.scratch import temporary_folder
from edgegen.support.storage import read_json, save_tensors, storage_errors, write_json
from edgegen.types import Artifact, Parity, Signature
from edgegen.verification.parity import OUTPUT
from edgegen.verification.verify import Verifier


@dataclass(frozen=True)
class FileCheck:
    """A file, how true it is, the distance of its images to the real ones (None: not known), and a few of them."""

    artifact: Artifact
    parity: Parity
    fd_local: float | None
    images: torch.Tensor | None


def verify(context: Context) -> None:
    """parity.json, images of every file, and a folder with all files, their manifest and their card."""
    recipe, generator = context.recipe, student_of(context.inputs)
    judge = Judge(recipe, context.inputs)
    artifacts = artifacts_of(context.inputs)
    budget = None if recipe.quantize.budget is None else Budget.parse(recipe.quantize.budget)
    if budget and budget.fd_local is not None and judge.fault:
        raise DataError(f"quantize.budget: fd_local cannot be judged: {judge.fault}; take psnr in its place")
    float_fd = judge.fd_local(_float_images(generator, judge)) if budget and budget.fd_local is not None else None
    checks: list[FileCheck] = []
    rows: list[dict[str, Any]] = []
    with (
        _verifier(context, generator) as verifier,
        context.progress.task("verify", len(artifacts)) as task,
        temporary_folder() as temporary,
    ):
        verifier.prepare()
        budgeted = None if budget is None else _budgeted(context, generator, budget, Path(temporary))
        for number, (artifact, path) in enumerate(artifacts, start=1):
            check = _check(context, artifact, path, verifier, judge, always_fd=float_fd is not None)
            checks.append(check)
            parity, fd_local = check.parity, check.fd_local
            change = None if fd_local is None or float_fd is None else fd_local / float_fd - 1
            broken = budgeted.broken(artifact, path, parity, fd_change=change) if budgeted else []
            rows.append({**artifact.to_dict(), "fd_local": fd_local, "parity": parity.to_dict(), "budget": broken})
            note = parity.status if parity.psnr_db is None else f"{parity.status}, {parity.psnr_db:.1f} dB"
            task.update(number, f"{artifact.file}: {note}")
    gather(context.folder / ARTIFACTS, artifacts)
    class_names, about = _class_names(context, generator), read_json(context.inputs["data"] / "data.json")
    write_manifest(
        context.folder / ARTIFACTS,
        [artifact for artifact, _ in artifacts],
        generator.signature,
        lineage=read_json(context.inputs["export"] / MANIFEST)["lineage"],
        parity={check.artifact.file: check.parity for check in checks},
        class_names=class_names,
        units=SignalUnits.of_record(about, channels=about["image_shape"][0], where="data.json"),
    )
    write_card(context.folder / ARTIFACTS, _card_facts(context, generator, checks, class_names))
    images = {check.artifact.file: check.images for check in checks if check.images is not None}
    save_tensors(context.folder / "pictures.safetensors", images)
    write_json(context.folder / "parity.json", {"samples": recipe.verify.samples, "artifacts": rows})


def _class_names(context: Context, generator: Generator) -> list[str]:
    names: list[str] = read_json(context.inputs["data"] / "data.json")["classes"]
    return names if generator.signature.num_classes else []


def _card_facts(
    context: Context, generator: Generator, checks: Sequence[FileCheck], class_names: Sequence[str]
) -> dict[str, Any]:
    data = read_json(context.inputs["data"] / "data.json")
    decoder = data.get("autoencoder")
    family = "EdgeUNet" + (f" with the decoder of an {decoder['kind']}" if decoder else "")
    about = {"family": family, "from": f"a run of the recipe {context.recipe.name}", "time": NOISE_TIME}
    return {
        "name": context.recipe.name,
        "about": {**about, "license": context.recipe.export.license},
        "signature": generator.signature.to_dict(),
        "fold": {"sentence": generator.folded().sentence()},
        "artifacts": [card_row(check.artifact, check.parity) for check in checks],
        "class_names": class_names,
        UNITS: data.get(UNITS),
    }


def _verifier(context: Context, generator: Generator) -> Verifier:
    recipe = context.recipe
    sizes = recipe.export.heights_widths
    return Verifier(generator, samples=recipe.verify.samples, seed=context.seed, sizes=sizes)


def _check(
    context: Context, artifact: Artifact, path: Path, verifier: Verifier, judge: Judge, *, always_fd: bool
) -> FileCheck:
    parity, session = verifier(artifact, path)
    if session is None or parity.psnr_db is None:  # its output is no image
        return FileCheck(artifact, parity, None, None)
    inputs = verifier.source.examples(min(SHOWN, context.recipe.verify.samples))
    images = shown(torch.from_numpy(np.asarray(session(inputs)[OUTPUT], np.float32)))
    # Our evaluator takes minutes for what a runtime does in seconds.
    is_judged = runs_here(artifact.backend, artifact.variant) or (always_fd and artifact.scheme not in FLOAT_SCHEMES)
    fd_local = judge.fd_local(_images(session, verifier.signature, judge)) if is_judged else None
    return FileCheck(artifact, parity, fd_local, images)


def _images(session: Session, signature: Signature, judge: Judge) -> torch.Tensor:
    return torch.from_numpy(np.asarray(session(_inputs(signature, judge))[OUTPUT], np.float32))


def _float_images(generator: Generator, judge: Judge) -> torch.Tensor:
    return torch.from_numpy(reference(generator.folded().module, _inputs(generator.signature, judge)))


def _inputs(signature: Signature, judge: Judge) -> dict[str, NDArray[Any]]:
    condition, spec = judge.condition(), condition_spec(signature)
    given = {} if condition is None or spec is None else {spec.name: condition.numpy()}
    return {"sample": judge.noise(0).numpy()} | given


def _budgeted(context: Context, generator: Generator, budget: Budget, temporary: Path) -> BudgetCheck:
    recipe, seed = context.recipe, stage_seed(context.recipe.seed, "quantize")
    children, progress = context.children, context.progress
    race = RelativeLatency(
        generator, folder=temporary, options=recipe.export, children=children, seed=seed, progress=progress
    )
    maker = maker_of(context, generator, temporary)
    return BudgetCheck(budget, maker, relative_latency=race, progress=context.progress)


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
