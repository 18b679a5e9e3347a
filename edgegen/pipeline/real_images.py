"""The real images of a run as the stage `evaluate` compares with them: what is observed of them, and their figures."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from edgegen.metrics.class_histogram import class_shares
from edgegen.metrics.extractor import LocalExtractor
from edgegen.metrics.feature_space import FeatureSpace
from edgegen.metrics.observation import Observation, observe
from edgegen.metrics.quality import LOCAL, Quality, RealFeatures, Reference, measure
from edgegen.metrics.sanity import Sanity, check_damage
from edgegen.metrics.spectrum import ring_power
from edgegen.pipeline.feature_spaces import PRETRAINED, RANDOM
from edgegen.pipeline.observed_sets import Block, ObservedSets
from edgegen.pipeline.sample_space import SampleSpace
from edgegen.pipeline.stored_images import in_range, stored
from edgegen.training.distributed import state

COPIES = 2048  # images of the first noise seed for which the nearest training image is looked for
DAMAGED = 2000  # most held-out images whose damage the random features have to see


@dataclass(frozen=True)
class RealImages:
    """Training and held-out images.

    `images` are the tensors of the stage data, `compared` the training images of the local and the random features
    (float, (m, channels, height, width)), `heldout` how many held-out images are compared with them. `spaces` has
    "local", the features of `extractor`, which `fault` says are worth nothing. `asked` are the classes that the
    generators get (None: no classes), `truths` the held-out images that their samples are to be like (None: any).
    `latents` are those of the same images, where the networks make latents.
    """

    folder: Path
    images: Mapping[str, Tensor]
    compared: Tensor
    heldout: int
    extractor: LocalExtractor
    fault: str
    spaces: Mapping[str, FeatureSpace]
    asked: Tensor | None
    truths: Tensor | None
    seed: int
    space: SampleSpace
    latents: Mapping[str, Tensor]

    def complete(self) -> None:
        """Observes the real images; each process its share."""
        self._heldout.complete(
            lambda block: self.observed(self._part("heldout", block), block, is_generated=False), passed=_ignore
        )
        if self.latents:
            self._reconstructed.complete(
                lambda block: self.observed(self.reconstructions(_rows(block)), block, is_generated=False),
                passed=_ignore,
            )
        pretrained = {name: space for name, space in self.spaces.items() if name in PRETRAINED}
        if pretrained:
            self._training.complete(
                lambda block: observe(self._part("train", block).to(state().device), pretrained), passed=_ignore
            )

    def observed(self, images: Tensor, block: Block, *, is_generated: bool = True) -> Observation:
        """Of images (n, channels, height, width) that stand at `block` of their set."""
        is_looked_up = block.number == 0 and block.start < COPIES
        truths = None
        if is_generated and self.truths is not None:
            rows = self.truths[block.start : block.start + block.count]
            truths = in_range(self.images, "heldout", rows)
        return observe(
            images.to(state().device),
            self.spaces,
            classifier=self.extractor if self.extractor.knows_classes else None,
            training=self._training_pixels if is_looked_up else None,
            truths=truths,
        )

    @cached_property
    def reference(self) -> Reference:
        """What generated images are compared with, after `complete`."""
        spaces: dict[str, RealFeatures] = {}
        if not self.fault:
            spaces[LOCAL] = RealFeatures.of([self.extractor.features(self.compared)])
        if not self.damage.fault:
            spaces[RANDOM] = RealFeatures.of([self._random_features])
        for name in self.spaces.keys() & set(PRETRAINED):
            (blocks,) = self._training.read()
            spaces[name] = RealFeatures.of(_Features(blocks, name))
        (heldout,) = self._heldout.read()
        nearest = np.concatenate([block.nearest for block in heldout if block.nearest is not None])
        return Reference(
            spaces,
            ring_power(self.compared).mean(axis=0),
            float(np.median(nearest)),
            class_shares=self._shares(self.asked) if self._has_classes else None,
        )

    @cached_property
    def damage(self) -> Sanity:
        """Whether the random features see damage to the images of this run; those of the extractor have their own."""
        others = in_range(self.images, "heldout", slice(DAMAGED))
        return check_damage(self.spaces[RANDOM], self._random_features, others, seed=self.seed)

    def floor(self) -> Quality:
        """Held-out images in the place of generated ones: one set, so without an sd."""
        return self._of_heldout(self._heldout)

    def reconstructed(self) -> Quality | None:
        """The same images after the autoencoder: what it alone loses. None where there is none."""
        return self._of_heldout(self._reconstructed) if self.latents else None

    def reconstructions(self, rows: Tensor | slice) -> Tensor:
        """What the decoder makes of the latents of held-out images (n, channels, height, width)."""
        return self.space.images(self.latents["heldout"][rows].float())

    def _of_heldout(self, sets: ObservedSets) -> Quality:
        labels = self.images["heldout_labels"][: self.heldout] if self.asked is not None else None
        shares = self._shares(labels) if self._has_classes else None
        return measure(sets.read(), replace(self.reference, class_shares=shares), compared=self.heldout)

    def remove(self) -> None:
        """Deletes what was observed."""
        self._heldout.remove()
        for sets in (self._reconstructed, self._training):
            if sets.folder.exists():
                sets.remove()

    @property
    def _heldout(self) -> ObservedSets:
        return ObservedSets(self.folder / "heldout", 1, self.heldout)

    @property
    def _reconstructed(self) -> ObservedSets:
        return ObservedSets(self.folder / "reconstructed", 1, self.heldout)

    @property
    def _training(self) -> ObservedSets:
        return ObservedSets(self.folder / "training", 1, len(self.images["train_images"]))

    @cached_property
    def _random_features(self) -> NDArray[Any]:
        return self.spaces[RANDOM].features(self.compared)

    @property
    def _training_pixels(self) -> Tensor:
        return stored(self.images, "train")

    @property
    def _has_classes(self) -> bool:
        return "train_labels" in self.images and self.extractor.knows_classes

    def _part(self, part: str, block: Block) -> Tensor:
        return in_range(self.images, part, _rows(block))

    def _shares(self, labels: Tensor | None) -> NDArray[np.float64]:
        """Of the classes that are asked for; of the training images where none are."""
        train = self.images["train_labels"]
        return class_shares((train if labels is None else labels).numpy(), int(train.max()) + 1)


@dataclass(frozen=True)
class _Features:
    """The features of one space in stored blocks, read anew by each loop."""

    blocks: Any
    name: str

    def __iter__(self) -> Any:
        return (block.features[self.name] for block in self.blocks)


def _rows(block: Block) -> slice:
    return slice(block.start, block.start + block.count)


def _ignore(block: Block) -> None:
    pass
