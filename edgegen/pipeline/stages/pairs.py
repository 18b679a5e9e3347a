"""The stage `pairs`: (noise, image) pairs by the teacher's ODE, in shards."""

from pathlib import Path

import torch
from torch import Tensor

from edgegen.errors import DataError, TrainingError
from edgegen.flow.solvers import solve
from edgegen.formats.stage_folder import GENERATOR
from edgegen.models.generator import Loaded
from edgegen.models.load import load as load_generator
from edgegen.noise import normal
from edgegen.pipeline.graph import Context
from edgegen.support.storage import load_metadata, load_tensors, read_json, save_tensors, write_json
from edgegen.training.batch import TrainingSet
from edgegen.training.distributed import state

SOLVE_BATCH = 512  # images that the teacher's solver handles at once


def pairs(context: Context) -> None:
    """fp16 shards of (noise, image, label). A complete shard is not made again; any process can make any shard."""
    settings, machine = context.recipe.pairs, state()
    loaded = load_generator(context.inputs["teacher"] / GENERATOR)
    network = loaded.net.to(machine.device)
    shards = range(-(-settings.count // settings.shard))
    with context.progress.task("pairs", settings.count) as task:
        for index in shards:
            first = index * settings.shard
            count = min(settings.shard, settings.count - first)
            path = context.folder / shard_name(index)
            if index % machine.num_processes == machine.process_index and not _is_whole(path):
                _make_shard(path, network, loaded, first, count, context, machine.device)
            task.update(first + count)
    manifest = {"seed": context.seed, "shards": len(shards), **settings.model_dump(mode="json")}
    if machine.is_main_process:
        write_json(context.folder / "pairs.json", manifest)


def shard_name(index: int) -> str:
    return f"pairs-{index:05}.safetensors"


def read_pairs(folder: Path) -> TrainingSet:
    """All shards of a finished stage, in fp16."""
    count = read_json(folder / "pairs.json")["shards"]
    shards = [load_tensors(folder / shard_name(index)) for index in range(count)]
    parts = {key: torch.cat([shard[key] for shard in shards]) for key in shards[0]}
    return TrainingSet(parts["images"], parts.get("labels"), parts["noise"])


def _is_whole(path: Path) -> bool:
    """Whether an earlier, interrupted run left this shard undamaged."""
    try:
        load_metadata(path)
    except DataError:
        return False
    return True


def _make_shard(
    path: Path,
    network: torch.nn.Module,
    loaded: Loaded,
    first: int,
    count: int,
    context: Context,
    device: torch.device,
) -> None:
    settings, signature = context.recipe.pairs, loaded.signature
    # The noise is rounded to fp16 before the ODE, so that a stored pair is exact.
    noise = torch.from_numpy(normal(context.seed, first, count, signature.image_shape)).half()
    labels = torch.arange(first, first + count) % signature.num_classes if signature.num_classes else None
    parts: list[Tensor] = []
    for start in range(0, count, SOLVE_BATCH):
        rows = slice(start, start + SOLVE_BATCH)
        classes = None if labels is None else labels[rows].to(device)
        try:
            solution = solve(
                network,
                noise[rows].float().to(device),
                classes,
                solver=settings.solver,
                steps=settings.steps,
                tolerance=settings.tolerance,
            )
        except ArithmeticError as e:
            raise TrainingError(f"pairs: {e}") from e
        parts.append(solution.x.half().cpu())
    images = torch.cat(parts)
    if not bool(torch.isfinite(images).all()):
        raise TrainingError(
            "pairs: the teacher's images are not finite; look at its training loss, or use more solver steps"
        )
    tensors = {"noise": noise, "images": images} | ({} if labels is None else {"labels": labels})
    save_tensors(path, tensors, metadata={"first": str(first), "seed": str(context.seed), "solver": settings.solver})
