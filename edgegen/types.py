"""The records that pass between the parts: frozen and plain data; no torch at import."""

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from edgegen.errors import DataError

MOST_ELEMENTS = 1 << 28  # of a tensor: a GiB in float32
Dim = int | Literal["batch_size"]
Status = Literal["ok", "failed", "not checked"]
Role = Literal["noise", "class", "text", "image", "latent", "signal", "features"]
LAYOUTS = {2: "NC", 3: "NCL", 4: "NCHW"}  # of tensors by their axes: batch, channels, length, height, width
PIXELS = "out_image"  # the output of `generate`: uint8; the float one is called out_sample
Origin = Literal["noise", "real", "synthetic"]  # of the inputs of a comparison
SYNTHETIC = "checked on synthetic inputs only"
SPATIAL = ("noise", "image", "latent")  # roles of tensors whose height and width may change


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a generator: `shape` may start with the symbolic "batch_size".

    `role` says what an app has to provide or receives; `low` and `high` are the range of the values, None: unbounded.

        noise      standard normal numbers, drawn anew for every sample
        class      class numbers from `low` to `high`, shape (batch_size,)
        text       the hidden states of a text encoder
        image      pixels, (batch_size, channels, height, width)
        latent     the input of a decoder
        signal     any other generated data: audio (batch_size, channels, length), a trajectory, a table
        features   any other condition: a pooled text embedding, a speaker, the state of a robot

    An output that lacks `margin` pixels in height and width grows as if it had them: 2 n - 28 of an input of n has 28.
    """

    name: str
    shape: tuple[Dim, ...]
    dtype: Literal["float32", "float16", "int64", "int32", "uint8"]
    role: Role
    low: float | None = None
    high: float | None = None
    margin: int = 0

    def __post_init__(self) -> None:
        """Raises DataError for a size below 1, more than MOST_ELEMENTS in one sample, an image without axes."""
        if not self.shape and self.role in SPATIAL:
            raise DataError(f"{self.name} has the role {self.role} and no axes; the first one is that of the batch")
        sizes = [size for size in self.shape if isinstance(size, int)]
        if any(size < 1 for size in sizes) or math.prod(sizes) > MOST_ELEMENTS:
            raise DataError(
                f"{self.name} has the shape {list(self.shape)}; sizes are 1 or more, and one sample has at most "
                f"{MOST_ELEMENTS:,} elements"
            )

    @property
    def is_spatial(self) -> bool:
        """Whether it is (batch_size, channels, height, width) and may change its size."""
        return len(self.shape) == 4 and self.role in SPATIAL

    @property
    def image_range(self) -> tuple[float, float]:
        """What is black and what is white in an image: `low` and `high`, or -1 and 1 where the signature is silent."""
        return -1.0 if self.low is None else self.low, 1.0 if self.high is None else self.high


@dataclass(frozen=True)
class Signature:
    """What a one-step generator takes and gives; `num_classes` 0 means that no input is a class.

    Attributes:
        inputs: in the order in which the network takes them; the first is what it generates from: noise, or a latent.
        outputs: one specification.
        num_classes: number of classes of the input with the role "class".
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    num_classes: int = 0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the image; for generators that `makes_images`."""
        _, channels, height, width = self.outputs[0].shape
        return int(channels), int(height), int(width)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Of one sample of the first input: of the noise, and so of what a velocity network moves it to."""
        return tuple(int(size) for size in self.inputs[0].shape[1:])

    @property
    def pixels(self) -> TensorSpec:
        """What `generate` gives: the image in uint8, (batch, height, width, channels); if it `makes_images`."""
        channels, height, width = self.image_shape
        return TensorSpec(PIXELS, ("batch_size", height, width, channels), "uint8", "image", 0, 255)

    @property
    def makes_images(self) -> bool:
        """Whether the output is an image that an app can show: 1 or 3 channels."""
        output = self.outputs[0]
        return output.role == "image" and len(output.shape) == 4 and output.shape[1] in (1, 3)

    @staticmethod
    def of(*, channels: int, size: int | tuple[int, int], num_classes: int, upscale: int | None = None) -> "Signature":
        """`of_shape` of images: `size` is their height and width, one number of square ones."""
        shape = (channels, size, size) if isinstance(size, int) else (channels, *size)
        return Signature.of_shape(shape, num_classes=num_classes, upscale=upscale)

    @staticmethod
    def of_shape(sample: Sequence[int], *, num_classes: int, upscale: int | None = None) -> "Signature":
        """From noise, and a class or a smaller image, to (channels, height, width), or a signal (channels, length)."""
        shape: tuple[Dim, ...] = ("batch_size", *sample)
        inputs = [TensorSpec("sample", shape, "float32", "noise")]
        if upscale:
            small = (*shape[:2], *(side // upscale for side in sample[1:]))
            inputs.append(TensorSpec("image", small, "float32", "image", -1.0, 1.0))
        if num_classes:
            inputs.append(TensorSpec("class_labels", ("batch_size",), "int64", "class", 0, num_classes - 1))
        output = TensorSpec("out_sample", shape, "float32", "image" if len(sample) == 3 else "signal", -1.0, 1.0)
        return Signature(tuple(inputs), (output,), num_classes)

    def resized(self, height: int, width: int, *, of: str | None = None) -> "Signature":
        """The signature of the same generator when its input `of` (None: the first) is `height` x `width`.

        The others keep their proportion to it. Raises ValueError where it has no height and width, or where a size
        would not be a whole number.
        """
        first = next(spec for spec in self.inputs if of in (None, spec.name))
        if not first.is_spatial:
            raise ValueError(f"{first.name} {list(first.shape)} has no height and width")
        old_height, old_width = int(first.shape[2]), int(first.shape[3])

        def scaled(spec: TensorSpec) -> TensorSpec:
            if not spec.is_spatial:
                return spec
            batch, channels, own_height, own_width = spec.shape
            rows, row_rest = divmod((int(own_height) + spec.margin) * height, old_height)
            columns, column_rest = divmod((int(own_width) + spec.margin) * width, old_width)
            rows, columns = rows - spec.margin, columns - spec.margin
            if row_rest or column_rest or min(rows, columns) < 1:
                raise ValueError(f"{spec.name} would not have a whole size at {height}x{width} of {first.name}")
            return replace(spec, shape=(batch, channels, rows, columns))

        inputs, outputs = (tuple(map(scaled, specs)) for specs in (self.inputs, self.outputs))
        return replace(self, inputs=inputs, outputs=outputs)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Signature":
        """The inverse of `to_dict`. Raises KeyError and TypeError for something else."""

        def specs(rows: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
            return tuple(TensorSpec(**{**row, "shape": tuple(row["shape"])}) for row in rows)

        return Signature(specs(values["inputs"]), specs(values["outputs"]), values["num_classes"])


@dataclass(frozen=True)
class Artifact:
    """One exported file (or `.mlpackage` folder), and what made it.

    Attributes:
        file: its name inside the artifact folder, never a full path.
        backend: name of the runtime that it is for: onnx, executorch, coreml.
        scheme: how its numbers are stored: fp32, fp16, w8a8, ...
        nbytes: its size, with the weights that lie beside it.
        sha256: of the file itself.
        engine: what quantized it, in words.
        variant: the kind of file that its backend made, "" for the plain one.
        details: further facts; `details["extra_files"]` has the size and SHA-256 of every file beside it.
    """

    file: str
    backend: str
    scheme: str
    nbytes: int
    sha256: str
    engine: str
    variant: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Parity:
    """An artifact against PyTorch fp32 on the same inputs.

    Attributes:
        status: "ok", "failed", or "not checked" where nothing could run the file here.
        method: what ran it: a runtime with its version, or our evaluator.
        floor_db: the least PSNR at which the scheme passes.
        samples: number of inputs that were compared.
        psnr_db: peak signal-to-noise ratio relative to `data_range`; None where it did not run.
        max_abs_error: largest absolute difference of one value; None where it did not run.
        reason: why it failed or was not checked.
        data_range: 2 for images in [-1, 1].
        range_of: what gave `data_range`: the "signature", or what PyTorch's "outputs" span, where that gives none.
        arithmetic: of a quantized file, what the runtime really multiplies, where that can be read.
        worst_db: PSNR of the sample that is farthest off.
        ssim: mean structural similarity of images; None where the output is none, or smaller than its window.
        origin: of the inputs: "noise" that an app draws, too; "real" ones that the user gave; "synthetic" ones that
            were drawn for an image, features or whatever else an app has, which says little about the field.
    """

    status: Status
    method: str
    floor_db: float
    samples: int = 0
    psnr_db: float | None = None
    max_abs_error: float | None = None
    reason: str = ""
    data_range: float = 2.0
    arithmetic: str = ""
    worst_db: float | None = None
    ssim: float | None = None
    origin: Origin = "noise"
    range_of: Literal["signature", "outputs"] = "signature"

    def __str__(self) -> str:
        """The verdict in words: "ok, 46.2 dB, worst 40.1 dB, SSIM 0.993, checked on synthetic inputs only"."""
        return ", ".join(part for part in (self.status, self.figures, self.caveat) if part)

    @property
    def figures(self) -> str:
        """The PSNR with what stands beside it, in words; "" where it did not run."""
        if self.psnr_db is None:
            return ""
        worst = f", worst {self.worst_db:.1f} dB" if self.worst_db is not None and self.samples > 1 else ""
        return f"{self.psnr_db:.1f} dB{worst}" + ("" if self.ssim is None else f", SSIM {self.ssim:.3f}")

    @property
    def caveat(self) -> str:
        """What limits the verdict, in words; "" where nothing does."""
        if self.status == "not checked":
            return ""
        spans = f"PSNR of the {self.data_range:.3g} that PyTorch's outputs span" if self.range_of == "outputs" else ""
        return ", ".join(part for part in (SYNTHETIC if self.origin == "synthetic" else "", spans) if part)

    @staticmethod
    def not_checked(reason: str, floor_db: float) -> "Parity":
        """The record of an artifact that no runtime has run: never "ok"."""
        return Parity("not checked", "none", floor_db, reason=reason)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Latency:
    """Timings of one file or network on this machine at batch 1; every unknown is None, never 0.

    Attributes:
        p50_ms: median of the warm runs; None where it could not be measured.
        p50_ci95_ms: 95 % interval of that median.
        p90_ms: time that nine of ten warm runs stay below.
        load_ms: time to open it in a fresh process.
        first_ms: time of the first inference in a fresh process.
        runs: number of warm runs.
        peak_rss_bytes: largest resident memory of the process.
        converged: whether the median was known precisely enough when the measurement ended.
        reason: why there is no figure, or why not to trust it.
        percentiles_ms: 101 numbers: the warm runs' 0 %, 1 %, ... 100 %.
        runtime: what ran it: "executorch 1.5.1 in C++".
    """

    p50_ms: float | None
    p50_ci95_ms: tuple[float, float] | None = None
    p90_ms: float | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    runs: int = 0
    peak_rss_bytes: int | None = None
    converged: bool | None = None
    reason: str = ""
    percentiles_ms: tuple[float, ...] | None = None
    runtime: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class SchemeCell:
    """What a quantization scheme is on one backend: how the file is made and the parity that it must reach.

    `stage` is what `function` takes and where it sits in the build:

        float     nothing; `lower` alone makes the file
        program   f(program, scheme, calibration, options) -> module between capture and lowering; any batch
        file      f(source, target) -> None                       after the lowering of the float file

    `function` is "module:attribute", imported on demand; `precision` is what the backend lowers to; `engine` says in
    words what quantizes; `floor_db` is the parity below which the file is refused; `extras` are those to be installed
    beside the backend's own; `calibrated` says that the function uses its calibration; `caution` is what to know
    before the file is shipped.
    """

    stage: Literal["float", "program", "file"]
    precision: Literal["fp32", "fp16"]
    engine: str
    floor_db: float
    function: str | None = None
    extras: tuple[str, ...] = ()
    calibrated: bool = False
    caution: str = ""

    def load(self) -> Callable[..., Any]:
        """The function behind `function`; not for "float" cells, which have none."""
        assert self.function is not None, f"a '{self.stage}' cell without a function"
        module, _, attribute = self.function.partition(":")
        function: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        return function
