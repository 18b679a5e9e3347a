"""What a platform makes of a bundle and a name."""

from collections.abc import Mapping
from dataclasses import dataclass, field


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
