"""All figures of a set from its blocks: what they are made of, that blocks do not matter, and that damage shows."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from damaged_digits import blurred, digits, few, noisy, without_classes
from numpy.typing import NDArray
from torch import Tensor, nn

from edgegen.metrics import (
    LocalExtractor,
    Observation,
    Quality,
    Reference,
    SmallCNN,
    class_shares,
    density_coverage,
    frechet,
    kernel_distance,
    measure,
    nearest_distances,
    observe,
    precision_recall,
    random_convolutions,
    ring_power,
)
from edgegen.metrics import quality as module
from edgegen.metrics.quality import RealFeatures
from edgegen.support.pixels import scaled

TRAIN, TRAIN_LABELS, HELDOUT, HELDOUT_LABELS = digits()


@pytest.fixture(scope="module")
def extractor() -> LocalExtractor:
    """Trained for some seconds: features that know the classes."""
    torch.manual_seed(0)
    network = SmallCNN(channels=1, classes=10)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(60):
        rows = torch.randint(len(TRAIN), (128,))
        loss = nn.functional.cross_entropy(network(scaled(TRAIN[rows])), TRAIN_LABELS[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return LocalExtractor(network.eval().requires_grad_(False), 0.9, "cnn-v1,digits,sha256:0")


Watch = Callable[..., list[Observation]]


@pytest.fixture(scope="module")
def watch(extractor: LocalExtractor) -> Watch:
    """The observations of images, in blocks of a size."""
    spaces = {"local": extractor, "random": random_convolutions(1)}

    def blocks(images: Tensor, size: int = 500) -> list[Observation]:
        return [observe(part, spaces, classifier=extractor, training=TRAIN) for part in images.split(size)]

    return blocks


@pytest.fixture(scope="module")
def reference(extractor: LocalExtractor) -> Reference:
    real = scaled(TRAIN)
    spaces = {"local": extractor, "random": random_convolutions(1)}
    return Reference(
        {name: RealFeatures.of([space.features(real)]) for name, space in spaces.items()},
        ring_power(real).mean(axis=0),
        float(np.median(nearest_distances(scaled(HELDOUT), TRAIN))),
        class_shares=class_shares(HELDOUT_LABELS.numpy(), 10),
    )


def test_figures_are_means_over_the_seeds(extractor: LocalExtractor, watch: Watch, reference: Reference) -> None:
    sets = [noisy(scaled(HELDOUT), deviation) for deviation in (0.1, 0.2, 0.4)]
    quality = measure([watch(images) for images in sets], reference, compared=100)
    real, fakes = extractor.features(scaled(TRAIN)), [extractor.features(images) for images in sets]
    distances = np.array([frechet(real, fake) for fake in fakes])
    assert quality.fd_local == pytest.approx(distances.mean(), rel=1e-6)
    assert quality.sd == pytest.approx(distances.std(ddof=1), rel=1e-5)
    assert quality.kd_local == pytest.approx(np.mean([kernel_distance(real, fake) for fake in fakes]), rel=1e-5)
    shares = [(*precision_recall(real, fake), *density_coverage(real[:500], fake)) for fake in fakes]
    figures = (quality.precision, quality.recall, quality.density, quality.coverage)
    assert figures == pytest.approx(tuple(np.mean(shares, axis=0)))
    assert quality.fd_local_first == pytest.approx(frechet(real, fakes[0][:100]), rel=1e-6)
    random = random_convolutions(1)
    other = [frechet(as_float64(random.features(scaled(TRAIN))), as_float64(random.features(x))) for x in sets]
    assert quality.spaces["random"].fd == pytest.approx(np.mean(other), rel=1e-6)
    assert quality.spaces["random"].sd == pytest.approx(np.std(other, ddof=1), rel=1e-5)


def as_float64(values: NDArray[np.floating]) -> NDArray[np.float64]:
    return values.astype(np.float64)


def flat(quality: Quality) -> list[float]:
    values = quality.to_dict()
    space = values.pop("spaces")["random"]
    return [float(value) for value in (*values.values(), *space.values()) if value is not None]


def test_neither_blocks_nor_files_change_a_figure(watch: Watch, reference: Reference) -> None:
    images = noisy(scaled(HELDOUT), 0.2)
    whole = measure([watch(images)] * 2, reference, compared=300)
    divided = [Observation.of_tensors(block.tensors()) for block in watch(images, 90)]
    assert flat(measure([divided] * 2, reference, compared=300)) == pytest.approx(flat(whole), rel=1e-4, abs=1e-6)


def test_pairs_are_looked_at_in_a_subset_alone(
    watch: Watch, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory and time of precision and its kin do not grow with the images; the Frechet distance is of all of them."""
    sizes: list[int] = []
    original = module.precision_recall

    def counting(real: NDArray[np.float64], fake: NDArray[np.float64]) -> tuple[float, float]:
        sizes.append(len(fake))
        return original(real, fake)

    monkeypatch.setattr(module, "SUBSET", 120)
    monkeypatch.setattr(module, "precision_recall", counting)
    subset = measure([watch(scaled(HELDOUT), 50)] * 2, reference, compared=500)
    assert sizes == [120, 120]
    monkeypatch.undo()
    assert subset.fd_local == measure([watch(scaled(HELDOUT), 50)] * 2, reference, compared=500).fd_local


def test_every_figure_notices_the_damage_that_it_is_for(watch: Watch, reference: Reference) -> None:
    images, copies = scaled(HELDOUT), scaled(TRAIN[:500])
    missing = without_classes(images, HELDOUT_LABELS, 4)[0]

    def of(generated: Tensor) -> Quality:
        return measure([watch(generated)], reference, compared=500)

    good, noise, blur, lost = of(images), of(noisy(images, 0.4)), of(blurred(images, 1.0)), of(missing)
    same, copied = of(few(images, 20)), of(copies)
    assert (good.sd, good.nearest_ratio, good.copied) == (None, 1.0, 0.0)
    for bad in (noise, blur, lost, same):
        assert bad.fd_local > 1.5 * good.fd_local
        assert bad.spaces["random"].fd > 2 * good.spaces["random"].fd
    assert min(noise.spectrum_db, blur.spectrum_db) > 10 * good.spectrum_db
    assert min(noise.density, blur.density) < 0.8 * good.density
    assert max(noise.precision, blur.precision) < good.precision
    assert lost.class_distance > 0.3 > 3 * good.class_distance
    for bad in (lost, same):
        assert bad.coverage < 0.8 * good.coverage
        assert bad.recall < good.recall
    assert (copied.copied, copied.nearest_ratio) == (1.0, 0.0)
    assert copied.fd_local < good.fd_local  # which is why copies need a figure of their own


def test_features_with_a_fault_and_data_without_classes_have_no_figure(watch: Watch, reference: Reference) -> None:
    images = [watch(scaled(HELDOUT))] * 2
    faulty = dataclasses.replace(reference, spaces={"random": reference.spaces["random"]})
    quality = measure(images, faulty, compared=500)
    figures = ("fd_local", "sd", "kd_local", "precision", "recall", "density", "coverage", "class_distance")
    assert [getattr(quality, name) for name in (*figures, "fd_local_first")] == [None] * 9
    assert quality.spaces["random"].fd > 0
    assert measure(images, dataclasses.replace(reference, class_shares=None), compared=500).class_distance is None
