"""A student of every training method becomes a file of every runtime that makes the student's images in one step."""

from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import CONFIG, pairs_and_helpers, random_network

from edgegen.artifacts.library import export
from edgegen.flow.path import one_step
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.generator import save
from edgegen.noise import normal
from edgegen.recipe import Training
from edgegen.registry import BUILT_IN, load
from edgegen.support.progress import Silent
from edgegen.training.distributed import accelerator
from edgegen.training.loop import fit

OTHERS = {"classifier", "float_network"}  # what these train is no generator, or one that stands for itself
METHODS = sorted(name for name in BUILT_IN["objective"] if not load("objective", name)().needs & OTHERS)
QUICK = {"pair_regression", "mean_flow"}  # of both kinds of student: with one time, and with two
LEAST_DB = {"onnx": 100.0, "executorch": 100.0, "coreml": 55.0}  # float32, and float16 for Core ML


def student_of(method: str, folder: Path) -> EdgeUNet:
    """A few steps of the method, past what it does first; saved as a run's student."""
    objective = load("objective", method)()
    data, helpers = pairs_and_helpers(method)
    config = EdgeUNetConfig(**{**vars(CONFIG), "second_time": "second_time" in objective.needs})
    student = EdgeUNet(config)
    student.load_state_dict(random_network(3).state_dict(), strict=False)
    folder.mkdir()
    fitted = fit(
        objective,
        data,
        student=student,
        frozen={**helpers, "earlier": random_network(4)},
        settings=Training(steps=12, batch=8, warmup=1, learning_rate=1e-3),
        seed=0,
        folder=folder,
        accelerator=accelerator("fp32"),
        progress=Silent(),
        label=method,
    )["student"]
    network = fitted.ema
    assert isinstance(network, EdgeUNet)
    save(network, folder / "generator", about={"role": "student", "name": method})
    return network


def check_files(method: str, folder: Path, targets: list[str]) -> None:
    network = student_of(method, folder / "run")
    (result,) = export(folder / "run" / "generator", folder / "files", to=targets)
    assert len(result.parity) == len(targets)
    for file, parity in result.parity.items():
        backend = next(name for name in LEAST_DB if f"_{name}_" in file)
        assert parity.status == "ok", parity.reason
        assert parity.psnr_db >= LEAST_DB[backend]
    # What the files were compared with is one step of the network, at both of its times.
    if "onnx" in targets:
        import onnxruntime

        noise, labels = torch.from_numpy(normal(5, 0, 4, (1, 4, 4))), torch.arange(4) % 3
        session = onnxruntime.InferenceSession(next((folder / "files").glob("*_onnx_fp32.onnx")))
        (image,) = session.run(None, {"sample": noise.numpy(), "class_labels": labels.numpy()})
        with torch.no_grad():
            expected = one_step(network, noise, labels).numpy()
        np.testing.assert_allclose(image, expected, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("method", sorted(QUICK))
def test_a_student_with_one_or_two_times_becomes_a_file(method: str, tmp_path: Path) -> None:
    check_files(method, tmp_path, ["onnx"])


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_student_of_every_method_becomes_a_file_of_every_runtime(method: str, tmp_path: Path) -> None:
    check_files(method, tmp_path, ["onnx", "executorch", "coreml"])
