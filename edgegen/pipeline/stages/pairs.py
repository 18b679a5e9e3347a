"""The stage `pairs`: (noise, image) pairs by the teacher's ODE, with states between them if asked for, in shards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgegen.errors import DataError, TrainingError
from edgegen.flow.condition import condition_spec, unpacked
from edgegen.flow.evaluations import evaluations
from edgegen.flow.solvers import knot_times, solve
from edgegen.models.generator import Loaded
from edgegen.noise import normal
from edgegen.pipeline.conditions import training_rows
from edgegen.pipeline.graph import Context
from edgegen.pipeline.guided_teacher import network_of
from edgegen.pipeline.stages.data import read_training_images
from edgegen.recipe import Pairs
from edgegen.support.progress import Task
from edgegen.support.storage import is_whole, load_tensors, read_json, save_tensors, write_json
from edgegen.training.batch import TrainingSet
from edgegen.training.distributed import state
from edgegen.types import Signature

CONDITION = "labels"  # its name in the shards of older results
SOLVE_BATCH = 512  # images that the teacher's solver handles at once


def pairs(context: Context) -> None:
    """fp16 shards of (noise, image, condition). A complete shard is not made again; any process can make any shard."""
    settings, machine = context.recipe.pairs, state()
    loaded = network_of(context, "teacher")
    network = loaded.net.to(machine.device)
    shards = range(-(-settings.count // settings.shard))
    whole = [index for index in shards if is_whole(context.folder / shard_name(index))]
    wanted = condition_spec(loaded.signature)
    facts = {
        "sample_shape": list(loaded.signature.sample_shape),
        "num_classes": loaded.signature.num_classes,
        "condition_shape": None if wanted is None else list(wanted.shape[1:]),
    }
    manifest = {"seed": context.seed, "shards": len(shards), **settings.model_dump(mode="json"), **facts}
    for index in whole:
        _read_shard(context.folder, index, manifest)
    there = sum(_size(settings, index) for index in whole)
    training = read_training_images(context.inputs["data"]).condition if context.recipe.data.upscale else None
    with context.progress.task("pairs", settings.count, start=there) as task:
        done = _Done(task, there, settings.count, evaluations_per_image(settings))
        for index in shards:
            count, mine = _size(settings, index), index % machine.num_processes == machine.process_index
            if index in whole:
                continue
            if mine:
                path = context.folder / shard_name(index)
                with evaluations(network, done.evaluated):
                    first = index * settings.shard
                    condition = _condition(context, loaded.signature, training, first, count)
                    _make_shard(path, network, loaded, first, count, condition, context, machine.device)
            done.add(count)
    if settings.knots > 1:
        manifest["knot_times"] = knot_times(network, settings.steps, settings.knots)[1:]
    if machine.is_main_process:
        write_json(context.folder / "pairs.json", manifest)


def evaluations_per_image(settings: Pairs) -> int | None:
    """How often the teacher is evaluated for one pair; None of rk45, which the teacher decides."""
    if settings.solver == "rk45":
        return None
    still = torch.zeros(1, 1, 1, 1)
    return solve(lambda x, t, condition: x, still, None, solver=settings.solver, steps=settings.steps).evaluations


class _Done:
    """Tells of whole images while a shard is being solved, from the evaluations that were made."""

    def __init__(self, task: Task, done: int, total: int, per_image: int | None) -> None:
        self.task, self.done, self.total, self.per_image, self.count = task, done, total, per_image, 0

    def evaluated(self, images: int) -> None:
        self.count += images
        if self.per_image is not None:
            self.task.update(min(self.total, self.done + self.count // self.per_image))

    def add(self, count: int) -> None:
        self.done, self.count = self.done + count, 0
        self.task.update(self.done)


def _size(settings: Pairs, index: int) -> int:
    return min(settings.shard, settings.count - index * settings.shard)


def shard_name(index: int) -> str:
    return f"pairs-{index:05}.safetensors"


def read_pairs(folder: Path) -> TrainingSet:
    """All shards of a finished stage, in fp16. Raises DataError where they are not those of pairs.json."""
    manifest = read_json(folder / "pairs.json")
    shards = [_read_shard(folder, index, manifest) for index in range(manifest["shards"])]
    parts = {key: torch.cat([shard[key] for shard in shards]) for key in shards[0]}
    noise, between = parts["noise"], parts.get("knots")
    times = torch.tensor([1.0, *manifest.get("knot_times", [])])
    knots = noise[:, None] if between is None else torch.cat([noise[:, None], between], dim=1)
    return TrainingSet(parts["images"], parts.get(CONDITION), noise, knots, times)


def _read_shard(folder: Path, index: int, manifest: Mapping[str, Any]) -> dict[str, Tensor]:
    """A shard, which holds what the manifest says: so many pairs, of such samples and conditions. Raises DataError."""
    path = folder / shard_name(index)
    tensors = load_tensors(path)
    if "sample_shape" not in manifest:  # of a run before it was written down
        return tensors
    count = min(manifest["shard"], manifest["count"] - index * manifest["shard"])
    shape, classes, knots = tuple(manifest["sample_shape"]), manifest["num_classes"], manifest.get("knots", 1)
    expected = {"noise": (count, *shape), "images": (count, *shape)}
    condition = manifest["condition_shape"]
    expected |= {} if condition is None else {CONDITION: (count, *condition)}
    expected |= {"knots": (count, knots - 1, *shape)} if knots > 1 else {}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    fault = ""
    if wrong := [name for name in sorted(shapes | expected) if shapes.get(name) != expected.get(name)]:
        name = wrong[0]
        fault = f"{name} is {shapes.get(name, 'absent')}, {expected.get(name, 'absent')} in the run's manifest"
    elif classes and not bool(((tensors[CONDITION] >= 0) & (tensors[CONDITION] < classes)).all()):
        low, high = (int(end) for end in tensors[CONDITION].aminmax())
        fault = f"its labels are {low} to {high}, and the teacher has the classes 0 to {classes - 1}"
    if fault:
        raise DataError(f"{path} does not match its manifest: {fault}; delete {folder} and run the same command again")
    return tensors


def _condition(
    context: Context, signature: Signature, training: Tensor | None, first: int, count: int
) -> Tensor | None:
    """Of the samples of a shard: classes in turn, or small copies of the `training` images."""
    if signature.num_classes:
        return torch.arange(first, first + count) % signature.num_classes
    return None if training is None else training_rows(training, first, count, seed=context.seed)


def _make_shard(
    path: Path,
    network: torch.nn.Module,
    loaded: Loaded,
    first: int,
    count: int,
    condition: Tensor | None,
    context: Context,
    device: torch.device,
) -> None:
    settings, signature = context.recipe.pairs, loaded.signature
    # The noise is rounded to fp16 before the ODE, so that a stored pair is exact.
    noise = torch.from_numpy(normal(context.seed, first, count, signature.sample_shape)).half()
    images: list[Tensor] = []
    between: list[Tensor] = []  # of each sample the knots after the noise
    for start in range(0, count, SOLVE_BATCH):
        rows = slice(start, start + SOLVE_BATCH)
        of_rows = None if condition is None else unpacked(condition[rows].to(device))
        try:
            solution = solve(
                network,
                noise[rows].float().to(device),
                of_rows,
                solver=settings.solver,
                steps=settings.steps,
                tolerance=settings.tolerance,
                knots=settings.knots if settings.knots > 1 else 0,
            )
        except ArithmeticError as e:
            raise TrainingError(f"pairs: {e}") from e
        images.append(solution.x.half().cpu())
        if settings.knots > 1:
            between.append(torch.stack(solution.knots[1:], dim=1).half().cpu())
    tensors = {"noise": noise, "images": torch.cat(images)} | ({} if condition is None else {CONDITION: condition})
    if between:
        tensors["knots"] = torch.cat(between)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise TrainingError(
            "pairs: the teacher's images are not finite; look at its training loss, or use more solver steps"
        )
    save_tensors(path, tensors, metadata={"first": str(first), "seed": str(context.seed), "solver": settings.solver})
