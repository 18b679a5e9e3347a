"""The text part of a bundle: encoders of its artifacts, golden prompts, and the hidden states that come of them."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.artifacts.bundle_artifact import beside, target_of
from edgegen.artifacts.target import interface
from edgegen.artifacts.tokenizer import tokenized
from edgegen.errors import ExportError, UsageError
from edgegen.exporters.base import Session, in_parts
from edgegen.formats.bundle import Sample
from edgegen.formats.bundle_text import Prompt, TextEncoder, TextInput, TextTensor
from edgegen.formats.manifest import ManifestEntry, check_folder
from edgegen.formats.signature_values import check_signature
from edgegen.formats.text_pipeline import TextPipeline
from edgegen.recipe import Export
from edgegen.support.storage import nbytes_of
from edgegen.types import Parity, Signature
from edgegen.verification.session_process import SessionProcess

# Letters, marks, what a tokenizer folds (case, spaces, accents, a Greek last letter), nothing at all, and too much.
PROMPTS = (
    "a red cat, sitting on the dog's 2 books",
    "",
    "Ein GROSSES  Café: ΟΔΟΣ & 猫 \N{CAT FACE}!",
    "a very long road " * 40,
)
PLAIN = "fp32"

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class TextParts:
    """The parts of a text pipeline in the folder of an export, by which its generator's files get hidden states."""

    folder: Path
    pipeline: TextPipeline
    entries: Sequence[ManifestEntry]

    @classmethod
    def of(cls, folder: Path, pipeline: TextPipeline) -> "TextParts":
        """Raises DataError that names every file of the encoder that is not as exported."""
        return cls(folder, pipeline, check_folder(folder / pipeline.encoder))

    def encoder_of(self, entry: ManifestEntry) -> ManifestEntry:
        """The encoder for a file of the generator: of its runtime and scheme, else in float32. Raises UsageError."""
        target = target_of(entry)
        passed = [each for each in self.entries if each.row["parity"]["status"] == "ok"]
        for scheme in (target.scheme, PLAIN):
            same = [
                each for each in passed if (target_of(each).backend, target_of(each).scheme) == (target.backend, scheme)
            ]
            if same:
                return min(same, key=lambda each: target_of(each).variant != target.variant)
        raise UsageError(
            f"{entry.row['file']}: no text encoder of {target.backend} that passed the comparison with PyTorch is in "
            f"{self.folder / self.pipeline.encoder}; export the pipeline with {target.backend}-{PLAIN}, or "
            "choose others by --artifact"
        )

    def copy(self, entries: Sequence[ManifestEntry], folder: Path) -> TextInput:
        """Copies tokenizer and the encoders of the generator's `entries` into `folder`."""
        tokenizer = self.pipeline.tokenizer
        shutil.copyfile(self.folder / tokenizer.file, folder / tokenizer.file)
        chosen = {encoder.row["file"]: encoder for encoder in map(self.encoder_of, entries)}
        for encoder in chosen.values():
            for name in (encoder.row["file"], *beside(encoder)):
                place = self.folder / self.pipeline.encoder / name
                (shutil.copytree if place.is_dir() else shutil.copyfile)(place, folder / name)
        encoders = tuple(_encoder(folder, encoder) for encoder in chosen.values())
        return TextInput(input=self.pipeline.input, tokenizer=tokenizer, encoders=encoders)


def _encoder(folder: Path, entry: ManifestEntry) -> TextEncoder:
    row, target = entry.row, target_of(entry)
    faces = interface(target, check_signature(entry.signature), Export())
    tokens, states = ({key: face[key] for key in ("name", "dtype", "shape")} for face in
                      (faces["inputs"][0], faces["outputs"][0]))  # fmt: skip
    return TextEncoder(
        file=row["file"],
        runtime=row["backend"],
        scheme=row["scheme"],
        variant=row.get("variant", ""),
        nbytes=sum(nbytes_of(folder / name) for name in (row["file"], *beside(entry))),
        sha256=row["sha256"],
        beside=beside(entry),
        tokens=TextTensor(**{**tokens, "shape": tuple(tokens["shape"])}),
        hidden_states=TextTensor(**{**states, "shape": tuple(states["shape"])}),
        parity=Parity(**row["parity"]),
    )


def golden_prompts(
    folder: Path, text: TextInput, samples: Sequence[Sample]
) -> tuple[tuple[Prompt, ...], tuple[Sample, ...]]:
    """The prompts with their token numbers, and the samples with the prompts in turn. Raises MissingExtraError."""
    prompts = tokenized(folder / text.tokenizer.file, text.tokenizer, PROMPTS)
    return prompts, tuple(
        sample.model_copy(update={"prompt": number % len(prompts)}) for number, sample in enumerate(samples)
    )


def hidden_states(session: Session, encoder: TextEncoder, prompts: Sequence[Prompt]) -> NDArray[Any]:
    """(prompts, length, width) of their token numbers. Raises ExportError where the runtime gives something else."""
    tokens = np.array([prompt.tokens for prompt in prompts], np.int64)
    outputs = in_parts({encoder.tokens.name: tokens}, session, largest=1)
    states = outputs.get(encoder.hidden_states.name)
    expected = (len(prompts), *encoder.hidden_states.shape[1:])
    if states is None or states.shape != expected:
        shown = ", ".join(f"{name} {list(values.shape)}" for name, values in outputs.items())
        raise ExportError(f"{encoder.file}: gives {shown}, and not {encoder.hidden_states.name} {list(expected)}")
    return states


@dataclass(frozen=True)
class PromptInputs:
    """The golden inputs of a bundle in `folder`, for each of its files: with the hidden states of its own encoder.

    `inputs` are all others, by name.
    """

    folder: Path
    text: TextInput
    prompts: Sequence[Prompt]
    samples: Sequence[Sample]
    signature: Signature
    inputs: Arrays

    def of(self, encoder_file: str | None, process: SessionProcess) -> Arrays:
        """In the signature's order. Raises ExportError where the encoder cannot be run."""
        encoder = self.text.encoder(encoder_file)
        states = hidden_states(process.open(encoder.runtime, self.folder / encoder.file), encoder, self.prompts)
        numbers = [sample.prompt or 0 for sample in self.samples]  # the manifest's check knows that each has one
        all_inputs = {**self.inputs, self.text.input: states[numbers]}
        return {spec.name: all_inputs[spec.name] for spec in self.signature.inputs}
