"""How long each stage of a plan will take here, from a few timed steps of its own networks on random data.

What is timed: steps of every training, with the recipe's networks and batch, and evaluations of the teacher and the
student. Files, parity and latencies cost what they cost in the demo (examples/digits.toml, 2 cores). Nothing is kept.
"""

import contextlib
import copy
import time
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgegen import registry
from edgegen.artifacts.target import Target, runs_here
from edgegen.artifacts.tuned_files import Tuning, timed_targets
from edgegen.data import hf
from edgegen.data import load as load_images
from edgegen.errors import MissingExtraError
from edgegen.flow.condition import made_up
from edgegen.formats.stage_folder import GENERATOR, are_signals, sample_shape
from edgegen.models.edge_unet import EdgeUNet
from edgegen.models.generator import Loaded, signature_of
from edgegen.models.load import load as load_generator
from edgegen.models.student import architecture
from edgegen.models.teacher_size import teacher_architecture, words
from edgegen.pipeline.forecast import StageTime, by_file, in_ms, sampling
from edgegen.pipeline.guided_teacher import with_guidance
from edgegen.pipeline.image_seconds import SMALL, image_seconds
from edgegen.pipeline.methods import (
    OF_PAIRS,
    baseline_objective,
    evaluated_steps,
    further_inputs,
    has_baseline,
    has_teacher,
    student_steps,
)
from edgegen.pipeline.stages.data import divided, signature_of_data
from edgegen.pipeline.stages.extractor import extractor_settings, small_cnn
from edgegen.pipeline.stages.pairs import evaluations_per_image
from edgegen.pipeline.stages.teacher import load_teacher
from edgegen.pipeline.student import new_student
from edgegen.program.inputs import InputSource
from edgegen.recipe import Recipe, Training
from edgegen.support.storage import read_json
from edgegen.training.batch import Examples, FreshInputs, PairsAndImages, TrainingSet
from edgegen.training.distributed import accelerator, use_threads
from edgegen.training.objective import Objective
from edgegen.training.trainer import Trainer

LIMIT_S = 10.0  # of all that is timed
READ_S = 5.0  # of reading the images
PIECES = 7  # five trainings and the sampling of two networks share the time
SHARE, MOST_STEPS = 50, 20  # a fiftieth of a training's steps is timed, so that a short run does not become longer
# Of the demo, whose seconds are in docs/run.md: of a file's making, of its comparison, of a measurement, of the report.
FILE_S, VERIFY_S, MEASURE_S, REPORT_S = 6.5, 1.2, 3.5, 2.5


def estimate(
    recipe: Recipe, stages: Collection[str], *, base: Path, finished: Mapping[str, Path], limit_s: float = LIMIT_S
) -> dict[str, StageTime]:
    """The time of every stage of `stages`, which have to run; `finished` are the folders of others.

    Raises DataError and RecipeError for images, a teacher or a student that do not fit: all that a run would raise
    before its first training.
    """
    use_threads(recipe.compute.threads)
    with torch.random.fork_rng():
        return _Estimate(recipe, base, finished, limit_s / PIECES).of(stages)


class _TooLong(Exception):
    pass


class _Estimate:
    def __init__(self, recipe: Recipe, base: Path, finished: Mapping[str, Path], share_s: float) -> None:
        self.recipe, self.base, self.finished, self.share_s = recipe, base, finished, share_s
        self.reading_s: float | None = None

    def of(self, stages: Collection[str]) -> dict[str, StageTime]:
        try:
            facts = self.facts
        except _TooLong:
            why = f"not estimated: the images were not read within {READ_S:g} s; `edgegen run ... --to data` first"
        except MissingExtraError as e:
            why = f"not estimated: {e}"
        else:
            why = "" if facts else "not estimated: the images are on the hub; `edgegen run ... --to data` first"
        if why:
            return {stage: StageTime(None, why) for stage in stages}
        times: dict[str, StageTime] = {}
        with contextlib.suppress(MissingExtraError):  # which each stage says for itself
            self.check_networks(stages)
        for stage in stages:
            try:
                times[stage] = getattr(self, stage)()
            except MissingExtraError as e:
                times[stage] = StageTime(None, f"not estimated: {e}")
        return times

    @cached_property
    def facts(self) -> dict[str, Any]:
        """data.json of the stage data, from the images themselves where it has not run; empty: of the hub."""
        if "data" in self.finished:
            facts: dict[str, Any] = read_json(self.finished["data"] / "data.json")
            return facts
        source = self.recipe.data.source
        if source.startswith(hf.PREFIX) and hf.local_folder(source, base=self.base) is None:
            return {}
        began = time.monotonic()

        def update(done: int, total: int) -> None:
            if time.monotonic() - began > READ_S:
                raise _TooLong

        images = load_images(source, base=self.base, progress=update)
        self.reading_s = time.monotonic() - began
        return divided(images, self.recipe, base=self.base)[2]

    @cached_property
    def teacher_network(self) -> Loaded | None:
        """None where the plan has no teacher."""
        if not has_teacher(self.recipe):
            return None
        settings = self.recipe.teacher
        if "teacher" in self.finished:
            return load_generator(self.finished["teacher"] / GENERATOR)
        if settings.folder is not None:
            return load_teacher(self.base / Path(settings.folder).expanduser(), self.facts, self.recipe)
        model = teacher_architecture(settings, self.facts)
        network = EdgeUNet(architecture(model, signature_of_data(self.facts), **further_inputs(self.recipe, "teacher")))
        return Loaded(network.eval(), signature_of(network.config), {})

    @cached_property
    def student_network(self) -> Loaded:
        if "slim" in self.finished:
            return load_generator(self.finished["slim"] / GENERATOR)
        return new_student(self.recipe, self.teacher_network, signature_of_data(self.facts), base=self.base)

    def check_networks(self, stages: Collection[str]) -> None:
        """Makes the networks before anything is timed, so that what does not fit the images is refused at once."""
        if set(stages) <= {"data", "extractor"}:
            return
        if self.teacher_network is not None:
            with_guidance(self.teacher_network, self.recipe, base=self.base)
        self.student_network  # noqa: B018

    def data(self) -> StageTime:
        not_encoded = ", not encoded" * ("autoencoder" in self.facts)
        return StageTime(self.reading_s, f"measured: the images were read{not_encoded}")

    def teacher(self) -> StageTime:
        settings = self.recipe.teacher
        if settings.folder is not None:
            return StageTime(0.0, "a copy, and a short comparison")
        stage_time = self._training(settings.objective, self._known_teacher().net, settings)
        if settings.model is None:
            chosen = words(teacher_architecture(settings, self.facts))
            return StageTime(stage_time.seconds, f"{stage_time.how}; size {settings.size} is {chosen}")
        return stage_time

    def _known_teacher(self) -> Loaded:
        assert self.teacher_network is not None, "the plan has one where something needs it"
        return self.teacher_network

    def pairs(self) -> StageTime:
        settings = self.recipe.pairs
        evaluations = evaluations_per_image(settings)
        if evaluations is None:
            return StageTime(None, "not estimated: the teacher decides how many steps rk45 takes")
        return sampling(self.teacher_image_s, settings.count * evaluations)

    def slim(self) -> StageTime:
        settings = self.recipe.slim
        return self._training(settings.objective, self.student_network.net, settings)

    def distill(self) -> StageTime:
        settings = self.recipe.distill
        return self._training(settings.objective, self.student_network.net, settings)

    def finish(self) -> StageTime:
        settings = self.recipe.finish
        assert settings is not None
        return self._training(settings.objective, self.student_network.net, settings)

    def baseline(self) -> StageTime:
        settings = self.recipe.slim.model_copy(update={"steps": sum(student_steps(self.recipe).values())})
        return self._training(baseline_objective(self.recipe), self.student_network.net, settings)

    def extractor(self) -> StageTime:
        settings = extractor_settings(self.recipe.evaluate.extractor_steps)
        objective = registry.load("objective", "classification")()
        stage_time = self._training(objective, self._classifier(), settings, classes=self._extractor_classes)
        return StageTime(stage_time.seconds, f"{stage_time.how}; less where the held-out loss is flat before")

    @property
    def _extractor_classes(self) -> int:
        return len(self.facts["classes"]) or 4

    def _classifier(self) -> nn.Module:
        return small_cnn(self.facts["image_shape"], self._extractor_classes)

    def evaluate(self) -> StageTime:
        recipe = self.recipe.evaluate
        images = recipe.seeds * (recipe.samples or self.facts["heldout"])
        stages = ["slim", "distill", *(["finish"] if self.recipe.finish is not None else [])]
        stages += ["baseline"] if has_baseline(self.recipe) else []
        seconds = self.student_image_s * images * sum(sum(evaluated_steps(self.recipe, stage)) for stage in stages)
        if self.teacher_network is not None:
            seconds += self.teacher_image_s * images * sum(evaluated_steps(self.recipe, "teacher"))
        without = ", without the features of other networks" if recipe.inception or recipe.dinov2 else ""
        return StageTime(seconds, f"measured: as pairs, and the student{without}")

    def choose(self) -> StageTime:
        if self.recipe.evaluate.ship == "student":
            return StageTime(0.0, "a copy")
        images = min(self.recipe.evaluate.samples or self.facts["heldout"], self.facts["heldout"])
        return sampling(self.student_image_s, self.recipe.evaluate.seeds * images * 3)

    def refine(self) -> StageTime:
        return StageTime(None, "not estimated: rounding and recovery")

    def export(self) -> StageTime:
        return self._files(self.recipe.export.targets(floating=True))

    def quantize(self) -> StageTime:
        return self._files(self.recipe.export.targets(floating=False))

    def _files(self, targets: list[str]) -> StageTime:
        device = self.recipe.export.tune_on
        if device is None or not timed_targets(list(map(Target.parse, targets))):
            return by_file(FILE_S, len(targets))
        return StageTime(Tuning.seconds, f"tuned on {device}: the limit of its trials")

    def verify(self) -> StageTime:
        return by_file(VERIFY_S, len(self.recipe.export.artifacts))

    def profile(self) -> StageTime:
        targets = map(Target.parse, self.recipe.export.artifacts)
        timed = [target for target in targets if runs_here(target.backend, target.variant)]
        return by_file(MEASURE_S, len(timed) + 1 + has_teacher(self.recipe))  # the networks in PyTorch, too

    def report(self) -> StageTime:
        return StageTime(REPORT_S, "as in the demo")

    bundle = verify  # it runs the files, too

    def _training(
        self, objective: Objective, network: nn.Module, settings: Training, *, classes: int | None = None
    ) -> StageTime:
        def timed(batch: int, most: int, limit_s: float) -> float:
            part = settings.model_copy(update={"batch": batch, "accumulate": min(batch, settings.accumulate)})
            trainer = Trainer(
                objective,
                self._examples(objective, part, classes),
                student=network,
                frozen=self._frozen(objective),
                settings=part,
                seed=0,
                accelerator=accelerator(self.recipe.compute.precision),
            )
            return trainer.seconds_per_step(limit_s=limit_s, most=most)

        small = min(SMALL, settings.batch)
        small_s = timed(small, 1, self.share_s / 4)
        # Three steps of the largest batch that fits: at most in proportion to its images.
        fitting = max(small, int(small * self.share_s / max(3 * small_s, 1e-9)))
        batch = min(settings.batch, fitting)
        most = min(MOST_STEPS, max(2, settings.steps // SHARE))
        step_s = timed(batch, most, self.share_s) * settings.batch / batch
        how = f"measured: {in_ms(step_s)} a step" + ("" if batch == settings.batch else f", from a batch of {batch}")
        how += ", without torch.compile" if self.recipe.compute.compile else ""
        return StageTime(step_s * settings.steps, how)

    def _examples(self, objective: Objective, settings: Training, classes: int | None) -> Examples:
        own = sample_shape(self.facts) if classes is None else self.facts["image_shape"]
        shape, signature = (settings.batch, *own), signature_of_data(self.facts)
        condition = made_up(signature, settings.batch) if classes is None else torch.arange(settings.batch) % classes
        are_pixels = own == self.facts["image_shape"] and not are_signals(self.facts)
        real = TrainingSet(torch.randint(256, shape).byte() if are_pixels else torch.randn(shape).half(), condition)
        if OF_PAIRS & objective.needs:
            knots = torch.randn(settings.batch, self.recipe.pairs.knots, *shape[1:]).half()
            times = torch.linspace(1, 0, self.recipe.pairs.knots + 1)[:-1]
            pairs = TrainingSet(torch.randn(shape).half(), condition, knots[:, 0], knots, times)
            return PairsAndImages(pairs, real) if "real_images" in objective.needs else pairs
        if "real_images" in objective.needs:
            return real
        return FreshInputs(InputSource(self.student_network.signature, 0), settings.steps * settings.batch)

    def _frozen(self, objective: Objective) -> dict[str, nn.Module]:
        networks: dict[str, tuple[str, Callable[[], nn.Module]]] = {
            "teacher": ("teacher", lambda: with_guidance(self._known_teacher(), self.recipe, base=self.base).net),
            "slimmed_network": ("slimmed", lambda: self.student_network.net),
            "earlier_network": ("earlier", lambda: self.student_network.net),
            "feature_network": ("features", self._classifier),
        }
        needed = [networks[need] for need in networks if need in objective.needs]
        return {name: copy.deepcopy(network()) for name, network in needed}  # the student must not be one of them

    @cached_property
    def teacher_image_s(self) -> float:
        guided = with_guidance(self._known_teacher(), self.recipe, base=self.base)
        return image_seconds(guided, limit_s=self.share_s)

    @cached_property
    def student_image_s(self) -> float:
        return image_seconds(self.student_network, limit_s=self.share_s)
