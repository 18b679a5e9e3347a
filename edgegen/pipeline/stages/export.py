"""The stage `export`: the float files, and what folding the time removed."""

from pathlib import Path

from edgegen.pipeline.files import make_files, maker_of, student_of
from edgegen.pipeline.graph import Context
from edgegen.support.scratch import temporary_folder
from edgegen.support.storage import write_json


def export(context: Context) -> None:
    """The float files, manifest.json, and fold.json: what folding the time removed, and its relative error."""
    recipe, generator = context.recipe, student_of(context.inputs)
    with temporary_folder() as temporary:
        maker = maker_of(context, generator, Path(temporary))
        make_files(context, maker, recipe.export.targets(floating=True))
    write_json(context.folder / "fold.json", generator.folded().facts())
