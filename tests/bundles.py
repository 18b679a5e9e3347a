"""A small bundle for the tests of what makes, checks and damages one."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from small_nets import SIGNATURE, Net

from edgegen.artifacts.build import build, unchecked
from edgegen.artifacts.bundle import write_bundle
from edgegen.artifacts.target import Target
from edgegen.formats.bundle_folder import HASH
from edgegen.formats.manifest import MANIFEST, write_manifest
from edgegen.formats.router import Route, write_router
from edgegen.program.one_step import OneStep
from edgegen.support.progress import Silent

TARGETS = ("onnx-fp32", "executorch-fp32", "coreml-fp32")
CLASSES = [f"class {number}" for number in range(10)]


def exported(
    place: Path, *, targets: tuple[str, ...] = TARGETS, seed: int = 0, status: str = "ok", name: str = "net"
) -> Path:
    """A new folder with the files `name`_... of a net with random weights, and their manifest."""
    place.mkdir(parents=True)
    torch.manual_seed(seed)
    net = OneStep(Net()).eval()
    made = [
        build(net, SIGNATURE, name=name, target=Target.parse(target), folder=place, seed=3, metadata={}).artifact
        for target in targets
    ]
    lineage = {"recipe": "net", "license": "cc0-1.0"}
    write_manifest(place, made, SIGNATURE, lineage=lineage, parity=unchecked(made), class_names=CLASSES)
    manifest = json.loads((place / MANIFEST).read_text())
    for row in manifest["artifacts"]:
        row["parity"]["status"] = status
    (place / MANIFEST).write_text(json.dumps(manifest))
    return place


def exported_students(place: Path, *, targets: tuple[str, ...] = TARGETS) -> Path:
    """The export of two students of other weights, for the classes 0 to 3 and 4 to 9."""
    for number in range(2):
        exported(place / f"net-{number}", targets=targets, seed=number, name=f"net-{number}")
    write_router(place, [Route("net-0", tuple(range(4))), Route("net-1", tuple(range(4, 10)))])
    return place


def bundled(files: Path, place: Path, **options: Any) -> Path:
    write_bundle(files, place, progress=Silent(), **options)
    return place


def hash_again(bundle: Path) -> None:
    """Whoever changes a manifest can write its hash, too."""
    digest = hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()
    (bundle / HASH).write_text(f"{digest}  {MANIFEST}\n")


def edit_manifest(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The manifest with a change, and its hash."""
    content = json.loads((bundle / MANIFEST).read_text())
    change(content)
    (bundle / MANIFEST).write_text(json.dumps(content))
    hash_again(bundle)


def replace_file(bundle: Path, path: str, content: bytes) -> None:
    """A file with other content that the manifest knows of, in every place that says it."""

    def change(manifest: dict[str, Any]) -> None:
        (bundle / path).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        (row,) = (row for row in manifest["files"] if row["path"] == path)
        row.update(nbytes=len(content), sha256=digest)
        for artifact in [*manifest["artifacts"], *manifest.get("text", {}).get("encoders", ())]:
            if artifact["file"] == path:
                artifact.update(nbytes=len(content), sha256=digest)

    edit_manifest(bundle, change)
