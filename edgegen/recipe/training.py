"""The recipe's tables of data and training; a method's own keys are in its record (edgegen.training.objectives)."""

import operator
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from edgegen.recipe.fields import Count, Fraction, Time, Width
from edgegen.support.tables import MethodTable, Table

GUIDANCE = frozenset({"guidance", "guidance_interval", "guidance_network"})  # keys of [teacher] beside its training's
UNCONDITIONAL = "unconditional_class"  # what a method needs that trains without a class, too
INITS = ("random", "teacher")  # words of slim.init; anything else is a folder
RECALL_DROP = 0.4  # of a finish whose method says nothing of its own
METHOD = "name of the training method, whose own keys stand in the same table"


class Data(Table):
    """Where the images come from: "digits", a .npz, a folder or .zip of images, or "hf:NAME".

    Or the signals: "oscillations", or a .npz that has `signals`.
    """

    source: str = Field("digits", description="paths are relative to the recipe")
    holdout: Fraction = Field(0.25, description="share of the images kept from training, for the metrics")
    conditional: bool = Field(
        True, description="use the labels: the generator takes a class; false where upscale is given"
    )
    upscale: Annotated[int, Field(ge=2, le=16)] | None = Field(
        None,
        description="the generator takes an image that is so many times smaller (the mean of each block of pixels) and "
        "makes the large one of it",
        exclude_if=operator.not_,
    )
    autoencoder: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="a folder with a diffusers AutoencoderTiny or AutoencoderKL, in whose latents everything trains",
        exclude_if=operator.not_,
    )

    @model_validator(mode="before")
    @classmethod
    def one_condition(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("upscale") is None:
            return values
        if values.get("conditional"):
            raise ValueError(
                "upscale and conditional = true: the generator takes a small image or a class, not both; leave one out"
            )
        if values.get("autoencoder"):
            raise ValueError("upscale and autoencoder: a small image is no condition of latents yet; leave one out")
        return {**values, "conditional": False}


class Compute(Table):
    """How training uses the machine; the device is chosen by Accelerate."""

    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 on CUDA, fp32 elsewhere")
    compile: bool = Field(False, description="torch.compile of the trained networks")
    threads: Count | None = Field(None, description="CPU threads of PyTorch; default: as many as cores")


class Architecture(Table):
    """An EdgeUNet: one width per resolution, residual blocks per resolution, resolutions with attention (0 = full)."""

    channels: Annotated[tuple[Width, ...], Field(min_length=1, max_length=6)] = Field(
        (32, 64), description="width of each resolution, the full one first; each is half the one before"
    )
    blocks: Annotated[int, Field(ge=1, le=8)] = Field(
        1, description="residual blocks per resolution on the way down, and again on the way up"
    )
    attention: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (), description="resolutions with self-attention; 0 is the full one"
    )
    embedding: Annotated[Width, Field(ge=8)] = Field(128, description="width of the embedding of time and class")

    @model_validator(mode="after")
    def attention_has_a_level(self) -> "Architecture":
        if any(level >= len(self.channels) for level in self.attention):
            raise ValueError(
                f"attention {list(self.attention)} names a resolution beyond the {len(self.channels)} there are"
            )
        return self


def _network_name(text: str) -> str:
    place, _, name = text.rpartition(":")
    if not place or (place != DIFFUSERS and not name.isidentifier()):
        raise ValueError(
            f"network {text!r} is no network; there are: a table such as {{ channels = [32, 64], blocks = 1 }}, "
            "diffusers:config.json, file.py:factory, package.module:factory"
        )
    return text


DIFFUSERS = "diffusers"
# The tags are for pydantic alone: they name no key, and messages leave them out.
Network = Annotated[
    Annotated[Architecture, Tag("")] | Annotated[str, AfterValidator(_network_name), Tag(" ")],
    Discriminator(lambda value: " " if isinstance(value, str) else ""),
]


class Size(Protocol):
    """What an Architecture and the config of an EdgeUNet have in common."""

    @property
    def channels(self) -> tuple[int, ...]: ...
    @property
    def blocks(self) -> int: ...
    @property
    def embedding(self) -> int: ...


def slices_fault(student: Size, teacher: Size) -> str:
    """Why a student cannot take its weights from slices of a teacher, "" where it can."""
    wanted, there = student.channels, teacher.channels
    if len(wanted) != len(there):
        return f"it has {len(wanted)} resolutions, the teacher {len(there)}"
    for level, (own, whole) in enumerate(zip(wanted, there, strict=True)):
        if own > whole:
            return f"it is {own} wide at resolution {level}, the teacher {whole}"
    if student.blocks > teacher.blocks:
        return f"it has {student.blocks} blocks at a resolution, the teacher {teacher.blocks}"
    if student.embedding > teacher.embedding:
        return f"its embedding is {student.embedding} wide, the teacher's {teacher.embedding}"
    return ""


def cannot_slice(fault: str) -> str:
    """The message for `slices_fault`."""
    return (
        f"slim.init = 'teacher': a student that cannot be sliced from the teacher: {fault}. Give init = 'random', or "
        "the folder of a generator of the student's architecture"
    )


class Training(Table):
    """The keys of the training loop."""

    steps: Count = Field(1000, description="training steps")
    batch: Count = Field(64, description="images per step, of all processes together")
    learning_rate: Annotated[float, Field(gt=0.0)] = Field(1e-3, description="largest learning rate of Adam")
    decay: Literal["cosine", "none"] = Field("cosine", description="how the learning rate falls after the warm-up")
    warmup: Annotated[int, Field(ge=0)] = Field(100, description="steps in which the learning rate rises from 0")
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.999, description="decay of the moving average of the weights, which is the result; 0: no average"
    )
    clip_norm: Annotated[float, Field(gt=0.0)] = Field(1.0, description="largest norm of the gradient")
    checkpoint_every: Count = Field(250, description="steps between checkpoints; does not change the result")
    # Left out where it is not asked for, so that the keys of older results stay.
    accumulate: Count = Field(
        1, description="parts of a batch, computed one after another: for memory", exclude_if=(1).__eq__
    )

    ema_widths: tuple[Annotated[float, Field(gt=0.0, le=0.28)], ...] = Field(
        (),
        description="in place of ema: widths of averages of the whole training, as shares of it, such as [0.05, 0.1]; "
        "the first is the result, and `choose` compares the others with it",
        exclude_if=operator.not_,
    )

    @model_validator(mode="after")
    def one_kind_of_average(self) -> "Training":
        if self.ema_widths and "ema" in self.model_fields_set:
            raise ValueError("ema and ema_widths are two kinds of average: give one of them")
        if len(set(self.ema_widths)) != len(self.ema_widths):
            raise ValueError("ema_widths lists one twice")
        return self

    @model_validator(mode="after")
    def parts_have_images(self) -> "Training":
        if self.accumulate > self.batch:
            raise ValueError(f"accumulate = {self.accumulate} parts of a batch of {self.batch}: at most {self.batch}")
        return self


class Teacher(MethodTable, Training):
    """The teacher: trained here, or brought along as a folder (ours, or a diffusers UNet2DModel)."""

    method: str = Field("flow_matching", description=METHOD)
    folder: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="a generator folder to use in place of training"
    )
    # Left out where it is not asked for, so that the keys of older results stay.
    size: Literal["auto", "small", "medium", "large"] = Field(
        "auto", description="of an architecture that fits the images (docs/run.md)", exclude_if="auto".__eq__
    )
    model: Architecture | None = Field(None, description="the teacher's architecture, in place of size")
    # They change no weight: what uses the teacher's velocity depends on them, and the teacher itself does not.
    guidance: Annotated[float, Field(ge=0.0)] = Field(
        1.0,
        description="w of the velocity v + (w - 1) (v - v') that pairs and methods are given; v' is v without a class "
        "(classifier-free guidance; a teacher trained here needs label_dropout), or guidance_network's; 1: none",
        exclude_if=(1.0).__eq__,
    )
    guidance_interval: tuple[Time, Time] = Field(
        (0.0, 1.0),
        description="times t between which guidance acts; noise levels sigma of arXiv:2404.07724 are t / (1 - t)",
        exclude_if=(0.0, 1.0).__eq__,
    )
    guidance_network: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="a generator folder, smaller or less trained than the teacher, whose velocity is v' (autoguidance)",
        exclude_if=operator.not_,
    )

    @model_validator(mode="after")
    def brought_or_trained(self) -> "Teacher":
        of_training = self.model_fields_set - {"folder", "objective", *GUIDANCE}
        extra = sorted(of_training | self.objective.model_fields_set)
        if self.folder is not None and extra:
            raise ValueError(f"a teacher brought as a folder is not trained here: remove {', '.join(extra)}")
        if self.model is not None and "size" in self.model_fields_set:
            raise ValueError("say how large: either size, or a table [teacher.model]")
        return self

    @model_validator(mode="after")
    def guidance_has_what_it_needs(self) -> "Teacher":
        low, high = self.guidance_interval
        if low >= high:
            raise ValueError(f"guidance_interval = [{low:g}, {high:g}]: the first time must be below the second")
        further = sorted(self.model_fields_set & GUIDANCE - {"guidance"})
        if further and self.guidance == 1.0:
            raise ValueError(f"{', '.join(further)} without guidance: give guidance = 1.5, or another scale than 1")
        by_class = self.guidance != 1.0 and self.guidance_network is None and self.folder is None
        if by_class and UNCONDITIONAL not in self.objective.needs:
            raise ValueError(
                f"guidance = {self.guidance:g} needs a teacher that also knows no class: give label_dropout = 0.1 "
                "(of method flow_matching or mean_flow), or a guidance_network"
            )
        return self


class Pairs(Table):
    """(noise, image) pairs by the teacher's ODE."""

    count: Count = Field(10_000, description="number of pairs")
    solver: Literal["euler", "heun", "dpm_solver_pp", "rk45"] = Field("heun", description="of the teacher's ODE")
    steps: Count = Field(10, description="solver steps of all but rk45")
    tolerance: Annotated[float, Field(gt=0.0)] = Field(1e-4, description="rtol = atol of rk45")
    shard: Count = Field(2048, description="pairs in one file")
    knots: Count = Field(1, description="states kept of each path, from the noise on", exclude_if=(1).__eq__)

    @model_validator(mode="after")
    def knots_are_steps(self) -> "Pairs":
        most = 1 if self.solver == "rk45" else self.steps
        if self.knots > most:
            raise ValueError(f"knots = {self.knots}: a path by {self.solver} has {most} to keep")
        return self


class Slim(MethodTable, Training):
    """Training of the smaller student."""

    method: str = Field("annealing_reflow", description=METHOD)
    keep: Fraction | None = Field(None, description="share of the teacher's parameters that the student keeps")
    network: Network | None = Field(
        None,
        description="the student, in place of keep: a table, or diffusers:config.json, file.py:factory, "
        "package.module:factory",
    )
    students: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="networks of this size, each for an equal part of the classes", exclude_if=(1).__eq__
    )
    init: Annotated[str, Field(min_length=1)] = Field(
        "random",
        description="weights to start from: random, teacher (slices of its channels and blocks), or a generator folder",
        exclude_if="random".__eq__,
    )

    @model_validator(mode="after")
    def one_size(self) -> "Slim":
        if (self.keep is None) == (self.network is None):
            raise ValueError("say how small: either keep = 0.3, or network, such as a table [slim.network]")
        if self.students > 1 and isinstance(self.network, str):
            raise ValueError(f"students = {self.students} are EdgeUNets: network = '{self.network}' names another")
        if self.init == "teacher" and isinstance(self.network, str):
            raise ValueError(cannot_slice(f"slim.network = '{self.network}' is no EdgeUNet"))
        return self


class Distill(MethodTable, Training):
    """Training of the smaller student into one step, from the weights of slim."""

    method: str = Field("flow_guided_distillation", description=METHOD)


class Finish(MethodTable, Training):
    """A last training of the one-step student, from the weights of distill."""

    method: str = Field(description=METHOD)
    recall_drop: Annotated[float, Field(ge=0.0, lt=1.0)] | None = Field(
        None,
        description="share of its best by which the recall of held-out images may fall: beyond it the training ends, "
        "with the weights from before; 0: never; default: 0.15 with adversarial and density_ratio, 0.4 with others",
    )

    @property
    def largest_recall_drop(self) -> float:
        """The key, or the method's own."""
        own: float = getattr(self.objective, "recall_drop", RECALL_DROP)
        return own if self.recall_drop is None else self.recall_drop


class Baseline(Table):
    """Plain regression of the same small network on the same pairs, for as many steps as the student has in all."""

    enabled: bool | None = Field(None, description="default: where a method needs pairs; false saves its time")


class Recover(MethodTable, Training):
    """Training of the quantized student towards its float self, from fresh noise."""

    method: str = Field("self_distillation", description=METHOD)
    steps: Count = 500
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-4
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
