"""The text encoder of a pipeline whose denoiser takes its output alone: token numbers -> hidden states."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgegen.errors import DataError
from edgegen.models.diffusers.families import NetworkFolder
from edgegen.models.diffusers.weights import LOADING, load_transformers
from edgegen.models.sources.source import NamedInputs, Source, about, batched, finish, license_of
from edgegen.support.vendor_logs import quiet
from edgegen.types import Signature, TensorSpec

KINDS = ("CLIPTextModel", "T5EncoderModel")
PAD = 0  # T5's number of the padding token


class TextEncoder(NamedInputs):
    """Token numbers (batch, tokens) -> hidden states (batch, tokens, width) after the last norm."""

    def __init__(self, net: nn.Module, *, masked: bool) -> None:
        super().__init__()
        self.net, self.masked = net, masked

    def compute(self, inputs: Mapping[str, Tensor]) -> Tensor:
        tokens = inputs["input_ids"]
        options = {"attention_mask": (tokens != PAD).long()} if self.masked else {}
        out: Tensor = self.net(input_ids=tokens, return_dict=False, **options)[0]
        return out


def text_encoder(location: NetworkFolder, kind: str, *, hidden_states: TensorSpec) -> Source:
    """The text encoder in `location`, for a denoiser that takes `hidden_states` (batch_size, tokens, width).

    Raises DataError where its output has another width, or it cannot be read.
    """
    if kind not in KINDS:
        raise DataError(f"{kind}: no family; there are: {', '.join(KINDS)}")
    if importlib.util.find_spec("transformers") is None:
        raise DataError("it needs 'transformers', which is not installed: pip install transformers")
    with quiet(LOADING):
        import transformers

        network = getattr(transformers, kind)
    loaded, notes = load_transformers(location.folder, network, random_weights=location.random_weights)
    net: Any = loaded
    _, tokens, width = hidden_states.shape
    if net.config.hidden_size != width:
        raise DataError(f"its hidden states are {net.config.hidden_size} wide, the denoiser takes {width}")
    module = finish(TextEncoder.with_inputs(["input_ids"])(net, masked=kind == "T5EncoderModel"))
    shape = batched(int(tokens))
    # Not the role "class": folding would tabulate the network over all token numbers.
    input_spec = TensorSpec("input_ids", shape, "int64", "features", 0.0, float(net.config.vocab_size - 1))
    output_spec = TensorSpec("out_sample", hidden_states.shape, "float32", "text")
    description = about(
        module,
        family=kind,
        origin=location.origin,
        license_name=license_of(*location.cards),
        random_weights=location.random_weights,
        notes=[f"input_ids: {tokens} tokens of the tokenizer in {Path(location.folder).parent.name}/tokenizer", *notes],
    )
    return Source(location.name, module, Signature((input_spec,), (output_spec,)), description)
