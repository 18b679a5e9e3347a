"""Shared by the stages that make and check files: the student as a generator, and the maker of its files."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgegen.artifacts.build import BuildInput, BuildResult, unchecked
from edgegen.artifacts.maker import Maker
from edgegen.artifacts.target import Target
from edgegen.artifacts.tuned_files import Tuning, tuned_files
from edgegen.errors import EdgegenError
from edgegen.formats.manifest import MANIFEST, write_manifest
from edgegen.formats.stage_folder import GENERATOR
from edgegen.models.load import load as load_generator
from edgegen.models.observed import decoder_in, one_step_generator
from edgegen.models.sources.program_archive import load_program
from edgegen.pipeline.conditions import real_inputs
from edgegen.pipeline.graph import Context, stage_seed
from edgegen.program.generator import Generator, save_program
from edgegen.recipe import Recipe
from edgegen.support.storage import read_json
from edgegen.types import Artifact


def student_of(inputs: Mapping[str, Path]) -> Generator:
    """The generator that a run ships, with its decoder where it makes latents.

    `inputs` has the stage choose, and data where the condition is an image.
    """
    folder = inputs["choose"] / GENERATOR
    loaded = load_generator(folder)
    return one_step_generator(loaded, decoder_in(folder), real=real_inputs(inputs, loaded.signature))


def maker_of(context: Context, generator: Generator, folder: Path) -> Maker:
    """The maker of a recipe's files; programs of the stage `refine` are copied from its folder into `folder`."""
    recipe, inputs, quantization = context.recipe, context.inputs, context.recipe.quantize
    refined: dict[str, BuildInput] = {}

    def refined_for(scheme: str) -> BuildInput | None:
        path = inputs["refine"] / f"{scheme}.pt2" if "refine" in inputs else None
        if path is None or not path.exists():
            return None
        if scheme not in refined:
            (row,) = (row for row in read_json(path.parent / "refine.json")["schemes"] if row["scheme"] == scheme)
            options = quantization.model_copy(update={"float_layers": tuple(row["float_layers"])})
            program = load_program(path)
            saved = save_program(program, folder / path.name)  # children load what this process wrote
            refined[scheme] = BuildInput(saved, program.module(check_guards=False), options)
        return refined[scheme]

    return Maker(
        generator,
        name=recipe.name,
        metadata=lineage_of(recipe, inputs),
        options=recipe.export,
        quantization=quantization,
        refined=refined_for,
        children=context.children,
        seed=stage_seed(recipe.seed, "quantize"),
        progress=context.progress,
    )


def lineage_of(recipe: Recipe, inputs: Mapping[str, Path]) -> dict[str, str]:
    """The recipe, generator and licence that the files of a run come from."""
    return {
        "recipe": recipe.name,
        "recipe_sha256": recipe.sha256(),
        "generator": inputs["choose"].name,
        "license": recipe.export.license,
    }


def make_files(context: Context, maker: Maker, targets: list[str]) -> None:
    """The files of a stage and their manifest. Raises the error of the first file that cannot be made."""
    artifacts: list[Artifact] = []
    with context.progress.task(context.stage, len(targets)) as task:
        for _, result in _made(context, maker, [Target.parse(text) for text in targets]):
            if not isinstance(result, BuildResult):
                raise result
            artifacts.append(result.artifact)
            task.update(len(artifacts), f"{result.artifact.file} {result.artifact.nbytes / 1e6:.2f} MB")
    lineage = lineage_of(context.recipe, context.inputs)
    write_manifest(context.folder, artifacts, maker.generator.signature, lineage=lineage, parity=unchecked(artifacts))


def _made(context: Context, maker: Maker, targets: list[Target]) -> Iterator[tuple[Target, BuildResult | EdgegenError]]:
    """The files, each with the rewrites that are the fastest on `export.tune_on`, where the recipe names a device."""
    device = context.recipe.export.tune_on
    if device is None or not targets:
        yield from maker.make(targets, context.folder)
        return
    inputs = {stage: folder.name for stage, folder in context.inputs.items()}
    candidates = context.folder / "candidates"  # of a run that was killed they are there
    tuning, samples = Tuning(device, folder=candidates), context.recipe.verify.samples
    yield from tuned_files(maker, targets, context.folder, tuning, samples=samples, context={"inputs": inputs})
    shutil.rmtree(candidates, ignore_errors=True)


def artifacts_of(folders: Mapping[str, Path]) -> list[tuple[Artifact, Path]]:
    """The artifacts of the export and quantize stages, each with its file or folder."""
    artifacts: list[tuple[Artifact, Path]] = []
    for stage in ("export", "quantize"):
        for row in read_json(folders[stage] / MANIFEST)["artifacts"]:
            fields = {key: value for key, value in row.items() if key != "parity"}
            artifacts.append((Artifact(**fields), folders[stage] / row["file"]))
    return artifacts
