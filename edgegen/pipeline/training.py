"""What the training stages share: the call of the loop, the writing of a generator, the student, the pairs."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from edgegen.formats.stage_folder import GENERATOR
from edgegen.models.edge_unet import EdgeUNet
from edgegen.models.generator import save as save_generator
from edgegen.models.load import load as load_generator
from edgegen.models.student import architecture_of, student_architecture
from edgegen.pipeline.graph import Context
from edgegen.recipe import Training
from edgegen.support.storage import load_tensors, read_json, save_tensors
from edgegen.training.batch import TrainingSet
from edgegen.training.loop import Fitted, Objective, fit
from edgegen.training.machine import accelerator, state


def shard_name(index: int) -> str:
    return f"pairs-{index:05}.safetensors"


def read_pairs(folder: Path) -> TrainingSet:
    """All shards of a pairs stage, in fp16."""
    count = read_json(folder / "pairs.json")["shards"]
    shards = [load_tensors(folder / shard_name(index)) for index in range(count)]
    parts = {key: torch.cat([shard[key] for shard in shards]) for key in shards[0]}
    return TrainingSet(parts["images"], parts.get("labels"), parts["noise"])


def _student(context: Context, seed: int) -> EdgeUNet:
    loaded = load_generator(context.inputs["teacher"] / GENERATOR)
    shape, classes = list(loaded.signature.image_shape), loaded.signature.num_classes
    config = student_architecture(context.recipe.slim, architecture_of(loaded.net), shape, classes)
    torch.manual_seed(seed)
    return EdgeUNet(config)


def _train(
    context: Context,
    objective: Objective,
    data_set: TrainingSet,
    net: EdgeUNet,
    settings: Training,
    *,
    frozen: Mapping[str, torch.nn.Module] | None = None,
) -> Fitted:
    compute = context.recipe.compute
    fitted = fit(
        objective,
        data_set,
        trained={"student": net},
        frozen=frozen or {},
        settings=settings,
        seed=context.seed,
        folder=context.folder,
        accelerator=accelerator(compute.precision),
        progress=context.progress,
        label=context.stage,
        compile=compute.compile,
    )
    return fitted["student"]


def _save(context: Context, fitted: Fitted, *, role: str, lineage: Mapping[str, str]) -> None:
    if not state().is_main_process:
        return
    raw, ema = fitted.raw, fitted.ema
    assert isinstance(raw, EdgeUNet)
    assert isinstance(ema, EdgeUNet)
    about = {"name": context.recipe.name, "role": role, "lineage": dict(lineage), "config": asdict(ema.config)}
    save_generator(ema, context.folder / GENERATOR, about=about)
    save_tensors(context.folder / "raw.safetensors", dict(raw.state_dict()))
