"""What a platform makes of a bundle and a name."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgegen.formats.bundle import BundledArtifact


@dataclass(frozen=True)
class Plan:
    """What a project is made of: a template's texts, and files of the bundle.

    Attributes:
        values: what stands for the placeholders {{name}} of the template.
        assets: places in the project of files of the bundle, by their paths in it.
        renamed: places of files of the template that are not their paths in it; None: left out.
        shown: what the command says afterwards.
        commands: what to run in the project's folder next.
    """

    values: Mapping[str, str]
    assets: Mapping[str, str]
    renamed: Mapping[str, str | None] = field(default_factory=dict)
    shown: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


def one_of(variants: Mapping[str, str], chosen: str, place: str) -> dict[str, str | None]:
    """`renamed` of files of which a project gets one, as `place`: `variants` has their paths in the template."""
    return {path: place if name == chosen else None for name, path in variants.items()}


def example_arguments(artifact: BundledArtifact, by_role: Mapping[str, str]) -> str:
    """What a README's call of `generate` gives for the inputs of the artifact, in the order of `by_role`."""
    roles = {spec.role for spec in artifact.inputs}
    return ", ".join(argument for role, argument in by_role.items() if role in roles)


def model_files(artifact: BundledArtifact) -> list[str]:
    """What a runtime opens: one file, or that of each student."""
    return [student.file for student in artifact.students] or [artifact.file]
