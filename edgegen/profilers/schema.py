"""What a measurement is: the documented schema "edgegen.profile/1", read and checked again by whoever compares.

Its JSON Schema is committed beside this file; after a change here:
`python -c "from edgegen.profilers.schema import Profile; Profile.update_schema_file()"`.
What is not known is null, never 0. Latencies are milliseconds of one inference at batch 1.
"""

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from edgegen.errors import DataError
from edgegen.profilers.measurement import LONGEST_MS
from edgegen.profilers.timing.stats import summarize
from edgegen.support.schema import Count, Document, FileName, Record, Sha256, Utc
from edgegen.support.storage import read_json

ROUNDING = 1e-6  # relative, of a figure that was written as a decimal number
Format = Literal["onnx", "pte", "mlpackage"]
Ms = Annotated[float, Field(gt=0, lt=LONGEST_MS)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1 + ROUNDING)]


class Tensor(Record):
    name: str
    dtype: str
    shape: tuple[int, ...]


class FileFacts(Record):
    """What was measured. `scheme` is null in files that edgegen's manifest does not know."""

    name: FileName
    format: Format
    sha256: Sha256
    nbytes: Count
    scheme: str | None
    inputs: tuple[Tensor, ...]


class Config(Record):
    """How it was run. `runtime` and `threads_actual` are what the runner said of itself."""

    runtime: str | None
    threads_requested: Count
    threads_actual: Count | None


class Numerics(Record):
    """The device's output on one known input against `reference`; `passed` is null where nothing could be compared."""

    reference: str | None
    snr_db: Finite | None = Field(description="null where both are equal to the last bit, or nothing was compared")
    max_abs: NotNegative | None
    passed: bool | None
    reason: str = ""


class Cold(Record):
    """One start of a fresh process; the file may be in the system's cache."""

    load_ms: Ms
    first_ms: Ms


class WarmUp(Record):
    runs: Count
    stable: bool


class Latencies(Record):
    """Warm runs in blocks, in the order in which they ran; the figures below are theirs, no run left out."""

    blocks_ms: tuple[tuple[Ms, ...], ...]
    runs: Count
    p50_ms: Ms
    p50_ci95_ms: tuple[Ms, Ms] = Field(description="bootstrap over blocks")
    p90_ms: Ms
    min_ms: Ms
    mean_ms: Ms
    converged: bool

    @model_validator(mode="after")
    def _reproduced(self) -> "Latencies":
        """The figures are those of the samples."""
        if not self.blocks_ms or not all(self.blocks_ms):
            raise ValueError("a latency without samples")
        summary = summarize([np.array(block) for block in self.blocks_ms])
        samples = np.concatenate(self.blocks_ms)
        figures: dict[str, tuple[float, ...]] = {
            "runs": (summary.runs,),
            "p50_ms": (summary.p50_ms,),
            "p50_ci95_ms": summary.p50_ci95_ms,
            "p90_ms": (summary.p90_ms,),
            "min_ms": (float(samples.min()),),
            "mean_ms": (float(samples.mean()),),
        }
        for name, expected in figures.items():
            value = getattr(self, name)
            if not np.allclose(value, expected, rtol=ROUNDING, atol=0):
                shown = ", ".join(f"{figure:g}" for figure in expected)
                raise ValueError(f"{name} is {value}, and its samples give {shown}")
        return self


class OpRow(Record):
    """All operations of one kind in one inference, from a traced pass: read the share, not the time."""

    kind: str
    count: Count
    ms: NotNegative | None = Field(description="null of Core ML, which estimates shares")
    share: Share


class Sustained(Record):
    """Inferences back to back for minutes: the median of the first tenth of the time, and of the last."""

    seconds: Annotated[float, Field(gt=0, lt=LONGEST_MS)]
    runs: Count
    first_p50_ms: Ms
    last_p50_ms: Ms


class LeafRow(Record):
    """One operation in one inference, from the same pass, in the order in which they ran.

    `place` is the delegate ("delegate 1") or "outside" of a .pte, the execution provider of an ONNX file,
    the compute device that Core ML prefers.
    """

    name: str
    kind: str
    place: str
    block: str | None = Field(description="path of the network's module that it computes; null where not known")
    ms: NotNegative | None = Field(description="null of Core ML, which estimates shares")
    share: Share


class Verdict(Record):
    """`failed` has no latency, `noisy` has one that should not be believed; the reasons are for people.

    Where `performance_valid` is false, by an emulator or a GPU that is a program, there is none either.
    """

    status: Literal["ok", "noisy", "failed"]
    performance_valid: bool = True
    reasons: tuple[str, ...] = ()


class MeasuredFile(Record):
    """One file under one configuration."""

    artifact: FileFacts
    config: Config
    numerics: Numerics
    cold: tuple[Cold, ...] = ()
    warm_up: WarmUp | None = None
    latency: Latencies | None = None
    peak_rss_bytes: Count | None = Field(None, description="after the first inference, the runner included")
    ops: tuple[OpRow, ...] = ()
    sustained: Sustained | None = None
    leaves: tuple[LeafRow, ...] = ()
    verdict: Verdict

    @property
    def label(self) -> str:
        """The file and its threads, as the tables show them."""
        return label(self.artifact.name, self.config.threads_requested)

    @model_validator(mode="after")
    def _consistent(self) -> "MeasuredFile":
        if self.latency is not None and (self.numerics.passed is False or self.verdict.status == "failed"):
            raise ValueError("a latency of a file that failed")
        if self.latency is not None and not self.verdict.performance_valid:
            raise ValueError("a latency where none is valid")
        for name, rows in (("ops", self.ops), ("leaves", self.leaves)):
            total = sum(row.share for row in rows)
            if total > 1 + ROUNDING:
                raise ValueError(f"the shares of its {name} add up to {total:g}")
        return self


def label(name: str, threads: int) -> str:
    """ "net.pte, 2 threads"."""
    return f"{name}, {threads} thread{'s' * (threads > 1)}"


class Profile(Document):
    """Files measured in turn on one device in one go."""

    schema_file: ClassVar[Path] = Path(__file__).with_name("profile.schema.json")

    schema_: Literal["edgegen.profile/1"] = Field("edgegen.profile/1", alias="schema")
    created: Utc
    tool: str
    device: str = Field(description="host, ssh, adb, arm64, browser, browser:webgpu: without a user's name")
    target: dict[str, Any] = Field(description="what the device says of itself; unknown is null")
    protocol: Literal["edgegen-bench/1"] = "edgegen-bench/1"
    profile: Literal["quick", "full"]
    after: dict[str, Any] = Field({}, description="what of `target` may have changed: load_average, battery_c, ...")
    others_cores: Finite | None = Field(description="used by other programs during the warm runs")
    stolen_cores: Finite | None = Field(description="kept by a hypervisor during the warm runs")
    drift: Finite | None = Field(None, description="a fixed arithmetic's time after the warm runs over before, less 1")
    results: tuple[MeasuredFile, ...]


def read(path: Path) -> Profile:
    """A file that `edgegen profile -o` wrote. Raises DataError for one that is not, or whose figures do not add up."""
    try:
        return Profile.model_validate_json(json.dumps(read_json(path)))
    except ValidationError as e:
        first = e.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(f"{path} is no measurement of edgegen's: {place}: {first['msg']}") from e
