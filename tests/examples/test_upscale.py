"""The whole way of an image-to-image network: trained, exported with held-out inputs, judged against the truth."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgegen.program.image_noise import natural_images

SCRIPT = Path(__file__).parents[2] / "examples" / "upscale.py"


@pytest.mark.slow
def test_an_8_bit_file_loses_less_than_a_decibel_against_the_truth(tmp_path: Path) -> None:
    images = natural_images(0, 0, 600, (1, 24, 24), (0.0, 255.0))
    np.savez(tmp_path / "made.npz", images=images.round().astype(np.uint8).transpose(0, 2, 3, 1))
    command = [sys.executable, str(SCRIPT), "made.npz", "-o", "out", "--steps", "400", "--json"]
    command += ["--targets", "onnx,onnx-w8a8,executorch-w8a8"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    content = json.loads(run.stdout)
    truth_db = {row["name"]: row["truth_db"] for row in content["truth_db"]}
    files = {name: value for name, value in truth_db.items() if name not in ("bicubic", "PyTorch")}
    assert len(files) == 3, "each passed parity"
    assert truth_db["PyTorch"] > truth_db["bicubic"] + 0.2, "it has learned something"
    (floating,) = (value for name, value in files.items() if "fp32" in name)
    assert floating == pytest.approx(truth_db["PyTorch"], abs=0.01)
    for name, value in files.items():
        assert value > floating - 1.0, name
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(f"<h3>{name}</h3>" in page for name in ("input", "truth", *files))
