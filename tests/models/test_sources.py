"""Other ways in: images without labels, a teacher from diffusers; and what does not fit is refused before training."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY
from PIL import Image
from trained_teachers import small_unet2d

from edgegen.models.load import load

Edgegen = Callable[..., "subprocess.CompletedProcess[str]"]
SLIM_MODEL = "network = { channels = [8, 8], blocks = 1, embedding = 16 }"
ONLY_ONNX = '[export]\nartifacts = ["onnx-fp32"]\n'


def without(table: str, text: str) -> str:
    """The recipe without one of its tables."""
    head, _, rest = text.partition(f"[{table}]\n")
    _, bracket, later = rest.partition("\n[")
    return head + bracket.lstrip("\n") + later


@pytest.mark.long
def test_images_without_labels_make_an_unconditional_generator(edgegen: Edgegen, tiny: Path) -> None:
    rng = np.random.default_rng(0)
    (tiny.parent / "photos").mkdir()
    for i in range(24):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(tiny.parent / "photos" / f"{i}.png")
    tiny.write_text(without("export", TINY) + ONLY_ONNX + '[data]\nsource = "photos"\n')
    done = edgegen("verify", tiny.name)
    assert done.returncode == 0, done.stderr
    run = tiny.parent / "runs" / "tiny"
    manifest = json.loads((run / "verify/latest/artifacts/manifest.json").read_text())
    assert [spec["name"] for spec in manifest["signature"]["inputs"]] == ["sample"]
    assert json.loads((run / "extractor/latest/extractor.json").read_text())["name"].startswith("rot-v1,photos,")


@pytest.fixture
def diffusers_teacher(tiny: Path) -> Path:
    diffusers = pytest.importorskip("diffusers")
    folder = tiny.parent / "teacher"
    unet = small_unet2d(num_class_embeds=10)
    unet.save_pretrained(folder / "unet", safe_serialization=True)
    diffusers.DDPMScheduler().save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    return folder


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # diffusers' own imports
def test_a_diffusers_teacher_is_distilled(edgegen: Edgegen, tiny: Path, diffusers_teacher: Path) -> None:
    text = without("teacher", TINY).replace("keep = 0.9", SLIM_MODEL) + '[teacher]\nfolder = "teacher"\n'
    tiny.write_text(text)
    done = edgegen("distill", tiny.name)
    assert done.returncode == 0, done.stderr
    run = tiny.parent / "runs" / "tiny"
    copied = sorted(p.name for p in (run / "teacher/latest/generator/unet").iterdir())
    assert copied == ["config.json", "diffusion_pytorch_model.safetensors"]
    tiny.write_text(text.replace(SLIM_MODEL, "keep = 0.9"))
    done = edgegen("distill", tiny.name)
    assert done.returncode == 0, done.stderr
    teacher, student = (load(run / stage / "latest/generator").parameters for stage in ("teacher", "distill"))
    assert 0.3 * teacher < student <= 0.9 * teacher
    checked = json.loads((run / "teacher/latest/sampling.json").read_text())
    assert checked["psnr_db"] > 90
    tiny.write_text(text + "[data]\nconditional = false\n")
    done = edgegen("distill", tiny.name)
    assert done.returncode == 2
    assert "knows 10 classes, the data have 0" in done.stderr


@pytest.mark.parametrize(
    ("arrays", "recipe", "message"),
    [
        ({"images": np.zeros((8, 8, 8), np.uint8)}, "", "2 held out; the metrics need at least 4 of each"),
        ({"images": np.zeros((40, 2, 2), np.uint8)}, "", "images of 2x2 pixels; 4x4 is the least"),
        ({"images": np.zeros((40, 8, 8), np.uint8)}, "keep = 0.001", "slim.keep = 0.001: at most"),
    ],
)
def test_what_cannot_end_well_is_told_before_training(
    edgegen: Edgegen, tiny: Path, arrays: dict[str, np.ndarray], recipe: str, message: str
) -> None:
    np.savez(tiny.parent / "few.npz", **arrays)
    tiny.write_text((TINY.replace("keep = 0.9", recipe) if recipe else TINY) + '[data]\nsource = "few.npz"\n')
    done = edgegen("train", tiny.name)
    assert done.returncode == 2
    assert message in done.stderr
    assert not list((tiny.parent / "runs").rglob("checkpoint.safetensors"))


@pytest.mark.long
def test_a_damaged_shard_of_an_interrupted_try_is_made_again(edgegen: Edgegen, tiny: Path) -> None:
    assert edgegen("pairs", tiny.name).returncode == 0
    folder = (tiny.parent / "runs" / "tiny" / "pairs" / "latest").resolve()
    shard = folder / "pairs-00001.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-9])
    (folder / "stage.json").unlink()
    folder.rename(folder.with_name(folder.name + ".partial"))
    assert edgegen("pairs", tiny.name).returncode == 0
    assert shard.read_bytes() == whole


@pytest.mark.long
def test_a_class_without_held_out_images(edgegen: Edgegen, tiny: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(
        tiny.parent / "split.npz",
        x_train=rng.integers(0, 255, (60, 8, 8), dtype=np.uint8),
        y_train=np.arange(60) % 3,
        x_test=rng.integers(0, 255, (20, 8, 8), dtype=np.uint8),
        y_test=np.arange(20) % 2,
    )
    tiny.write_text(TINY + '[data]\nsource = "split.npz"\n')
    done = edgegen("evaluate", tiny.name)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_images_need_not_be_square(edgegen: Edgegen, tiny: Path) -> None:
    """From images of 8x12 pixels and one class to a file and the report."""
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 12, 3), dtype=np.uint8)
    np.savez(tiny.parent / "wide.npz", images=images, labels=np.zeros(40, np.int64))
    tiny.write_text(without("export", TINY) + ONLY_ONNX + '[data]\nsource = "wide.npz"\n')
    done = edgegen("run", tiny.name)
    assert done.returncode == 0, done.stderr
    run = tiny.parent / "runs" / "tiny"
    manifest = json.loads((run / "verify/latest/artifacts/manifest.json").read_text())
    assert [spec["name"] for spec in manifest["signature"]["inputs"]] == ["sample"], "one class is no class"
    assert manifest["signature"]["outputs"][0]["shape"] == ["batch_size", 3, 8, 12]
    assert manifest["artifacts"][0]["parity"]["status"] == "ok"
    # Noise has no right way up: the extractor cannot learn which way an image was turned.
    report = json.loads((run / "report/latest/report.json").read_text())
    assert "of its 4 classes right" in report["extractor"]["fault"]
    assert {row["fd_local"] for row in report["quality"]["student"].values()} == {None}
    assert (report["ships"], report["artifacts"][0]["fd_local"]) == ("student", None)
    page = (run / "report/latest/report.html").read_text()
    assert "No figure of quality" in page


@pytest.mark.slow
def test_bf16_training_runs_all_stages_in_one_process(edgegen: Edgegen, tiny: Path) -> None:
    tiny.write_text(TINY + '[compute]\nprecision = "bf16"\nthreads = 1\n')
    done = edgegen("run", tiny.name, "--to", "evaluate")
    assert done.returncode == 0, done.stderr
