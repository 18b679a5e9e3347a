"""The stage `quantize`: the compressed files."""

from pathlib import Path

from edgegen.pipeline.files import make_files, maker_of, student_of
from edgegen.pipeline.graph import Context
from edgegen.support.scratch import temporary_folder


def quantize(context: Context) -> None:
    """The compressed files and manifest.json."""
    recipe, generator = context.recipe, student_of(context.inputs)
    with temporary_folder() as temporary:
        maker = maker_of(context, generator, Path(temporary))
        make_files(context, maker, recipe.export.targets(floating=False))
