"""The README.md of a bundle: the model card of its files, a picture of what they make, latencies, a way to check it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.artifacts.model_card import card, card_row, table
from edgegen.artifacts.sample import grid, save
from edgegen.formats.bundle import SCHEMA, Bundle
from edgegen.formats.bundle_folder import CARD
from edgegen.formats.manifest import MANIFEST
from edgegen.program.one_step import NOISE_TIME
from edgegen.support.storage import write_bytes
from edgegen.types import Artifact, Parity

PICTURE = "samples.png"
MOST = 16  # images in the picture
CHECK = f"""`{MANIFEST}` (schema "{SCHEMA}") says all that an app needs: inputs, outputs, noise, hashes, golden images.
`edgegen verify FOLDER` compares every file with it, and runs the artifacts against their golden images."""


def write_bundle_card(
    folder: Path, bundle: Bundle, rows: Sequence[Mapping[str, Any]], images: NDArray[np.uint8]
) -> None:
    """Write README.md and samples.png, of the golden `images` of one artifact. Raises StorageError.

    `rows` are those of the artifacts in the manifest of the export.
    """
    save(grid(images[:MOST]), folder / PICTURE)
    lineage = bundle.lineage
    about = {
        "family": "EdgeUNet",
        "from": f"a run of the recipe {lineage.get('recipe', bundle.name)}",
        "time": NOISE_TIME,
        **lineage,
        "license": bundle.license,
    }
    artifacts = []
    for row in rows:
        artifact = Artifact(**{key: value for key, value in row.items() if key != "parity"})
        artifacts.append(card_row(artifact, Parity(**row["parity"])))
    exported = {
        "name": bundle.name,
        "about": about,
        "signature": bundle.signature.to_dict(),
        "artifacts": artifacts,
        "class_names": bundle.class_names,
    }
    before, after = (
        [_picture(bundle, min(MOST, len(images)))],
        ["## Check and use", CHECK, *_students(bundle), *_prompts(bundle), *_latencies(bundle)],
    )
    write_bytes(folder / CARD, card(exported, before=before, after=after).encode())


def _picture(bundle: Bundle, count: int) -> str:
    made_by = bundle.artifacts[0].golden.made_by
    classes = ", the classes in turn" if bundle.signature.num_classes else ""
    return f"![{count} images]({PICTURE})\n\nGolden images of the seeds 0 to {count - 1}{classes}: {made_by}."


def _students(bundle: Bundle) -> list[str]:
    rows = [
        (f"`{student.file}`", f"{student.nbytes / 1e6:.2f} MB", ", ".join(map(str, student.classes)))
        for artifact in bundle.artifacts
        for student in artifact.students
    ]
    how = f"Each file makes the images of some classes; an app takes that of the class (`students` in `{MANIFEST}`)."
    return ["## Students", how, table(("file", "size", "classes"), rows)] if rows else []


def _prompts(bundle: Bundle) -> list[str]:
    if bundle.text is None:
        return []
    rows = [(f"`{artifact.file}`", f"`{artifact.text_encoder}`") for artifact in bundle.artifacts]
    how = (
        f"`{bundle.text.tokenizer.file}` (library tokenizers) splits a prompt into {bundle.text.tokenizer.length} "
        f"numbers, the text encoder makes `{bundle.text.input}`, and the file an image (`text` in `{MANIFEST}`)."
    )
    return ["## Prompts", how, table(("file", "text encoder"), rows)]


def _latencies(bundle: Bundle) -> list[str]:
    rows = [
        (
            f"`{artifact.file}`",
            row.device if row.machine is None else f"{row.device}: {row.machine}",
            row.runtime or "-",
            str(row.threads),
            f"{row.p50_ms:.2f} ms" + (" (noisy)" if row.status == "noisy" else ""),
            f"{row.p90_ms:.2f} ms",
            "-" if row.load_ms is None else f"{row.load_ms:.1f} ms",
        )
        for artifact in bundle.artifacts
        for row in artifact.latency
    ]
    columns = ("file", "machine", "runtime", "threads", "p50 at batch 1", "p90", "load")
    return ["## Latency", table(columns, rows)] if rows else []
