"""All figures of generated images against real ones, from what was observed of both."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.metrics.class_histogram import class_distance, class_shares
from edgegen.metrics.distances import (
    Features,
    Moments,
    density_coverage,
    frechet_of,
    kernel_distance,
    moments,
    precision_recall,
)
from edgegen.metrics.memorisation import nearness
from edgegen.metrics.observation import Observation
from edgegen.metrics.pixel_statistics import pixel_statistics
from edgegen.metrics.spectrum import spectrum_distance_db

SUBSET = 10_000  # most images of each set whose every pair is looked at
LOCAL = "local"  # the space of the run's own classifier

Blocks = Iterable[Observation]  # of one set, in order; read anew by each loop


@dataclass(frozen=True)
class SpaceFigures:
    """In one feature space: Frechet distance, its sample deviation over the noise seeds, kernel distance."""

    fd: float
    sd: float | None
    kd: float


@dataclass(frozen=True)
class Quality:
    """Figures of the sets of one network, means over the noise seeds; `sd` is a sample deviation over them.

    None is a figure that is not known: of features with a fault, of data without classes, of a single set. `spaces` has
    the further spaces by name. `fd_local_first` is of the first `compared` images of the first seed alone. `psnr_db`
    and `ssim` are against the truths of the images, where there are any.
    """

    fd_local: float | None
    sd: float | None
    kd_local: float | None
    precision: float | None
    recall: float | None
    density: float | None
    coverage: float | None
    class_distance: float | None
    fd_local_first: float | None
    spectrum_db: float
    nearest_ratio: float | None
    copied: float | None
    saturated: float
    spread: float
    psnr_db: float | None
    ssim: float | None
    spaces: Mapping[str, SpaceFigures]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class RealFeatures:
    """Of real images in one space: moments of all, and the first rows (at most SUBSET) for what looks at pairs."""

    moments: Moments
    rows: Features

    @staticmethod
    def of(blocks: Iterable[NDArray[Any]]) -> "RealFeatures":
        """`blocks` are arrays (n_i, d), read twice."""
        return RealFeatures(moments(blocks), _first(blocks, SUBSET))


@dataclass(frozen=True, eq=False)
class Reference:
    """What generated images are compared with; `spaces` lacks those whose features showed a fault.

    `class_shares` are those that should be there (None: no classes), `rings` the mean power of real images, `nearest`
    the median distance of held-out images to the nearest training image.
    """

    spaces: Mapping[str, RealFeatures]
    rings: NDArray[np.float64]
    nearest: float
    class_shares: NDArray[np.float64] | None = None


def measure(sets: Sequence[Blocks], reference: Reference, *, compared: int) -> Quality:
    """One set for each noise seed. Raises DataError where they cannot be compared."""
    pixels = pixel_statistics(block.pixels for blocks in sets for block in blocks)
    spaces = {name: _space(sets, name, real) for name, real in reference.spaces.items()}
    local = spaces.pop(LOCAL, None)
    nearest = [block.nearest for blocks in sets for block in blocks if block.nearest is not None]
    ratio, copied = nearness(np.concatenate(nearest), reference.nearest) if nearest else (None, None)
    psnr_db, similarity = _fidelity(sets)
    of_seeds = {} if local is None else _local(sets, reference.spaces[LOCAL], compared)
    return Quality(
        fd_local=None if local is None else local.fd,
        sd=None if local is None else local.sd,
        kd_local=None if local is None else local.kd,
        precision=of_seeds.get("precision"),
        recall=of_seeds.get("recall"),
        density=of_seeds.get("density"),
        coverage=of_seeds.get("coverage"),
        class_distance=None if local is None else _classes(sets, reference.class_shares),
        fd_local_first=of_seeds.get("fd_local_first"),
        spectrum_db=_mean(sets, lambda blocks: spectrum_distance_db(reference.rings, mean_rings(blocks))),
        nearest_ratio=ratio,
        copied=copied,
        saturated=pixels.saturated,
        spread=pixels.spread,
        psnr_db=psnr_db,
        ssim=similarity,
        spaces=spaces,
    )


def mean_rings(blocks: Blocks) -> NDArray[np.float64]:
    """The mean power in each ring over all images of a set."""
    rings, counts = zip(*[(block.rings, block.count) for block in blocks], strict=True)
    return np.asarray(np.average(rings, axis=0, weights=counts))


def _space(sets: Sequence[Blocks], name: str, real: RealFeatures) -> SpaceFigures:
    distances = [frechet_of(real.moments, moments(block.features[name] for block in blocks)) for blocks in sets]
    kernel = _mean(sets, lambda blocks: kernel_distance(real.rows, _rows(blocks, name, SUBSET)))
    sd = float(np.std(distances, ddof=1)) if len(distances) > 1 else None
    return SpaceFigures(float(np.mean(distances)), sd, kernel)


def _local(sets: Sequence[Blocks], real: RealFeatures, compared: int) -> dict[str, float]:
    """What is measured in the local space alone."""
    shares = []
    for blocks in sets:
        rows = _rows(blocks, LOCAL, SUBSET)
        alike = min(len(rows), len(real.rows))  # density and coverage are for sets of one size
        shares.append((*precision_recall(real.rows, rows), *density_coverage(real.rows[:alike], rows[:alike])))
    precision, recall, density, coverage = (float(value) for value in np.mean(shares, axis=0))
    first = frechet_of(real.moments, moments([_rows(sets[0], LOCAL, compared)]))
    return {
        "precision": precision,
        "recall": recall,
        "density": density,
        "coverage": coverage,
        "fd_local_first": first,
    }


def _classes(sets: Sequence[Blocks], wanted: NDArray[np.float64] | None) -> float | None:
    if wanted is None:
        return None

    def distance(blocks: Blocks) -> float:
        classes = [block.classes for block in blocks if block.classes is not None]
        return class_distance(wanted, class_shares(np.concatenate(classes), len(wanted)))

    return _mean(sets, distance)


def _fidelity(sets: Sequence[Blocks]) -> tuple[float | None, float | None]:
    """The means of PSNR and SSIM over all images; None where there is no truth, or no SSIM."""
    rows = [block.fidelity for blocks in sets for block in blocks if block.fidelity is not None]
    if not rows:
        return None, None
    psnr_db, similarity = np.concatenate(rows).mean(axis=0).tolist()
    return psnr_db, similarity if np.isfinite(similarity) else None


def _mean(sets: Sequence[Blocks], figure: Callable[[Blocks], float]) -> float:
    return float(np.mean([figure(blocks) for blocks in sets]))


def _rows(blocks: Blocks, name: str, most: int) -> Features:
    return _first((block.features[name] for block in blocks), most)


def _first(blocks: Iterable[NDArray[Any]], most: int) -> Features:
    """The first rows of all, at most so many, in float64."""
    parts, left = [], most
    for block in blocks:
        parts.append(np.asarray(block[:left], np.float64))
        left -= len(parts[-1])
        if left == 0:
            break
    return np.concatenate(parts)
