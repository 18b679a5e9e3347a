"""The stage `evaluate`: how far the images of every network are from the training images."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgegen.errors import DataError
from edgegen.flow.evaluations import evaluations
from edgegen.flow.solvers import solve
from edgegen.formats.stage_folder import GENERATOR
from edgegen.metrics.distances import frechet, kernel_distance, measure, precision_recall
from edgegen.metrics.pixel_statistics import pixel_statistics
from edgegen.models.load import load as load_generator
from edgegen.models.macs import macs
from edgegen.noise import normal
from edgegen.pipeline.graph import Context, stage_seed
from edgegen.pipeline.methods import teacher_steps
from edgegen.pipeline.stages.extractor import REFERENCE, feature_fault, load_extractor
from edgegen.recipe import Recipe
from edgegen.support.pixels import scaled, to_uint8
from edgegen.support.progress import Task
from edgegen.support.rng import generator
from edgegen.support.storage import load_tensors, read_json, save_tensors, write_json
from edgegen.training.distributed import state

if TYPE_CHECKING:
    from edgegen.models.diffusers.velocity import ScheduledVelocity

NETWORKS = (  # role, stage
    ("teacher", "teacher"),
    ("reflowed", "slim"),
    ("student", "distill"),
    ("finished", "finish"),
    ("baseline", "baseline"),
)
FIGURES = ("fd_local", "sd", "kd_local", "precision", "recall")  # of features
BATCH = 512  # images sampled at once
SHOWN = 12  # images of each network that the report shows


class Judge:
    """Features of the real images, and the quality of any set of generated ones against them.

    Where the features showed a `fault`, all figures are None.
    """

    def __init__(self, recipe: Recipe, inputs: Mapping[str, Path]) -> None:
        self.about = read_json(inputs["data"] / "data.json")
        self.images = load_tensors(inputs["data"] / "images.safetensors")
        self.extractor = load_extractor(inputs["extractor"], self.about["image_shape"])
        self.fault = feature_fault(inputs["extractor"])
        most = self.about["heldout"]
        self.n = min(recipe.evaluate.samples or most, most)
        self.seed = stage_seed(recipe.seed, "evaluate")
        train = self._part("train")
        order = torch.randperm(len(train), generator=generator(self.seed))
        self.real = self.features(train[order[:REFERENCE]])

    def features(self, images: Tensor) -> NDArray[np.float64]:
        """Features (n, d) of float images (n, channels, height, width)."""
        return self.extractor.features(images)

    def _part(self, part: str) -> Tensor:
        return scaled(self.images[f"{part}_images"].permute(0, 3, 1, 2))

    def noise(self, index: int) -> Tensor:
        """The noise of the given seed number: (n, channels, height, width)."""
        return torch.from_numpy(normal(self.seed + index, 0, self.n, self.about["image_shape"]))

    def labels(self) -> Tensor | None:
        """Classes as often as the training set has them: (n,), a seeded draw; None where nothing is conditional."""
        if not self.about["num_classes"]:
            return None
        train = self.images["train_labels"]
        order = torch.randperm(len(train), generator=generator(self.seed))
        return train[order[torch.arange(self.n) % len(train)]]

    def real_pictures(self) -> Tensor:
        """A few held-out images, uint8 NHWC, of the classes 0, 1, 2, ... where there are classes."""
        images, labels = self.images["heldout_images"], self.images.get("heldout_labels")
        if labels is None:
            return images[:SHOWN]
        classes = len(self.about["classes"])
        rows = [(labels == i % classes).nonzero()[:, 0] for i in range(SHOWN)]
        # A class that the held-out part lacks shows another image.
        return images[[int(row[i // classes % len(row)]) if len(row) else i for i, row in enumerate(rows)]]

    def floor(self) -> dict[str, Any]:
        """Held-out images against the training images, at the same n: one set, so without an sd."""
        images = self._part("heldout")[: self.n]
        pixels = asdict(pixel_statistics(images))
        if self.fault:
            return dict.fromkeys(FIGURES) | pixels
        heldout = self.features(images)
        precision, recall = precision_recall(self.real, heldout)
        return pixels | {
            "fd_local": frechet(self.real, heldout),
            "sd": None,
            "kd_local": kernel_distance(self.real, heldout),
            "precision": precision,
            "recall": recall,
        }

    def judge(self, sets: list[Tensor], *, steps: int) -> dict[str, Any]:
        """Quality of sets of n generated images, one set for each noise seed."""
        pixels = asdict(pixel_statistics(torch.cat(sets)))
        if self.fault:
            return dict.fromkeys(FIGURES) | pixels
        quality = asdict(measure(self.real, [self.features(images) for images in sets], steps=steps))
        return {key: quality[key] for key in FIGURES} | pixels

    def fd_local(self, images: Tensor) -> float | None:
        """The Frechet distance of one set of n generated images."""
        return None if self.fault else self.distance(images)

    def distance(self, images: Tensor) -> float:
        """`fd_local`, for a judge without a fault."""
        assert not self.fault, self.fault
        return frechet(self.real, self.features(images))


@dataclass(frozen=True)
class Sampler:
    """One row of the table: images (n, channels, height, width) from noise, labels and a seed, in `steps` steps.

    `cost` is that of one evaluation of the network, the teacher's being 1.
    """

    role: str
    steps: int
    network: torch.nn.Module
    cost: float
    sample: Callable[[Tensor, Tensor | None, int], Tensor]


@torch.no_grad()
def evaluate(context: Context) -> None:
    """Distances of every network's images at every number of steps; what is there of an interrupted run is kept."""
    recipe = context.recipe
    judge = Judge(recipe, context.inputs)
    labels = judge.labels()
    noise_shown, labels_shown = shown_inputs(recipe, judge.about)
    quality: dict[str, dict[str, Any]] = {"floor": {"0": judge.floor()}}
    pictures: dict[str, Tensor] = {}
    samplers = _samplers(context)
    images = recipe.evaluate.seeds * judge.n + SHOWN
    paths = {row: context.folder / "parts" / f"{row.role}-{row.steps}.json" for row in samplers}
    work = {row: row.cost * row.steps * images for row in samplers}  # in evaluations of the teacher for one image
    done = sum(work[row] for row, path in paths.items() if path.exists())
    with context.progress.task("evaluate", round(sum(work.values())), start=round(done)) as task:
        for row, path in paths.items():
            examples_path = path.with_suffix(".safetensors")
            if not path.exists():
                tick = _ticker(task, done, row.cost, f"{row.role}, {row.steps} steps")
                with evaluations(row.network, tick):
                    sets = [row.sample(judge.noise(seed), labels, seed) for seed in range(recipe.evaluate.seeds)]
                    examples = row.sample(noise_shown, labels_shown, 0)
                save_tensors(examples_path, {"images": torch.from_numpy(to_uint8(examples))})
                write_json(path, judge.judge(sets, steps=row.steps))
                done += work[row]
            figures = read_json(path)
            quality.setdefault(row.role, {})[str(row.steps)] = figures
            pictures[f"{row.role}-{row.steps}"] = load_tensors(examples_path)["images"]
            figure = "no figure" if figures["fd_local"] is None else f"fd_local {figures['fd_local']:.3g}"
            task.update(round(done), f"{row.role} {row.steps} steps: {figure}")
    pictures["real"] = judge.real_pictures()
    write_json(context.folder / "quality.json", {"n": judge.n, "quality": quality})
    save_tensors(context.folder / "pictures.safetensors", pictures)


def _ticker(task: Task, done: float, cost: float, note: str) -> Callable[[int], None]:
    """Adds the evaluations of one row to what is done; a row's end is set by its own work."""
    ticked = 0

    def tick(images: int) -> None:
        nonlocal ticked
        ticked += images
        task.update(round(done + ticked * cost), note)

    return tick


def _samplers(context: Context) -> list[Sampler]:
    """Every network at every number of steps, and a brought teacher by its own scheduler at the most steps.

    The teacher also at its full steps, the others also in one: those are compared.
    """
    from edgegen.models.diffusers.schedule import scheduler_for
    from edgegen.models.diffusers.velocity import ScheduledVelocity

    device, full = state().device, teacher_steps(context.recipe)
    rows: list[Sampler] = []
    teachers_macs = 0
    for role, stage in NETWORKS:
        if stage not in context.inputs:
            continue
        loaded = load_generator(context.inputs[stage] / GENERATOR)
        network_macs = macs(loaded)
        teachers_macs = teachers_macs or network_macs
        network, cost = loaded.net.to(device), network_macs / max(teachers_macs, 1)
        counts = sorted({*context.recipe.evaluate.steps, full if role == "teacher" else 1})
        rows += [Sampler(role, count, network, cost, _by_euler(network, count, device)) for count in counts]
        if isinstance(network, ScheduledVelocity):
            try:
                scheduler_for(network.schedule, full)
            except DataError as e:  # PNDM's corrections need four steps; ours do without
                context.progress.message(f"evaluate: no row of the teacher by its own scheduler: {e}")
                continue
            rows.append(Sampler("scheduler", full, network, cost, _by_scheduler(network, full, device)))
    return rows


def _by_euler(
    network: torch.nn.Module, steps: int, device: torch.device
) -> Callable[[Tensor, Tensor | None, int], Tensor]:
    return lambda noise, labels, seed: sample(network, noise, labels, steps, device)


def _by_scheduler(
    network: "ScheduledVelocity", steps: int, device: torch.device
) -> Callable[[Tensor, Tensor | None, int], Tensor]:
    from edgegen.models.diffusers import own_sampler

    def run(noise: Tensor, labels: Tensor | None, seed: int) -> Tensor:
        parts = [
            own_sampler.sample(
                network.unet,
                network.schedule,
                noise[start : start + BATCH].to(device),
                None if labels is None else labels[start : start + BATCH].to(device),
                steps=steps,
                seed=seed + start,
            ).cpu()
            for start in range(0, len(noise), BATCH)
        ]
        return torch.cat(parts)

    return run


def shown_inputs(recipe: Recipe, about: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
    """Noise and classes of the images in the report: the first of those that `verify` runs every file on."""
    noise = torch.from_numpy(normal(stage_seed(recipe.seed, "verify"), 0, SHOWN, about["image_shape"]))
    return noise, torch.arange(SHOWN) % about["num_classes"] if about["num_classes"] else None


@torch.no_grad()
def sample(network: torch.nn.Module, noise: Tensor, labels: Tensor | None, steps: int, device: torch.device) -> Tensor:
    """Images (n, channels, height, width) on the CPU from noise of that shape, by Euler steps."""
    parts = [
        solve(
            network,
            noise[start : start + BATCH].to(device),
            None if labels is None else labels[start : start + BATCH].to(device),
            solver="euler",
            steps=steps,
        ).x.cpu()
        for start in range(0, len(noise), BATCH)
    ]
    return torch.cat(parts)
