"""How a velocity is guided, and what a network has for it; edgegen.flow.guided_velocity does it. No torch at import."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Guidance:
    """The scale w, 1 for none; the times low < t <= high at which it acts; the folder of a worse network, or ""."""

    scale: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)
    network: str = ""

    @property
    def is_on(self) -> bool:
        return self.scale != 1.0


def unconditional_class(network: object) -> int | None:
    """The label that stands for no class, None where the network has none."""
    label: int | None = getattr(network, "unconditional_class", None)
    return label


def unguided(network: "nn.Module") -> "nn.Module":
    """The network of a guided velocity; another network itself."""
    own: nn.Module = getattr(network, "unguided", network)
    return own
