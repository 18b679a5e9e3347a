"""What edgegen's training loop costs: its images per second against a bare PyTorch loop that does the same, on a CPU.

    python examples/bench_loop.py            # some 15 minutes on an idle core
    python examples/bench_loop.py --quick    # a third of that
    python examples/bench_loop.py --json     # rows and goals on stdout

One network by flow matching, and a method with two networks, whose losses go through both. The loops take turns by ten
steps, so that other programs slow both alike; the figure is the median over the turns of the ratio of their processor
times, which do not count the time of others.
The bare loop has the same Adam, clipping and moving average, and no log, checkpoint, check or reproducible order.
"""

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.profilers.devices.host_info import probe
from edgegen.program.parameters import parameter_count
from edgegen.recipe import Training
from edgegen.registry import load
from edgegen.support.progress import Silent
from edgegen.support.tables import Table
from edgegen.training.batch import Batch, TrainingSet
from edgegen.training.distributed import accelerator
from edgegen.training.loop import LOG_EVERY, fit
from edgegen.training.networks import BETAS, TrainedNetwork

BATCH, SIZE = 16, 16
STUDENT = EdgeUNetConfig(sample_size=SIZE, in_channels=3, channels=(128, 192, 192), blocks=2, embedding=160)
CRITIC = EdgeUNetConfig(sample_size=SIZE, in_channels=3, channels=(64, 128, 128), blocks=1, embedding=128)
TARGETS = {"one network": 0.97, "two networks": 0.95}
WARM = 2  # turns that are left out

Losses = Mapping[str, Tensor]


class TwoNetworks(Table):
    """A made-up method of the cost of distribution matching: a fake velocity network, and a student led by it."""

    paper: ClassVar[str] = "arXiv:2311.18828, Alg. 1 (its two networks)"
    needs: ClassVar[frozenset[str]] = frozenset({"real_images"})

    def networks(self, student: nn.Module, teacher: nn.Module | None) -> Mapping[str, TrainedNetwork]:
        return {"fake": TrainedNetwork(EdgeUNet(CRITIC))}

    def losses(
        self, networks: Mapping[str, nn.Module], averages: Mapping[str, nn.Module], batch: Batch, rng: torch.Generator
    ) -> Losses:
        return two_losses(networks["student"], networks["fake"], batch.images, rng)


def two_losses(student: nn.Module, fake: nn.Module, x: Tensor, rng: torch.Generator | None) -> dict[str, Tensor]:
    z, e = torch.randn(x.shape, generator=rng), torch.randn(x.shape, generator=rng)
    t = torch.rand(len(x), generator=rng)
    made = z - student(z, t.new_ones(len(z)))
    s = t[:, None, None, None]
    led = fake((1 - s) * made + s * e, t)
    still = made.detach()
    return {
        "student": (led - (e - x)).square().mean(),
        "fake": (fake((1 - s) * still + s * e, t) - (e - still)).square().mean(),
    }


def one_loss(student: nn.Module, x: Tensor) -> Tensor:
    e, t = torch.randn_like(x), torch.rand(len(x))
    s = t[:, None, None, None]
    out: Tensor = (student((1 - s) * x + s * e, t) - (e - x)).square().mean()
    return out


def bare(networks: Mapping[str, nn.Module], losses: Callable[[Tensor], Losses], images: Tensor) -> Callable[[], None]:
    """A step as one writes it by hand."""
    weights = {name: list(network.parameters()) for name, network in networks.items()}
    optimizers = {name: torch.optim.Adam(own, lr=1e-4, betas=BETAS, fused=True) for name, own in weights.items()}
    averages = {name: list(copy.deepcopy(network).parameters()) for name, network in networks.items()}

    def step() -> None:
        values = losses(images[torch.randint(len(images), (BATCH,))].float() / 127.5 - 1)
        for name, own in weights.items():
            optimizers[name].zero_grad()
            torch.autograd.backward(values[name], inputs=own)
        for name, own in weights.items():
            nn.utils.clip_grad_norm_(own, 1.0)
            optimizers[name].step()
            with torch.no_grad():
                torch._foreach_lerp_(averages[name], own, 0.001)

    return step


@dataclass(frozen=True)
class Spent:
    """Seconds on the clock, and of the processor in this process."""

    wall_s: float
    processor_s: float

    @staticmethod
    def now() -> "Spent":
        return Spent(time.perf_counter(), time.process_time())

    def since(self, earlier: "Spent") -> "Spent":
        return Spent(self.wall_s - earlier.wall_s, self.processor_s - earlier.processor_s)


class Turns(Silent):
    """Runs as many steps of the bare loop whenever edgegen's has done LOG_EVERY, and times both."""

    def __init__(self, step: Callable[[], None]) -> None:
        self.bare_step = step
        self.ours: list[Spent] = []
        self.bare: list[Spent] = []

    @contextmanager
    def task(self, label: str, total: int, *, start: int = 0) -> Iterator[Silent]:
        self.began = Spent.now()
        yield self

    def update(self, done: int, note: str = "") -> None:
        middle = Spent.now()
        self.ours.append(middle.since(self.began))
        for _ in range(LOG_EVERY):
            self.bare_step()
        self.began = Spent.now()
        self.bare.append(self.began.since(middle))


def race(name: str, turns: int, folder: Path) -> dict[str, Any]:
    """The row of "one network" or "two networks"."""
    images = torch.randint(0, 256, (2000, 3, SIZE, SIZE), dtype=torch.uint8)
    torch.manual_seed(0)
    student = EdgeUNet(STUDENT)
    copies: dict[str, nn.Module] = {"student": copy.deepcopy(student)}
    if name == "one network":
        objective: Any = load("objective", "flow_matching")()
    else:
        objective = TwoNetworks()
        copies["fake"] = EdgeUNet(CRITIC)

    def losses(x: Tensor) -> Losses:
        if "fake" in copies:
            return two_losses(copies["student"], copies["fake"], x, None)
        return {"student": one_loss(copies["student"], x)}

    progress = Turns(bare(copies, losses, images))
    steps = (turns + WARM) * LOG_EVERY
    fit(
        objective,
        TrainingSet(images),
        student=student,
        frozen={},
        settings=Training(steps=steps, batch=BATCH, learning_rate=1e-4, checkpoint_every=steps),
        seed=0,
        folder=folder,
        accelerator=accelerator("fp32"),
        progress=progress,
        label=name,
    )
    ours, others = progress.ours[WARM:], progress.bare[WARM:]
    ratios = [other.processor_s / own.processor_s for own, other in zip(ours, others, strict=True)]
    return {
        "loop": name,
        "parameters": sum(parameter_count(network) for network in copies.values()),
        "turns": len(ratios),
        "edgegen_images_per_s": BATCH * LOG_EVERY / statistics.median(turn.wall_s for turn in ours),
        "bare_images_per_s": BATCH * LOG_EVERY / statistics.median(turn.wall_s for turn in others),
        "ratio": statistics.median(ratios),
        "ratio_quarter": statistics.quantiles(ratios, n=4)[0],
        "ratio_three_quarters": statistics.quantiles(ratios, n=4)[2],
    }


def goals(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "name": f"{row['loop']}: edgegen's images per second / a bare loop's",
            "target": f">= {TARGETS[row['loop']]}",
            "value": round(row["ratio"], 3),
            "met": row["ratio"] >= TARGETS[row["loop"]],
        }
        for row in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer turns")
    parser.add_argument("--json", action="store_true", help="rows and goals as JSON on stdout")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for name in TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(race(name, 5 if options.quick else 15, Path(folder)))
        row = rows[-1]
        print(
            f"{name}, {row['parameters']:,} parameters: edgegen {row['edgegen_images_per_s']:.2f} images/s, bare "
            f"{row['bare_images_per_s']:.2f}, ratio {row['ratio']:.3f} (middle half of {row['turns']} turns: "
            f"{row['ratio_quarter']:.3f} to {row['ratio_three_quarters']:.3f})",
            file=sys.stderr,
        )
    machine = probe()
    if options.json:
        result = {"machine": machine, "threads": options.threads, "goals": goals(rows), "rows": rows}
        print(json.dumps(result, indent=2))
        return
    print("| goal | target | value | |\n|---|---|---|---|")
    for goal in goals(rows):
        print(f"| {goal['name']} | {goal['target']} | {goal['value']} | {'met' if goal['met'] else '**missed**'} |")
    print(f"\n{machine['cpu']}, {options.threads} of {machine['threads']} threads, {machine['os']}")


if __name__ == "__main__":
    main()
