"""The stage `report`: results of all stages -> report.json, report.md and one self-contained report.html."""

import platform
from typing import Any

from edgegen.formats.manifest import tool_versions
from edgegen.formats.stage_folder import CHOICE, GENERATOR
from edgegen.formats.tuned import sentence
from edgegen.models.load import load as load_generator
from edgegen.models.macs import macs
from edgegen.models.observed import decoder_in
from edgegen.pipeline.graph import Context, select
from edgegen.pipeline.guided_teacher import network_of
from edgegen.pipeline.methods import student_steps
from edgegen.pipeline.planning import measurement_files
from edgegen.pipeline.stages.evaluate import SHOWN
from edgegen.profilers.importers import read as read_measurements
from edgegen.profilers.schema import read as read_profile
from edgegen.program.parameters import parameter_count
from edgegen.report import write
from edgegen.report.schema import Report
from edgegen.support.schema import utc_now
from edgegen.support.storage import load_tensors, read_json
from edgegen.training.log import LOG, curve, last_warnings, read

TRAINED = ("teacher", "slim", "distill", "finish", "baseline", "extractor")


def report(context: Context) -> None:
    """Collects what the other stages wrote; measures nothing but the nets' multiply-accumulates."""
    recipe, inputs = context.recipe, context.inputs
    about = read_json(inputs["data"] / "data.json")
    stages = {"teacher": "teacher", "student": "choose"}
    nets = {name: load_generator(inputs[stage] / GENERATOR) for name, stage in stages.items() if stage in inputs}
    fold = read_json(inputs["export"] / "fold.json")
    judged = read_json(inputs["evaluate"] / "quality.json")
    choice = read_json(inputs["choose"] / CHOICE)
    content = {
        "schema": "edgegen.report/1",
        "name": recipe.name,
        "created_utc": utc_now(),
        "recipe": recipe.model_dump(mode="json"),
        "recipe_sha256": recipe.sha256(),
        "machine": read_json(inputs["profile"] / "latency.json")["machine"],
        "versions": tool_versions(),
        "data": {key: about[key] for key in ("source", "train", "heldout", "image_shape")}
        | {"classes": about["classes"] if about["num_classes"] else []},
        "parameters": {name: loaded.parameters for name, loaded in nets.items()},
        "macs": {name: macs(network_of(context, stages[name])) for name in nets},
        "fold": {
            "parameters_removed": fold["parameters_before"] - fold["parameters_after"],
            "max_relative_error": fold["max_relative_error"],
        },
        "extractor": _extractor(context),
        "spaces": judged["spaces"],
        "n": judged["n"],
        "n_heldout": judged["n_heldout"],
        "ships": choice["role"],
        "choice": choice["reason"],
        "quality": {"baseline": None, **judged["quality"]},
        **_artifacts(context),
        "profile": read_profile(inputs["profile"] / "profile.json"),
        "elsewhere": [row for path in measurement_files(recipe, context.base) for row in read_measurements(path)],
        "stages": [
            {"name": r.stage, "key": r.key, "seconds": r.seconds, "reused": r.reused} for r in context.results.values()
        ],
        "notes": _notes(context),
    }
    pictures = load_tensors(inputs["evaluate"] / "pictures.safetensors") | load_tensors(
        inputs["verify"] / "pictures.safetensors"
    )
    captions = [about["classes"][i % about["num_classes"]] for i in range(SHOWN)] if about["num_classes"] else []
    write(
        context.folder,
        Report.model_validate(content),
        pictures={name: images.numpy() for name, images in pictures.items()},
        curves={stage: curve(read(inputs[stage] / LOG)) for stage in TRAINED if stage in inputs},
        captions=captions,
    )


def _extractor(context: Context) -> dict[str, Any]:
    facts = read_json(context.inputs["extractor"] / "extractor.json")
    damage = zip(facts["sanity"]["damage"], facts["sanity"]["distances"], strict=True)
    return {key: facts[key] for key in ("name", "fd_name", "accuracy")} | {
        "trained_on": _trained_on_features(context),
        "fault": facts["sanity"]["fault"],
        "damage": [{"noise": noise, "fd_local": distance} for noise, distance in damage],
    }


def _trained_on_features(context: Context) -> list[str]:
    """The stages that trained on the features of fd_local: then it says less than a space that no training used."""
    stages = {stage.name: stage.needs for stage in select(context.recipe)}
    return [name for name in TRAINED if name != "extractor" and "extractor" in stages.get(name, ())]


def _artifacts(context: Context) -> dict[str, Any]:
    latency = read_json(context.inputs["profile"] / "latency.json")
    keys = ("file", "backend", "scheme", "nbytes", "sha256", "engine", "fd_local", "parity", "variant")
    rows = [
        {**{key: row[key] for key in keys}, "latency": latency["artifacts"][row["file"]]}
        for row in read_json(context.inputs["verify"] / "parity.json")["artifacts"]
    ]
    refined = read_json(context.inputs["refine"] / "refine.json")["schemes"] if "refine" in context.inputs else []
    return {"artifacts": rows, "torch_latency": latency["torch"], "refined": refined}


def _notes(context: Context) -> list[str]:
    recipe = context.recipe
    notes = [
        f"fd_local of a file is one noise seed of the {recipe.evaluate.seeds} behind the student's figure.",
    ]
    distance = getattr(recipe.distill.objective, "distance", None)
    if distance is not None:
        notes.append(f"Distillation distance: {distance}.")
    if "baseline" in context.inputs:
        steps = student_steps(recipe)
        notes.append(
            f"baseline: the student's net by plain regression on the same pairs for {sum(steps.values())} steps "
            f"({' + '.join(steps)})."
        )
    trained = [stage for stage in TRAINED if stage in context.inputs]
    notes += [f"Training {stage}: {text}." for stage in trained for text in last_warnings(context.inputs[stage] / LOG)]
    notes += _of_latents(context)
    rows = read_json(context.inputs["verify"] / "parity.json")["artifacts"]
    notes += [f"{row['file']}: {row['details']['caution']}." for row in rows if "caution" in row["details"]]
    notes += [f"{row['file']}: {tuned}." for row in rows if (tuned := sentence(row["details"]))]
    if recipe.quantize.budget:
        broken = [f"{row['file']}: {'; '.join(row['budget'])}" for row in rows if row["budget"]]
        notes.append(
            f"Budget {recipe.quantize.budget}: " + ("; ".join(broken) if broken else "kept by every file") + "."
        )
    if platform.system() != "Darwin" and any("coreml" in name for name in recipe.export.artifacts):
        notes.append("Core ML files were run by edgegen's evaluator; Neural Engine and GPU arithmetic was not checked.")
    return notes


def _of_latents(context: Context) -> list[str]:
    about = read_json(context.inputs["data"] / "data.json")
    decoder = decoder_in(context.inputs["data"])
    if decoder is None:
        return []
    shape, kind = "x".join(map(str, about["sample_shape"])), about["autoencoder"]["kind"]
    return [
        f"The networks make latents of {shape}. Each file holds the decoder of the {kind}, too: "
        f"{parameter_count(decoder):,} parameters, which the figures of the two networks leave out."
    ]
