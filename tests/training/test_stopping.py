"""Trainings that end by a figure: where it is flat, and where it has fallen, with the weights from before."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from training_runs import Stop, StopAt, train

from edgegen.errors import TrainingError
from edgegen.formats.stage_folder import CHECKPOINT, GOOD
from edgegen.support.progress import Silent
from edgegen.support.storage import load_tensors
from edgegen.training.log import HELDOUT, LOG, last_warnings, read
from edgegen.training.networks import Fitted
from edgegen.training.stopping import Stopping, fallen, flat

RECALL = "recall"


class Said(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


def planned(folder: Path, name: str, figures: Sequence[float]) -> Callable[[torch.nn.Module], float]:
    """The figures are a function of the weights' step, as real ones are: those that the log has are not asked again."""
    asked = iter(figures[len([line for line in read(folder / LOG) if name in line]) :])
    return lambda network: next(asked)


def same(one: Fitted, other: Fitted) -> bool:
    pairs = [(one.raw, other.raw), (one.ema, other.ema)]
    states = [(a.state_dict(), b.state_dict()) for a, b in pairs]
    return all(torch.equal(value, b[name]) for a, b in states for name, value in a.items())


def steps_of(folder: Path, name: str) -> list[int]:
    return [line["step"] for line in read(folder / LOG) if name in line]


def test_a_training_ends_where_its_held_out_loss_is_flat_with_or_without_a_kill(tmp_path: Path) -> None:
    def run(folder: Path, progress: Silent) -> Fitted:
        figure = planned(folder, HELDOUT, (3.0, 2.0, 2.0, 2.0))
        stopping = Stopping(HELDOUT, figure, every=10, reason=flat(patience=2, gain=0.98))
        return train(folder, progress=progress, stopping=stopping)

    said = Said()
    whole = run(tmp_path / "whole", said)
    assert steps_of(tmp_path / "whole", HELDOUT) == [10, 20, 30, 40]
    assert read(tmp_path / "whole" / LOG)[-1]["step"] == 40, "of 45"
    assert said.texts == ["teacher: the loss on held-out images is flat: stopped at 40 of 45"]
    with pytest.raises(Stop):
        run(tmp_path / "killed", StopAt(30))
    assert same(whole, run(tmp_path / "killed", Silent()))


@pytest.mark.parametrize("killed_at", [None, 10, 30])
def test_a_training_whose_recall_falls_ends_with_the_weights_before(tmp_path: Path, killed_at: int | None) -> None:
    """At 0, 10, 20 and 30 steps; the weights are those of a training of 20 steps."""

    def run(progress: Silent) -> Fitted:
        figure = planned(tmp_path / "fallen", RECALL, (0.7, 0.72, 0.65, 0.5))
        reason = fallen("the recall", most=0.15, advice="lower learning_rate")
        stopping = Stopping(RECALL, figure, every=10, reason=reason, goes_back=True)
        return train(tmp_path / "fallen", progress=progress, stopping=stopping, decay="none")

    if killed_at is not None:
        with pytest.raises(Stop):
            run(StopAt(killed_at))
    said = Said()
    result = run(said)
    assert steps_of(tmp_path / "fallen", RECALL) == [0, 10, 20, 30]
    text = "the recall has fallen: it was 0.72 and is 0.50; lower learning_rate"
    assert last_warnings(tmp_path / "fallen" / LOG) == [text]
    assert said.texts == [
        f"teacher: warning: {text}",
        "teacher: ended after 30 of 45 steps, with the weights of step 20",
    ]
    with pytest.raises(Stop):
        train(tmp_path / "short", progress=StopAt(30), decay="none")
    kept = load_tensors(tmp_path / "short" / CHECKPOINT)  # of step 20
    for prefix, network in (("net.student.", result.raw), ("ema.student.", result.ema)):
        assert all(torch.equal(kept[prefix + name], value) for name, value in network.state_dict().items())


def test_fallen_weights_are_not_taken_where_those_before_are_gone(tmp_path: Path) -> None:
    figures = iter((0.7, 0.2))

    def figure(network: torch.nn.Module) -> float:
        value = next(figures)
        if value < 0.5:
            (tmp_path / GOOD).unlink()
        return value

    stopping = Stopping(RECALL, figure, every=10, reason=fallen("it", most=0.1, advice=""), goes_back=True)
    with pytest.raises(TrainingError, match=r"checkpoint-good.safetensors is missing; delete its folder"):
        train(tmp_path, stopping=stopping)


def test_a_figure_that_never_falls_changes_nothing(tmp_path: Path) -> None:
    """It is measured before the first step and after the last one, too."""
    stopping = Stopping(
        RECALL, planned(tmp_path, RECALL, [0.5] * 4), every=20, reason=fallen("it", most=0.1, advice=""), goes_back=True
    )
    said = Said()
    assert same(train(tmp_path / "watched", stopping=stopping, progress=said), train(tmp_path / "alone"))
    assert steps_of(tmp_path / "watched", RECALL) == [0, 20, 40, 45]
    assert not said.texts


def test_the_rules() -> None:
    reason = flat(patience=2, gain=0.9)
    assert not reason([1.0])
    assert not reason([1.0, 1.0])
    assert reason([1.0, 0.95, 0.95])
    assert not reason([1.0, 0.95, 0.89])
    reason = fallen("it", most=0.25, advice="")
    assert not reason([0.1])
    assert not reason([0.5, 0.8, 0.61])
    assert reason([0.5, 0.8, 0.7, 0.59]), "below the best, not below the last"
    assert reason([0.08, 0.055]), "a quarter of little"
    assert not reason([0.04, 0.021]), "half of it, which is chance"
    assert not reason([0.0, 0.0])
