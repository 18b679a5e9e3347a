"""The text encoder of a pipeline whose denoiser takes just what it gives: token numbers -> hidden states."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgegen.errors import DataError
from edgegen.models.diffusers.families import Place
from edgegen.models.diffusers.weights import LOADING, load_transformers
from edgegen.models.sources.source import Named, Source, about, batched, finish, license_of
from edgegen.support.vendor_logs import quiet
from edgegen.types import Signature, TensorSpec

KINDS = ("CLIPTextModel", "T5EncoderModel")
PAD = 0  # T5's number of the padding token


class TextEncoder(Named):
    """Token numbers (batch, tokens) -> hidden states (batch, tokens, width) after the last norm."""

    def __init__(self, net: nn.Module, *, masked: bool) -> None:
        super().__init__()
        self.net, self.masked = net, masked

    def compute(self, inputs: Mapping[str, Tensor]) -> Tensor:
        tokens = inputs["input_ids"]
        options = {"attention_mask": (tokens != PAD).long()} if self.masked else {}
        out: Tensor = self.net(input_ids=tokens, return_dict=False, **options)[0]
        return out


def text_encoder(place: Place, kind: str, *, wanted: TensorSpec) -> Source:
    """The text encoder in `place`, for a denoiser that takes `wanted` (batch_size, tokens, width).

    Raises DataError where it gives something else, or cannot be read.
    """
    if kind not in KINDS:
        raise DataError(f"{kind}: no family; there are: {', '.join(KINDS)}")
    if importlib.util.find_spec("transformers") is None:
        raise DataError("it needs 'transformers', which is not installed: pip install transformers")
    with quiet(LOADING):
        import transformers

        network = getattr(transformers, kind)
    loaded, notes = load_transformers(place.folder, network, random_weights=place.random_weights)
    net: Any = loaded
    _, tokens, width = wanted.shape
    if net.config.hidden_size != width:
        raise DataError(f"its hidden states are {net.config.hidden_size} wide, the denoiser takes {width}")
    module = finish(TextEncoder.taking(["input_ids"])(net, masked=kind == "T5EncoderModel"))
    shape = batched(int(tokens))
    # Numbers up to a limit, though no classes: the net is not to be folded into a table of all of them.
    takes = TensorSpec("input_ids", shape, "int64", "features", 0.0, float(net.config.vocab_size - 1))
    gives = TensorSpec("out_sample", wanted.shape, "float32", "text")
    description = about(
        module,
        family=kind,
        come_from=place.come_from,
        license_name=license_of(*place.cards),
        random_weights=place.random_weights,
        notes=[f"input_ids: {tokens} tokens of the tokenizer in {Path(place.folder).parent.name}/tokenizer", *notes],
    )
    return Source(place.name, module, Signature((takes,), (gives,)), description)
