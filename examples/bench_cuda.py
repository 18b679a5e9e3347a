"""Bench of training on CUDA: is it right, is it fast, does it learn? One command, at most 8 minutes, prints as it goes.

    python examples/bench_cuda.py [--quick] [--json] [--device cuda|cpu] [--images PATH]

1. Each objective's loss and gradient on the device, in bf16 and in float32, against the CPU in float64, on the same
   random numbers.
2. GroupNorm's gradient in channels_last, compiled against eager (pytorch issue 140913).
3. Images per second of training a network of 15.2 M parameters on 3x32x32, by edgegen's loop and by bare loops (eager,
   channels_last, compiled, CUDA graph), and the share of the rate of a large bf16 matrix product that this is.
4. Pairs per second by Heun's solver, and the peak of memory.
5. A short run of a recipe on images of 3x32x32: fd_local of the student after 1 and after all of its steps.

It needs torch 2.11 or newer, accelerate, safetensors, scipy, scikit-learn, rich, typer and pydantic, and none of the
extras; `make cuda-wheels` collects what such a machine may lack. --images: a .npz, a folder or a .zip of images;
default: images made here, as of photographs' statistics.
"""

import argparse
import contextlib
import copy
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgegen import registry
from edgegen.flow.solvers import solve
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig, count_parameters
from edgegen.models.zero_layers import randomize_zero_layers
from edgegen.pipeline.run import run_recipe
from edgegen.program.image_noise import natural_images
from edgegen.recipe import Training, parse
from edgegen.support.progress import Plain
from edgegen.support.rng import generator
from edgegen.support.storage import read_json
from edgegen.training.batch import Batch, TrainingSet
from edgegen.training.distributed import accelerator
from edgegen.training.networks import NEVER, TrainedNetwork
from edgegen.training.trainer import Trainer, wait_for

LARGE = EdgeUNetConfig(sample_size=32, in_channels=3, channels=(128, 256, 256), blocks=3, attention=(1,))  # 15.2 M
SMALL = EdgeUNetConfig(sample_size=8, in_channels=1, channels=(16, 32), blocks=1, num_classes=5, embedding=32)
# Of a loss, and of its gradient, whose error is relative to its length; bf16 has 8 bits.
TARGETS = {"fp32": {"loss": 1e-3, "gradient": 1e-2}, "bf16": {"loss": 0.05, "gradient": 0.25}}
NOT_HERE = {"float_network", "classifier"}
Row = dict[str, Any]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- 1. losses -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def same_random_numbers(seed: int, dtype: torch.dtype) -> Iterator[None]:
    """torch.rand, randn, randint and randperm draw on the CPU, floats in float32, and move: the same everywhere."""
    drawn = generator(seed)

    def on_cpu(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def patched(*sizes: Any, **keys: Any) -> Tensor:
            device = keys.pop("device", None)
            keys["generator"] = drawn
            numbers = draw(*sizes, **keys)
            return numbers.to(device or "cpu", dtype if numbers.dtype == torch.float32 else None)

        return patched

    names = ("rand", "randn", "randint", "randperm")
    before = {name: getattr(torch, name) for name in names}
    try:
        for name, draw in before.items():
            setattr(torch, name, on_cpu(draw))
        yield
    finally:
        for name, draw in before.items():
            setattr(torch, name, draw)


def small_network(seed: int, *, second_time: bool) -> EdgeUNet:
    network = EdgeUNet(EdgeUNetConfig(**{**vars(SMALL), "second_time": second_time}))
    randomize_zero_layers(network, seed)
    return network


def example_batch() -> Batch:
    draw, shape = generator(3), (16, 1, 8, 8)
    images, noise = (torch.randn(shape, generator=draw) for _ in range(2))
    labels = torch.arange(16) % 5
    times = torch.tensor([1.0, 0.7, 0.3])
    knots = torch.stack([(1 - t) * images + t * noise for t in times.tolist()], dim=1)
    real = Batch(5, 10, torch.randn(shape, generator=draw).clamp(-1, 1), labels)
    return Batch(5, 10, images, labels, noise, knots, times, real=real)


def moved(batch: Batch, device: torch.device, dtype: torch.dtype) -> Batch:
    values = {}
    for name, value in vars(batch).items():
        if isinstance(value, Tensor):
            value = value.to(device, dtype if value.is_floating_point() else None)
        elif isinstance(value, Batch):
            value = moved(value, device, dtype)
        values[name] = value
    return Batch(**values)


def losses(name: str, device: torch.device, dtype: torch.dtype, *, bf16: bool) -> dict[str, dict[str, Tensor]]:
    """The losses of an objective and their gradients, by trained network; in float64 on the CPU."""
    objective = registry.load("objective", name)()
    torch.manual_seed(0)
    student = small_network(1, second_time="second_time" in objective.needs)
    teacher = small_network(2, second_time=False)
    torch.manual_seed(1)
    own = {"student": TrainedNetwork(student), **objective.networks(student, teacher)}
    trained = frozenset(key for key, part in own.items() if part.every != NEVER)
    frozen = {"teacher": teacher, "slimmed": copy.deepcopy(student)}
    networks = {key: network.to(device, dtype) for key, network in frozen.items()}
    networks |= {key: part.network.to(device, dtype) for key, part in own.items()}
    batch = moved(example_batch(), device, dtype)
    batch = Batch(**{**vars(batch), "due": trained})
    autocast = torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()
    with autocast, same_random_numbers(7, dtype):
        values = objective.losses(networks, copy.deepcopy(networks), batch, generator(0, device=device))
        result: dict[str, dict[str, Tensor]] = {"loss": {}, "gradient": {}}
        for key in sorted(trained):
            parameters = list(networks[key].parameters())
            slopes = torch.autograd.grad(values[key], parameters, retain_graph=True, materialize_grads=True)
            result["loss"][key] = values[key].detach().cpu().double()
            result["gradient"][key] = torch.cat([slope.flatten().cpu().double() for slope in slopes])
    return result


def check_losses(device: torch.device) -> list[Row]:
    rows = []
    for name in registry.BUILT_IN["objective"]:
        if registry.load("objective", name)().needs & NOT_HERE:
            continue
        exact = losses(name, torch.device("cpu"), torch.float64, bf16=False)
        for precision, targets in TARGETS.items():
            try:
                computed = losses(name, device, torch.float32, bf16=precision == "bf16")
            except (RuntimeError, TypeError, ValueError) as e:  # a bench goes on and says so
                say(f"{name} {precision}: {type(e).__name__}: {e}")
                computed = {}
            for part, target in targets.items():
                errors = [
                    float((computed[part][key] - value).norm() / value.norm().clamp_min(1e-6)) if computed else math.inf
                    for key, value in exact[part].items()
                ]
                rows.append({"check": f"{part} of {name}, {precision}", "error": max(errors), "target": target})
                say(f"{part} of {name}, {precision}: relative error {max(errors):.2g} (at most {target})")
    return rows


# --- 2. GroupNorm ----------------------------------------------------------------------------------------------------


def check_group_norm(device: torch.device) -> Row:
    """The weight's gradient, channels last and compiled, against eager in float64."""
    torch.manual_seed(0)
    x, norm = torch.randn(16, 64, 16, 16), nn.GroupNorm(8, 64)
    nn.init.normal_(norm.weight)
    exact = copy.deepcopy(norm).double()
    exact(x.double()).square().sum().backward()
    norm = norm.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.compile(norm)(x.to(device).contiguous(memory_format=torch.channels_last)).square().sum().backward()
    difference = (norm.weight.grad.cpu().double() - exact.weight.grad).norm() / exact.weight.grad.norm()
    say(f"GroupNorm's gradient, compiled, channels last: relative error {float(difference):.2g}")
    return {"check": "GroupNorm's gradient", "error": float(difference), "target": 1e-4}


# --- 3. speed --------------------------------------------------------------------------------------------------------


def step_function(network: nn.Module, batch: int, device: torch.device, *, last: bool) -> Callable[[], None]:
    """One bare step of flow matching with Adam and a moving average, in bf16 on CUDA."""
    layout = torch.channels_last if last else torch.contiguous_format
    network.to(memory_format=layout)  # type: ignore[call-overload]
    parameters = list(network.parameters())
    adam = torch.optim.Adam(parameters, lr=1e-4, fused=True, capturable=device.type == "cuda")
    average = [p.detach().clone() for p in parameters]
    images = torch.randn(batch, 3, 32, 32, device=device).contiguous(memory_format=layout)

    def step() -> None:
        e, t = torch.randn_like(images), torch.rand(batch, device=device)
        s = t[:, None, None, None]
        adam.zero_grad(set_to_none=False)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = (network((1 - s) * images + s * e, t) - (e - images)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 0.001)

    return step


def graphed(step: Callable[[], None]) -> Callable[[], None]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def seconds_of(step: Callable[[], None], device: torch.device, limit_s: float) -> float:
    for _ in range(3):
        step()
    wait_for(device)
    times: list[float] = []
    while sum(times) < limit_s and len(times) < 200:
        before = time.perf_counter()
        step()
        wait_for(device)
        times.append(time.perf_counter() - before)
    return statistics.median(times)


def speed(device: torch.device, batch: int, limit_s: float) -> list[Row]:
    def network() -> EdgeUNet:
        torch.manual_seed(0)
        return EdgeUNet(LARGE).to(device)

    def loop(compile: bool) -> Callable[[], None]:
        settings = Training(steps=10_000, batch=batch, learning_rate=1e-4, ema=0.999)
        data = TrainingSet(torch.randint(256, (4 * batch, 3, 32, 32), dtype=torch.uint8))
        objective = registry.load("objective", "flow_matching")()
        trainer = Trainer(
            objective,
            data,
            student=network(),
            frozen={},
            settings=settings,
            seed=0,
            accelerator=accelerator("auto"),
            compile=compile,
        )
        steps = iter(range(settings.steps))
        return lambda: void(trainer.step(next(steps)))

    kinds: dict[str, Callable[[], Callable[[], None]]] = {
        "bare loop, eager": lambda: step_function(network(), batch, device, last=False),
        "bare loop, channels_last": lambda: step_function(network(), batch, device, last=True),
        "edgegen's loop": lambda: loop(False),
    }
    if device.type == "cuda":
        kinds |= {
            "bare loop, compiled": lambda: step_function(torch.compile(network()), batch, device, last=True),  # type: ignore[arg-type]
            "bare loop, CUDA graph": lambda: graphed(step_function(network(), batch, device, last=True)),
            "edgegen's loop, compiled": lambda: loop(True),
        }
    rows = []
    for kind, make in kinds.items():
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            seconds = seconds_of(make(), device, limit_s)
        except (RuntimeError, TypeError) as e:  # a bench goes on and says so
            say(f"{kind}: {type(e).__name__}: {e}")
            continue
        gigabytes = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else None
        rows.append({"speed": kind, "images_per_s": batch / seconds, "peak_GB": gigabytes})
        say(f"{kind}: {batch / seconds:.0f} images/s, peak {gigabytes or float('nan'):.1f} GB")
    return rows


def void(value: object) -> None:
    del value


def matrix_rate(device: torch.device) -> float:
    """FLOP/s of a large product in bf16."""
    n = 8192 if device.type == "cuda" else 1024
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    seconds = seconds_of(lambda: void(a @ a), device, 1.0)
    return 2 * n**3 / seconds


def training_flops() -> float:
    """Of one image: three times the forward pass (forward, and two products of the same size backward)."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        EdgeUNet(LARGE)(torch.zeros(1, 3, 32, 32), torch.zeros(1))
    return 3.0 * counter.get_total_flops()


def pairs(device: torch.device, count: int) -> Row:
    torch.manual_seed(0)
    network, noise = EdgeUNet(LARGE).to(device).eval(), torch.randn(count, 3, 32, 32, device=device)
    solve(network, noise[:8], None, solver="heun", steps=2)
    wait_for(device)
    before = time.perf_counter()
    solve(network, noise, None, solver="heun", steps=10)
    wait_for(device)
    rate = count / (time.perf_counter() - before)
    say(f"pairs by 10 steps of Heun: {rate:.0f} a second")
    return {"speed": "pairs, Heun, 10 steps", "images_per_s": rate, "peak_GB": None}


# --- 5. a run --------------------------------------------------------------------------------------------------------


def learns(folder: Path, images: Path | None, share: float) -> Row:
    source = images
    if source is None:
        source = folder / "images.npz"
        made = natural_images(0, 0, 2000, (3, 32, 32), (0.0, 255.0))
        np.savez(source, images=made.round().astype(np.uint8).transpose(0, 2, 3, 1))

    def fd_local(steps: int) -> tuple[float, float]:
        tables = {
            "name": "bench-cuda",
            "data": {"source": str(source), "conditional": False},
            "teacher": {"steps": round(2000 * share), "batch": 128, "model": {"channels": [64, 128, 128], "blocks": 2}},
            "pairs": {"count": round(4096 * share), "steps": 8},
            "slim": {"keep": 0.4, "steps": steps, "batch": 128},
            "distill": {"steps": steps, "batch": 128},
            "evaluate": {"steps": [1, 8], "seeds": 2, "samples": 400, "extractor_steps": 200},
            "baseline": {"enabled": False},
        }
        results = run_recipe(parse(tables, where="bench"), runs=folder, to="evaluate", progress=Plain())
        quality = read_json(results[-1].folder / "quality.json")["quality"]
        return quality["student"]["1"]["fd_local"], quality["teacher"]["8"]["fd_local"]

    (before, _), (after, teacher) = fd_local(1), fd_local(round(1000 * share))
    say(f"student's one-step fd_local {before:.3g} -> {after:.3g}, the teacher's {teacher:.3g}")
    return {"check": "fd_local, after / before", "error": after / before, "target": 0.5}


def goal(name: str, target: str, value: float, met: bool) -> Row:
    return {"name": name, "target": target, "value": value, "met": met}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the training, short timings")
    parser.add_argument("--json", action="store_true", help="goals and rows as JSON on stdout")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--images", type=Path)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.exit(6, "bench_cuda: no CUDA device here; --device cpu tries the bench itself\n")
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    say(f"{name}, torch {torch.__version__}, network of {count_parameters(LARGE) / 1e6:.1f} M parameters")
    is_cuda = device.type == "cuda"
    limit_s, batch = (2.0 if arguments.quick else 10.0, 256 if is_cuda else 4)
    checks = [*check_losses(device), check_group_norm(device)]
    speeds = [*speed(device, batch, limit_s), pairs(device, 2048 if is_cuda else 4)]
    rate, flops = matrix_rate(device), training_flops()
    for row in speeds[:-1]:
        row["share_of_matrix_rate"] = row["images_per_s"] * flops / rate
    with tempfile.TemporaryDirectory() as folder:
        checks.append(learns(Path(folder), arguments.images, 0.1 if arguments.quick else 1.0))
    goals = [goal(row["check"], f"<= {row['target']}", row["error"], row["error"] <= row["target"]) for row in checks]
    by_kind = {row["speed"]: row["images_per_s"] for row in speeds}
    if {"edgegen's loop", "bare loop, channels_last"} <= by_kind.keys():
        share = by_kind["edgegen's loop"] / by_kind["bare loop, channels_last"]
        goals.append(goal("edgegen's loop / bare loop", ">= 0.97", share, share >= 0.97))
    if arguments.json:
        print(json.dumps({"device": name, "goals": goals, "rows": speeds}))
        return
    print(f"{name}, torch {torch.__version__}; {rate / 1e12:.1f} TFLOP/s of a bf16 product\n")
    print("| what | images/s | share of the product's rate | peak GB |\n|---|---|---|---|")
    for row in speeds:
        share_text = f"{row['share_of_matrix_rate']:.2f}" if "share_of_matrix_rate" in row else ""
        memory = "" if row["peak_GB"] is None else f"{row['peak_GB']:.1f}"
        print(f"| {row['speed']} | {row['images_per_s']:.0f} | {share_text} | {memory} |")
    print("\n| goal | target | value | met |\n|---|---|---|---|")
    for item in goals:
        print(f"| {item['name']} | {item['target']} | {item['value']:.3g} | {'yes' if item['met'] else 'no'} |")


if __name__ == "__main__":
    main()
