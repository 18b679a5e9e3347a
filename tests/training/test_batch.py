"""Batches of pairs with real images beside them."""

import torch

from edgegen.training.batch import PairsAndImages, TrainingSet, epoch_rows

CPU = torch.device("cpu")


def test_a_pair_meets_other_real_images_and_all_of_them_are_seen() -> None:
    """More real images than pairs, and fewer: none is tied to a pair, none is left out."""
    pairs = TrainingSet(torch.zeros(10, 1, 2, 2), noise=torch.arange(10.0)[:, None, None, None].expand(10, 1, 2, 2))
    for count in (4, 25):
        real = TrainingSet(torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 2, 2).clone())
        data = PairsAndImages(pairs, real)
        assert len(data) == 10
        partners: dict[int, set[float]] = {}
        for step in range(60):
            batch = data.batch(epoch_rows(10, step, 5, 0), CPU, step=step, steps=60)
            assert batch.noise is not None
            assert batch.real is not None
            for pair, image in zip(batch.noise[:, 0, 0, 0], batch.real.images[:, 0, 0, 0], strict=True):
                partners.setdefault(int(pair), set()).add(float(image))
        assert len(set.union(*partners.values())) == count
        assert all(len(images) > 1 for images in partners.values())
