"""The part of a bundle's manifest that says how a prompt becomes an input: tokenizer, token numbers, text encoder."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import Field

from edgegen.formats.bundle_types import BundlePath, Shape, Size
from edgegen.support.schema import Count, FileName, Record, Sha256
from edgegen.types import Parity, Signature

TOKENIZER = "tokenizer.json"
LONGEST_PROMPT = 10_000  # characters


class Tokenizer(Record):
    """From a prompt to `length` token numbers, by the library `tokenizers` and its file.

    `encode(prompt)` gives the numbers with those of beginning and end. Of more than `length` the first length - 1 are
    kept, and `end_id` is the last; to fewer `pad_id` is added at the end.
    """

    file: BundlePath = Field(description="tokenizer.json of the library tokenizers, without truncation and padding")
    length: Size
    end_id: Count
    pad_id: Count


class TextTensor(Record):
    """Token numbers or hidden states, as one file has them."""

    name: str
    dtype: Literal["float32", "int64", "int32"]
    shape: Shape


class TextEncoder(Record):
    """A file that makes hidden states of token numbers; `sha256`, `nbytes`, `beside` as of an artifact."""

    file: FileName
    runtime: str = Field(description="onnx, executorch or coreml")
    scheme: str
    variant: str = ""
    nbytes: Count
    sha256: Sha256
    beside: tuple[FileName, ...] = ()
    tokens: TextTensor = Field(description="(batch, length)")
    hidden_states: TextTensor = Field(description="(batch, length, width)")
    parity: Parity = Field(description="against PyTorch, when it was exported")

    def holds(self, path: str) -> bool:
        """Whether `path` is this file, lies in it, or belongs beside it."""
        return PurePosixPath(path).parts[0] in (self.file, *self.beside)


class Prompt(Record):
    """A prompt of the golden images, and the token numbers that its tokenizer must give."""

    text: Annotated[str, Field(max_length=LONGEST_PROMPT)]
    tokens: tuple[Count, ...]


class TextInput(Record):
    """How the artifacts' input `input` is made: tokenizer, then the encoder that the artifact names."""

    input: str = Field(description="name of the artifacts' input with the role text")
    tokenizer: Tokenizer
    encoders: Annotated[tuple[TextEncoder, ...], Field(min_length=1)]

    def encoder(self, file: str | None) -> TextEncoder:
        """The encoder with that name. Raises KeyError."""
        for encoder in self.encoders:
            if encoder.file == file:
                return encoder
        raise KeyError(file)

    def check(self, signature: Signature) -> None:
        """Raises ValueError where the artifacts of `signature` do not take what the encoders give."""
        spec = next((spec for spec in signature.inputs if spec.name == self.input), None)
        if spec is None or spec.role != "text" or spec.shape[1:2] != (self.tokenizer.length,):
            raise ValueError(
                f"text.input: {self.input} is no input of {self.tokenizer.length} tokens with the role text"
            )
        for encoder in self.encoders:
            if encoder.hidden_states.shape[1:] != spec.shape[1:]:
                raise ValueError(f"{encoder.file}: does not give what {self.input} takes")


def check_prompts(prompts: Sequence[Prompt], numbers: Sequence[int | None], *, length: int) -> None:
    """Raises ValueError where one of the `numbers` is of no prompt, or a prompt has not `length` tokens."""
    if any(number is None or number >= len(prompts) for number in numbers):
        raise ValueError("golden.samples: one has no prompt")
    if any(len(prompt.tokens) != length for prompt in prompts):
        raise ValueError(f"golden.prompts: one has not {length} tokens")
