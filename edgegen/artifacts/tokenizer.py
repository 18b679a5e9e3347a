"""The tokenizer of a text pipeline: from a diffusers folder to tokenizer.json, and from prompts to token numbers."""

import importlib.util
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgegen.errors import DataError, MissingExtraError
from edgegen.formats.bundle_text import TOKENIZER, Prompt, Tokenizer
from edgegen.models.diffusers.weights import LOADING
from edgegen.support.storage import write_bytes
from edgegen.support.vendor_logs import quiet

LIBRARY = "tokenizers"


def write_tokenizer(source: Path, output: Path, *, length: int) -> Tokenizer:
    """Writes tokenizer.json of the CLIP tokenizer in the folder `source` into `output`.

    Raises DataError where there is none, or its numbers are not `length` with one at the beginning and one at the end.
    """
    with quiet(LOADING):
        import transformers

        try:
            loaded: Any = transformers.CLIPTokenizerFast.from_pretrained(str(source), local_files_only=True)
        except Exception as e:
            raise DataError(f"{source}: no CLIP tokenizer that transformers reads: {' '.join(str(e).split())}") from e
        backend = loaded.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
    begin, end, pad = loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id
    if backend.encode("").ids != [begin, end] or not isinstance(pad, int):
        raise DataError(f"{source}: a prompt of no letters is {backend.encode('').ids}, and not a beginning and an end")
    write_bytes(output / TOKENIZER, backend.to_str().encode())
    return Tokenizer(file=TOKENIZER, length=length, end_id=end, pad_id=pad)


def tokenized(file: Path, tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Prompt, ...]:
    """Each text with its token numbers. Raises MissingExtraError without the library, DataError for another file."""
    if importlib.util.find_spec(LIBRARY) is None:
        raise MissingExtraError(LIBRARY, extra="text", purpose="turning prompts into token numbers")
    import tokenizers

    try:
        library = tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as e:
        raise DataError(f"{file}: not a file of the library tokenizers: {e}") from e
    return tuple(Prompt(text=text, tokens=_fitted(library.encode(text).ids, tokenizer)) for text in texts)


def library_version() -> str:
    return f"{LIBRARY} {version(LIBRARY)}"


def _fitted(numbers: Sequence[int], tokenizer: Tokenizer) -> tuple[int, ...]:
    length = tokenizer.length
    if len(numbers) > length:
        return (*numbers[: length - 1], tokenizer.end_id)
    return (*numbers, *[tokenizer.pad_id] * (length - len(numbers)))
