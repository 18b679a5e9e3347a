"""A network that takes an image: x2 super-resolution, trained in minutes, exported, judged on images that it never saw.

    python examples/upscale.py IMAGES [-o upscale] [--steps 1500] [--targets LIST] [--json]

IMAGES is what a recipe's `data.source` takes: a folder or .zip of images, an .npz, or digits. The images are the truth;
halved they are the input. A part is held out: its halved images go to the export by `--inputs`, which calibrates with
some and verifies with others. DIR gets the weights, the signature (net.toml), the held-out inputs, the exported files
in DIR/phone and report.html: against the truth, bicubic interpolation, PyTorch and every file, with pictures.

The same export from the command line:

    edgegen export examples/upscale.py:make --signature upscale/net.toml --to onnx-w8a8
"""

import argparse
import base64
import html
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from edgegen.artifacts.export import ExportSettings, export_source
from edgegen.artifacts.export_result import ExportResult, raise_failures
from edgegen.artifacts.sessions import open_artifact
from edgegen.artifacts.target import Target
from edgegen.data import load as load_images
from edgegen.data import split
from edgegen.support.progress import Progress, progress
from edgegen.support.storage import save_tensors
from edgegen.verification.parity import psnr_db

TARGETS = "onnx,onnx-w8a8,executorch,executorch-w8a8,coreml-fp16"
SCALE = 2
BATCH, RATE, WIDTH, BLOCKS = 32, 2e-3, 32, 4
HELD_OUT = 400  # images, half of them to calibrate and verify with, half to judge against the truth
SHOWN = 8
SIGNATURE = """\
weights = "net.safetensors"

[[inputs]]
name = "photo"
shape = ["batch_size", {channels}, {height}, {width}]
role = "image"
low = 0.0
high = 1.0
samples = "inputs.npz"

[[outputs]]
name = "enlarged"
shape = ["batch_size", {channels}, {tall}, {wide}]
role = "image"
low = 0.0
high = 1.0
"""


class Upscale(nn.Module):
    """Residual convolutions at the low resolution, then sub-pixel convolution (Shi et al., arXiv 1609.05158)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(channels, WIDTH, 3, padding=1)
        layers = [(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.PReLU(WIDTH)) for _ in range(BLOCKS)]
        self.body = nn.Sequential(*(layer for pair in layers for layer in pair))
        self.tail = nn.Conv2d(WIDTH, channels * SCALE**2, 3, padding=1)

    def forward(self, photo: Tensor) -> Tensor:
        hidden = self.head(photo)
        details = F.pixel_shuffle(self.tail(hidden + self.body(hidden)), SCALE)
        return details + F.interpolate(photo, scale_factor=SCALE, mode="nearest")


def make() -> Upscale:
    """For colour images: the factory of `edgegen export`."""
    return Upscale(3)


def make_grey() -> Upscale:
    """For grey images."""
    return Upscale(1)


def halved(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, height, width, channels) at half the size, by Pillow's bicubic filter, which averages as it shrinks."""
    height, width = images.shape[1] // SCALE, images.shape[2] // SCALE
    return np.stack([_resized(image, width, height) for image in images])


def _resized(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    grey = image.shape[2] == 1
    small = Image.fromarray(image[..., 0] if grey else image).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(small, np.uint8).reshape(height, width, image.shape[2])


def as_tensor(images: NDArray[np.uint8]) -> Tensor:
    """(n, height, width, channels) bytes -> (n, channels, height, width) in [0, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def train(images: NDArray[np.uint8], steps: int, report_to: Progress) -> Upscale:
    """Least absolute error by Adam, from seed 0."""
    torch.manual_seed(0)
    net = Upscale(images.shape[3])
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    small = halved(images)
    rng = np.random.default_rng(0)
    with report_to.task("upscale: training", steps) as task:
        for step in range(1, steps + 1):
            rows = rng.integers(0, len(images), BATCH)
            loss = F.l1_loss(net(as_tensor(small[rows])), as_tensor(images[rows]))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            task.update(step, f"loss {loss.item():.4f}")
    return net.eval()


def write_source(net: Upscale, inputs: NDArray[np.uint8], folder: Path) -> Path:
    """Weights, held-out inputs and the signature that names both; gives the signature's path."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / "net.safetensors", net.state_dict())
    np.savez(folder / "inputs.npz", photo=inputs)
    _, height, width, channels = inputs.shape
    text = SIGNATURE.format(channels=channels, height=height, width=width, tall=height * SCALE, wide=width * SCALE)
    (folder / "net.toml").write_text(text)
    return folder / "net.toml"


def judge(
    net: Upscale, exported: ExportResult, small: NDArray[np.uint8], truth: NDArray[np.uint8]
) -> tuple[list[dict[str, Any]], dict[str, NDArray[np.float32]]]:
    """PSNR to the truth of each way to enlarge `small`, and its images, (n, channels, height, width) in [0, 1]."""
    photo, expected = as_tensor(small), as_tensor(truth).numpy()
    _, height, width, _ = truth.shape
    bicubic = as_tensor(np.stack([_resized(image, width, height) for image in small]))
    with torch.no_grad():
        images: dict[str, NDArray[Any]] = {"bicubic": bicubic.numpy(), "PyTorch": net(photo).clamp(0, 1).numpy()}
    for result in exported.built:
        file = result.artifact.file
        if exported.parity[file].status == "ok":
            source = open_artifact(exported.folder / file, result.artifact.backend)
            images[file] = np.clip(source.run({"photo": photo.numpy()}), 0, 1)
    rows = [
        {"name": name, "truth_db": psnr_db(expected, values, data_range=1.0), "parity": _parity(exported, name)}
        for name, values in images.items()
    ]
    return rows, images


def _parity(exported: ExportResult, name: str) -> str:
    return str(exported.parity[name]) if name in exported.parity else ""


def write_report(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    images: Mapping[str, NDArray[np.float32]],
    small: NDArray[np.uint8],
    truth: NDArray[np.uint8],
) -> None:
    """One page: the figures, and some held-out images as input, truth and every way to enlarge them."""
    strips = {"input": as_tensor(small).numpy(), "truth": as_tensor(truth).numpy(), **images}
    figures = "".join(
        f"<tr><td>{html.escape(str(row['name']))}<td>{row['truth_db']:.2f}<td>{html.escape(str(row['parity']))}"
        for row in rows
    )
    pictures = "".join(
        f"<h3>{html.escape(name)}</h3><img alt='{html.escape(name)}' src='{_strip(values, truth.shape[1])}'>"
        for name, values in strips.items()
    )
    path.write_text(
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>x2 super-resolution</title>"
        "<style>body{font:16px/1.5 system-ui;max-width:64rem;margin:2rem auto;padding:0 1rem}td,th{padding:.2rem 1rem;"
        "text-align:left}img{image-rendering:pixelated;max-width:100%}h3{margin:1rem 0 .2rem;font-size:1rem}</style>"
        "<h1>x2 super-resolution on held-out images</h1><table><tr><th>made by<th>PSNR to the truth, dB"
        f"<th>against PyTorch{figures}</table>{pictures}</html>",
        encoding="utf-8",
    )


def _strip(images: NDArray[np.float32], height: int) -> str:
    """Some of the images beside each other as a PNG in a data URI, four screen pixels for one of the truth."""
    shown = images[:: max(1, len(images) // SHOWN)][:SHOWN]
    pixels = (np.concatenate(list(shown.transpose(0, 2, 3, 1)), axis=1) * 255).round().astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    factor = 4 * height // picture.height
    content = io.BytesIO()
    picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST).save(content, "PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description="x2 super-resolution from training to checked files.")
    parser.add_argument("images", help="a folder or .zip of images, an .npz, or digits")
    parser.add_argument("-o", "--output", type=Path, default=Path("upscale"))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--targets", default=TARGETS, help="as --to of `edgegen export`")
    parser.add_argument("--json", action="store_true", help="the figures as JSON on stdout")
    arguments = parser.parse_args()
    report_to = progress()
    kept, held = split(load_images(arguments.images, base=Path.cwd()), holdout=0.1, seed=0)
    even = [size // SCALE * SCALE for size in kept.images.shape[1:3]]
    spread = np.linspace(0, len(held) - 1, min(HELD_OUT, len(held))).astype(int)  # of all classes
    training, heldout = (images[:, : even[0], : even[1]] for images in (kept.images, held.images[spread]))
    exported_part, truth = heldout[::2], heldout[1::2]
    net = train(training, arguments.steps, report_to)
    signature = write_source(net, halved(exported_part), arguments.output)
    factory = "make" if training.shape[3] == 3 else "make_grey"
    settings = ExportSettings(tuple(map(Target.parse, arguments.targets.split(","))), measure=False)
    results = export_source(
        f"{__file__}:{factory}", arguments.output / "phone", settings, signature=signature, progress=report_to
    )
    small = halved(truth)
    rows, images = judge(net, results[0], small, truth)
    write_report(arguments.output / "report.html", rows, images, small, truth)
    if arguments.json:
        json.dump({"truth_db": rows, "inputs": results[0].about["inputs"]}, sys.stdout, indent=2)
    else:
        for row in rows:
            print(f"{row['name']:32} {row['truth_db']:6.2f} dB to the truth   {row['parity']}")
        print(f"report: {arguments.output / 'report.html'}")
    raise_failures(results)


if __name__ == "__main__":
    main()
