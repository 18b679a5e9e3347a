"""The stage `distill`: flow-guided distillation of the smaller network into one step."""

from edgegen.formats.stage_folder import GENERATOR
from edgegen.models.edge_unet import EdgeUNet
from edgegen.models.load import load as load_generator
from edgegen.pipeline.graph import Context
from edgegen.pipeline.training import _save, _train, read_pairs
from edgegen.support.storage import load_tensors
from edgegen.training.objectives.flow_guided_distillation import FlowGuidedDistillation


def distill(context: Context) -> None:
    """Flow-guided distillation into one step: from the raw weights of slim, guided by its averaged ones."""
    settings = context.recipe.distill
    reflowed = load_generator(context.inputs["slim"] / GENERATOR)
    assert isinstance(reflowed.net, EdgeUNet)
    student = EdgeUNet(reflowed.net.config)
    student.load_state_dict(load_tensors(context.inputs["slim"] / "raw.safetensors"))
    objective = FlowGuidedDistillation(settings.distance, settings.two_step_weight, settings.flip)
    data_set = read_pairs(context.inputs["pairs"])
    fitted = _train(context, objective, data_set, student, settings, frozen={"reflowed": reflowed.net})
    _save(context, fitted, role="student", lineage={"slim": context.inputs["slim"].name})
