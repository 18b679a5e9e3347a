"""What a network makes and what is seen of it: a generator folder may hold the decoder that lies between the two."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from edgegen.formats.stage_folder import AUTOENCODER
from edgegen.models.generator import Loaded
from edgegen.program.generator import Generator
from edgegen.program.inputs import RealInputs
from edgegen.program.one_step import NOISE_TIME, OneStep
from edgegen.types import Signature, TensorSpec


def decoder_in(folder: Path) -> nn.Module | None:
    """From samples (batch, ...) of a network to what is seen of them; None where the samples are images.

    `folder` is a generator folder or that of the stage data. Raises DataError where its decoder is damaged.
    """
    if not (folder / AUTOENCODER).is_dir():
        return None
    from edgegen.models.diffusers.autoencoder import load_autoencoder

    return load_autoencoder(folder / AUTOENCODER).decoder


def observed_signature(signature: Signature, decoder: nn.Module | None) -> Signature:
    """The signature of a network with its decoder: the same inputs, and the image that the decoder makes."""
    if decoder is None:
        return signature
    with torch.no_grad():
        image = decoder(torch.zeros(1, *signature.sample_shape))
    output = TensorSpec("out_sample", ("batch_size", *image.shape[1:]), "float32", "image", -1.0, 1.0)
    return replace(signature, outputs=(output,))


def one_step_generator(loaded: Loaded, decoder: nn.Module | None, *, real: RealInputs | None = None) -> Generator:
    """From noise to what is seen, in one step; `real` are inputs that are not drawn."""
    signature = observed_signature(loaded.signature, decoder)
    return Generator(OneStep(loaded.net, time=NOISE_TIME, decoder=decoder), signature, real=real)
