"""The stage `export`: the float files, and what folding the time removed."""

from edgegen.pipeline.files import _build, _folds
from edgegen.pipeline.graph import Context
from edgegen.support.storage import write_json


def export(context: Context) -> None:
    """The float files, manifest.json, and fold.json: what folding the time removed, and that it changed nothing."""
    proof = {key: value for key, value in vars(_folds(context)()).items() if key != "module"}
    write_json(context.folder / "fold.json", proof)
    _build(context, context.recipe.export.targets(floating=True))
