"""The recipe: what a run does, read from TOML; flags only choose places.

The defaults of all keys are here; those of a training method are in its own record (edgegen.training.objectives).
"""

import hashlib
import json
import operator
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError, model_validator

from edgegen.errors import RecipeError, unknown_name
from edgegen.recipe.fields import Count, Fraction, Name, Width
from edgegen.recipe.files import (
    FLOAT_SCHEMES,
    Bundle,
    CoreMLTarget,
    Evaluate,
    Export,
    Method,
    Profile,
    Quantize,
    Ranges,
    Reporting,
    Verify,
)
from edgegen.recipe.training import (
    DIFFUSERS,
    GUIDANCE,
    INITS,
    Architecture,
    Baseline,
    Compute,
    Data,
    Distill,
    Finish,
    Pairs,
    Recover,
    Slim,
    Teacher,
    Training,
    cannot_slice,
    slices_fault,
)
from edgegen.support.tables import Table, explain, read_toml

__all__ = [
    "DIFFUSERS",
    "FLOAT_SCHEMES",
    "GUIDANCE",
    "INITS",
    "Architecture",
    "Baseline",
    "Bundle",
    "Compute",
    "CoreMLTarget",
    "Count",
    "Data",
    "Distill",
    "Evaluate",
    "Export",
    "Files",
    "Finish",
    "Fraction",
    "Method",
    "Pairs",
    "Profile",
    "Quantize",
    "Ranges",
    "Recipe",
    "Recover",
    "Reporting",
    "Slim",
    "Teacher",
    "Training",
    "Verify",
    "Width",
    "cannot_slice",
    "parse",
    "read",
    "read_files",
    "slices_fault",
]

T = TypeVar("T", bound="Table")


class Recipe(Table):
    """The whole recipe, frozen; `read` makes one from a file. The manual's page "Recipe" lists every key.

    Attributes:
        name: of the run folder and of the exported files.
        seed: where all random numbers come from.
        data: the images.
        compute: how training uses the machine.
        teacher: the teacher, trained here or brought along.
        pairs: (noise, image) pairs by the teacher.
        slim: the smaller student.
        distill: the student in one step.
        finish: a last training of the student; None leaves it out.
        baseline: a plain method to compare the student with.
        evaluate: how quality is measured.
        export: which files are written.
        quantize: how the numbers of compressed files are chosen.
        recover: training of the quantized student; None leaves it out.
        verify: comparison of every file with PyTorch.
        profile: latency of every file that runs here.
        report: what the report shows besides.
        bundle: a folder for an app; None leaves it out.
    """

    name: Name = Field(description="of the run folder and of the exported files")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="where all random numbers come from")
    data: Data = Data()
    compute: Compute = Compute()
    teacher: Teacher = Field(default_factory=Teacher)
    pairs: Pairs = Pairs()
    slim: Slim
    distill: Distill = Field(default_factory=Distill)
    finish: Finish | None = Field(None, exclude_if=operator.not_)
    baseline: Baseline = Baseline()
    evaluate: Evaluate = Evaluate()
    export: Export = Export()
    quantize: Quantize = Quantize()
    recover: Recover | None = None
    verify: Verify = Verify()
    profile: Profile = Profile()
    report: Reporting = Reporting()
    bundle: Bundle | None = Field(None, exclude_if=operator.not_)

    @model_validator(mode="after")
    def slices_are_there(self) -> "Recipe":
        """Of a teacher that is brought along, or sized by its images, they are compared when it is read."""
        slim, teacher = self.slim, self.teacher
        is_known = teacher.folder is None and isinstance(slim.network, Architecture)
        model = teacher.model if is_known and slim.init == "teacher" else None
        if model is not None and (fault := slices_fault(slim.network, model)):  # type: ignore[arg-type]
            raise ValueError(cannot_slice(fault))
        return self

    @model_validator(mode="after")
    def bundled_are_exported(self) -> "Recipe":
        exported = self.export.artifacts
        for text in self.bundle.artifacts if self.bundle else ():
            if text not in exported:
                raise ValueError(f"bundle.artifacts: {unknown_name('artifact', text, exported)}")
        return self

    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


class Files(Table):
    """What `edgegen export --recipe FILE` takes: tables of a recipe, and real inputs, of which a recipe has none."""

    inputs: dict[str, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)  # paths by an input's name
    export: Export = Export()
    quantize: Quantize = Quantize()
    recover: Recover | None = None


def read(path: Path) -> Recipe:
    """Reads a recipe file.

    Args:
        path: a TOML file.

    Returns:
        The recipe with its defaults filled in.

    Raises:
        RecipeError: the file cannot be read, or a key is wrong: which, what was found there, and what would do.
    """
    return parse(read_toml(path, RecipeError), where=str(path))


def read_files(path: Path) -> Files:
    """[export], [quantize] and [recover] of a recipe, or of a file that has nothing else. Raises as `read` does."""
    values = read_toml(path, RecipeError)
    if set(values) <= set(Files.model_fields):
        files = _validated(Files, values, where=str(path))
        return files.model_copy(update={"inputs": {name: str(path.parent / to) for name, to in files.inputs.items()}})
    recipe = parse(values, where=str(path))
    return Files(export=recipe.export, quantize=recipe.quantize, recover=recipe.recover)


def parse(values: dict[str, Any], *, where: str) -> Recipe:
    """A recipe from plain values; `where` names them in the errors."""
    return _validated(Recipe, values, where=where)


def _validated(kind: type[T], values: dict[str, Any], *, where: str) -> T:
    try:
        # By way of JSON: its strict mode takes arrays as tuples, and still refuses "100" where a number belongs.
        return kind.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as e:
        faults = [explain(error, Recipe, values) for error in e.errors()]
        text = "\n".join(f"{where}: {fault}" for fault in faults)
        raise RecipeError(re.sub("slim: missing; .*", "slim: missing; say how small: [slim] keep = 0.3", text)) from e
