"""The metadata of a Core ML package: Xcode's fields, a sentence for every input and output, edgegen's metadata."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from edgegen.types import Signature, TensorSpec

NAMESPACE = "com.edgegen."
UNKNOWN = "not stated"
Sizes = tuple[tuple[int, int], ...]  # (height, width)


def describe(
    spec: Any, signature: Signature, metadata: Mapping[str, str], *, sizes: Sizes = (), is_image: bool = False
) -> None:
    """Fill the Model protobuf `spec`: license, author, description and version of `metadata` into Core ML's own
    fields ("not stated" where it is absent), all of it under "com.edgegen.". `sizes` are (height, width) of the
    noise beside that of the signature.
    """
    fields_of_xcode = spec.description.metadata
    fields_of_xcode.shortDescription = metadata.get("description", purpose(signature))
    fields_of_xcode.author = metadata.get("author", UNKNOWN)
    fields_of_xcode.license = metadata.get("license", UNKNOWN)
    fields_of_xcode.versionString = metadata.get("version", version("edgegen"))
    fields = {**metadata, "signature": json.dumps(signature.to_dict(), sort_keys=True)}
    for key, text in fields.items():
        fields_of_xcode.userDefined[NAMESPACE + key] = text
    noise = signature.inputs[0]
    for entry, tensor in zip(spec.description.input, signature.inputs, strict=True):
        entry.shortDescription = sentence(tensor) + _other_sizes(tensor, noise, sizes)
    for entry, tensor in zip(spec.description.output, signature.outputs, strict=True):
        text = "The picture, as a pixel buffer." if is_image else sentence(tensor)
        entry.shortDescription = text + _other_sizes(tensor, noise, sizes)


def _other_sizes(tensor: TensorSpec, noise: TensorSpec, sizes: Sizes) -> str:
    """The other heights and widths of a tensor that grows with the noise."""
    if not sizes or len(tensor.shape) != 4 or len(noise.shape) != 4:
        return ""
    own, base = ([int(size) for size in spec.shape[2:]] for spec in (tensor, noise))
    scaled = [(height * own[0] // base[0], width * own[1] // base[1]) for height, width in sizes]
    others = [f"{height} x {width}" for height, width in scaled if [height, width] != own]
    return f" Height and width also in {', '.join(others)}." if others else ""


def reason(cause: Exception) -> str:
    """The vendor's message on one line, without the program that it may print."""
    return " ".join(str(cause).split())[:500] or type(cause).__name__


def purpose(signature: Signature) -> str:
    """One sentence on the whole package, where its maker gave none."""
    start, end = signature.inputs[0], signature.outputs[0]
    if start.role == "noise":
        return f"One-step {end.role} generator: noise in, {end.role} out."
    return f"{start.role.capitalize()} in, {end.role} out."


def sentence(tensor: TensorSpec) -> str:
    """What an app puts in or gets out, by the tensor's role, for Xcode's list."""
    shape = " x ".join(str(1 if dim == "batch_size" else dim) for dim in tensor.shape)
    bounded = tensor.low is not None and tensor.high is not None
    limits = f", values from {tensor.low} to {tensor.high}" if bounded else ""
    if tensor.role == "noise":
        return f"Noise: {shape} values drawn from the standard normal distribution."
    if tensor.role == "class":
        return f"The class to draw, an integer from {tensor.low} to {tensor.high}."
    if tensor.role == "image":
        return f"The image: {shape} (batch, channels, height, width){limits}."
    kinds = {
        "text": "The hidden states of the text encoder",
        "latent": "The latent, which a decoder turns into an image",
        "signal": "The signal",
        "features": "A condition",
    }
    return f"{kinds[tensor.role]}: {shape}{limits}."
