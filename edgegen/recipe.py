"""The recipe: what a run does, read from TOML; flags only choose places.

The defaults of all keys are here; those of a training method are in its own record (edgegen.training.objectives).
"""

import hashlib
import json
import operator
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from edgegen.errors import RecipeError
from edgegen.support.tables import MethodTable, Table, explain, read_toml

T = TypeVar("T", bound="Table")
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Width = Annotated[int, Field(ge=1, le=2**16)]
Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
METHOD = "name of the training method, whose own keys stand in the same table"
CoreMLTarget = Literal["iOS17", "iOS18", "iOS26"]
Size = Literal["auto", "small", "medium", "large"]  # edgegen.models.teacher_size has their architectures
Ranges = Literal["minmax", "percentile", "mse", "entropy"]
FLOAT_SCHEMES = ("fp32", "fp16")


class Data(Table):
    """Where the images come from: "digits", a .npz, a folder or .zip of images, or "hf:NAME"."""

    source: str = Field("digits", description="paths are relative to the recipe")
    holdout: Fraction = Field(0.25, description="share of the images kept from training, for the metrics")
    conditional: bool = Field(True, description="use the labels: the generator takes a class")


class Compute(Table):
    """How training uses the machine; the device is chosen by Accelerate."""

    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 on CUDA, fp32 elsewhere")
    compile: bool = Field(False, description="torch.compile of the trained networks")
    threads: Count | None = Field(None, description="CPU threads of PyTorch; default: as many as cores")


class Architecture(Table):
    """An EdgeUNet: one width per resolution, residual blocks per resolution, resolutions with attention (0 = full)."""

    channels: Annotated[tuple[Width, ...], Field(min_length=1, max_length=6)] = Field(
        (32, 64), description="width of each resolution, the full one first; each is half the one before"
    )
    blocks: Annotated[int, Field(ge=1, le=8)] = Field(
        1, description="residual blocks per resolution on the way down, and again on the way up"
    )
    attention: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (), description="resolutions with self-attention; 0 is the full one"
    )
    embedding: Annotated[Width, Field(ge=8)] = Field(128, description="width of the embedding of time and class")

    @model_validator(mode="after")
    def attention_has_a_level(self) -> "Architecture":
        if any(level >= len(self.channels) for level in self.attention):
            raise ValueError(
                f"attention {list(self.attention)} names a resolution beyond the {len(self.channels)} there are"
            )
        return self


class Training(Table):
    """The keys of the training loop."""

    steps: Count = Field(1000, description="training steps")
    batch: Count = Field(64, description="images per step, of all processes together")
    learning_rate: Annotated[float, Field(gt=0.0)] = Field(1e-3, description="largest learning rate of Adam")
    decay: Literal["cosine", "none"] = Field("cosine", description="how the learning rate falls after the warm-up")
    warmup: Annotated[int, Field(ge=0)] = Field(100, description="steps in which the learning rate rises from 0")
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.999, description="decay of the moving average of the weights, which is the result; 0: no average"
    )
    clip_norm: Annotated[float, Field(gt=0.0)] = Field(1.0, description="largest norm of the gradient")
    checkpoint_every: Count = Field(250, description="steps between checkpoints; does not change the result")


class Teacher(MethodTable, Training):
    """The teacher: trained here, or brought along as a folder (ours, or a diffusers UNet2DModel)."""

    method: str = Field("flow_matching", description=METHOD)
    folder: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="a generator folder to use in place of training"
    )
    size: Size = Field("auto", description="of an architecture that fits the images", exclude_if="auto".__eq__)
    model: Architecture | None = Field(None, description="the teacher's architecture, in place of size")

    @model_validator(mode="after")
    def brought_or_trained(self) -> "Teacher":
        extra = sorted((self.model_fields_set - {"folder", "objective"}) | self.objective.model_fields_set)
        if self.folder is not None and extra:
            raise ValueError(f"a teacher brought as a folder is not trained here: remove {', '.join(extra)}")
        if self.model is not None and "size" in self.model_fields_set:
            raise ValueError("say how large: either size, or a table [teacher.model]")
        return self


class Pairs(Table):
    """(noise, image) pairs by the teacher's ODE."""

    count: Count = Field(10_000, description="number of pairs")
    solver: Literal["euler", "heun", "dpm_solver_pp", "rk45"] = Field("heun", description="of the teacher's ODE")
    steps: Count = Field(10, description="solver steps of all but rk45")
    tolerance: Annotated[float, Field(gt=0.0)] = Field(1e-4, description="rtol = atol of rk45")
    shard: Count = Field(2048, description="pairs in one file")


class Slim(MethodTable, Training):
    """Training of the smaller student."""

    method: str = Field("annealing_reflow", description=METHOD)
    keep: Fraction | None = Field(None, description="share of the teacher's parameters that the student keeps")
    model: Architecture | None = Field(None, description="the student's architecture, in place of keep")

    @model_validator(mode="after")
    def one_size(self) -> "Slim":
        if (self.keep is None) == (self.model is None):
            raise ValueError("say how small: either keep = 0.3, or a table [slim.model]")
        return self


class Distill(MethodTable, Training):
    """Training of the smaller student into one step, from the weights of slim."""

    method: str = Field("flow_guided_distillation", description=METHOD)


class Baseline(Table):
    """Plain regression of the same small network on the same pairs, for as many steps as slim and distill together."""

    enabled: bool = Field(True, description="false saves its time")


class Evaluate(Table):
    """Quality of every network: distances of its images to real images, at several numbers of steps."""

    steps: Annotated[tuple[Count, ...], Field(min_length=1)] = Field(
        (1, 2, 4, 20), description="numbers of solver steps; the largest is the teacher's in the headline"
    )
    seeds: Annotated[int, Field(ge=2, le=20)] = Field(3, description="noise seeds; figures are mean and sd over them")
    samples: Annotated[int, Field(ge=4)] | None = Field(
        None, description="samples of each figure; default and most: the held-out images"
    )
    extractor_steps: Count = Field(600, description="training steps of the classifier whose features are compared")
    ship: Literal["best", "student"] = Field("best", description="best: the nearest one-step generator of the run")


class Export(Table):
    """Which files are written, and of which kind."""

    artifacts: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        ("onnx-fp32", "onnx-w8a8", "executorch-fp32", "executorch-w8a8", "coreml-fp16", "coreml-w8"),
        description="BACKEND-SCHEME or BACKEND-SCHEME:VARIANT",
    )
    opset: Annotated[int, Field(ge=18, le=24)] = Field(18, description="of the ONNX files")
    coreml_target: CoreMLTarget = Field("iOS17", description="oldest system of the Core ML files")
    generate: bool = Field(True, description="a second method in the .pte files: noise to uint8 image")
    heights_widths: tuple[tuple[Count, Count], ...] = Field((), description="further sizes of a coreml-...:sizes file")
    winograd: bool = Field(True, description="fp32: 3x3 convolutions faster, for memory (ONNX 4 times theirs)")
    # Left out where it is not asked for, so that the keys of older results stay.
    etrecord: bool = Field(False, description="profiling record beside .pte files", exclude_if=operator.not_)
    fp16: Literal["plain", "safe"] = Field("plain", description="safe: float32 where needed", exclude_if="plain".__eq__)
    license: str = Field("not stated", description="licence of the generator, written into every file")

    @model_validator(mode="after")
    def known_form(self) -> "Export":
        for text in self.artifacts:
            if not re.fullmatch(r"\w+-\w+(-\w+)?(:\w+)?", text):
                raise ValueError(f"artifact '{text}' is not BACKEND-SCHEME[:VARIANT], such as onnx-w8a8")
        if len(set(self.artifacts)) != len(self.artifacts):
            raise ValueError("artifacts lists one twice")
        return self

    def targets(self, *, floating: bool) -> list[str]:
        """The float artifacts, or the compressed ones."""
        schemes = {text: text.partition("-")[2].partition(":")[0] for text in self.artifacts}
        return [text for text, scheme in schemes.items() if (scheme in FLOAT_SCHEMES) == floating]


Method = Literal["equalization", "smoothing", "rounding", "bias_correction"]  # in the order in which they are applied


class Quantize(Table):
    """How the numbers of the compressed files are chosen; a generator's calibration inputs are noise."""

    samples: Count | None = Field(None, description="noise inputs that calibrate the ranges; default: enough")
    ranges: Ranges = Field("minmax", description="of activations")
    methods: tuple[Method, ...] = Field((), description="changes of the weights beforehand; always in one order")
    float_layers: tuple[str, ...] = Field((), description="layers that stay float: patterns such as net.up.*")
    budget: str | None = Field(
        None, description="what the files must keep, such as psnr>=30,fd_local<=+5%,size<=0.3,latency<=0.6"
    )


class Recover(MethodTable, Training):
    """Training of the quantized student towards its float self, from fresh noise."""

    method: str = Field("self_distillation", description=METHOD)
    steps: Count = 500
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-4
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99


class Verify(Table):
    """Comparison of every file with PyTorch, on the same noise."""

    samples: Count = Field(64, description="noise inputs of the comparison")


class Profile(Table):
    """Latency of every file that runs on this machine, at batch 1."""

    min_runs: Count = Field(30, description="least warm runs of one artifact")
    max_seconds: Annotated[float, Field(gt=0.0)] = Field(2.0, description="most seconds of warm runs of one artifact")
    cold_starts: Count = Field(1, description="fresh processes in which load and first inference are timed")


class Reporting(Table):
    """What the report shows besides the run's own results."""

    measurements: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="files of latencies measured elsewhere, relative to the recipe"
    )


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
        baseline: a plain method to compare the student with.
        evaluate: how quality is measured.
        export: which files are written.
        quantize: how the numbers of compressed files are chosen.
        recover: training of the quantized student; None leaves it out.
        verify: comparison of every file with PyTorch.
        profile: latency of every file that runs here.
        report: what the report shows besides.
    """

    name: Name = Field(description="of the run folder and of the exported files")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="where all random numbers come from")
    data: Data = Data()
    compute: Compute = Compute()
    teacher: Teacher = Field(default_factory=Teacher)
    pairs: Pairs = Pairs()
    slim: Slim
    distill: Distill = Field(default_factory=Distill)
    baseline: Baseline = Baseline()
    evaluate: Evaluate = Evaluate()
    export: Export = Export()
    quantize: Quantize = Quantize()
    recover: Recover | None = None
    verify: Verify = Verify()
    profile: Profile = Profile()
    report: Reporting = Reporting()

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
        text = "\n".join(f"{where}: {explain(error, Recipe, values, whole='the recipe')}" for error in e.errors())
        raise RecipeError(re.sub("slim: missing; .*", "slim: missing; say how small: [slim] keep = 0.3", text)) from e
