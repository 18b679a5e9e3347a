"""Which one-step generator is shipped: the rule by itself, and a run in which the student is the worst."""

import json
from pathlib import Path

import pytest
from helpers import TINY

from edgegen.pipeline.run import run_recipe
from edgegen.pipeline.stages.choose import Candidate, best


@pytest.mark.parametrize(
    ("distances", "role"),
    [
        ({"student": (1.0, 1.2), "baseline": (2.0, 2.1)}, "student"),
        ({"student": (1.0, 1.2), "baseline": (0.5, 0.7)}, "baseline"),
        ({"student": (1.0, 1.2), "baseline": (0.9, 1.25)}, "student"),  # nearer by chance at most
        ({"student": (3.0, 9.0), "baseline": (2.9, 8.8)}, "baseline"),  # on every noise, though the noises differ
        ({"student": (3.0, 3.1), "baseline": (2.0, 2.1), "reflowed": (1.0, 1.2)}, "reflowed"),
        ({"student": (3.0, 3.1)}, "student"),
    ],
)
def test_the_nearest_is_taken_unless_by_chance(distances: dict[str, tuple[float, ...]], role: str) -> None:
    chosen, reason = best([Candidate(name, values) for name, values in distances.items()])
    assert chosen == role
    assert all(name in reason for name in distances)
    assert ("made it worse" in reason) == (role != "student")


def test_a_run_does_not_ship_a_student_that_distillation_ruined(tmp_path: Path) -> None:
    """Distillation at a learning rate that ruins the weights: what ships is another of the run's generators."""
    text = TINY.replace("[distill]", "[distill]\nlearning_rate = 10.0")
    (tmp_path / "tiny.toml").write_text(text)
    results = {row.stage: row for row in run_recipe(tmp_path / "tiny.toml", runs=tmp_path / "runs", to="choose")}
    choice = json.loads((results["choose"].folder / "choice.json").read_text())
    means = {row["role"]: row["mean"] for row in choice["candidates"]}
    assert choice["role"] == min(means, key=means.__getitem__) != "student"
    assert means["student"] > 2 * means[choice["role"]]
    stage = {"baseline": "baseline", "reflowed": "slim"}[choice["role"]]
    weights = "generator/diffusion_pytorch_model.safetensors"
    shipped, trained = (results[name].folder / weights for name in ("choose", stage))
    assert shipped.read_bytes() == trained.read_bytes()
