"""The bytes that faster forms of layers may add to the weights, and which layers stay plain for lack of them."""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from edgegen.recipe import Export

if TYPE_CHECKING:
    from torch import fx

Site = TypeVar("Site", bound=Hashable)
META = "edgegen.growth"  # of a GraphModule whose rewrites share one


@dataclass(frozen=True)
class Layer:
    """A layer that has a faster form: what that adds in bytes, and what it saves for each of them, in any unit."""

    name: str
    nbytes: int
    gain: float


@dataclass
class Growth:
    """`left` are the bytes that may still be added; `plain` has by rewrite the layers for which they did not do."""

    left: int
    plain: dict[str, list[str]] = field(default_factory=dict)

    def choose(self, layers: Mapping[Site, Layer], *, rewrite: str, most: int | None = None) -> Collection[Site]:
        """Those of `layers` that get their faster form, the largest gain for a byte first; `most` bounds these alone.

        Once one does not fit, those with less gain stay plain as well.
        """
        left = self.left if most is None else min(self.left, most)
        ordered = sorted(layers, key=lambda site: -layers[site].gain)
        chosen: list[Site] = []
        for site in ordered:
            if layers[site].nbytes > left:
                break
            left -= layers[site].nbytes
            self.left -= layers[site].nbytes
            chosen.append(site)
        if plain := [layers[site].name for site in ordered[len(chosen) :]]:
            self.plain[rewrite] = plain
        return chosen

    def facts(self) -> dict[str, Any]:
        """For the artifact's `details`; empty where there was room for all."""
        return {"plain_for_memory": self.plain} if self.plain else {}


def growth_of(module: "fx.GraphModule") -> Growth:
    """That of a graph whose rewrites share one; the default's where nobody gave it one."""
    growth: Growth = module.meta.setdefault(META, Growth(Export().added_weight_bytes))
    return growth
