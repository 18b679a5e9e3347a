"""The recipe's tables of figures and files: quality, exports, quantization, parity, latency, report."""

import operator
import re
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgegen.recipe.fields import Count, LocalPath
from edgegen.support.tables import Table

Chip = Literal["8gen1", "8gen1plus", "8gen2", "8gen3", "8elite", "8gen5", "8elitegen5"]  # Snapdragon's
CHIPS: tuple[Chip, ...] = ("8gen3", "8elite")
CoreMLTarget = Literal["iOS17", "iOS18", "iOS26"]
Ranges = Literal["minmax", "percentile", "mse", "entropy"]
FLOAT_SCHEMES = ("fp32", "fp16")
ADDED_WEIGHTS_MB = 512


class Evaluate(Table):
    """Quality of every network: distances of its images to real images, at several numbers of steps."""

    steps: Annotated[tuple[Count, ...], Field(min_length=1)] = Field(
        (1, 2, 4, 20),
        description="numbers of solver steps; the largest is the teacher's in the headline; a network that is trained "
        "for one step alone is sampled in one",
    )
    seeds: Annotated[int, Field(ge=2, le=20)] = Field(3, description="noise seeds; figures are mean and sd over them")
    samples: Annotated[int, Field(ge=4)] | None = Field(
        None, description="samples of each figure; default: as many as held-out images"
    )
    # Left out where they are not asked for, so that the keys of older results stay.
    inception: LocalPath | None = Field(
        None, description="file of Inception's weights, as torch-fidelity has it: adds FID", exclude_if=operator.not_
    )
    dinov2: LocalPath | None = Field(
        None, description="folder of DINOv2's weights, as transformers has it: adds fd_dinov2", exclude_if=operator.not_
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
    # Left out where they are not asked for, so that the keys of older results stay.
    tune_on: str | None = Field(
        None,
        description="device that chooses the rewrites of each file, such as ssh:pi@board",
        exclude_if=operator.not_,
    )
    rewrites: dict[str, bool] = Field(
        default_factory=dict,
        description="of speed, on or off beside the runtimes' own choice, such as winograd = false",
        exclude_if=operator.not_,
    )
    added_weights_mb: Annotated[int, Field(ge=0, le=10**6)] = Field(
        ADDED_WEIGHTS_MB,
        description="MB that faster forms of convolutions may add to the weights in memory",
        exclude_if=ADDED_WEIGHTS_MB.__eq__,
    )
    etrecord: bool = Field(False, description="profiling record beside .pte files", exclude_if=operator.not_)
    fp16: Literal["plain", "safe"] = Field("plain", description="safe: float32 where needed", exclude_if="plain".__eq__)
    chips: Annotated[tuple[Chip, ...], Field(min_length=1)] = Field(
        CHIPS, description="Snapdragon chips of the onnx-...:qnn files", exclude_if=CHIPS.__eq__
    )
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
        if len(set(self.chips)) != len(self.chips):
            raise ValueError("chips lists one twice")
        return self

    @property
    def added_weight_bytes(self) -> int:
        """`added_weights_mb` in bytes."""
        return self.added_weights_mb * 10**6

    def chosen(self, default: Iterable[str], known: Iterable[str]) -> list[str]:
        """The names of `default` that `rewrites` does not switch off, then those of `known` that it switches on."""
        kept = [name for name in default if self.rewrites.get(name, True)]
        return kept + [name for name in known if self.rewrites.get(name, False) and name not in kept]

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


class Verify(Table):
    """Comparison of every file with PyTorch, on the same noise."""

    samples: Count = Field(64, description="noise inputs of the comparison")


class Profile(Table):
    """Latency of every file that runs on this machine, at batch 1."""

    min_runs: Count = Field(30, description="least warm runs of one artifact")
    max_seconds: Annotated[float, Field(gt=0.0)] = Field(2.0, description="most seconds of warm runs of one artifact")
    cold_starts: Count = Field(1, description="fresh processes in which load and first inference are timed")


class Bundle(Table):
    """A folder for an app, with golden images; a recipe without this table makes none."""

    artifacts: tuple[str, ...] = Field((), description="of export.artifacts; default: all that agree with PyTorch")


class Reporting(Table):
    """What the report shows besides the run's own results."""

    measurements: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="files of latencies measured elsewhere, relative to the recipe"
    )
