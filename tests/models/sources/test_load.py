"""Sources of every kind: folders and pipelines, random weights, and what is refused."""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families import DIT, NETWORKS, PIPELINES, TINY, TINY_VAE, save
from safetensors.torch import load, save_file

from edgegen.errors import DataError, MissingExtraError, UsageError
from edgegen.models.load import load as load_generator
from edgegen.models.sources.load import load_sources
from edgegen.models.sources.source import Source
from edgegen.program.inputs import example_inputs

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # diffusers' own imports

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Each tiny folder, written once."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = TINY[name](tmp_path_factory.mktemp("sources") / name)
        return made[name]

    return get


def run(source: Source, count: int = 2, seed: int = 0) -> torch.Tensor:
    arrays = example_inputs(source.signature, count, seed)
    out: torch.Tensor = source.module(**{name: torch.from_numpy(x) for name, x in arrays.items()})
    return out


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("pipeline_ddpm", {"unet": "UNet2DModel"}),
        (
            "pipeline_sd",
            {"unet": "UNet2DConditionModel", "vae_decoder": "AutoencoderKL", "text_encoder": "CLIPTextModel"},
        ),
        ("pipeline_dit", {"transformer": "DiTTransformer2DModel", "vae_decoder": "AutoencoderTiny"}),
        (
            "pipeline_pixart",
            {
                "transformer": "PixArtTransformer2DModel",
                "vae_decoder": "AutoencoderKL",
                "text_encoder": "T5EncoderModel",
            },
        ),
        ("pipeline_sd3", {"transformer": "SD3Transformer2DModel", "vae_decoder": "AutoencoderKL"}),
    ],
)
def test_a_pipeline_is_its_parts(name: str, parts: dict[str, str], folders: Callable[[str], Path]) -> None:
    sources = load_sources(str(folders(name)))
    assert {source.name: source.about["family"] for source in sources} == parts
    for source in sources:
        assert run(source).shape == (2, *source.signature.outputs[0].shape[1:])
        assert source.about["license"] == "apache-2.0"
        assert source.about["from"] == "pipeline folder"
    if "vae_decoder" in parts:
        assert sources[0].signature.outputs[0].role == "latent"
        assert sources[1].signature.inputs[0].shape == sources[0].signature.outputs[0].shape


def test_every_pipeline_is_tested() -> None:
    assert set(PIPELINES) == {f"pipeline_{name}" for name in ("ddpm", "sd", "dit", "pixart", "sd3")}


@pytest.mark.parametrize("name", ["pipeline_sd", "pipeline_sd3"])
def test_a_fused_decoder_is_both_one_after_the_other(name: str, folders: Callable[[str], Path]) -> None:
    denoiser, decoder, *rest = load_sources(str(folders(name)))
    fused, *others = load_sources(str(folders(name)), fuse_decoder=True)
    assert fused.name == name
    assert [source.name for source in others] == [source.name for source in rest]
    assert fused.signature.inputs == denoiser.signature.inputs
    assert fused.signature.makes_images
    assert fused.about["time"] == denoiser.about["time"]
    torch.testing.assert_close(run(fused), decoder.module(run(denoiser)))


def test_text_encoders_give_what_the_pipelines_take(folders: Callable[[str], Path]) -> None:
    tokens = torch.randint(1, 64, (2, 120))
    tokens[:, 100:] = 0
    for name, kind, length in (("pipeline_sd", "CLIPTextModel", 77), ("pipeline_pixart", "T5EncoderModel", 120)):
        source = load_sources(str(folders(name)))[-1]
        assert source.signature.inputs[0].shape == ("batch_size", length)
        net = getattr(transformers, kind).from_pretrained(str(folders(name) / "text_encoder"))
        ids = tokens[:, :length]
        mask = (tokens != 0).long() if kind == "T5EncoderModel" else None  # CLIP's pipelines give none
        torch.testing.assert_close(source.module(ids), net(ids, attention_mask=mask).last_hidden_state)
        text = next(spec for spec in load_sources(str(folders(name)))[0].signature.inputs if spec.role == "text")
        assert source.signature.outputs[0].shape == text.shape


def test_what_a_pipeline_leaves_out_is_noted(folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "sd"
    shutil.copytree(folders("pipeline_sd"), folder)
    index = json.loads((folder / "model_index.json").read_text())
    shutil.copytree(folder / "text_encoder", folder / "text_encoder_2")
    shutil.copytree(folder / "text_encoder", folder / "safety_checker")
    index["text_encoder_2"] = ["transformers", "CLIPTextModelWithProjection"]
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (folder / "model_index.json").write_text(json.dumps(index))
    sources = load_sources(str(folder))
    assert [source.name for source in sources] == ["unet", "vae_decoder"]
    notes = "\n".join(sources[0].about["notes"])
    assert "left out: text_encoder (CLIPTextModel): the denoiser joins the outputs of several" in notes
    assert "left out: text_encoder_2 (CLIPTextModelWithProjection): the denoiser joins" in notes
    assert "left out: safety_checker (StableDiffusionSafetyChecker): no family" in notes
    del index["text_encoder_2"], index["safety_checker"]
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "text_encoder" / "model.safetensors").unlink()
    assert "left out: text_encoder (CLIPTextModel)" in "\n".join(load_sources(str(folder))[0].about["notes"])
    index["text_encoder"] = ["transformers", "BertModel"]
    (folder / "model_index.json").write_text(json.dumps(index))
    assert "BertModel: no family; there are: CLIPTextModel" in "\n".join(load_sources(str(folder))[0].about["notes"])


def test_a_pipeline_that_does_not_fit_is_refused(folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "dit"
    shutil.copytree(folders("pipeline_dit"), folder)
    index = json.loads((folder / "model_index.json").read_text())

    def refuse(content: Any, message: str, *, error: type[Exception] = DataError, **options: Any) -> None:
        (folder / "model_index.json").write_text(json.dumps(content))
        with pytest.raises(error, match=message):
            load_sources(str(folder), **options)

    refuse([], "model_index.json: holds list, not the components of a pipeline")
    refuse(
        {},
        "model_index.json: 0 denoisers, needed is one; found no networks. Families: AuraFlow",
    )
    refuse({"vae": index["vae"]}, r"0 denoisers, needed is one; found vae \(AutoencoderTiny\)")
    alone = {key: index[key] for key in ("transformer", "scheduler")}
    refuse(alone, "0 decoders in this pipeline, so nothing to fuse", error=UsageError, fuse_decoder=True)
    refuse(
        {**index, "unet": ["diffusers", "UNet2DModel"]}, "names unet .UNet2DModel., but there is no unet/config.json"
    )
    refuse({**index, "../x": ["diffusers", "UNet2DModel"], "transformer": [None, None]}, "0 denoisers")
    save("AutoencoderTiny", {**TINY_VAE, "latent_channels": 3}, folder / "vae")
    refuse(index, "latent_channels is 3, and the denoiser beside it makes 4")
    shutil.copytree(NETWORKS["unet1d"](tmp_path / "audio"), folder / "unet")
    audio = {"unet": ["diffusers", "UNet1DModel"], "vae": index["vae"]}
    refuse(audio, "its decoder decodes pictures, and the denoiser makes")


@pytest.mark.parametrize("name", ["edge_unet_class", "unet2d", "dit", "pixart", "sd3", "autoencoder_kl", "pipeline_sd"])
def test_random_weights_need_the_config_only(name: str, folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(folders(name), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    before = torch.random.get_rng_state()
    first, again, other = (load_sources(str(folder), random_weights=seed) for seed in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    for a, b, c in zip(first, again, other, strict=True):
        assert a.about["random_weights"] == 3
        assert a.about["notes"][0].startswith("weights are random (seed 3)")
        assert all(p.any() for p in a.module.parameters())
        pairs = zip(a.module.state_dict().items(), b.module.state_dict().items(), strict=True)
        assert all(key == same and torch.equal(x, y) for (key, x), (same, y) in pairs)
        torch.testing.assert_close(run(a), run(b))  # sums depend on where the memory lies
        assert not torch.equal(run(a), run(c))
        assert torch.isfinite(run(a)).all()
        # An output that were the noise times a constant would pass any parity test.
        if a.signature.inputs[0].role == "noise":
            ratio = run(a) / run(a, seed=1)
            assert ratio.std() > 0


def test_half_precision_and_sharded_weights_are_read(folders: Callable[[str], Path], tmp_path: Path) -> None:
    net = diffusers.DiTTransformer2DModel.from_pretrained(str(folders("dit")))
    expected = run(load_sources(str(folders("dit")))[0])
    net.save_pretrained(str(tmp_path / "shards"), max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    shutil.copy(folders("dit") / "scheduler_config.json", tmp_path / "shards")
    (sharded,) = load_sources(str(tmp_path / "shards"))
    torch.testing.assert_close(run(sharded), expected)
    net.half().save_pretrained(str(tmp_path / "half"), variant="fp16")
    assert not (tmp_path / "half" / WEIGHTS).exists()
    shutil.copy(folders("dit") / "scheduler_config.json", tmp_path / "half")
    (half,) = load_sources(str(tmp_path / "half"))
    assert {p.dtype for p in half.module.parameters()} == {torch.float32}
    torch.testing.assert_close(run(half), expected, rtol=0, atol=1e-2 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["dit", "edge_unet"])
def test_weights_that_are_missing_pickled_or_broken(name: str, folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(folders(name), folder)
    tensors = load((folder / WEIGHTS).read_bytes())  # not mapped: the file changes below
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:2000])
    with pytest.raises(DataError, match=name):
        load_sources(str(folder))
    key = next(key for key in tensors if key.endswith("weight"))
    save_file({k: v for k, v in tensors.items() if k != key}, folder / WEIGHTS)
    with pytest.raises(DataError, match=r"1 of its \d+ tensors are missing, such as"):
        load_sources(str(folder))
    (folder / WEIGHTS).unlink()
    with pytest.raises(
        DataError, match=r"no weights; found .*config.json.*Put diffusion_pytorch_model.safetensors there"
    ):
        load_sources(str(folder))
    (folder / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(
        DataError, match=r"pickle weights \(diffusion_pytorch_model.bin\) are not read.*save_pretrained"
    ):
        load_sources(str(folder))
    assert load_sources(str(folder), random_weights=0)


@pytest.mark.parametrize(("name", "part"), [("unet2d", ""), ("edge_unet", ""), ("pipeline_sd", "text_encoder")])
def test_weights_of_a_compiled_or_wrapped_network(
    name: str, part: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / name
    shutil.copytree(folders(name), folder)
    expected = load_sources(str(folder))[-1]
    path = folder / part / ("model.safetensors" if part else WEIGHTS)
    tensors = load(path.read_bytes())
    save_file({f"module._orig_mod.{k}": v for k, v in tensors.items()}, path, metadata={"format": "pt"})
    source = load_sources(str(folder))[-1]
    assert "weights: 'module.' is taken off the names in the file" in source.about["notes"]
    if not part:  # as a teacher, too
        assert "weights: 'module.' is taken off the names in the file" in load_generator(folder).notes
    parameters = dict(expected.module.named_parameters())
    assert parameters
    assert all(torch.equal(parameter, parameters[key]) for key, parameter in source.module.named_parameters())
    arrays = example_inputs(source.signature, 2, 0)
    inputs = [torch.from_numpy(values) for values in arrays.values()]
    torch.testing.assert_close(source.module(*inputs), expected.module(*inputs))


def test_the_licence_is_the_model_cards(folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "dit"
    shutil.copytree(folders("dit"), folder)
    for card, expected in (
        ("---\ntags: [a]\nlicense: cc-by-nc-4.0\n---\n", "cc-by-nc-4.0"),
        ('---\nlicense: "mit"\n---\n', "mit"),
        ("license: mit\n", None),
        ("---\ntags: [a]\n---\nlicense: mit\n", None),
    ):
        (folder / "README.md").write_text(card)
        assert load_sources(str(folder))[0].about["license"] == expected


def test_schedules_that_allow_no_step_are_named(folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "dit"
    shutil.copytree(folders("dit"), folder)

    def schedule(**settings: Any) -> None:
        (folder / "scheduler_config.json").write_text(json.dumps(settings))

    schedule(_class_name="KarrasVeScheduler")
    with pytest.raises(DataError, match="scheduler 'KarrasVeScheduler'; there are: DDPMScheduler"):
        load_sources(str(folder))
    schedule(_class_name="DDIMScheduler", rescale_betas_zero_snr=True)
    with pytest.raises(DataError, match=r"its last time is pure noise .*needed: prediction_type v_prediction"):
        load_sources(str(folder))
    schedule(_class_name="DDIMScheduler", rescale_betas_zero_snr=True, prediction_type="v_prediction")
    assert torch.isfinite(run(load_sources(str(folder))[0])).all()
    schedule(_class_name="DDIMScheduler", prediction_type="sample", clip_sample=False)
    (source,) = load_sources(str(folder))
    (folder / "scheduler_config.json").unlink()
    torch.testing.assert_close(run(source), run(load_sources(str(folder))[0]))  # the net's output is the sample
    schedule(_class_name="CMStochasticIterativeScheduler", sigma_max=-1.0)
    with pytest.raises(DataError, match="sigma_min, sigma_max and sigma_data must be positive numbers"):
        load_sources(str(folder))


def test_what_is_no_source_is_told(folders: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no source 'nothing'; a source is .* a pipeline folder|no source 'nothing': a"
    ):
        load_sources("nothing")
    (tmp_path / "model.ckpt").write_bytes(b"")
    with pytest.raises(DataError, match=r"model.ckpt: pickle weights are not read: .* they hold no network"):
        load_sources(str(tmp_path / "model.ckpt"))
    for name in ("net.onnx", "net.ort", "net.pte", "net.mlpackage"):
        with pytest.raises(DataError, match=r"is what an export makes, and not its source: .*file.py:factory.*inspect"):
            load_sources(str(tmp_path / name))
    with pytest.raises(DataError, match=r'weights without a network: .* weights = "net.safetensors"'):
        load_sources(str(tmp_path / "net.safetensors"))
    with pytest.raises(DataError, match=r"no config.json and no model_index.json; found model.ckpt"):
        load_sources(str(tmp_path))
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(DataError, match=r"config.json: holds list, not the settings of a network"):
        load_sources(str(tmp_path))
    with pytest.raises(UsageError, match=r"a folder's config.json is its signature; leave out --signature"):
        load_sources(str(folders("dit")), signature=tmp_path / "s.toml")
    with pytest.raises(UsageError, match=r"only a pipeline folder .* have a decoder to fuse"):
        load_sources(str(folders("dit")), fuse_decoder=True)
    with pytest.raises(UsageError, match="a program has its weights inside; leave out --random-weights"):
        load_sources("net.pt2", random_weights=0)


def test_a_library_that_is_missing_is_named(folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folders("dit")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"reading the DiTTransformer2DModel in .* needs 'diffusers'"):
        load_sources(str(folders("dit")))


def test_without_transformers_the_text_encoder_is_left_out(
    folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders("pipeline_sd")
    known = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "transformers" else known(name))
    sources = load_sources(str(folders("pipeline_sd")))
    assert [source.name for source in sources] == ["unet", "vae_decoder"]
    assert "needs 'transformers', which is not installed" in sources[0].about["notes"][-1]


@pytest.mark.long
def test_reading_a_pipeline_prints_nothing(folders: Callable[[str], Path]) -> None:
    code = "import sys; from edgegen.models.sources.load import load_sources; load_sources(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folders("pipeline_sd"))], capture_output=True, text=True, check=True
    )
    assert done.stdout + done.stderr == ""


def test_pixart_attends_to_a_fixed_size(folders: Callable[[str], Path]) -> None:
    (source,) = load_sources(str(folders("pixart_sized")))
    assert "resolution (64, 64) and aspect ratio 1 are fixed" in source.about["notes"]
    assert DIT["in_channels"] == source.signature.inputs[0].shape[1]
