"""The student of a recipe: a network of the size that it gives, with the weights that its training starts from."""

from pathlib import Path

import torch
from torch import nn

from edgegen.errors import DataError
from edgegen.models.edge_unet import EdgeUNet
from edgegen.models.generator import Loaded, signature_of
from edgegen.models.load import load as load_generator
from edgegen.models.student import architecture_of, own_parameters, student_architecture
from edgegen.models.weight_selection import select_weights
from edgegen.pipeline.graph import STUDENT_STAGES
from edgegen.pipeline.methods import has_second_time
from edgegen.recipe import INITS, Recipe
from edgegen.support.bounded_files import user_path
from edgegen.types import Signature


def new_student(recipe: Recipe, teacher: Loaded | None, signature: Signature, *, base: Path, seed: int = 0) -> Loaded:
    """The student before its training, for images and classes of this signature; `teacher` where the plan has one.

    Raises RecipeError for a student that these images or this teacher do not allow, and DataError for a folder of
    `slim.init` that holds another network.
    """
    config = student_architecture(
        recipe.slim,
        None if teacher is None else architecture_of(teacher.net),
        list(signature.image_shape),
        signature.num_classes,
        parameters=None if teacher is None else own_parameters(teacher.net),
        second_time=has_second_time(recipe, *STUDENT_STAGES),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = EdgeUNet(config)
    if recipe.slim.init == "teacher":
        assert teacher is not None, "the plan has one then"
        select_weights(teacher.net, network)
    elif recipe.slim.init not in INITS:
        _load_weights(network, user_path(recipe.slim.init, base=base))
    return Loaded(network, signature_of(config), {})


def _load_weights(network: nn.Module, folder: Path) -> None:
    """The weights of a generator folder; a second time that its network lacks stays as in a new one."""
    weights = load_generator(folder).net.state_dict()
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    differing = [name for name in own | given if own.get(name) != given.get(name) and not name.startswith(INTERVAL)]
    if differing:
        name = differing[0]
        raise DataError(
            f"slim.init: {folder} holds another network than the student: {name} is "
            f"{given.get(name, 'absent')} there and {own.get(name, 'absent')} in the student. Needed is a generator of "
            "the same architecture, which slim.model can give"
        )
    network.load_state_dict({name: tensor for name, tensor in weights.items() if name in own}, strict=False)


INTERVAL = "conditioning.interval."  # an EdgeUNet's branch of the second time, zero at first
