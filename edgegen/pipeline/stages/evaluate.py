"""The stage `evaluate`: how far the images of every network are from the training images."""

from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgegen.flow.condition import enlarged, unpacked
from edgegen.flow.evaluations import evaluations
from edgegen.formats.stage_folder import STAGE, sample_shape
from edgegen.metrics.distances import frechet
from edgegen.metrics.observation import Observation
from edgegen.metrics.quality import LOCAL, measure
from edgegen.noise import normal
from edgegen.pipeline.conditions import conditions_of, heldout_rows, of_samples
from edgegen.pipeline.feature_spaces import RANDOM, feature_spaces
from edgegen.pipeline.graph import Context, stage_seed
from edgegen.pipeline.latents import read_latents
from edgegen.pipeline.observed_sets import Block, ObservedSets
from edgegen.pipeline.real_images import RealImages
from edgegen.pipeline.sample_space import SampleSpace
from edgegen.pipeline.samplers import Sampler, samplers
from edgegen.pipeline.stages.extractor import REFERENCE, feature_fault, load_extractor
from edgegen.pipeline.stored_images import IMAGES, in_range, shown
from edgegen.recipe import Recipe
from edgegen.support.progress import Task
from edgegen.support.rng import generator
from edgegen.support.storage import load_tensors, read_json, save_tensors, sha256_of, write_bytes, write_json
from edgegen.training.distributed import state

SHOWN = 12  # images of each network that the report shows


class Judge:
    """Features of the real images, and the distance of any set of generated ones to them.

    Where the features showed a `fault`, there is no distance.
    """

    def __init__(self, recipe: Recipe, inputs: Mapping[str, Path]) -> None:
        self.about = read_json(inputs["data"] / "data.json")
        self.space = SampleSpace.of(inputs["data"])
        self.images = load_tensors(inputs["data"] / IMAGES)
        self.extractor = load_extractor(inputs["extractor"], self.about["image_shape"])
        self.extractor.network.to(state().device)
        self.fault = feature_fault(inputs["extractor"])
        self.samples = recipe.evaluate.samples or self.about["heldout"]
        self.n = min(self.samples, self.about["heldout"])
        self.seed = stage_seed(recipe.seed, "evaluate")

    @cached_property
    def real(self) -> NDArray[np.float64]:
        """Features of `reference`."""
        return self.features(self.reference)

    @property
    def reference(self) -> Tensor:
        """The training images that others are compared with: all, or a seeded draw of as many as are enough."""
        order = torch.randperm(len(self.images["train_images"]), generator=generator(self.seed))
        return self.part("train", order[:REFERENCE])

    def features(self, images: Tensor) -> NDArray[np.float64]:
        """Features (n, d) of float images (n, channels, height, width)."""
        return self.extractor.features(images)

    def part(self, part: str, rows: Tensor | slice) -> Tensor:
        """Images of "train" or "heldout" as float (n, channels, height, width), or signals (n, channels, length)."""
        return in_range(self.images, part, rows)

    def noise(self, index: int, start: int = 0, count: int | None = None) -> Tensor:
        """The noise of the given seed number: (n, ...) of the samples' shape."""
        return self.space.noise(self.seed + index, start, self.n if count is None else count)

    def condition(self, count: int | None = None) -> Tensor | None:
        """Of n samples: classes as often as the training set has them, a seeded draw; or small copies of held-out
        images, those of `truth`; None where nothing is conditional.
        """
        return of_samples(self.images, self.about, self.n if count is None else count, seed=self.seed)

    def shown_rows(self) -> Tensor:
        """Of a few held-out images: of the classes 0, 1, 2, ..., or those that the shown ones are to be."""
        labels = self.images.get("heldout_labels")
        if self.about.get("upscale"):
            return heldout_rows(self.images, SHOWN)
        if labels is None:
            return torch.arange(min(SHOWN, self.about["heldout"]))
        classes = len(self.about["classes"])
        rows = [(labels == i % classes).nonzero()[:, 0] for i in range(SHOWN)]
        # A class that the held-out part lacks shows another image.
        return torch.tensor([int(row[i // classes % len(row)]) if len(row) else i for i, row in enumerate(rows)])

    def fd_local(self, images: Tensor) -> float | None:
        """The Frechet distance of one set of n generated images."""
        return None if self.fault else self.distance(images)

    def distance(self, images: Tensor) -> float:
        """`fd_local`, for a judge without a fault."""
        assert not self.fault, self.fault
        return frechet(self.real, self.features(images))


@torch.no_grad()
def evaluate(context: Context) -> None:
    """Figures of every network's images at its numbers of steps; what is there of an interrupted run is kept.

    Every process samples and observes its share of the images, and the first one makes the figures.
    """
    recipe, is_main = context.recipe, state().is_main_process
    judge = Judge(recipe, context.inputs)
    real, condition = _real_images(context, judge), judge.condition(judge.samples)
    rows = samplers(context)
    work = {row: row.cost * row.evaluations * (recipe.evaluate.seeds * judge.samples + SHOWN) for row in rows}
    paths = {row: context.folder / "parts" / f"{row.role}-{row.steps}.json" for row in rows}
    if is_main:
        _take_known(context, paths)
    state().wait_for_everyone()
    left = [row for row, path in paths.items() if not path.exists()]
    done = sum(work.values()) - sum(work[row] for row in left)
    with context.progress.task("evaluate", round(sum(work.values())), start=round(done)) as task:
        real.complete()
        for row in left:
            ticker = _Ticker(task, done, row)
            sets = ObservedSets(paths[row].with_suffix(""), recipe.evaluate.seeds, judge.samples)
            with evaluations(row.network, ticker.evaluated):
                sets.complete(partial(_observed, real, judge, condition, row), passed=ticker.passed)
                if is_main:
                    _write(paths[row], row, sets, real, judge, context.recipe)
            done += work[row]
            task.update(round(done), _note(paths[row], row) if is_main else "")
    if is_main:
        _collect(context, judge, real, paths)


def _take_known(context: Context, paths: Mapping[Sampler, Path]) -> None:
    """Copies the parts of rows that an earlier evaluation of this run has measured on the same images, such as the
    teacher's where only the student is another one.
    """
    taken = set()
    for folder in context.earlier():
        manifest = read_json(folder / STAGE)
        for row, path in paths.items():
            sources = {name: context.results[name].digest for name in ("data", "extractor", row.stage) if name}
            # The figures come last: they say that the row is complete.
            parts = [str(part.relative_to(context.folder)) for part in (path.with_suffix(".safetensors"), path)]
            same = sources.items() <= manifest["made_from"].items() and not path.exists()
            if same and all(_holds(folder / part, manifest["files"].get(part)) for part in parts):
                for part in parts:
                    write_bytes(context.folder / part, (folder / part).read_bytes())
                taken.add(row.role)
    if taken:
        context.progress.message(f"evaluate: known from an earlier evaluation: {', '.join(sorted(taken))}")


def _holds(path: Path, facts: Mapping[str, Any] | None) -> bool:
    """Whether a file of a finished stage is there and still holds what was written."""
    return facts is not None and path.is_file() and sha256_of(path) == facts["sha256"]


def _real_images(context: Context, judge: Judge) -> RealImages:
    settings, device = context.recipe.evaluate, state().device
    further = feature_spaces(settings, image_shape=judge.about["image_shape"], base=context.base, device=device)
    return RealImages(
        context.folder / "parts",
        judge.images,
        judge.reference,
        judge.n,
        judge.extractor,
        judge.fault,
        {LOCAL: judge.extractor, **further},
        judge.condition(judge.samples) if judge.about["num_classes"] else None,
        heldout_rows(judge.images, judge.samples) if judge.about.get("upscale") else None,
        judge.seed,
        judge.space,
        read_latents(context.inputs["data"]),
    )


def _observed(real: RealImages, judge: Judge, condition: Tensor | None, row: Sampler, block: Block) -> Observation:
    """Samples and observes one block, which depends on the seeds and on its place alone."""
    noise = judge.noise(block.number, block.start, block.count)
    own = None if condition is None else condition[block.start : block.start + block.count]
    return real.observed(judge.space.images(row.sample(noise, own, block.number + block.start)), block)


def _write(path: Path, row: Sampler, sets: ObservedSets, real: RealImages, judge: Judge, recipe: Recipe) -> None:
    """The figures of a row, and the images of it that the report shows."""
    examples = shown(judge.space.images(row.sample(*shown_inputs(recipe, judge.about, judge.images), 0)))
    save_tensors(path.with_suffix(".safetensors"), {"images": examples})
    write_json(path, measure(sets.read(), real.reference, compared=real.heldout).to_dict())
    sets.remove()


def _collect(context: Context, judge: Judge, real: RealImages, paths: Mapping[Sampler, Path]) -> None:
    """quality.json and pictures.safetensors, from the parts."""
    quality: dict[str, dict[str, Any]] = {"floor": {"0": real.floor().to_dict()}}
    rows = judge.shown_rows()
    pictures = {"real": judge.images["heldout_images"][rows]}
    if (reconstructed := real.reconstructed()) is not None:
        quality["autoencoder"] = {"0": reconstructed.to_dict()}
        pictures["autoencoder"] = shown(real.reconstructions(rows))
    if judge.about.get("upscale"):
        condition = shown_inputs(context.recipe, judge.about, judge.images)[1]
        assert condition is not None
        pictures["low"] = shown(enlarged(condition, judge.about["upscale"]))
    for row, path in paths.items():
        quality.setdefault(row.role, {})[str(row.steps)] = read_json(path)
        pictures[f"{row.role}-{row.steps}"] = load_tensors(path.with_suffix(".safetensors"))["images"]
    spaces = [
        {"key": key, "name": space.name, "fault": real.damage.fault if key == RANDOM else ""}
        for key, space in real.spaces.items()
        if key != LOCAL
    ]
    counts = {"n": judge.samples, "n_heldout": judge.n}
    write_json(context.folder / "quality.json", {**counts, "spaces": spaces, "quality": quality})
    save_tensors(context.folder / "pictures.safetensors", pictures)
    real.remove()


class _Ticker:
    """Tells of the evaluations of one row; what another process makes passes in one go."""

    def __init__(self, task: Task, done: float, row: Sampler) -> None:
        self.task, self.done, self.row, self.count, self.passed_count = task, done, row, 0, 0

    def evaluated(self, images: int) -> None:
        self.count += images
        self._update()

    def passed(self, block: Block) -> None:
        self.passed_count += block.count * self.row.steps
        self.count = self.passed_count
        self._update()

    def _update(self) -> None:
        self.task.update(round(self.done + self.count * self.row.cost), f"{self.row.role}, {self.row.steps} steps")


def _note(path: Path, row: Sampler) -> str:
    fd_local = read_json(path)["fd_local"]
    figure = "no figure" if fd_local is None else f"fd_local {fd_local:.3g}"
    return f"{row.role} {row.steps} steps: {figure}"


def shown_inputs(
    recipe: Recipe, about: Mapping[str, Any], images: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor | None]:
    """Noise and conditions of the images in the report: the first of those that `verify` runs every file on."""
    noise = torch.from_numpy(normal(stage_seed(recipe.seed, "verify"), 0, SHOWN, sample_shape(about)))
    if about["num_classes"]:
        return noise, torch.arange(SHOWN) % about["num_classes"]
    small = conditions_of(images, about, "heldout")
    return noise, None if small is None else unpacked(small[heldout_rows(images, SHOWN)])
