"""Trains and saves a network for a stage: calls the loop with what the stage's method needs."""

from collections.abc import Mapping

from torch import nn

from edgegen.formats.stage_folder import AVERAGE, GENERATOR
from edgegen.models.edge_unet import EdgeUNet
from edgegen.models.generator import save as save_generator
from edgegen.models.generator import signature_of
from edgegen.models.load import load as load_generator
from edgegen.pipeline.graph import Context
from edgegen.pipeline.methods import BEFORE, OF_PAIRS
from edgegen.pipeline.stages.data import read_training_images, signature_of_data
from edgegen.pipeline.stages.extractor import load_extractor
from edgegen.pipeline.stages.pairs import read_pairs
from edgegen.pipeline.student import new_student
from edgegen.program.inputs import InputSource
from edgegen.recipe import Distill, Finish, Training
from edgegen.support.storage import load_tensors, read_json, save_tensors
from edgegen.training.batch import Examples, FreshInputs, PairsAndImages
from edgegen.training.distributed import accelerator, state
from edgegen.training.loop import fit
from edgegen.training.networks import Fitted
from edgegen.training.objective import Objective

FROZEN = {"teacher": ("teacher", "teacher"), "slimmed_network": ("slimmed", "slim")}  # need: name in networks, stage


def first_student(context: Context, seed: int) -> EdgeUNet:
    """The student before its training, with the weights that it starts from."""
    if "teacher" in context.inputs:
        teacher = load_generator(context.inputs["teacher"] / GENERATOR)
        signature = teacher.signature
    else:
        teacher, signature = None, signature_of_data(read_json(context.inputs["data"] / "data.json"))
    student = new_student(context.recipe, teacher, signature, base=context.base, seed=seed).net
    assert isinstance(student, EdgeUNet)
    return student


def train(context: Context, objective: Objective, student: EdgeUNet, settings: Training) -> Fitted:
    """Trains the student in place, by a method on the examples that it needs."""
    compute = context.recipe.compute
    return fit(
        objective,
        _examples(context, objective, student, settings),
        student=student,
        frozen=_frozen(context, objective, student),
        settings=settings,
        seed=context.seed,
        folder=context.folder,
        accelerator=accelerator(compute.precision),
        progress=context.progress,
        label=context.stage,
        compile=compute.compile,
    )["student"]


def train_further(context: Context, settings: Distill | Finish, *, role: str) -> None:
    """Trains the network of the stage before, from its raw weights, and saves it."""
    after = BEFORE[context.stage]
    network = load_generator(context.inputs[after] / GENERATOR).net
    assert isinstance(network, EdgeUNet)
    student = EdgeUNet(network.config)
    student.load_state_dict(load_tensors(context.inputs[after] / "raw.safetensors"))
    fitted = train(context, settings.objective, student, settings)
    save(context, fitted, role=role, lineage={after: context.inputs[after].name})


def save(context: Context, fitted: Fitted, *, role: str, lineage: Mapping[str, str]) -> None:
    """Writes the averaged weights as a generator folder; beside it the raw ones, for further training, and averages of
    further widths.
    """
    if not state().is_main_process:
        return
    raw, ema = fitted.raw, fitted.ema
    assert isinstance(raw, EdgeUNet)
    assert isinstance(ema, EdgeUNet)
    config = {key: value for key, value in ema.config.to_dict().items() if key != "_class_name"}
    description = {"name": context.recipe.name, "role": role, "lineage": dict(lineage), "config": config}
    save_generator(ema, context.folder / GENERATOR, about=description)
    save_tensors(context.folder / "raw.safetensors", dict(raw.state_dict()))
    for width, average in fitted.others.items():
        save_tensors(context.folder / AVERAGE.format(width), dict(average.state_dict()))


def _examples(context: Context, objective: Objective, student: EdgeUNet, settings: Training) -> Examples:
    pairs = read_pairs(context.inputs["pairs"]) if OF_PAIRS & objective.needs else None
    images = read_training_images(context.inputs["data"]) if "real_images" in objective.needs else None
    if pairs is not None:
        return pairs if images is None else PairsAndImages(pairs, images)
    if images is not None:
        return images
    return FreshInputs(InputSource(signature_of(student.config), context.seed), settings.steps * settings.batch)


def _frozen(context: Context, objective: Objective, student: EdgeUNet) -> dict[str, nn.Module]:
    networks = {
        name: load_generator(context.inputs[stage] / GENERATOR).net
        for need, (name, stage) in FROZEN.items()
        if need in objective.needs
    }
    if "earlier_network" in objective.needs:
        networks["earlier"] = load_generator(context.inputs[BEFORE[context.stage]] / GENERATOR).net
    if "feature_network" in objective.needs:
        shape = list(signature_of(student.config).image_shape)
        networks["features"] = load_extractor(context.inputs["extractor"], shape).network
    return networks
