"""Small bundles for the tests of apps: noise and classes to images, and image to image."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundles import bundled, exported, exported_students
from numpy.typing import NDArray
from torch import Tensor, nn

from edgegen.artifacts.build import build, unchecked
from edgegen.artifacts.target import Target
from edgegen.formats.bundle import Bundle, BundledArtifact
from edgegen.formats.manifest import write_manifest
from edgegen.noise import normal
from edgegen.registry import load
from edgegen.types import Signature, TensorSpec


def classes_bundle(place: Path, *, targets: tuple[str, ...] = ("onnx-fp32", "executorch-fp32")) -> Path:
    """Noise and ten classes to gray images."""
    return bundled(exported(place.with_name(f"{place.name}-export"), targets=targets), place)


def students_bundle(place: Path, *, targets: tuple[str, ...] = ("onnx-fp32", "executorch-fp32")) -> Path:
    """As `classes_bundle`, of two students for the classes 0 to 3 and 4 to 9."""
    return bundled(exported_students(place.with_name(f"{place.name}-export"), targets=targets), place)


class Enlarge(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, photo: Tensor) -> Tensor:
        enlarged: Tensor = torch.sigmoid(self.mix(nn.functional.interpolate(photo, scale_factor=2)))
        return enlarged


def photo_bundle(place: Path, *, targets: tuple[str, ...] = ("onnx-fp32",)) -> Path:
    """RGB images of 6x4 to such of 12x8."""
    signature = Signature(
        (TensorSpec("photo", ("batch_size", 3, 4, 6), "float32", "image", -1.0, 1.0),),
        (TensorSpec("out", ("batch_size", 3, 8, 12), "float32", "image", 0.0, 1.0),),
    )
    files = place.with_name(f"{place.name}-export")
    files.mkdir()
    torch.manual_seed(0)
    net = Enlarge().eval()
    made = [
        build(net, signature, name="x2", target=Target.parse(target), folder=files, seed=0, metadata={}).artifact
        for target in targets
    ]
    write_manifest(files, made, signature, lineage={}, parity=unchecked(made))
    return bundled(files, place, artifacts=targets)


def artifact_of(bundle: Bundle, runtime: str) -> BundledArtifact:
    (artifact,) = (row for row in bundle.artifacts if row.runtime == runtime)
    return artifact


def golden_feeds(bundle: Bundle, folder: Path, artifact: BundledArtifact) -> list[dict[str, NDArray[Any]]]:
    """What the artifact is given for each golden image, one sample at a time, by its manifest alone."""
    files = {item.name: item for item in bundle.golden.inputs}
    feeds = []
    for position, sample in enumerate(bundle.golden.samples):
        feed: dict[str, NDArray[Any]] = {}
        for spec in artifact.inputs:
            shape = [1, *map(int, spec.shape[1:])]
            if spec.role == "noise":
                values: NDArray[Any] = normal(sample.seed + spec.seed_offset, sample.index, 1, shape[1:])
            elif spec.role == "class":
                values = np.full(shape, sample.label)
            else:
                assert spec.low is not None
                assert spec.high is not None
                item = files[spec.name]
                pixels = np.fromfile(folder / item.file, np.uint8).reshape(item.shape)[position : position + 1]
                step = np.float32((spec.high - spec.low) / 255)
                values = pixels.transpose(0, 3, 1, 2).astype(np.float32) * step + np.float32(spec.low)
            feed[spec.name] = values.astype(spec.dtype)
        feeds.append(feed)
    return feeds


def answers_of_onnx(path: Path, feeds: Sequence[Mapping[str, NDArray[Any]]], output: str) -> list[NDArray[Any]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return [session.run([output], dict(feed))[0] for feed in feeds]


def answers_of_executorch(path: Path, feeds: Sequence[Mapping[str, NDArray[Any]]], method: str) -> list[NDArray[Any]]:
    """Of one method of a .pte, by ExecuTorch's Python runtime alone."""
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(path.read_bytes())
    loaded = program.load_method(method)
    assert loaded is not None
    return [loaded.execute([torch.from_numpy(values) for values in feed.values()])[0].numpy() for feed in feeds]


def answers_of(
    backend: str, path: Path, feeds: Sequence[Mapping[str, NDArray[Any]]], output: str
) -> list[NDArray[Any]]:
    """By the session that edgegen itself compares files in: for those whose runtime is not to be had here."""
    session = load("backend", backend).open(path)
    return [session(feed)[output] for feed in feeds]
