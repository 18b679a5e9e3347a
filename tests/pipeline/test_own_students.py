"""Students that are no EdgeUNet: of a diffusers config, and of the user's own factory."""

import json
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgegen.artifacts.build import build
from edgegen.artifacts.target import Target
from edgegen.errors import DataError, RecipeError
from edgegen.models.load import load, save
from edgegen.models.own_velocity import CapturedVelocity
from edgegen.models.sources.load import load_sources
from edgegen.models.zero_layers import randomize_zero_layers
from edgegen.pipeline.graph import select
from edgegen.pipeline.planning import plan
from edgegen.pipeline.run import run_recipe
from edgegen.pipeline.run_folder import RunFolder
from edgegen.pipeline.student import new_student
from edgegen.program.one_step import NOISE_TIME, OneStep
from edgegen.recipe import Recipe, parse
from edgegen.types import Signature

NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.first, self.classes = nn.Conv2d(1, width, 3, padding=1), nn.Embedding(10, width)
        self.time, self.drop = nn.Linear(1, width), nn.Dropout(0.1)
        self.last = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x, t, labels, r=None):
        h = self.first(x) + self.time(t[:, None])[:, :, None, None]
        if labels is not None:
            h = h + self.classes(labels)[:, :, None, None]
        if r is not None:
            h = h + (t - r)[:, None, None, None]
        return self.last(self.drop(nn.functional.silu(h))) + 0.1 * torch.arange(8, device=x.device)


class Wrong(Net):
    def forward(self, x, t, labels):
        return super().forward(x, t, labels)[:, :, :4]


class Branching(Net):
    def forward(self, x, t, labels):
        return super().forward(x, t, labels) if x.sum() > 0 else x


def narrow():
    return Net(4)
"""
UNET = {
    **{"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1, "out_channels": 1, "norm_num_groups": 4},
    **{"block_out_channels": [8, 8], "down_block_types": ["DownBlock2D", "DownBlock2D"], "num_class_embeds": 10},
    **{"up_block_types": ["UpBlock2D", "UpBlock2D"], "layers_per_block": 1},
}
DIGITS = Signature.of(channels=1, size=8, num_classes=10)
GENERATOR = torch.Generator().manual_seed(0)
INPUTS = (torch.randn(3, 1, 8, 8, generator=GENERATOR), torch.tensor([1.0, 0.5, 0.1]), torch.arange(3))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(textwrap.dedent(NETS))
    (tmp_path / "config.json").write_text(json.dumps(UNET))
    return tmp_path


def recipe(network: Any, **slim: Any) -> Recipe:
    table = {"method": "flow_matching", "network": network, "steps": 6, "batch": 8, **slim}
    further = {"method": "flow_matching", "steps": 4, "batch": 8}
    figures = {"steps": [1], "seeds": 2, "extractor_steps": 20, "samples": 40}
    return parse({"name": "own", "slim": table, "distill": further, "evaluate": figures}, where="test")


@pytest.mark.parametrize("network", ["nets.py:Net", "diffusers:config.json"])
def test_a_student_of_another_kind_is_trained_judged_and_loaded_again(base: Path, network: str) -> None:
    text = f"""
        name = "own"
        slim = {{ method = "flow_matching", network = "{network}", steps = 6, batch = 8 }}
        distill = {{ method = "flow_matching", steps = 4, batch = 8 }}
        evaluate = {{ steps = [1], seeds = 2, extractor_steps = 20, samples = 40 }}
    """
    (base / "own.toml").write_text(textwrap.dedent(text))
    results = {item.stage: item.folder for item in run_recipe(base / "own.toml", runs=base / "runs", to="choose")}
    quality = json.loads((results["evaluate"] / "quality.json").read_text())["quality"]
    assert quality.keys() == {"floor", "slimmed", "student"}
    (base / "nets.py").unlink()  # a generator needs no code of the user's
    chosen = load(results["choose"] / "generator")
    assert chosen.signature.to_dict() == DIGITS.to_dict()
    assert chosen.about["role"] == "student"
    slimmed, distilled = (load(results[stage] / "generator").net(*INPUTS) for stage in ("slim", "distill"))
    assert 0 < (slimmed - distilled).abs().max() < 0.5, "trained further, from there"
    (source,) = load_sources(str(results["choose"] / "generator"))
    one_step = INPUTS[0] - chosen.net(INPUTS[0], torch.ones(3), INPUTS[2])
    torch.testing.assert_close(source.module(INPUTS[0], INPUTS[2]), one_step, rtol=1e-4, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("network", ["nets.py:Net", "diffusers:config.json"])
def test_a_student_of_another_kind_is_exported(base: Path, network: str) -> None:
    student = new_student(recipe(network), None, DIGITS, base=base)
    randomize_zero_layers(student.net, 0)
    save(student.net, base / "saved", about={"role": "student"})
    again = load(base / "saved").net
    torch.testing.assert_close(again(*INPUTS), student.net.eval()(*INPUTS), rtol=1e-4, atol=1e-5)
    step = OneStep(again, time=NOISE_TIME)
    made = build(step, DIGITS, name="own", target=Target.parse("onnx-fp32"), folder=base, seed=0, metadata={})
    import onnxruntime

    session = onnxruntime.InferenceSession(base / made.artifact.file)
    given = {"sample": INPUTS[0].numpy(), "class_labels": INPUTS[2].numpy()}
    np.testing.assert_allclose(session.run(None, given)[0], step(INPUTS[0], INPUTS[2]).numpy(), rtol=1e-3, atol=1e-4)


def test_a_captured_network_moves_with_the_tensors_that_it_makes_and_has_a_second_time(base: Path) -> None:
    from edgegen.models.own_velocity import new_own_velocity

    network = new_own_velocity("nets.py:Net", DIGITS, second_time=True, base=base).eval()
    save(network, base / "saved", about={})
    again = load(base / "saved").net
    assert isinstance(again, CapturedVelocity)
    assert again.second_time
    r = torch.tensor([0.0, 0.2, 0.1])
    torch.testing.assert_close(again(*INPUTS, r=r), network(*INPUTS, r=r))
    torch.testing.assert_close(again(*INPUTS), network(*INPUTS, r=INPUTS[1]))
    assert again.to("meta")(*(values.to("meta") for values in INPUTS)).device.type == "meta"


def test_the_weights_of_a_folder_start_a_student_of_another_kind(base: Path) -> None:
    student = new_student(recipe("nets.py:Net"), None, DIGITS, base=base, seed=1)
    save(student.net, base / "start", about={})
    again = new_student(recipe("nets.py:Net", init="start"), None, DIGITS, base=base)
    torch.testing.assert_close(again.net.eval()(*INPUTS), student.net.eval()(*INPUTS))
    with pytest.raises(DataError, match=r"start holds another network than the student: net.first.weight is .8, 1, 3"):
        new_student(recipe("nets.py:narrow", init="start"), None, DIGITS, base=base)


@pytest.mark.parametrize(
    ("network", "changes", "message"),
    [
        ("nets.py:Wrong", {}, r"gives \(2, 1, 4, 8\) for images \(2, 1, 8, 8\); needed: a velocity like them"),
        (
            "nets.py:Branching",
            {},
            r"slim.network = 'nets.py:Branching': Branching: forward\(x, t, condition\) cannot be",
        ),
        ("nets.py:Nett", {}, "slim.network: nets.py:Nett: no factory 'Nett'; .* Did you mean 'Net'"),
        ("diffusers:config.json", {"sample_size": 16}, r"for images \[1, 16, 16\] of 10 classes, the data are \[1, 8"),
        ("diffusers:config.json", {"out_channels": 2}, "out_channels must be in_channels, 1"),
        ("diffusers:config.json", {"_class_name": "VQModel"}, "_class_name is 'VQModel'; a student is a UNet2DModel"),
    ],
)
def test_a_student_that_cannot_be_is_refused(base: Path, network: str, changes: dict[str, Any], message: str) -> None:
    (base / "config.json").write_text(json.dumps({**UNET, **changes}))
    with pytest.raises(RecipeError, match=message):
        new_student(recipe(network), None, DIGITS, base=base)


def test_names_of_networks() -> None:
    with pytest.raises(RecipeError, match=r"slim.network: network 'unet' is no network; there are: a table such as"):
        recipe("unet")
    with pytest.raises(RecipeError, match=r"slim.network.chanels: no key 'chanels'; .* Did you mean 'channels'\?"):
        recipe({"chanels": [8]})
    with pytest.raises(RecipeError, match=r"sliced from the teacher: slim.network = 'a.py:b' is no EdgeUNet"):
        recipe("a.py:b", init="teacher")


def test_the_file_of_a_network_is_in_the_key_of_the_student(base: Path) -> None:
    def keys(network: str) -> dict[str, str]:
        chosen = recipe(network)
        planned = plan(chosen, select(chosen), base=base, folder=RunFolder(base / "run"))
        return {item.stage.name: item.key for item in planned}

    before = keys("nets.py:Net")
    (base / "nets.py").write_text(NETS + "\n# changed\n")
    after = keys("nets.py:Net")
    assert {name for name in before if before[name] == after[name]} == {"data", "extractor"}
    for network, message in (
        ("absent.py:Net", "no file .*absent.py"),
        ("absent.module:Net", "no module absent.module"),
    ):
        with pytest.raises(DataError, match=f"slim.network.*: {message}"):
            keys(network)


FOREIGN = """
[teacher]
folder = "teacher"
[slim]
method = "flow_matching"
network = "diffusers:config.json"
steps = 4
batch = 8
[distill]
method = "distribution_matching"
steps = 4
batch = 8
head_start = 0
[finish]
steps = 4
batch = 8
critic_warmup = 0
"""


@pytest.mark.parametrize(
    ("finish", "refused"),
    [
        ('method = "adversarial"', "finish.method = 'adversarial' needs features of the teacher.*VariancePreserving"),
        ('method = "adversarial"\ncritic = "small"\nregression_weight = 0', ""),
        (
            'method = "density_ratio"\nhead_start = 1',
            "'density_ratio' needs features.*encoder = 'small'",
        ),
        ('method = "density_ratio"\nhead_start = 1\nencoder = "small"\nregression_weight = 0', ""),
    ],
    ids=["adversarial", "adversarial, small", "density_ratio", "density_ratio, small"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # diffusers' own imports
def test_critics_of_a_teacher_and_a_student_of_diffusers(finish: str, refused: str, base: Path) -> None:
    """A method that needs the teacher's layers is refused before any training; a critic of its own sees any student."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    diffusers.UNet2DModel.from_config(UNET).save_pretrained(base / "teacher")
    diffusers.DDPMScheduler().save_pretrained(base / "teacher")
    text = 'name = "foreign"\n' + FOREIGN.replace("[finish]\n", f"[finish]\n{finish}\n")
    (base / "foreign.toml").write_text(text if "adversarial" in finish else text.replace("critic_warmup = 0\n", ""))
    if refused:
        with pytest.raises(RecipeError, match=refused):
            run_recipe(base / "foreign.toml", runs=base / "runs", to="finish")
        assert {path.parts[-3] for path in base.glob("runs/foreign/*/*/stage.json")} == {"data"}
        return
    (*_, result) = run_recipe(base / "foreign.toml", runs=base / "runs", to="finish")
    image = OneStep(load(result.folder / "generator").net, time=NOISE_TIME)(INPUTS[0], INPUTS[2])
    assert image.isfinite().all()
