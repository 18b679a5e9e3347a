"""A generator whose velocity is guided, by a label of its own or by a second generator folder."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgegen.errors import DataError
from edgegen.flow.guidance import Guidance, unconditional_class
from edgegen.flow.guided_velocity import GuidedVelocity
from edgegen.models.generator import ONE_STEP_ROLES, Loaded
from edgegen.models.load import load


def guided(loaded: Loaded, guidance: Guidance) -> Loaded:
    """The same with its velocity guided; itself where the scale is 1.

    Raises DataError where the network knows no label that stands for no class, and for a second network of other images
    or classes, or of one step.
    """
    if not guidance.is_on:
        return loaded
    signature = loaded.signature
    if guidance.network:
        worse = load(Path(guidance.network))
        other, own = (f"{list(s.sample_shape)} of {s.num_classes} classes" for s in (worse.signature, signature))
        if other != own:
            raise DataError(f"teacher.guidance_network: makes images {other}, the teacher {own}")
        if (role := worse.about.get("role")) in ONE_STEP_ROLES:
            raise DataError(
                f"teacher.guidance_network: {guidance.network} is a {role}, trained for a single step, and guidance "
                "needs velocities all along the path; give a teacher, smaller or less trained"
            )
        return replace(loaded, net=GuidedVelocity(loaded.net, guidance, worse=worse.net).eval())
    if not signature.num_classes:
        raise DataError(
            f"teacher.guidance = {guidance.scale:g}: the teacher knows no classes that it could be guided by; give a "
            "guidance_network, which is smaller or less trained, or guidance = 1"
        )
    if unconditional_class(loaded.net) is None:
        raise DataError(
            f"teacher.guidance = {guidance.scale:g}: the teacher knows {signature.num_classes} classes, and no label "
            "that stands for none of them: it was trained here without label_dropout, or its num_class_embeds is "
            f"{signature.num_classes} in place of {signature.num_classes + 1}; give a guidance_network, or guidance = 1"
        )
    return replace(loaded, net=GuidedVelocity(loaded.net, guidance).eval())


def load_guided(folder: Path, guidance: Mapping[str, Any] | None) -> Loaded:
    """A generator folder, with its velocity guided where the fields of a Guidance are given. Raises DataError."""
    loaded = load(folder)
    return loaded if guidance is None else guided(loaded, Guidance(**guidance))
