"""The recipe: what a run does, read from TOML. Every value is set here and nowhere else; flags only choose places."""

import hashlib
import json
import re
import tomllib
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgegen.errors import RecipeError, unknown_name

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
FLOAT_SCHEMES = ("fp32", "fp16")


class Table(BaseModel):
    """A table of the recipe: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Data(Table):
    """Where the images come from: "digits", a .npz, a folder or .zip of images, or "hf:NAME"."""

    source: str = "digits"
    holdout: Fraction = Field(0.25, description="share of the images kept from training, for the metrics")
    conditional: bool = Field(True, description="use the labels: the generator takes a class")


class Compute(Table):
    """How training uses the machine; the device is chosen by Accelerate."""

    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 on CUDA, fp32 elsewhere")
    compile: bool = Field(False, description="torch.compile of the trained net")
    threads: Count | None = Field(None, description="CPU threads of PyTorch; default: as many as cores")


class Architecture(Table):
    """An EdgeUNet: one width per resolution, residual blocks per resolution, resolutions with attention (0 = full)."""

    channels: Annotated[tuple[Count, ...], Field(min_length=1, max_length=6)] = (32, 64)
    blocks: Annotated[int, Field(ge=1, le=8)] = 1
    attention: tuple[Annotated[int, Field(ge=0)], ...] = ()
    embedding: Annotated[int, Field(ge=8)] = 128

    @model_validator(mode="after")
    def attention_has_a_level(self) -> "Architecture":
        if any(level >= len(self.channels) for level in self.attention):
            raise ValueError(
                f"attention {list(self.attention)} names a resolution beyond the {len(self.channels)} there are"
            )
        return self


class Training(Table):
    """One training stage of the one loop."""

    steps: Count = 1000
    batch: Count = 64
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-3
    decay: Literal["cosine", "none"] = "cosine"
    warmup: Annotated[int, Field(ge=0)] = 100
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    clip_norm: Annotated[float, Field(gt=0.0)] = 1.0
    checkpoint_every: Count = Field(250, description="steps between checkpoints; does not change the result")


class Teacher(Training):
    """The teacher: trained here by flow matching, or brought along as a folder (ours, or a diffusers UNet2DModel)."""

    folder: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="a generator folder to use in place of training"
    )
    model: Architecture = Architecture(channels=(64, 128), blocks=2)

    @model_validator(mode="after")
    def brought_or_trained(self) -> "Teacher":
        extra = sorted(self.model_fields_set - {"folder"})
        if self.folder is not None and extra:
            raise ValueError(f"a teacher brought as a folder is not trained here: remove {', '.join(extra)}")
        return self


class Pairs(Table):
    """(noise, image) pairs by the teacher's ODE."""

    count: Count = 10_000
    solver: Literal["euler", "heun", "rk45"] = "heun"
    steps: Count = Field(10, description="solver steps of euler and heun")
    tolerance: Annotated[float, Field(gt=0.0)] = Field(1e-4, description="rtol = atol of rk45")
    shard: Count = Field(2048, description="pairs in one file")


class Slim(Training):
    """Annealing reflow of the pairs into the smaller student (SlimFlow, arXiv:2407.12718, section 3.1)."""

    keep: Fraction | None = Field(None, description="share of the teacher's parameters that the student keeps")
    model: Architecture | None = Field(None, description="the student's architecture, in place of keep")
    anneal_steps: Annotated[int, Field(ge=0)] | None = Field(
        None, description="steps in which fresh noise fades out; default: the paper's share, 3/8 of the steps"
    )
    flip: bool = Field(False, description="joint horizontal flip of noise and image: for photographs, not for digits")

    @model_validator(mode="after")
    def one_size(self) -> "Slim":
        if (self.keep is None) == (self.model is None):
            raise ValueError("say how small: either keep = 0.3, or a table [slim.model]")
        return self


class Distill(Training):
    """Flow-guided distillation into one step (SlimFlow, section 3.2)."""

    distance: Literal["l2", "pseudo_huber"] = "pseudo_huber"
    two_step_weight: Annotated[float, Field(ge=0.0)] = 1.0
    flip: bool = False


class Baseline(Table):
    """Plain regression of the same small net on the same pairs, for as many steps as slim and distill together."""

    enabled: bool = True


class Evaluate(Table):
    steps: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2, 4, 20)
    seeds: Annotated[int, Field(ge=2, le=20)] = 3
    samples: Annotated[int, Field(ge=4)] | None = Field(
        None, description="samples of each figure; default and most: the held-out images"
    )
    extractor_steps: Count = Field(600, description="training steps of the classifier whose features are compared")


class Export(Table):
    artifacts: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "onnx-fp32",
        "onnx-w8a8",
        "executorch-fp32",
        "executorch-w8a8",
        "coreml-fp16",
        "coreml-w8",
    )
    opset: Annotated[int, Field(ge=18, le=24)] = Field(18, description="of the ONNX files")
    coreml_target: Literal["iOS17", "iOS18", "iOS26"] = Field("iOS17", description="oldest system of the Core ML files")
    generate: bool = Field(True, description="a second method in the .pte files: noise to uint8 image")
    heights_widths: tuple[tuple[Count, Count], ...] = Field((), description="further sizes of a coreml-...:sizes file")
    winograd: bool = Field(True, description="ONNX fp32: large 3x3 convolutions faster, with 4 times their memory")
    license: str = Field("not stated", description="licence of the generator, written into every file")

    @model_validator(mode="after")
    def known_form(self) -> "Export":
        for text in self.artifacts:
            if not re.fullmatch(r"\w+-\w+(-\w+)?(:\w+)?", text):
                raise ValueError(
                    f"artifact '{text}' is not BACKEND-SCHEME or BACKEND-SCHEME:VARIANT, such as onnx-w8a8"
                )
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
    ranges: Literal["minmax", "percentile", "mse", "entropy"] = Field("minmax", description="of activations")
    methods: tuple[Method, ...] = Field(
        (), description="what is done to the weights beforehand; the order is always the same"
    )
    float_layers: tuple[str, ...] = Field((), description="layers that stay float: patterns such as net.up.*")
    budget: str | None = Field(
        None, description="what the files must keep, such as psnr>=30,fd_local<=+5%,size<=0.3,latency<=0.6"
    )


class Recover(Training):
    """Quantization-aware self-distillation: the rounded student learns its float self's pictures, from fresh noise."""

    steps: Count = 500
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-4
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99


class Verify(Table):
    samples: Count = 64


class Profile(Table):
    min_runs: Count = 30
    max_seconds: Annotated[float, Field(gt=0.0)] = Field(2.0, description="most seconds of warm runs of one artifact")
    cold_starts: Count = 1


class Reporting(Table):
    measurements: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="files of latencies measured elsewhere, beside the recipe, that the report shows, too"
    )


class Recipe(Table):
    """The whole recipe. `read` makes one from a file."""

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    data: Data = Data()
    compute: Compute = Compute()
    teacher: Teacher = Teacher()
    pairs: Pairs = Pairs()
    slim: Slim
    distill: Distill = Distill()
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


def shipped() -> dict[str, Path]:
    """The recipes in the package: `edgegen run digits` finds them by name."""
    folder = Path(__file__).parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find(name: str) -> Path:
    """The file of a recipe: a path, or the name of a shipped one. Raises RecipeError that says what there is."""
    path = Path(name)
    if path.is_file():
        return path
    if path.suffix == "" and len(path.parts) == 1:
        if name in shipped():
            return shipped()[name]
        raise RecipeError(unknown_name("recipe", name, shipped()) + " Or give the path of a .toml file.")
    near = ", ".join(sorted(p.name for p in path.parent.glob("*.toml"))) if path.parent.is_dir() else ""
    raise RecipeError(f"no recipe file '{name}'" + (f"; beside it there are: {near}" if near else "; check the path"))


def read(path: Path) -> Recipe:
    """Reads a recipe file. Raises RecipeError: what is wrong, at which key, what would do."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise RecipeError(f"{path}: cannot be read: {e.strerror}") from e
    except (ValueError, RecursionError) as e:  # also of TOMLDecodeError and UnicodeDecodeError
        raise RecipeError(f"{path}: not TOML: {e}") from e
    return parse(values, where=str(path))


def parse(values: dict[str, Any], *, where: str) -> Recipe:
    """A recipe from plain values; `where` names them in the errors."""
    try:
        # By way of JSON: its strict mode takes arrays as tuples, and still refuses "100" where a number belongs.
        return Recipe.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as e:
        raise RecipeError("\n".join(f"{where}: {_explain(error)}" for error in e.errors())) from e


def _explain(error: Any) -> str:
    keys = [str(part) for part in error["loc"]]
    key = ".".join(keys) or "the recipe"
    if error["type"] == "missing" and key == "slim":
        return f"{key}: missing; say how small: [slim] keep = 0.3"
    return explain(error, key, lambda: _keys_of(keys[:-1]))


def explain(error: Any, key: str, known: Callable[[], Iterable[str]]) -> str:
    """One of pydantic's errors at `key` of a TOML file as a message; `known` gives the keys of the table around it."""
    if error["type"] == "extra_forbidden":
        return f"{key}: {unknown_name('key', str(error['loc'][-1]), known())}"
    if error["type"] == "missing":
        return f"{key}: missing; this key must be given"
    if error["type"] == "value_error":
        return f"{key}: {error['ctx']['error']}"
    return f"{key}: {error['msg']} (found {error['input']!r})"


def _keys_of(keys: list[str]) -> list[str]:
    """The keys of the table at a path such as ["teacher", "model"]."""
    table: type[BaseModel] = Recipe
    for key in keys:
        kinds = [table.model_fields[key].annotation, *typing.get_args(table.model_fields[key].annotation)]
        table = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
    return list(table.model_fields)
