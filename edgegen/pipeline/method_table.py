"""What `edgegen methods` lists: every method with its stages, needs, source, networks, cost of a step and results.

The cost is counted: floating-point operations of one step with all networks of one small size, in forward passes of the
student on its batch. Plain regression has 3, one forward and two for its gradient. The results are those of
examples/bench_methods.py, which writes BENCH.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgegen import registry
from edgegen.metrics.extractor import SmallCNN
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.zero_layers import randomize_zero_layers
from edgegen.pipeline.methods import AVAILABLE
from edgegen.support.rng import generator
from edgegen.training.batch import Batch
from edgegen.training.networks import TrainedNetwork
from edgegen.training.objective import Objective

BENCH = Path(__file__).with_name("method_bench.json")
BATCH, SIZE, CLASSES, MOST_STEPS = 8, 8, 4, 10
FROZEN = {"teacher": "teacher", "slimmed_network": "slimmed", "earlier_network": "earlier", "float_network": "float"}


@dataclass(frozen=True)
class BenchResult:
    """The best way with a method on a data set: its methods, and one-step fd_local over the teacher's best."""

    data: str
    way: str
    of_teacher: float
    seeds: int


@dataclass(frozen=True)
class MethodRow:
    """`stages` are tables of a recipe; `forward_passes` is the cost of a step, the mean over several steps."""

    name: str
    stages: tuple[str, ...]
    needs: tuple[str, ...]
    paper: str
    extra_networks: tuple[str, ...]
    forward_passes: float
    reached: tuple[BenchResult, ...]


def method_rows() -> list[MethodRow]:
    """Every method of the registry, with the defaults of its keys."""
    results: dict[str, list[BenchResult]] = {}
    for result in json.loads(BENCH.read_text(encoding="utf-8")):
        results.setdefault(result.pop("method"), []).append(BenchResult(**result))
    return [_row(name, tuple(results.get(name, ()))) for name in sorted(registry.names("objective"))]


def _row(name: str, reached: tuple[BenchResult, ...]) -> MethodRow:
    objective: Objective = registry.load("objective", name)()
    tables = {stage: "recover" if stage == "refine" else stage for stage in AVAILABLE}
    stages = tuple(table for stage, table in tables.items() if objective.needs <= AVAILABLE[stage])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        extra, forward_passes = _counted(objective)
    needs = tuple(sorted(objective.needs))
    return MethodRow(name, stages, needs, objective.paper, extra, round(forward_passes, 2), reached)


def _counted(objective: Objective) -> tuple[tuple[str, ...], float]:
    """The networks beside the student, and the cost of a step in forward passes of the student."""
    student = _network(objective)
    frozen = {name: _network(objective) for need, name in FROZEN.items() if need in objective.needs}
    if "feature_network" in objective.needs:
        frozen["features"] = SmallCNN(channels=1, classes=CLASSES)
    for network in frozen.values():
        network.eval().requires_grad_(False)
    trained = {"student": TrainedNetwork(student), **objective.networks(student, frozen.get("teacher"))}
    networks = {name: part.network.train().requires_grad_(True) for name, part in trained.items()}  # as the loop
    averages = {name: copy.deepcopy(network).requires_grad_(False) for name, network in networks.items()}
    batch = _batch()
    total = 0.0
    period = min(MOST_STEPS, max(part.every for part in trained.values()))  # what is rarer than that costs nothing
    for step in range(period):
        due = frozenset(name for name, part in trained.items() if (step + 1) % part.every == 0)
        now = replace(batch, due=due)
        with FlopCounterMode(display=False) as counter:
            losses = objective.losses({**frozen, **networks}, averages, now, generator(0, step))
            for name in sorted(due):
                torch.autograd.backward(losses[name], inputs=list(networks[name].parameters()))
        total += counter.get_total_flops() / period
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        _forward(student, batch)
    return tuple(sorted(networks.keys() - {"student"})), total / counter.get_total_flops()


def beside(objective: Objective) -> tuple[str, ...]:
    """The networks that a method holds in memory beside the student: those that it trains, and frozen ones."""
    student = _network(objective)
    trained = objective.networks(student, _network(objective) if "teacher" in objective.needs else None)
    frozen = {name for need, name in FROZEN.items() if need in objective.needs}
    features = {"features"} if "feature_network" in objective.needs else set()
    return tuple(sorted({*trained, *frozen, *features} - {"student"}))


def _network(objective: Objective) -> nn.Module:
    if "classifier" in objective.needs:
        return SmallCNN(channels=1, classes=CLASSES)
    second_time = "second_time" in objective.needs
    network = EdgeUNet(EdgeUNetConfig(SIZE, 1, (8, 16), 1, (), CLASSES, 16, second_time=second_time))
    randomize_zero_layers(network, 0)
    return network


def _forward(network: nn.Module, batch: Batch) -> None:
    if isinstance(network, SmallCNN):
        network(batch.images)
    else:
        network(batch.images, torch.ones(BATCH), batch.condition)


def _batch() -> Batch:
    """All that a method can have."""
    images, noise = torch.randn(BATCH, 1, SIZE, SIZE).clamp(-1, 1), torch.randn(BATCH, 1, SIZE, SIZE)
    labels, times = torch.arange(BATCH) % CLASSES, torch.tensor([1.0, 0.75, 0.5, 0.25])
    knots = torch.stack([(1 - t) * images + t * noise for t in times], dim=1)
    real = Batch(500, 1000, images.flip(0), labels.flip(0))
    inputs = (noise, torch.ones(BATCH), labels)
    return Batch(500, 1000, images, labels, noise, knots, times, real=real, inputs=inputs)


def as_json(rows: list[MethodRow]) -> list[Mapping[str, object]]:
    """The rows as plain data."""
    return [asdict(row) for row in rows]
