"""The stage `distill`: the student, trained for one step."""

from edgegen.formats.stage_folder import GENERATOR
from edgegen.models.edge_unet import EdgeUNet
from edgegen.models.load import load as load_generator
from edgegen.pipeline.graph import Context
from edgegen.pipeline.training_stage import save, train
from edgegen.support.storage import load_tensors


def distill(context: Context) -> None:
    """A generator folder of the student, which starts from the raw weights of the stage `slim`."""
    settings = context.recipe.distill
    slimmed = load_generator(context.inputs["slim"] / GENERATOR).net
    assert isinstance(slimmed, EdgeUNet)
    student = EdgeUNet(slimmed.config)
    student.load_state_dict(load_tensors(context.inputs["slim"] / "raw.safetensors"))
    fitted = train(context, settings.objective, student, settings)
    save(context, fitted, role="student", lineage={"slim": context.inputs["slim"].name})
