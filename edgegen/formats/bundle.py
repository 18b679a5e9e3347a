"""manifest.json of an app bundle: the documented schema "edgegen.bundle/1", all that an app needs to run its files.

Its JSON Schema is committed beside this file; after a change here:
`python -c "from edgegen.formats.bundle import Bundle; Bundle.update_schema_file()"`.
Hashes and names of the folder are checked in `bundle_folder`.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, model_validator

from edgegen.errors import DataError
from edgegen.formats.bundle_students import Student, check_students
from edgegen.formats.bundle_text import Prompt, TextEncoder, TextInput, check_prompts
from edgegen.formats.bundle_types import WIDTHS, BundlePath, Dtype, Finite, Ms, Shape, Size, check_unique, is_unset
from edgegen.formats.signature_values import check_signature
from edgegen.support.schema import Count, Document, FileName, Record, Sha256
from edgegen.types import Parity, Role, Signature

SCHEMA: Literal["edgegen.bundle/1"] = "edgegen.bundle/1"
MOST_NUMBERS = 1 << 28  # of the inputs of all golden images: a GiB
FAMILY = SCHEMA.partition("/")[0] + "/"
REMEDY = "copy the bundle again, or make it again by `edgegen bundle`"
LARGEST_SEED = (1 << 53) - 1  # of the golden images: JavaScript reads no larger whole number from JSON


class Input(Record):
    """One input of an artifact, in the order in which a runtime without names takes them.

    By its `role` an app fills it: noise with normal numbers (see `noise`), class with a number from `low` to `high`,
    image with x = low + pixel (high - low) / 255; text as `text` of the bundle says; latent and features, and text of a
    bundle without that, with what another network gives.
    """

    name: str
    role: Role
    dtype: Dtype
    shape: Shape
    low: Finite | None = Field(None, description="least value; null: unbounded")
    high: Finite | None = None
    seed_offset: Count = Field(0, description="of noise: it is drawn from seed + seed_offset")


class Output(Record):
    """The image that a method gives. uint8 pixels are shown as they are; of floats, `low` is black and `high` white:

    pixel = round(255 (x - low) / (high - low)), cut to 0 .. 255.
    """

    name: str
    dtype: Dtype
    shape: Shape
    layout: Literal["NCHW", "NHWC", "CVPixelBuffer"]
    low: Finite
    high: Finite


class MethodSpec(Record):
    """What can be called in an artifact; all of its methods take its `inputs`."""

    name: str | None = Field(description="forward or generate in a .pte; null where a file does one thing")
    output: Output


class ExpectedImages(Record):
    """The golden images of one artifact: each must come within `floor_db` (PSNR of uint8, relative to 255)."""

    file: BundlePath = Field(description="raw uint8, (samples, height, width, channels), no header")
    floor_db: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    made_by: str = Field(description="the file and the runtime that made them")


class LatencyRow(Record):
    """One measurement of an artifact at batch 1; what is not known is null."""

    device: str = Field(description="host, ssh, adb, browser, ...")
    machine: str | None
    os: str | None
    runtime: str | None
    threads: Count
    p50_ms: Ms
    p90_ms: Ms
    load_ms: Ms | None
    first_ms: Ms | None
    peak_rss_bytes: Count | None
    status: Literal["ok", "noisy"] = Field(description="a noisy one should not be believed")
    created: str = Field(description="when it was measured, UTC")


class BundledArtifact(Record):
    """One exported file, or .mlpackage folder, with all that an app has to know of it.

    `sha256` identifies it in pictures: of a folder it is that of the sorted relative names, sizes and contents of its
    files, each as name, NUL, size in digits, NUL, content. `nbytes` counts what lies beside it as well. Of several
    `students` the first is `file`, with its `sha256` and `beside`, and `nbytes` are those of all.
    """

    file: FileName
    runtime: str = Field(description="onnx, executorch or coreml")
    scheme: str = Field(description="how its numbers are stored: fp32, fp16, w8a8, ...")
    variant: str = Field("", description="the kind of file; empty for the plain one")
    about: str = Field(description="what the file is for, in words")
    nbytes: Count
    sha256: Sha256
    beside: tuple[FileName, ...] = Field((), description="files that it needs beside it")
    batch: Size | None = Field(description="null: any number of samples at once")
    heights_widths: tuple[tuple[Size, Size], ...] | None = Field(
        description="sizes that the first spatial input may have; null: any"
    )
    inputs: Annotated[tuple[Input, ...], Field(min_length=1)]
    methods: Annotated[tuple[MethodSpec, ...], Field(min_length=1)]
    parity: Parity = Field(description="against PyTorch, when it was exported")
    golden: ExpectedImages
    text_encoder: FileName | None = Field(
        None, exclude_if=is_unset, description="of `text.encoders`, what makes its input with the role text"
    )
    students: tuple[Student, ...] = Field(
        (), exclude_if=is_unset, description="its files, where each makes the images of some classes; else empty"
    )
    latency: tuple[LatencyRow, ...] = ()
    caution: str = Field("", description="what to know before the file is shipped")

    def holds(self, path: str) -> bool:
        """Whether `path` is this artifact, lies in it, or belongs beside it."""
        own = PurePosixPath(path).parts[0] in (self.file, *self.beside)
        return own or any(student.holds(path) for student in self.students)


class Sample(Record):
    """The inputs of one golden image: noise is that of `index` of `seed`."""

    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)]
    index: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 0
    label: Count | None = Field(description="class number; null where no input is a class")
    prompt: Count | None = Field(None, exclude_if=is_unset, description="number of one of `prompts`")


class GivenInput(Record):
    """An input of the golden images that is neither noise, nor a class, nor made of a prompt: all samples in one file.

    An image is stored as an app has it, uint8 (samples, height, width, channels); everything else as the network takes
    it, little-endian.
    """

    name: str
    file: BundlePath = Field(description="raw numbers, no header")
    dtype: Dtype
    shape: tuple[Size, ...]


class Golden(Record):
    """What the golden images of all artifacts are made from."""

    samples: Annotated[tuple[Sample, ...], Field(min_length=1)]
    prompts: tuple[Prompt, ...] = Field((), exclude_if=is_unset)
    inputs: tuple[GivenInput, ...] = ()
    shape: tuple[Size, Size, Size, Size] = Field(description="of each file of images: samples, height, width, channels")


class NoiseSpec(Record):
    """How the inputs with the role noise are drawn; sample i of a seed depends on nothing else."""

    distribution: Literal["standard normal"] = "standard normal"
    generator: Literal["Philox4x32-10, Box-Muller"] = "Philox4x32-10, Box-Muller"
    stream: Literal[0] = 0
    specification: str = Field("edgegen.noise; the manual's page on noise", description="where it is specified")


class BundledFile(Record):
    path: BundlePath
    nbytes: Count
    sha256: Sha256


class Bundle(Document):
    """All of a bundle. `files` lists everything in it but manifest.json and manifest.json.sha256."""

    schema_file: ClassVar[Path] = Path(__file__).with_name("bundle.schema.json")

    schema_: Literal["edgegen.bundle/1"] = Field(SCHEMA, alias="schema")
    name: Annotated[str, Field(min_length=1)]
    license: str = Field(description="of the generator; 'not stated' where nobody said it")
    signature: Signature = Field(description="of the generator; an artifact's own is in its `inputs` and `methods`")
    class_names: tuple[str, ...] = Field((), description="of the classes 0, 1, ...; empty where not known")
    colors: Literal["gray", "RGB"] = Field(description="order of the channels")
    noise: NoiseSpec = NoiseSpec()
    artifacts: Annotated[tuple[BundledArtifact, ...], Field(min_length=1)]
    golden: Golden
    text: TextInput | None = Field(None, exclude_if=is_unset, description="how a prompt becomes an input")
    lineage: dict[str, Any] = Field(description="what the generator comes from")
    tools: dict[str, str] = Field(description="versions of what exported the files")
    files: tuple[BundledFile, ...]

    @model_validator(mode="after")
    def _consistent(self) -> "Bundle":
        """Every name leads to a listed file of the right size, and nothing is said twice in two ways."""
        if not self.signature.inputs or len(self.signature.outputs) != 1 or not self.signature.makes_images:
            raise ValueError("signature: has no inputs, or no image as its one output")
        paths = [file.path for file in self.files]
        check_unique(paths, "files: paths")
        encoders = self.text.encoders if self.text else ()
        students = [student.file for row in self.artifacts for student in row.students[1:]]
        names = [*(row.file for row in self.artifacts), *students, *(row.file for row in encoders)]
        check_unique(names, "artifacts: files")
        sizes = {file.path: file.nbytes for file in self.files}
        for artifact in self.artifacts:
            self._check_artifact(artifact)
        self._check_text()
        for item in self.golden.inputs:
            _check_size(sizes, item.file, math.prod(item.shape) * WIDTHS[item.dtype], f"golden input {item.name}")
        self._check_golden()
        return self

    def _check_text(self) -> None:
        """What leads from a prompt to the artifacts' input is there, and fits together."""
        text, prompts = self.text, self.golden.prompts
        named = {artifact.text_encoder for artifact in self.artifacts}
        numbers = [sample.prompt for sample in self.golden.samples]
        if text is None:
            if named != {None} or prompts or any(number is not None for number in numbers):
                raise ValueError("text: is missing, and a text encoder or a prompt is named")
            return
        for encoder in text.encoders:
            self._check_file(encoder)
        if text.tokenizer.file not in {file.path for file in self.files}:
            raise ValueError(f"text.tokenizer: `files` says nothing of {text.tokenizer.file}")
        runtimes = {encoder.file: encoder.runtime for encoder in text.encoders}
        for artifact in self.artifacts:
            if runtimes.get(str(artifact.text_encoder)) != artifact.runtime:
                raise ValueError(f"{artifact.file}: {artifact.text_encoder} is no text encoder for {artifact.runtime}")
        text.check(self.signature)
        check_prompts(prompts, numbers, length=text.tokenizer.length)

    def _check_artifact(self, artifact: BundledArtifact) -> None:
        self._check_file(artifact)
        names = [spec.name for spec in self.signature.inputs]
        if [spec.name for spec in artifact.inputs] != names:
            raise ValueError(f"{artifact.file}: its inputs are other than those of the signature, {', '.join(names)}")
        if artifact.students:
            first = artifact.students[0]
            if (first.file, first.sha256, first.beside) != (artifact.file, artifact.sha256, artifact.beside):
                raise ValueError(f"{artifact.file}: its first student is another file")
            check_students(artifact.students, classes=self.signature.num_classes)
            for student in artifact.students:
                self._check_file(student)
        sizes = {file.path: file.nbytes for file in self.files}
        _check_size(sizes, artifact.golden.file, math.prod(self.golden.shape), f"golden images of {artifact.file}")

    def _check_file(self, artifact: BundledArtifact | Student | TextEncoder) -> None:
        own = [file for file in self.files if artifact.holds(file.path)]
        if sum(file.nbytes for file in own) != artifact.nbytes:
            raise ValueError(f"{artifact.file}: has {artifact.nbytes} bytes, and its files {_sum(own)}")
        whole = [file for file in own if file.path == artifact.file]
        if whole and whole[0].sha256 != artifact.sha256:
            raise ValueError(f"{artifact.file}: its sha256 and that in `files` differ")

    def _check_golden(self) -> None:
        channels, height, width = self.signature.image_shape
        samples, classes = self.golden.samples, self.signature.num_classes
        if self.golden.shape != (len(samples), height, width, channels):
            raise ValueError(
                f"golden.shape: is {list(self.golden.shape)}; {len(samples)} samples of the signature's image are "
                f"{[len(samples), height, width, channels]}"
            )
        if self.colors != {1: "gray", 3: "RGB"}[channels]:
            raise ValueError(f"colors: is {self.colors}, and an image has {channels} channels")
        numbers = sum(math.prod(int(size) for size in spec.shape[1:]) for spec in self.signature.inputs) * len(samples)
        if numbers > MOST_NUMBERS:
            raise ValueError(f"golden.samples: their inputs are {numbers:,} numbers; at most {MOST_NUMBERS:,} are read")
        labels = [sample.label for sample in samples]
        if any((label is None) == bool(classes) or (label or 0) > max(0, classes - 1) for label in labels):
            raise ValueError(f"golden.samples: labels of other than the {classes} classes (null where there are none)")
        if self.class_names and len(self.class_names) != classes:
            raise ValueError(f"class_names: are {len(self.class_names)}, and there are {classes} classes")
        given = {spec.name for spec in self.signature.inputs if spec.role not in ("noise", "class")}
        given -= {self.text.input} if self.text else set()
        if {item.name for item in self.golden.inputs} != given:
            raise ValueError(f"golden.inputs: needed are those of {', '.join(sorted(given)) or 'no input'}")
        if any(item.shape[:1] != (len(samples),) for item in self.golden.inputs):
            raise ValueError(f"golden.inputs: one has not {len(samples)} samples")


def is_of_bundle(content: Any) -> bool:
    """Whether the JSON values are meant to be those of a bundle, of this version or another."""
    return isinstance(content, dict) and str(content.get("schema", "")).startswith(FAMILY)


def bundle_of(values: Any, *, where: str) -> Bundle:
    """The record of a bundle's manifest.json in plain JSON values. Raises DataError that names the wrong key."""
    schema = values.get("schema") if isinstance(values, dict) else None
    if schema != SCHEMA:
        raise DataError(f"{where}: its schema is {schema!r}, and this edgegen reads '{SCHEMA}'")
    try:
        check_signature(values.get("signature"))
        # By way of JSON, whose strict mode takes a list for a tuple, and no text for a number.
        return Bundle.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as e:
        first = e.errors()[0]
        key = ".".join(map(str, first["loc"]))
        reason = first["ctx"]["error"] if first["type"] == "value_error" else first["msg"]
        raise DataError(f"{where}: {key}{': ' if key else ''}{reason}; {REMEDY}") from e
    except ValueError as e:
        raise DataError(f"{where}: signature: {e}; {REMEDY}") from e


def _check_size(sizes: dict[str, int], path: str, nbytes: int, what: str) -> None:
    if sizes.get(path) != nbytes:
        raise ValueError(f"{what}: {nbytes} bytes in {path}; `files` says {sizes.get(path, 'nothing of it')}")


def _sum(files: Iterable[BundledFile]) -> int:
    return sum(file.nbytes for file in files)
