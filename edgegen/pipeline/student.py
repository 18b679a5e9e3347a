"""The student of a recipe: a network of the size that it gives, with the weights that its training starts from."""

from pathlib import Path

import torch
from torch import nn

from edgegen.errors import DataError, ExportError, RecipeError
from edgegen.flow.condition import upscale_of
from edgegen.flow.guidance import unconditional_class
from edgegen.models.class_partition import ClassPartition
from edgegen.models.diffusers.unet2d import new_unet2d
from edgegen.models.edge_unet import EdgeUNet
from edgegen.models.generator import Loaded, signature_of
from edgegen.models.load import load as load_generator
from edgegen.models.own_velocity import CapturedVelocity, OwnVelocity, captured, new_own_velocity
from edgegen.models.student import architecture_of, own_parameters, student_architecture
from edgegen.models.weight_selection import select_weights
from edgegen.pipeline.graph import STUDENT_STAGES
from edgegen.pipeline.methods import check_students, further_inputs
from edgegen.program.fold import fold
from edgegen.program.one_step import NOISE_TIME, OneStep
from edgegen.recipe import DIFFUSERS, INITS, Recipe
from edgegen.support.bounded_files import user_path
from edgegen.support.storage import load_tensors
from edgegen.types import Signature


def new_student(recipe: Recipe, teacher: Loaded | None, signature: Signature, *, base: Path, seed: int = 0) -> Loaded:
    """The student before its training, for images and classes of this signature; `teacher` where the plan has one.

    Raises RecipeError for a student that these images or this teacher do not allow, and DataError for a folder of
    `slim.init` that holds another network.
    """
    switches = further_inputs(recipe, *STUDENT_STAGES)
    if isinstance(recipe.slim.network, str):
        if "unconditional" in switches:
            raise RecipeError(
                f"slim.network = '{recipe.slim.network}': a method of the recipe trains without a class as well "
                "(label_dropout), for which the student must be an EdgeUNet; give a table [slim.network]"
            )
        second_time = "second_time" in switches
        student = _named(recipe.slim.network, signature, second_time=second_time, base=base, seed=seed)
    else:
        config = student_architecture(
            recipe.slim,
            None if teacher is None else architecture_of(teacher.net),
            signature,
            parameters=None if teacher is None else own_parameters(teacher.net),
            **switches,
        )
        check_students(recipe, config.num_classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            networks = [EdgeUNet(config) for _ in range(recipe.slim.students)]
        whole = ClassPartition(networks) if len(networks) > 1 else networks[0]
        student = Loaded(whole, signature_of(config), {})
    if recipe.slim.init == "teacher":
        assert teacher is not None, "the plan has one then"
        for network in networks:  # EdgeUNets: the recipe was checked
            select_weights(teacher.net, network)
    elif recipe.slim.init not in INITS:
        _load_weights(student.net, user_path(recipe.slim.init, base=base))
    return student


def student_to_train(recipe: Recipe, folder: Path, raw: Path, *, base: Path) -> Loaded:
    """The student of an earlier stage, with its raw weights, to be trained further."""
    loaded = load_generator(folder)
    network = loaded.net
    if isinstance(network, CapturedVelocity):  # which has lost what only trains, such as dropout
        source, second_time = recipe.slim.network, network.second_time
        assert isinstance(source, str)
        network = new_own_velocity(source, loaded.signature, second_time=second_time, base=base)
    network.load_state_dict(load_tensors(raw))
    return Loaded(network, loaded.signature, {})


def _named(source: str, signature: Signature, *, second_time: bool, base: Path, seed: int) -> Loaded:
    """A student of a diffusers config or a factory, which was seen to take these images and to be exportable."""
    place, _, path = source.partition(":")
    network: nn.Module
    if place == DIFFUSERS:
        if second_time:
            raise RecipeError(
                f"slim.network = '{source}': a method of the recipe needs a second time, which a UNet2DModel does not "
                "take; give an EdgeUNet, or a factory of forward(x, t, condition, r)"
            )
        if upscale_of(signature):
            raise RecipeError(
                f"slim.network = '{source}': with data.upscale the student takes an image beside the noise, which a "
                "UNet2DModel does not; give an EdgeUNet, or a factory of forward(x, t, condition)"
            )
        try:
            network = new_unet2d(user_path(path, base=base), signature, seed=seed)
        except DataError as e:
            raise RecipeError(f"slim.network: {e}") from e
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = new_own_velocity(source, signature, second_time=second_time, base=base)
    try:
        if isinstance(network, OwnVelocity):
            captured(network)
        fold(OneStep(network.eval(), time=NOISE_TIME), signature)
    except ExportError as e:
        raise RecipeError(f"slim.network = '{source}': {e}") from e
    return Loaded(network, signature, {})


def _load_weights(network: nn.Module, folder: Path) -> None:
    """The weights of a generator folder; a second time that its network lacks stays as in a new one.

    Its label that stands for no class is left out where the student has none.
    """
    start = load_generator(folder).net
    weights = start.weights() if isinstance(start, CapturedVelocity) else start.state_dict()
    if unconditional_class(start) is not None and unconditional_class(network) is None:
        weights[CLASSES] = weights[CLASSES][:-1]
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    differing = [name for name in own | given if own.get(name) != given.get(name) and not name.startswith(INTERVAL)]
    if differing:
        name = differing[0]
        raise DataError(
            f"slim.init: {folder} holds another network than the student: {name} is "
            f"{given.get(name, 'absent')} there and {own.get(name, 'absent')} in the student. Needed is a generator of "
            "the same architecture, which slim.network can give"
        )
    network.load_state_dict({name: tensor for name, tensor in weights.items() if name in own}, strict=False)


CLASSES = "conditioning.classes.weight"  # of an EdgeUNet; the last row is the label that stands for no class
INTERVAL = "conditioning.interval."  # an EdgeUNet's branch of the second time, zero at first
