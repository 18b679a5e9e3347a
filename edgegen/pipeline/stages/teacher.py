"""The stage `teacher`: a generator folder, trained here or a copy of the user's."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from edgegen.errors import DataError
from edgegen.flow.condition import upscale_of
from edgegen.flow.solvers import solve
from edgegen.formats.stage_folder import GENERATOR, sample_shape
from edgegen.models.diffusers.unet2d import UNCONDITIONAL, with_unconditional_class
from edgegen.models.edge_unet import EdgeUNet
from edgegen.models.generator import ABOUT, Loaded, signature_of
from edgegen.models.load import load as load_generator
from edgegen.models.student import architecture
from edgegen.models.teacher_size import teacher_architecture, words
from edgegen.noise import normal
from edgegen.pipeline.graph import Context
from edgegen.pipeline.guided_teacher import with_guidance
from edgegen.pipeline.methods import check_teacher, further_inputs
from edgegen.pipeline.stages.data import signature_of_data
from edgegen.pipeline.student import new_student
from edgegen.pipeline.training_stage import save, train
from edgegen.recipe import Recipe
from edgegen.support.bounded_files import user_path
from edgegen.support.storage import read_json, write_json
from edgegen.training.distributed import state
from edgegen.verification.parity import psnr_db

CHECKED, CHECKED_STEPS = 8, 10  # images and most steps of the comparison with diffusers' sampler
# Measured on a trained network: 62 dB (DPM-Solver with Karras' sigmas, which rounds its times) to 140; 3 to 26 dB where
# a setting was not followed.
LIKE_DB = 40.0


def teacher(context: Context) -> None:
    """A generator folder: trained here, or a copy of the one that the user brings."""
    about, settings = read_json(context.inputs["data"] / "data.json"), context.recipe.teacher
    if settings.folder is not None:
        if state().is_main_process:
            _bring_teacher(context, user_path(settings.folder, base=context.base), about)
        return
    model = teacher_architecture(settings, about)
    config = architecture(model, signature_of_data(about), **further_inputs(context.recipe, "teacher"))
    if settings.model is None:
        context.progress.message(f"teacher: size {settings.size} is {words(model)} for these images")
    torch.manual_seed(context.seed)
    network = Loaded(EdgeUNet(config), signature_of(config), {})
    _check_use(context, network)
    fitted = train(context, settings.objective, network, settings)
    save(context, fitted, role="teacher", lineage={"data": about["source"]})


def load_teacher(source: Path, about: Mapping[str, Any], recipe: Recipe) -> Loaded:
    """A teacher that the user brings, for the data of `about` (data.json) and the methods of the recipe.

    Raises DataError where it does not fit the data, RecipeError where it does not fit a method.
    """
    loaded = load_generator(source)
    want, got = sample_shape(about), list(loaded.signature.sample_shape)
    if want != got:
        kind = "latents" if "autoencoder" in about else "images"
        raise DataError(f"teacher.folder: makes {kind} of {got} (channels, height, width), the data are {want}")
    loaded = _with_classes_of(loaded, about["num_classes"])
    if loaded.signature.num_classes != about["num_classes"]:
        raise DataError(
            f"teacher.folder: knows {loaded.signature.num_classes} classes, the data have {about['num_classes']}; "
            "0 is unconditional: data.conditional = false leaves the labels out"
        )
    upscale = upscale_of(loaded.signature)
    if upscale != about.get("upscale"):
        wanted = "takes no image beside the noise" if upscale is None else "takes a smaller image"
        raise DataError(
            f"teacher.folder: {wanted}, and data.upscale is {about.get('upscale', 'not given')}: bring a folder that "
            "edgegen wrote for the same upscale, or leave teacher.folder out, and one is trained"
        )
    check_teacher(recipe, loaded.net)
    return loaded


def _with_classes_of(loaded: Loaded, classes: int) -> Loaded:
    """A brought UNet2DModel that knows one class more than the data: the last one stands for no class."""
    from edgegen.models.diffusers.velocity import ScheduledVelocity

    more = classes > 0 and loaded.signature.num_classes == classes + 1
    if not more or not isinstance(loaded.net, ScheduledVelocity):
        return loaded
    note = f"its last class, {classes}, is taken to stand for no class: the data have {classes}"
    return replace(with_unconditional_class(loaded), notes=[*loaded.notes, note])


def _check_use(context: Context, teacher: Loaded) -> None:
    """Raises RecipeError where the recipe's student is impossible, DataError where the teacher cannot be guided so.

    Now, and not after the training of the teacher.
    """
    with_guidance(teacher, context.recipe, base=context.base)
    new_student(context.recipe, teacher, teacher.signature, base=context.base)


def _bring_teacher(context: Context, source: Path, about: Mapping[str, Any]) -> None:
    loaded = load_teacher(source, about, context.recipe)
    for note in loaded.notes:
        context.progress.message(f"teacher: {note}")
    if "autoencoder" in about and getattr(getattr(loaded.net, "schedule", None), "limit", None) is not None:
        context.progress.message(
            "teacher: its scheduler limits the estimate of the data (clip_sample or thresholding), as is done for "
            "images; latents go further: was it trained with this scheduler_config.json?"
        )
    _check_use(context, loaded)
    _check_sampling(context, loaded)
    target = context.folder / GENERATOR
    if target.exists():
        shutil.rmtree(target)
    keep = shutil.ignore_patterns(".*", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
    shutil.copytree(source, target, ignore=keep)
    if UNCONDITIONAL in loaded.about:
        own = read_json(target / ABOUT) if (target / ABOUT).exists() else {}
        write_json(target / ABOUT, {**own, UNCONDITIONAL: loaded.about[UNCONDITIONAL]})


def _check_sampling(context: Context, loaded: Loaded) -> None:
    """Our solver on the teacher's own times, beside diffusers' sampler of first order: the same images.

    Raises DataError where they are not. Times, spacing, and what limits the data estimate enter both.
    """
    from edgegen.models.diffusers.own_sampler import even_steps, first_order, sample
    from edgegen.models.diffusers.velocity import ScheduledVelocity, velocity_of

    if not isinstance(loaded.net, ScheduledVelocity):
        return
    reference = first_order(loaded.net.schedule)
    path = context.folder / "sampling.json"
    if reference is None:
        write_json(path, {"status": "not checked", "reason": f"no first-order sampler of {loaded.net.schedule.name}"})
        return
    schedule, arguments = reference
    signature, device, steps = loaded.signature, state().device, even_steps(schedule, CHECKED_STEPS)
    network = velocity_of(loaded.net.unet, schedule, "scheduler_config.json").to(device)
    noise = torch.from_numpy(normal(context.seed, 0, CHECKED, signature.sample_shape)).to(device)
    labels = torch.arange(CHECKED, device=device) % signature.num_classes if signature.num_classes else None
    theirs = sample(network.unet, schedule, noise, labels, steps=steps, arguments=arguments)
    ours = solve(network, noise, labels, solver="euler", steps=steps).x
    likeness_db = psnr_db(theirs.cpu().numpy(), ours.cpu().numpy(), data_range=2.0)
    if not likeness_db >= LIKE_DB:
        raise DataError(
            f"teacher.folder: sampled by diffusers' {schedule.name} in {steps} steps and by our solver on the "
            f"same noise, the images differ (PSNR {likeness_db:.1f} dB, needed {LIKE_DB:.0f}): its "
            "scheduler_config.json has a setting that is not followed here; please report it"
        )
    context.progress.message(
        f"teacher: {likeness_db:.0f} dB between diffusers' {schedule.name} and our solver, {steps} steps"
    )
    write_json(path, {"status": "ok", "scheduler": schedule.name, "steps": steps, "psnr_db": likeness_db})
