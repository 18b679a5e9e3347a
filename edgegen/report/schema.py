"""What report.json holds: the documented schema "edgegen.report/1".

Its JSON Schema is committed beside this file; after a change here:
`python -c "from edgegen.report.schema import Report; Report.update_schema_file()"`.
A figure that is not known is null, never 0; NaN and infinity are written as null.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from edgegen.profilers.measurement import Measurement
from edgegen.profilers.schema import Profile
from edgegen.support.schema import Count, Document, Record, Sha256, Utc
from edgegen.types import Latency, Parity

Steps = Annotated[str, Field(pattern=r"^\d+$")]
FileName = Annotated[str, Field(pattern=r"^[^/\\]+$", description="a name inside the artifact folder, never a path")]


class DataFacts(Record):
    """The images: how many, of what shape, from where."""

    source: str
    train: Count
    heldout: Count
    image_shape: tuple[int, int, int] | tuple[int, int] = Field(
        description="(channels, height, width); of signals (channels, length)"
    )

    @property
    def kind(self) -> str:
        """What they are, in words: "image" or "signal"."""
        return "signal" if len(self.image_shape) == 2 else "image"

    @property
    def size(self) -> str:
        """Of one of them, in words: "8 x 8 pixels" (width, height), "128 values"."""
        sides = self.image_shape[1:]
        return f"{sides[0]} values" if len(sides) == 1 else f"{sides[1]} \N{MULTIPLICATION SIGN} {sides[0]} pixels"

    classes: tuple[str, ...] = Field((), description="names of the classes; empty: unconditional")


class Sizes(Record):
    """A number for the teacher, null where the run has none, and one for the student."""

    teacher: Count | None = None
    student: Count


class Fold(Record):
    """What folding the constant time input into the student removed, and the error of that."""

    parameters_removed: int  # fewer than none where constants take more room than what they replace
    max_relative_error: float | None


class Damage(Record):
    """fd_local of held-out images with Gaussian noise of standard deviation `noise` on them, on the scale -1 to 1."""

    noise: float
    fd_local: float | None


class Extractor(Record):
    """The classifier whose features `fd_local` and its kin compare; `accuracy` is on held-out images, 0 to 1.

    With a `fault` its features are no measure of quality, and no figure is shown.
    """

    name: str
    fd_name: str
    accuracy: float | None
    fault: str = ""
    damage: tuple[Damage, ...] = Field((), description="a scale for fd_local")
    trained_on: tuple[str, ...] = Field((), description="stages whose training used these features")


class FeatureSpace(Record):
    """A further space that images are compared in; with a `fault` it is no measure of quality, and has no figure."""

    key: str = Field(description="its key in `spaces` of each figure")
    name: str
    fault: str = ""


class SpaceFigure(Record):
    """In one further space: Frechet distance, its deviation over the noise seeds, kernel distance."""

    fd: float | None
    sd: float | None
    kd: float | None


class QualityFigure(Record):
    """Distances of n generated images to the real ones; `sd` is over the noise seeds, null for the floor.

    `saturated` is the share of values that are black or white, `spread` the standard deviation of a pixel over images.
    `class_distance` is the share of images that would have to be of another class, `spectrum_db` the difference of the
    power by frequency, `nearest_ratio` the distance to the nearest training image as a multiple of held-out images',
    `copied` the share of images within a third of it. `fd_local_first` is of the noise that files are compared on.
    `psnr_db` and `ssim` are of images that were made from small copies of real ones, against those.
    """

    fd_local: float | None
    sd: float | None
    kd_local: float | None
    precision: float | None
    recall: float | None
    saturated: float | None = None
    spread: float | None = None
    density: float | None = None
    coverage: float | None = None
    class_distance: float | None = None
    spectrum_db: float | None = None
    nearest_ratio: float | None = None
    copied: float | None = None
    fd_local_first: float | None = None
    psnr_db: float | None = None
    ssim: float | None = None
    spaces: dict[str, SpaceFigure] = Field({}, description="by the key of a further feature space")


BySteps = dict[Steps, QualityFigure]


class QualityTable(Record):
    """Figures by network and number of steps; `floor` has the one key "0": real held-out images, not generated ones.

    `teacher` is null where the run has none; `finished` is the student after [finish]; `scheduler` is a brought teacher
    as its own scheduler samples it. `bicubic` is the enlarged small image, where the generators make theirs from one.
    `best_of_4` is the last student where its verifier chooses one of four images. `autoencoder` has the images of the
    floor after the run's autoencoder, which the generators cannot be better than; null where they make no latents.
    """

    teacher: BySteps | None = None
    scheduler: BySteps | None = None
    bicubic: BySteps | None = None
    slimmed: BySteps
    student: BySteps
    finished: BySteps | None = None
    best_of_4: BySteps | None = None
    baseline: BySteps | None
    floor: BySteps
    autoencoder: BySteps | None = None


class Verdict(Record):
    """On the images of what is shipped, against the teacher and the real images; nothing of parity is in it."""

    level: Literal["usable", "weak", "not usable", "not judged"]
    reason: str
    advice: str = ""
    warnings: tuple[str, ...] = ()


class ArtifactRow(Record):
    """One exported file with what is known of it; `latency` is the summary of its result in the report's `profile`."""

    file: FileName
    backend: str
    scheme: str
    nbytes: Count
    sha256: Sha256
    engine: str
    fd_local: float | None
    parity: Parity
    latency: Latency
    variant: str = ""

    @property
    def label(self) -> str:
        return f"{self.backend} {self.scheme}" + (f":{self.variant}" if self.variant else "")


class ChoiceRow(Record):
    """Layers left float for a size of the weights, and the PSNR that the layers' own costs predict."""

    nbytes: Count
    psnr_db: float
    float_layers: tuple[str, ...]


class LayerRow(Record):
    """One layer: the PSNR of the images when it alone is rounded."""

    name: str
    weights: Count
    psnr_db: float


class Refinement(Record):
    """Weights prepared for a scheme: PSNR of the images in PyTorch with rounded weights, before and after.

    `layers` and `pareto` are of mixed files, whose `float_layers` a budget chose.
    """

    scheme: str
    psnr_before_db: float
    psnr_after_db: float
    float_layers: tuple[str, ...]
    layers: tuple[LayerRow, ...] = ()
    pareto: tuple[ChoiceRow, ...] = ()


class TorchLatency(Record):
    """PyTorch on the same machine: the time of one image before the export."""

    label: str
    network: Literal["teacher", "student"]
    steps: Annotated[int, Field(ge=1)]
    latency: Latency


class StageRow(Record):
    """A stage of the pipeline; `reused` means that an earlier result was used, which then took `seconds`."""

    name: str
    key: str
    seconds: float
    reused: bool


class Report(Document):
    """All results of one run. Frozen; `edgegen.report.write` makes the files of it."""

    schema_file: ClassVar[Path] = Path(__file__).with_name("report.schema.json")

    schema_: Literal["edgegen.report/1"] = Field("edgegen.report/1", alias="schema")
    name: str
    created_utc: Utc
    recipe: dict[str, Any]
    recipe_sha256: Sha256
    machine: dict[str, Any]
    versions: dict[str, str]
    data: DataFacts
    parameters: Sizes
    macs: Sizes | None = Field(None, description="multiply-accumulates of one evaluation of the net, one image")
    fold: Fold
    extractor: Extractor
    spaces: tuple[FeatureSpace, ...] = ()
    n: Count = Field(description="generated images of each quality figure")
    n_heldout: Count | None = Field(None, description="real images of the floor; null: as many")
    ships: Literal["student", "finished", "baseline", "slimmed"] = Field(
        "student", description="the generator in the files"
    )
    choice: str = Field("", description="why that one is in the files")
    quality: QualityTable
    verdict: Verdict | None = Field(None, description="on the images of the files, made from the other figures")
    artifacts: tuple[ArtifactRow, ...]
    refined: tuple[Refinement, ...] = ()
    profile: Profile | None = Field(None, description="the files as `edgegen profile` measures them: every sample")
    torch_latency: tuple[TorchLatency, ...]
    elsewhere: tuple[Measurement, ...] = Field((), description="[report] measurements: each under its source's name")
    stages: tuple[StageRow, ...]
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _latencies_are_of_the_profile(self) -> "Report":
        """A file that has a latency was measured in `profile`, and has the same one there."""
        if self.profile is None:
            return self
        known = {row.artifact.sha256: row.latency.p50_ms for row in self.profile.results if row.latency is not None}
        for row in self.artifacts:
            if row.latency.p50_ms is not None and row.latency.p50_ms != known.get(row.sha256):
                raise ValueError(f"{row.file}: its p50 is not that of its result in the profile")
        return self
