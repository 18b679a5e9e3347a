"""What the stages that make and judge files share."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from edgegen.artifacts.build import build, unchecked
from edgegen.artifacts.target import Target, lower_options, quantize_options
from edgegen.formats.manifest import MANIFEST, write_manifest
from edgegen.formats.stage_folder import GENERATOR
from edgegen.models.load import load as load_generator
from edgegen.models.sources.program_archive import load_program
from edgegen.pipeline.graph import Context, stage_seed
from edgegen.program.fold import Folds
from edgegen.program.one_step import NOISE_TIME, OneStep
from edgegen.quantize.schemes import QuantizeOptions
from edgegen.support.storage import read_json
from edgegen.types import Artifact

ARTIFACTS = "artifacts"  # in verify's folder: all files of the run, and the manifest with their parity


def _folds(context: Context) -> Folds:
    loaded = load_generator(context.inputs["distill"] / GENERATOR)
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
    write_manifest(context.folder, made, folds.signature, lineage=lineage, parity=unchecked(made))


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
