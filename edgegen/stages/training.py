"""The stages that make nets: data, teacher, pairs, slim, distill and the baseline."""

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from edgegen.data import load as load_images
from edgegen.data import split
from edgegen.errors import DataError, RecipeError, TrainingError
from edgegen.models import folder as generators
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig, count_parameters
from edgegen.noise import normal
from edgegen.pipeline import Context, stage_seed
from edgegen.progress import Task
from edgegen.recipe import Architecture, Slim, Training
from edgegen.runs import GENERATOR
from edgegen.slim.arithmetic import shrink
from edgegen.storage import load_metadata, load_tensors, read_json, save_tensors, write_json
from edgegen.training.batch import TrainingSet
from edgegen.training.loop import Fitted, Objective, fit
from edgegen.training.machine import accelerator, state
from edgegen.training.objectives.annealing_reflow import AnnealingReflow
from edgegen.training.objectives.flow_guided_distillation import FlowGuidedDistillation
from edgegen.training.objectives.flow_matching import FlowMatching
from edgegen.training.objectives.pair_regression import PairRegression
from edgegen.training.solvers import solve

PAPER_ANNEAL = (
    300_000 / 800_000
)  # share of SlimFlow's annealing reflow in which fresh noise fades out (METHODS 1.2, 1.5)
LEAST_SIZE, LEAST_IMAGES = 4, 4  # of the extractor's halvings, and of precision and recall (k = 3)
SOLVE_BATCH = 512  # images that the teacher's solver carries at once


def data(context: Context) -> None:
    """Images as uint8 NHWC tensors, split in two, and data.json about them."""
    settings = context.recipe.data
    with contextlib.ExitStack() as stack:
        tasks: list[Task] = []  # one, as soon as the loader knows how many images there are

        def tell(done: int, total: int) -> None:
            if not tasks:
                tasks.append(stack.enter_context(context.progress.task("reading images", total)))
            tasks[0].update(done)

        images = load_images(settings.source, base=context.base, progress=tell)
    train, heldout = split(images, holdout=settings.holdout, seed=context.seed)
    labelled = images.labels is not None and settings.conditional
    _, height, width, channels = train.images.shape
    if height != width:
        raise DataError(f"{settings.source}: images of {height}x{width} pixels; they must be square: crop or pad them")
    if height < LEAST_SIZE:
        raise DataError(f"{settings.source}: images of {height}x{width} pixels; {LEAST_SIZE}x{LEAST_SIZE} is the least")
    if min(len(train), len(heldout)) < LEAST_IMAGES:
        raise DataError(
            f"{settings.source}: {len(train)} images to train on and {len(heldout)} held out; the metrics need "
            f"at least {LEAST_IMAGES} of each: give more images, or change data.holdout (now {settings.holdout})"
        )
    tensors = {"train_images": torch.from_numpy(train.images), "heldout_images": torch.from_numpy(heldout.images)}
    if train.labels is not None and heldout.labels is not None:
        tensors |= {"train_labels": torch.from_numpy(train.labels), "heldout_labels": torch.from_numpy(heldout.labels)}
    save_tensors(context.folder / "images.safetensors", tensors)
    about = {
        "source": images.source,
        "train": len(train.images),
        "heldout": len(heldout.images),
        "image_shape": [channels, height, width],
        "classes": list(images.classes),
        "num_classes": len(images.classes) if labelled else 0,
    }
    write_json(context.folder / "data.json", about)


def teacher(context: Context) -> None:
    """A generator folder: trained here by flow matching, or a copy of the one that the user brings."""
    about, settings = read_json(context.inputs["data"] / "data.json"), context.recipe.teacher
    shape, classes = about["image_shape"], about["num_classes"]
    if settings.folder is not None:
        if state().is_main_process:
            _bring_teacher(context, context.base / Path(settings.folder).expanduser(), about)
        return
    config = architecture(settings.model, shape, classes)
    student_architecture(context.recipe.slim, settings.model, shape, classes)  # an impossible student is told now
    torch.manual_seed(context.seed)
    net = EdgeUNet(config)
    images = load_tensors(context.inputs["data"] / "images.safetensors")
    labels = images["train_labels"] if about["num_classes"] else None
    pixels = images["train_images"].permute(0, 3, 1, 2).contiguous()
    fitted = _train(context, FlowMatching(), TrainingSet(pixels, labels), net, settings)
    _save(context, fitted, role="teacher", lineage={"data": about["source"]})


def load_teacher(source: Path, about: Mapping[str, object]) -> generators.Loaded:
    """A teacher that the user brings, for the data of `about` (data.json). Raises DataError where they do not fit."""
    loaded = generators.load(source)
    want, got = about["image_shape"], list(loaded.signature.image_shape)
    if want != got:
        raise DataError(f"teacher.folder: makes images of {got} (channels, height, width), the data are {want}")
    if loaded.signature.num_classes != about["num_classes"]:
        raise DataError(
            f"teacher.folder: knows {loaded.signature.num_classes} classes, the data have {about['num_classes']}; "
            "0 is unconditional: data.conditional = false leaves the labels out"
        )
    return loaded


def _bring_teacher(context: Context, source: Path, about: Mapping[str, object]) -> None:
    loaded = load_teacher(source, about)
    own = architecture_of(loaded.net)
    student_architecture(context.recipe.slim, own, list(loaded.signature.image_shape), loaded.signature.num_classes)
    target = context.folder / GENERATOR
    if target.exists():
        shutil.rmtree(target)
    keep = shutil.ignore_patterns(".*", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
    shutil.copytree(source, target, ignore=keep)


def pairs(context: Context) -> None:
    """fp16 shards of (noise, image, label); a shard that is there is not made again, and any process can make any."""
    settings, machine = context.recipe.pairs, state()
    loaded = generators.load(context.inputs["teacher"] / GENERATOR)
    net = loaded.net.to(machine.device)
    shards = range(-(-settings.count // settings.shard))
    with context.progress.task("pairs", settings.count) as task:
        for index in shards:
            first = index * settings.shard
            count = min(settings.shard, settings.count - first)
            path = context.folder / shard_name(index)
            if index % machine.num_processes == machine.process_index and not _is_whole(path):
                _make_shard(path, net, loaded, first, count, context, machine.device)
            task.update(first + count)
    manifest = {"seed": context.seed, "shards": len(shards), **settings.model_dump(mode="json")}
    if machine.is_main_process:
        write_json(context.folder / "pairs.json", manifest)


def _is_whole(path: Path) -> bool:
    """Whether an earlier, interrupted try left this shard, and nothing has damaged it since."""
    try:
        load_metadata(path)
    except DataError:
        return False
    return True


def shard_name(index: int) -> str:
    return f"pairs-{index:05}.safetensors"


def _make_shard(
    path: Path,
    net: torch.nn.Module,
    loaded: generators.Loaded,
    first: int,
    count: int,
    context: Context,
    device: torch.device,
) -> None:
    settings, signature = context.recipe.pairs, loaded.signature
    # The noise is rounded to fp16 before the ODE, so that a stored pair is exact.
    noise = torch.from_numpy(normal(context.seed, first, count, signature.image_shape)).half()
    labels = torch.arange(first, first + count) % signature.num_classes if signature.num_classes else None
    images: list[Tensor] = []
    for start in range(0, count, SOLVE_BATCH):
        part = slice(start, start + SOLVE_BATCH)
        classes = None if labels is None else labels[part].to(device)
        try:
            solution = solve(
                net,
                noise[part].float().to(device),
                classes,
                solver=settings.solver,
                steps=settings.steps,
                tolerance=settings.tolerance,
            )
        except ArithmeticError as e:
            raise TrainingError(f"pairs: {e}") from e
        images.append(solution.x.half().cpu())
    made = torch.cat(images)
    if not bool(torch.isfinite(made).all()):
        raise TrainingError(
            "pairs: the teacher's images are not finite; look at its training loss, or use more solver steps"
        )
    tensors = {"noise": noise, "images": made} | ({} if labels is None else {"labels": labels})
    save_tensors(path, tensors, metadata={"first": str(first), "seed": str(context.seed), "solver": settings.solver})


def read_pairs(folder: Path) -> TrainingSet:
    """All shards of a pairs stage, in fp16."""
    count = read_json(folder / "pairs.json")["shards"]
    shards = [load_tensors(folder / shard_name(index)) for index in range(count)]
    parts = {key: torch.cat([shard[key] for shard in shards]) for key in shards[0]}
    return TrainingSet(parts["images"], parts.get("labels"), parts["noise"])


def slim(context: Context) -> None:
    """Annealing reflow of the pairs into the smaller net: the reflowed generator, and its raw weights for distill."""
    settings = context.recipe.slim
    anneal = PAPER_ANNEAL if settings.anneal_steps is None else settings.anneal_steps / settings.steps
    net = _student(context, context.seed)
    objective = AnnealingReflow(anneal, settings.flip)
    fitted = _train(context, objective, read_pairs(context.inputs["pairs"]), net, settings)
    _save(context, fitted, role="reflowed", lineage={"pairs": context.inputs["pairs"].name})


def distill(context: Context) -> None:
    """Flow-guided distillation into one step: from the raw weights of slim, guided by its averaged ones."""
    settings = context.recipe.distill
    reflowed = generators.load(context.inputs["slim"] / GENERATOR)
    assert isinstance(reflowed.net, EdgeUNet)
    student = EdgeUNet(reflowed.net.config)
    student.load_state_dict(load_tensors(context.inputs["slim"] / "raw.safetensors"))
    objective = FlowGuidedDistillation(settings.distance, settings.two_step_weight, settings.flip)
    data_set = read_pairs(context.inputs["pairs"])
    fitted = _train(context, objective, data_set, student, settings, frozen={"reflowed": reflowed.net})
    _save(context, fitted, role="student", lineage={"slim": context.inputs["slim"].name})


def baseline(context: Context) -> None:
    """The same small net by plain regression on the same pairs, for the steps of slim and distill together."""
    recipe = context.recipe
    settings = recipe.slim.model_copy(update={"steps": recipe.slim.steps + recipe.distill.steps})
    net = _student(context, stage_seed(recipe.seed, "slim"))  # starts from the weights that slim starts from
    objective = PairRegression(recipe.distill.distance, recipe.slim.flip)
    fitted = _train(context, objective, read_pairs(context.inputs["pairs"]), net, settings)
    _save(context, fitted, role="baseline", lineage={"pairs": context.inputs["pairs"].name})


def architecture(model: Architecture, image_shape: list[int], num_classes: int) -> EdgeUNetConfig:
    """The net's config for these images. Raises RecipeError when the resolutions do not halve evenly."""
    channels, size, _ = image_shape
    halvings = len(model.channels) - 1
    if size % 2**halvings:
        raise RecipeError(
            f"channels {list(model.channels)} halve the image {halvings} times, but {size} pixels cannot be "
            "halved that often: give fewer channels, or other images"
        )
    return EdgeUNetConfig(
        sample_size=size,
        in_channels=channels,
        channels=model.channels,
        blocks=model.blocks,
        attention=model.attention,
        num_classes=num_classes,
        embedding=model.embedding,
    )


def student_architecture(slim: Slim, teacher: Architecture | None, shape: list[int], classes: int) -> EdgeUNetConfig:
    """The student of the recipe's words; `teacher` is None where it is not an EdgeUNet. Raises RecipeError."""
    model = slim.model
    if model is None:
        if teacher is None:
            raise RecipeError("slim.keep is for teachers trained here; for a diffusers teacher give [slim.model]")
        assert slim.keep is not None
        model = shrink(teacher, keep=slim.keep, count=lambda m: count_parameters(architecture(m, shape, classes)))
    return architecture(model, shape, classes)


def architecture_of(net: torch.nn.Module) -> Architecture | None:
    """In the recipe's words; None of a network that is not ours."""
    if not isinstance(net, EdgeUNet):
        return None
    own = net.config
    return Architecture(channels=own.channels, blocks=own.blocks, attention=own.attention, embedding=own.embedding)


def _student(context: Context, seed: int) -> EdgeUNet:
    loaded = generators.load(context.inputs["teacher"] / GENERATOR)
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
    generators.save(ema, context.folder / GENERATOR, about=about)
    save_tensors(context.folder / "raw.safetensors", dict(raw.state_dict()))
