"""Names inside the folder of a stage that more than one part reads or writes, and the check of its files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgegen.formats.file_hashes import FileHashes

RUN = "run.json"  # at the root of a run folder: whose it is
STATUS = ".status.json"  # beside it: what the run is doing
STAGE = "stage.json"  # of a finished stage: every file with its SHA-256
CHECKPOINT = "checkpoint.safetensors"  # of a training stage under way
GOOD = "checkpoint-good.safetensors"  # beside it, of one that watches a figure: while that was good
CHOICE = "choice.json"  # of the stage choose: which generator a run ships, and why
GENERATOR = "generator"  # the sub-folder that is a generator folder
VERIFIER = "verifier"  # beside it, of methods that train one: what chooses the best of several images
AVERAGE = "average-{}.safetensors"  # beside it: the weights of a further average, by its width
BUNDLE = "bundle"  # of the stage bundle: the folder for an app
AUTOENCODER = "autoencoder"  # of the stage data, and in a generator folder: of a network that makes latents
ARTIFACTS = "artifacts"  # of the stage verify: all files of the run, and the manifest with their parity


def sample_shape(about: Mapping[str, Any]) -> list[int]:
    """(channels, height, width) of what the networks of a run make, by data.json: images, or their latents.

    Of signals (channels, length).
    """
    shape: list[int] = about.get("sample_shape", about["image_shape"])
    return shape


def are_signals(about: Mapping[str, Any]) -> bool:
    """Whether a run's data, by data.json, are signals (channels, length) and no images."""
    return len(about["image_shape"]) == 2


def check_files(folder: Path, files: Mapping[str, Mapping[str, Any]], *, hashes: FileHashes) -> None:
    """Compares files of a finished stage with what its stage.json says: `files` is by name, below `folder`.

    Raises DataError that names the first one that does not hold what was written there.
    """
    remedy = f"delete {folder} and run the same command again, or put the file back"
    for name, facts in files.items():
        hashes.check(folder / name, facts["sha256"], record=folder / STAGE, remedy=remedy)
