"""The stage `quantize`: the compressed files."""

from edgegen.pipeline.files import _build
from edgegen.pipeline.graph import Context


def quantize(context: Context) -> None:
    """The compressed files and manifest.json."""
    _build(context, context.recipe.export.targets(floating=False))
