"""The records that pass between the parts: frozen, plain data, no torch at import."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Dim = int | Literal["batch_size"]
Status = Literal["ok", "failed", "not checked"]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a generator: `shape` may start with the symbolic "batch_size".

    `role` is "noise", "class" or "image"; `low` and `high` give the range of the values, None where unbounded.
    """

    name: str
    shape: tuple[Dim, ...]
    dtype: Literal["float32", "float16", "int64", "int32", "uint8"]
    role: Literal["noise", "class", "image"]
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Signature:
    """What a one-step generator takes and gives; `num_classes` 0 means unconditional."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    num_classes: int = 0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the noise and of the image."""
        _, channels, height, width = self.inputs[0].shape
        return int(channels), int(height), int(width)

    @staticmethod
    def of(*, channels: int, size: int, num_classes: int) -> "Signature":
        """The signature of a pixel-space generator: noise (and class) in, image in [-1, 1] out."""
        shape: tuple[Dim, ...] = ("batch_size", channels, size, size)
        inputs = [TensorSpec("sample", shape, "float32", "noise")]
        if num_classes:
            inputs.append(TensorSpec("class_labels", ("batch_size",), "int64", "class", 0, num_classes - 1))
        outputs = (TensorSpec("out_sample", shape, "float32", "image", -1.0, 1.0),)
        return Signature(tuple(inputs), outputs, num_classes)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Artifact:
    """One exported file (or `.mlpackage` folder). `file` is its name inside the artifact folder, never a full path."""

    file: str
    backend: str
    scheme: str
    nbytes: int
    sha256: str
    engine: str
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Parity:
    """An artifact against PyTorch fp32 on the same inputs. `method` says what ran it (a runtime, or our evaluator)."""

    status: Status
    method: str
    floor_db: float
    samples: int = 0
    psnr_db: float | None = None
    max_abs_error: float | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Latency:
    """Host timings of one runnable thing at batch 1; every unknown is None, never 0."""

    p50_ms: float | None
    p50_ci95_ms: tuple[float, float] | None = None
    p90_ms: float | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    runs: int = 0
    peak_rss_bytes: int | None = None
    converged: bool | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
