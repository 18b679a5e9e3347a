"""Trains and saves a network for a stage: calls the loop with what the stage's method needs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from edgegen.formats.signal_units import UNITS
from edgegen.formats.stage_folder import AVERAGE, GENERATOR, VERIFIER
from edgegen.models.generator import ABOUT, LATENTS, SPACE, Loaded
from edgegen.models.load import load as load_generator
from edgegen.models.load import save as save_generator
from edgegen.models.verifier import save as save_verifier
from edgegen.pipeline.conditions import real_inputs
from edgegen.pipeline.graph import Context
from edgegen.pipeline.guided_teacher import network_of
from edgegen.pipeline.methods import BEFORE, OF_PAIRS
from edgegen.pipeline.stages.data import read_training_images, signature_of_data
from edgegen.pipeline.stages.extractor import load_extractor
from edgegen.pipeline.stages.pairs import read_pairs
from edgegen.pipeline.student import new_student, student_to_train
from edgegen.program.inputs import InputSource
from edgegen.recipe import Distill, Finish, Training
from edgegen.support.storage import read_json, save_tensors
from edgegen.training.batch import Examples, FreshInputs, PairsAndImages
from edgegen.training.distributed import accelerator, state
from edgegen.training.loop import fit
from edgegen.training.networks import Fitted
from edgegen.training.objective import Objective, VerifierNetwork
from edgegen.training.stopping import Stopping

RAW = "raw.safetensors"  # the weights of the last step, for further training
FROZEN = {"teacher": ("teacher", "teacher"), "slimmed_network": ("slimmed", "slim")}  # need: name in networks, stage


def first_student(context: Context, seed: int) -> Loaded:
    """The student before its training, with the weights that it starts from."""
    if "teacher" in context.inputs:
        teacher = load_generator(context.inputs["teacher"] / GENERATOR)
        signature = teacher.signature
    else:
        teacher, signature = None, signature_of_data(read_json(context.inputs["data"] / "data.json"))
    return new_student(context.recipe, teacher, signature, base=context.base, seed=seed)


def train(
    context: Context, objective: Objective, student: Loaded, settings: Training, *, stopping: Stopping | None = None
) -> Fitted:
    """Trains the student in place, by a method on the examples that it needs; keeps the verifier of one that has it."""
    compute = context.recipe.compute
    networks = fit(
        objective,
        _examples(context, objective, student, settings),
        student=student.net,
        frozen=_frozen(context, objective, student),
        settings=settings,
        seed=context.seed,
        folder=context.folder,
        accelerator=accelerator(compute.precision),
        progress=context.progress,
        label=context.stage,
        compile=compute.compile,
        stopping=stopping,
    )
    verifier: VerifierNetwork | None = getattr(objective, "verifier", None)
    if verifier is not None and state().is_main_process:
        save_verifier(networks[verifier.name].ema, context.folder / VERIFIER, low=verifier.low, high=verifier.high)
    return networks["student"]


def train_further(context: Context, settings: Distill | Finish, *, role: str, stopping: Stopping | None = None) -> None:
    """Trains the network of the stage before, from its raw weights, and saves it."""
    after = BEFORE[context.stage]
    folder = context.inputs[after]
    student = student_to_train(context.recipe, folder / GENERATOR, folder / RAW, base=context.base)
    fitted = train(context, settings.objective, student, settings, stopping=stopping)
    save(context, fitted, role=role, lineage={after: context.inputs[after].name})


def save(context: Context, fitted: Fitted, *, role: str, lineage: Mapping[str, str]) -> None:
    """Writes the averaged weights as a generator folder; beside it the raw ones, for further training, and averages of
    further widths.
    """
    if not state().is_main_process:
        return
    space = {} if context.recipe.data.autoencoder is None else {SPACE: LATENTS}
    description = {
        "name": context.recipe.name,
        "role": role,
        "lineage": dict(lineage),
        **space,
        **_units(context.inputs),
    }
    save_generator(fitted.ema, context.folder / GENERATOR, about=description)
    save_tensors(context.folder / RAW, dict(fitted.raw.state_dict()))
    for width, average in fitted.others.items():
        save_tensors(context.folder / AVERAGE.format(width), dict(average.state_dict()))


def _units(inputs: Mapping[str, Path]) -> dict[str, Any]:
    """Those of the signals, from data.json or from the network that this one was made of; nothing of images."""
    records = (folder / name for folder in inputs.values() for name in ("data.json", f"{GENERATOR}/{ABOUT}"))
    contents = (read_json(path) for path in records if path.is_file())
    return next(({UNITS: content[UNITS]} for content in contents if UNITS in content), {})


def _examples(context: Context, objective: Objective, student: Loaded, settings: Training) -> Examples:
    pairs = read_pairs(context.inputs["pairs"]) if OF_PAIRS & objective.needs else None
    images = read_training_images(context.inputs["data"]) if "real_images" in objective.needs else None
    if pairs is not None:
        return pairs if images is None else PairsAndImages(pairs, images)
    if images is not None:
        return images
    real = real_inputs(context.inputs, student.signature)
    return FreshInputs(InputSource(student.signature, context.seed, real), settings.steps * settings.batch)


def _frozen(context: Context, objective: Objective, student: Loaded) -> dict[str, nn.Module]:
    networks = {
        name: network_of(context, stage).net for need, (name, stage) in FROZEN.items() if need in objective.needs
    }
    if "earlier_network" in objective.needs:
        networks["earlier"] = network_of(context, BEFORE[context.stage]).net
    if "feature_network" in objective.needs:
        shape = list(student.signature.sample_shape)  # of images: latents have no feature network
        networks["features"] = load_extractor(context.inputs["extractor"], shape).network
    return networks
