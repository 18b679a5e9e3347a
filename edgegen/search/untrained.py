"""Exports an untrained shape: random weights, with the options with which the recipe exports its student."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgegen.artifacts.build import build, unchecked
from edgegen.artifacts.target import Target
from edgegen.formats.manifest import write_manifest
from edgegen.recipe import Export, Quantize


def make_file(
    *,
    config: Mapping[str, Any],
    name: str,
    target: str,
    export: Mapping[str, Any],
    quantize: Mapping[str, Any],
    seed: int,
    folder: str,
) -> str:
    """Writes the file and its manifest into `folder` and returns its name. For `isolation.call`, so all of it is JSON.

    `config` is that of an EdgeUNetConfig; `export` and `quantize` are the recipe's tables. All-zero layers get random
    weights: a network that returns its noise would pass any comparison. Raises what `build` raises.
    """
    import torch

    from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
    from edgegen.models.generator import signature_of
    from edgegen.models.zero_layers import randomize_zero_layers
    from edgegen.program.fold import fold
    from edgegen.program.one_step import NOISE_TIME, OneStep

    torch.manual_seed(seed)
    network = EdgeUNet(EdgeUNetConfig.from_dict(config)).eval()
    randomize_zero_layers(network, seed)
    signature = signature_of(network.config)
    artifact = build(
        fold(OneStep(network, time=NOISE_TIME), signature).module,
        signature,
        name=name,
        target=Target.parse(target),
        folder=Path(folder),
        seed=seed,
        metadata={"weights": "random, to be measured before training"},
        quantization=Quantize.model_validate(quantize),
        options=Export.model_validate(export),
    ).artifact
    write_manifest(Path(folder), [artifact], signature, lineage={"weights": "random"}, parity=unchecked([artifact]))
    return artifact.file
