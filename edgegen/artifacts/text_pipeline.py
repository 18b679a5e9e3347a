"""What an export of a text pipeline leaves beside its files, so that a bundle can lead from a prompt to an image."""

from collections.abc import Sequence
from pathlib import Path

from edgegen.artifacts.tokenizer import write_tokenizer
from edgegen.errors import DataError
from edgegen.formats.bundle_text import TOKENIZER
from edgegen.formats.text_pipeline import TEXT, TextPipeline, write_text_pipeline
from edgegen.models.sources.source import Source
from edgegen.support.storage import sha256_of, storage_errors

ENCODERS = ("CLIPTextModel",)  # others are masked, or their pipelines join several


def write_text_parts(source: Path, output: Path, parts: Sequence[Source]) -> str | None:
    """Writes text.json and tokenizer.json of the pipeline folder `source`, exported as `parts`; what to tell people.

    None, and nothing written, where no part makes images of what another one makes of text. Raises StorageError.
    """
    encoders = [part for part in parts if part.about["family"] in ENCODERS]
    generators = [part for part in parts if part.signature.makes_images]
    texts = [spec for part in generators for spec in part.signature.inputs if spec.role == "text"]
    if len(encoders) != 1 or len(generators) != 1 or len(texts) != 1:
        return None
    with storage_errors(output):  # of an older export
        (output / TEXT).unlink(missing_ok=True)
    try:
        tokenizer = write_tokenizer(source / "tokenizer", output, length=int(texts[0].shape[1]))
    except DataError as e:
        return f"{output}: no app can take a prompt: {e}"
    pipeline = TextPipeline(
        generator=generators[0].name,
        encoder=encoders[0].name,
        input=texts[0].name,
        tokenizer=tokenizer,
        tokenizer_sha256=sha256_of(output / TOKENIZER),
    )
    write_text_pipeline(output, pipeline)
    return f"{output}: {TEXT} joins tokenizer, {pipeline.encoder} and {pipeline.generator}; `edgegen bundle` takes it"
