"""What makes an exported pipeline loadable by optimum-onnx: what is written, and that it makes our picture there."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import families
import numpy as np
import onnx
import pytest
from families import CONDITION, KL, SDXL, TINY, TINY_VAE
from helpers import environment
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgegen.artifacts.export import ExportSettings, export_source
from edgegen.artifacts.export_result import onnx_files, raise_failures
from edgegen.artifacts.target import Target
from edgegen.errors import DataError
from edgegen.exporters.onnx.backend import BACKEND
from edgegen.integrations.optimum_onnx import SMALL, write_ort_pipeline
from edgegen.support.progress import Silent
from edgegen.types import Parity

# optimum-onnx 0.1 pins optimum 2.1 and transformers 4, which do not go with ours.
PACKAGES = ("optimum-onnx==0.1.0", "diffusers==0.39.0", "onnxruntime==1.32.0")
START, END, A, CAT = 0, 1, 2, 7
VOCABULARY = ("<|startoftext|>", "<|endoftext|>", "a</w>", "c", "a", "t", "ca", "cat</w>", "t</w>")
TOKENIZER = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "name_or_path": "/home/somebody/clip"}
TOKENIZER |= {"bos_token": VOCABULARY[START]} | dict.fromkeys(("eos_token", "unk_token", "pad_token"), VOCABULARY[END])
COMPONENTS = ("unet", "vae_decoder", "text_encoder")
FILES = {name: f"{name}_onnx_fp32.onnx" for name in COMPONENTS}


def with_tokenizer(source: Path) -> Path:
    folder = source / "tokenizer"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(VOCABULARY)}))
    (folder / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER))
    (folder / "tokenization.py").write_text("raise SystemExit")
    return source


def xl(folder: Path) -> Path:
    """Two text encoders in real ones, which are left out: here none, as for us that is the same."""
    net = ("unet", "UNet2DConditionModel", SDXL)
    spacing = {"timestep_spacing": "trailing"}
    name, scheduler = "StableDiffusionXLPipeline", "EulerDiscreteScheduler"
    return families._pipeline(name, net, scheduler, vae=("AutoencoderKL", KL), **spacing)(folder)


def lcm(folder: Path) -> Path:
    """Its net takes the guidance scale, and its decoder is a tiny one."""
    net = ("unet", "UNet2DConditionModel", {**CONDITION, "time_cond_proj_dim": 16})
    vae = ("AutoencoderTiny", TINY_VAE)
    name = "LatentConsistencyModelPipeline"
    return with_tokenizer(families._pipeline(name, net, "LCMScheduler", vae=vae, encoder="CLIPTextModel")(folder))


def sd(folder: Path) -> Path:
    return with_tokenizer(TINY["pipeline_sd"](folder))


def exported(source: Path, output: Path) -> Path:
    settings = ExportSettings((Target.parse("onnx"),), measure=False, samples=2)
    raise_failures(export_source(str(source), output, settings, progress=Silent()))
    return output


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sd(tmp_path_factory.mktemp("source") / "pipe")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """What an export leaves behind, with programs of one convolution."""
    for component, file in FILES.items():
        (tmp_path / "out" / component).mkdir(parents=True)
        (tmp_path / "out" / component / file).write_bytes(convolution().SerializeToString())
    return tmp_path / "out"


def convolution() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    large = numpy_helper.from_array(rng.standard_normal((4, 4, 5, 5)).astype(np.float32), "weight")
    small = numpy_helper.from_array(rng.standard_normal(4).astype(np.float32), "bias")
    shape = ["batch_size", 4, 8, 8]
    sample, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("sample", "out_sample"))
    node = helper.make_node("Conv", ["sample", "weight", "bias"], ["out_sample"], pads=[2, 2, 2, 2])
    graph = helper.make_graph([node], "net", [sample], [out], [large, small])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(file: Path, **inputs: NDArray[Any]) -> NDArray[np.float32]:
    out: NDArray[np.float32] = BACKEND.open(file)(inputs)["out_sample"]
    return out


@pytest.mark.slow
def test_the_export_of_a_pipeline_writes_what_optimum_onnx_reads(
    source: Path, tmp_path: Path, in_process: None
) -> None:
    out = exported(source, tmp_path / "out")
    index = json.loads((out / "model_index.json").read_text())
    assert index["_class_name"] == "ORTStableDiffusionPipeline"
    assert index["unet"] == ["optimum.onnxruntime.modeling_diffusion", "ORTUnet"]
    assert index["tokenizer"] == ["transformers", "CLIPTokenizer"]
    for component, file in FILES.items():
        onnx.checker.check_model(out / component / "model.onnx", full_check=True)
        assert (out / component / "model.onnx").stat().st_size < (out / component / file).stat().st_size
    assert not [name for name, content in contents(out).items() if str(tmp_path).encode() in content]


def test_what_is_written_repeats_byte_by_byte(source: Path, output: Path) -> None:
    assert write_ort_pipeline(source, output, FILES)
    first = contents(output)
    assert write_ort_pipeline(source, output, FILES)
    assert contents(output) == first


def test_the_scheduler_gives_what_the_net_gives(source: Path, output: Path) -> None:
    import diffusers
    import torch

    write_ort_pipeline(source, output, FILES)
    scheduler = diffusers.DDIMScheduler.from_pretrained(output / "scheduler")
    noise, clean = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    scheduler.set_timesteps(1)
    (time,) = scheduler.timesteps
    assert scheduler.init_noise_sigma == 1.0
    assert torch.equal(scheduler.scale_model_input(noise, time), noise)
    assert torch.equal(scheduler.step(clean, time, noise).prev_sample, clean)
    with pytest.raises(ValueError, match="cannot be larger than"):
        scheduler.set_timesteps(2)


def test_weights_are_read_from_the_file_beside_it(source: Path, output: Path, tmp_path: Path) -> None:
    write_ort_pipeline(source, output, FILES)
    moved = Path(shutil.move(output, tmp_path / "elsewhere"))
    sample = np.random.default_rng(1).standard_normal((2, 4, 8, 8)).astype(np.float32)
    for component, file in FILES.items():
        weight, bias = onnx.load(moved / component / "model.onnx", load_external_data=False).graph.initializer
        place = {entry.key: entry.value for entry in weight.external_data}
        assert (place["location"], int(place["length"]), weight.raw_data) == (file, 4 * 4 * 5 * 5 * 4, b"")
        assert len(bias.raw_data) < SMALL
        inputs = {"timestep": np.array(0, np.int64)} if component == "unet" else {}
        made = run(moved / component / "model.onnx", sample=sample, **inputs)
        np.testing.assert_array_equal(made, run(moved / component / file, sample=sample))


def test_weights_that_lie_in_a_second_file_stay_there(source: Path, output: Path) -> None:
    file = output / "unet" / FILES["unet"]
    onnx.save(convolution(), file, save_as_external_data=True, location=f"{file.name}.data")
    write_ort_pipeline(source, output, FILES)
    weight = onnx.load(output / "unet" / "model.onnx", load_external_data=False).graph.initializer[0]
    assert {entry.key: entry.value for entry in weight.external_data}["location"] == f"{file.name}.data"
    sample = np.ones((1, 4, 8, 8), np.float32)
    made = run(output / "unet" / "model.onnx", sample=sample, timestep=np.array(0, np.int64))
    np.testing.assert_array_equal(made, run(file, sample=sample))


def test_settings_are_the_source_s_but_for_the_scaling_that_is_in_the_decoder(source: Path, output: Path) -> None:
    write_ort_pipeline(source, output, FILES)
    given = json.loads((source / "vae" / "config.json").read_text())
    made = json.loads((output / "vae_decoder" / "config.json").read_text())
    assert (given["scaling_factor"], made["scaling_factor"]) == (0.18215, 1.0)
    assert {**given, "scaling_factor": 1.0} == made
    kept = [json.loads((folder / "unet" / "config.json").read_text()) for folder in (source, output)]
    assert kept[0] == kept[1]


def test_of_a_tokenizer_words_are_copied_and_neither_programs_nor_places(source: Path, output: Path) -> None:
    write_ort_pipeline(source, output, FILES)
    names = {path.name for path in (output / "tokenizer").iterdir()}
    assert names == {"vocab.json", "merges.txt", "tokenizer_config.json"}
    settings = json.loads((output / "tokenizer" / "tokenizer_config.json").read_text())
    assert settings == {key: value for key, value in TOKENIZER.items() if key != "name_or_path"}


def test_without_a_text_encoder_there_is_no_tokenizer(source: Path, output: Path) -> None:
    assert write_ort_pipeline(source, output, {name: FILES[name] for name in ("unet", "vae_decoder")})
    index = json.loads((output / "model_index.json").read_text())
    assert index["text_encoder"] == index["tokenizer"] == [None, None]
    assert not (output / "tokenizer").exists()


@pytest.mark.parametrize(
    ("kind", "files"),
    [("PixArtAlphaPipeline", FILES), ("StableDiffusionPipeline", {"unet": FILES["unet"]})],
)
def test_nothing_is_written_where_it_could_not_be_loaded(
    kind: str, files: Mapping[str, str], output: Path, tmp_path: Path
) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    before = contents(output)
    assert not write_ort_pipeline(tmp_path, output, files)
    assert contents(output) == before


def test_settings_that_are_none_are_named(source: Path, output: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(source, tmp_path / "broken"))
    (broken / "vae" / "config.json").write_text("[]")
    with pytest.raises(DataError, match=r"vae/config.json: holds list, not settings"):
        write_ort_pipeline(broken, output, FILES)
    assert not (output / "model_index.json").exists()


def test_the_first_plain_file_that_is_not_false_is_taken() -> None:
    rows = [("executorch", "", "ok"), ("onnx", "batch1", "ok"), ("onnx", "", "failed"), ("onnx", "", "not checked")]
    built = [
        SimpleNamespace(artifact=SimpleNamespace(backend=backend, variant=variant, file=str(number)))
        for number, (backend, variant, _) in enumerate(rows)
    ]
    parity = {str(number): Parity(status, "planted", 80.0) for number, (*_, status) in enumerate(rows)}  # type: ignore[arg-type]
    assert onnx_files([SimpleNamespace(name="unet", built=built, parity=parity)]) == {"unet": "3"}  # type: ignore[list-item]


@pytest.fixture(scope="module")
def optimum_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a venv with optimum-onnx; torch first and alone, so that a CPU build at hand is taken."""
    venv = tmp_path_factory.mktemp("optimum") / "venv"
    python = venv / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    for command in ([sys.executable, "-m", "venv", str(venv)], [*pip, "torch==2.13.0"], [*pip, *PACKAGES]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return python


def by_hand(folder: Path, given: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The latents (2, 4, 8, 8), and the image (2, height, width, 3) in [0, 1], of our own files."""

    def component(name: str, **inputs: NDArray[Any]) -> NDArray[np.float32]:
        return run(folder / name / FILES[name], **inputs)

    if "prompt_embeds" in given:
        size = 16.0  # pixels: of the picture, and of where it is cut from
        times = np.array([[size, size, 0, 0, size, size]] * 2, np.float32)
        text = given["prompt_embeds"]
        more = {"text_embeds": given["pooled_prompt_embeds"], "time_ids": times}
    else:
        tokens = np.full((2, 77), END, np.int64)
        tokens[0, :3], tokens[1, :2] = (START, A, CAT), (START, CAT)
        text, more = component("text_encoder", input_ids=tokens), {}
    latent = component("unet", sample=given["latents"], encoder_hidden_states=text, **more)
    image = component("vae_decoder", latent_sample=latent)
    return latent, np.clip(image / 2 + 0.5, 0, 1).transpose(0, 2, 3, 1)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a venv is made, and torch copied into it
@pytest.mark.parametrize(
    ("make", "kind"),
    [(sd, "ORTStableDiffusionPipeline"), (lcm, "ORTStableDiffusionPipeline"), (xl, "ORTStableDiffusionXLPipeline")],
)
def test_optimum_onnx_makes_our_picture(
    make: Any, kind: str, optimum_python: Path, tmp_path: Path, in_process: None
) -> None:
    out = exported(make(tmp_path / "pipe"), tmp_path / "out")
    rng = np.random.default_rng(0)
    given = {"latents": rng.standard_normal((2, 4, 8, 8)).astype(np.float32)}
    if make is xl:
        given["prompt_embeds"] = rng.standard_normal((2, 77, 16)).astype(np.float32)
        given["pooled_prompt_embeds"] = rng.standard_normal((2, 16)).astype(np.float32)
    np.savez(tmp_path / "inputs.npz", **given)  # type: ignore[arg-type]
    script = Path(__file__).with_name("load_ort_pipeline.py")
    command = [optimum_python, script, out, tmp_path / "inputs.npz", tmp_path / "outputs.npz"]
    offline = {**environment(), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=offline, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "outputs.npz")
    latent, image = by_hand(out, given)
    assert str(found["kind"]) == kind
    # Another version of onnxruntime adds up in another order.
    np.testing.assert_allclose(found["latent"], latent, rtol=0, atol=1e-5 * float(np.abs(latent).max()))
    np.testing.assert_allclose(found["np"], image, rtol=0, atol=1e-4)
    assert image.std() > 0.01
    assert "cannot be larger than" in str(found["refused"])  # its 50 steps where nobody asks for one
