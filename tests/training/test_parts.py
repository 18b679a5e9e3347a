"""A batch in parts gives what it gives as a whole: random numbers, curve and weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_runs import CONFIG, pairs_and_helpers

from edgegen.errors import RecipeError, TrainingError
from edgegen.formats.stage_folder import CHECKPOINT
from edgegen.models.edge_unet import EdgeUNet
from edgegen.models.zero_layers import randomize_zero_layers
from edgegen.recipe import Training, parse
from edgegen.registry import BUILT_IN, load
from edgegen.support.progress import Silent
from edgegen.support.storage import load_metadata
from edgegen.training.distributed import accelerator
from edgegen.training.log import read
from edgegen.training.loop import fit
from edgegen.training.networks import Fitted
from edgegen.training.parts import Part, draws

CPU = torch.device("cpu")
WHOLE = 10
# A student that is a classifier, or takes a generator's inputs, is another network than this file's.
OTHERS = {"classifier", "float_network"}
COMPARING = {"drifting", "inductive_moment_matching"}  # samples of a batch with each other: a part has fewer of them
DIVIDING = {"free_flow", "shortcut", "split_mean_flow"}  # each n-th sample of a part has another loss
LEFT_OUT = COMPARING | DIVIDING
METHODS = sorted(
    name for name in BUILT_IN["objective"] if not load("objective", name)().needs & OTHERS and name not in LEFT_OUT
)


def drawn(part: Part) -> list[torch.Tensor]:
    n = part.size
    with draws(part, 3, 7, CPU) as rng:
        return [
            torch.randn((n, 2, 3), generator=rng),
            torch.rand(n, generator=rng),
            torch.randn(2 * n, 3, generator=rng, dtype=torch.float64),
            torch.randint(0, 9, (n,), generator=rng),
            torch.randint(9, size=(n, 2), generator=rng),
            torch.rand((), generator=rng),
        ]


@pytest.mark.parametrize("count", [2, 3])
def test_the_random_numbers_of_the_parts_are_the_rows_of_the_whole(count: int) -> None:
    parts = [Part(index, count, WHOLE) for index in range(count)]
    whole = drawn(Part(0, 1, WHOLE))
    assert sum(part.share for part in parts) == pytest.approx(1)
    for part, tensors in ((part, drawn(part)) for part in parts):
        for tensor, expected in zip(tensors[:2] + tensors[3:5], whole[:2] + whole[3:5], strict=True):
            assert torch.equal(tensor, part.of(expected))
        assert torch.equal(tensors[2], torch.cat([part.of(half) for half in whole[2].chunk(2)])), "as torch.cat repeats"
        assert torch.equal(tensors[5], whole[5]), "one number for the whole batch"


def test_what_cannot_be_divided_differs_between_the_parts() -> None:
    def others(part: Part) -> list[torch.Tensor]:
        with draws(part, 3, 7, CPU) as rng:
            permutation = torch.randperm(40, generator=rng)
            return [permutation, torch.empty(5).normal_(generator=rng), torch.randn(7, 2, generator=rng)]

    for one, other in zip(*(others(Part(index, 2, WHOLE)) for index in range(2)), strict=True):
        assert not torch.equal(one, other)
    for one, other in zip(*(others(Part(1, 2, WHOLE)) for _ in range(2)), strict=True):
        assert torch.equal(one, other), "a resumed run sees the same"


def trained(method: str, folder: Path, accumulate: int) -> Fitted:
    folder.mkdir()
    data, frozen = pairs_and_helpers(method)
    torch.manual_seed(0)
    objective = load("objective", method)()
    student = EdgeUNet(replace(CONFIG, second_time="second_time" in objective.needs))
    if "trained_student" in objective.needs:
        randomize_zero_layers(student, 0)
    return fit(
        objective,
        data,
        student=student,
        frozen=frozen,
        settings=Training(steps=20, batch=WHOLE, warmup=3, accumulate=accumulate),
        seed=5,
        folder=folder,
        accelerator=accelerator("fp32"),
        progress=Silent(),
        label="slim",
    )["student"]


@pytest.mark.parametrize("method", METHODS)
def test_parts_give_the_curve_of_the_whole_batch(tmp_path: Path, method: str) -> None:
    """3 parts of 10 images are unequal. Not weight by weight: Adam makes much of a gradient that is rounding alone."""
    one, three = trained(method, tmp_path / "one", 1), trained(method, tmp_path / "three", 3)
    inputs = torch.randn(8, 1, 4, 4), torch.rand(8), torch.arange(8) % 3
    torch.testing.assert_close(one.raw(*inputs), three.raw(*inputs), rtol=1e-3, atol=1e-4)
    lines, others = read(tmp_path / "one" / "log.jsonl"), read(tmp_path / "three" / "log.jsonl")
    assert [line["step"] for line in lines] == [10, 20]
    metadata = load_metadata(tmp_path / "one" / CHECKPOINT)
    networks = [key.removeprefix("updates.") for key in metadata if key.startswith("updates.")]
    for line, other in zip(lines, others, strict=True):  # figures are means of the parts' figures
        assert line.keys() == other.keys()
        assert {name: line[name] for name in networks if name in line} == {
            name: pytest.approx(other[name], rel=1e-3) for name in networks if name in line
        }


def test_more_parts_than_images_are_refused(tmp_path: Path) -> None:
    recipe = {"name": "x", "slim": {"keep": 0.3, "batch": 4, "accumulate": 8}}
    with pytest.raises(RecipeError, match="slim: accumulate = 8 parts of a batch of 4: at most 4"):
        parse(recipe, where="x.toml")
    assert "accumulate" not in Training().model_dump(), "the keys of older results stay"
    settings = Training(batch=4).model_copy(update={"accumulate": 8})
    data, frozen = pairs_and_helpers("pair_regression")
    with pytest.raises(TrainingError, match=r"batch = 4 cannot be divided into 8 parts \(1 processes, acc"):
        fit(
            load("objective", "pair_regression")(),
            data,
            student=EdgeUNet(CONFIG),
            frozen=frozen,
            settings=settings,
            seed=5,
            folder=tmp_path,
            accelerator=accelerator("fp32"),
            progress=Silent(),
            label="slim",
        )
