"""A text pipeline: the files of its bundle make of a prompt what diffusers makes of it; every damage is named."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from bundles import bundled, edit_manifest, replace_file
from onnx import numpy_helper
from text_pipelines import (
    LATENT,
    LENGTH,
    TRICKY,
    images_of_diffusers,
    text_bundle,
    tokens_of_transformers,
    write_pipeline,
)
from typer.testing import CliRunner

from edgegen.artifacts.bundle import bundle_source
from edgegen.artifacts.bundle_check import verify_bundle
from edgegen.artifacts.bundle_text import PROMPTS, TextParts
from edgegen.artifacts.text_pipeline import write_text_parts
from edgegen.artifacts.tokenizer import tokenized
from edgegen.cli.main import app
from edgegen.errors import DataError, EdgegenError, ParityError, UsageError
from edgegen.formats.bundle_folder import read_bundle
from edgegen.formats.bundle_text import TOKENIZER
from edgegen.formats.manifest import MANIFEST, ManifestEntry
from edgegen.formats.text_pipeline import TEXT, read_text_pipeline
from edgegen.models.sources.load import load_sources
from edgegen.noise import normal
from edgegen.support.progress import Silent
from edgegen.verification.parity import psnr_db

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("in_process_of_module")]
ENCODER, GENERATOR = "text_encoder_onnx_fp32.onnx", "sdxs_onnx_fp32.onnx"
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, in_process_of_module: None) -> Path:
    """Beside it lie `sdxs`, its pipeline folder, and `export`."""
    return text_bundle(tmp_path_factory.mktemp("text") / "bundle")


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    shutil.copytree(bundle, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def export(bundle: Path, tmp_path: Path) -> Path:
    shutil.copytree(bundle.with_name("export"), tmp_path / "export")
    return tmp_path / "export"


def test_golden_images_are_those_of_diffusers(bundle: Path) -> None:
    inside = read_bundle(bundle)
    assert inside.text is not None
    golden = inside.golden
    images = np.fromfile(bundle / inside.artifacts[0].golden.file, np.uint8).reshape(golden.shape)
    prompts = [golden.prompts[sample.prompt or 0].text for sample in golden.samples]
    seeds = [sample.seed for sample in golden.samples]
    assert len(prompts) == 16
    assert set(prompts) == set(PROMPTS)
    expected = images_of_diffusers(bundle.with_name("sdxs"), prompts, seeds)
    assert min(psnr_db(*pair, data_range=255.0) for pair in zip(images, expected, strict=True)) >= 50
    # Another prompt, or another seed, would be seen.
    assert max(psnr_db(images[0], other, data_range=255.0) for other in expected[1:]) < 30
    assert [list(prompt.tokens) for prompt in golden.prompts] == tokens_of_transformers(
        bundle.with_name("sdxs"), PROMPTS
    )


def test_token_numbers_are_those_of_transformers(bundle: Path) -> None:
    text = read_bundle(bundle).text
    assert text is not None
    prompts = tokenized(bundle / TOKENIZER, text.tokenizer, TRICKY)
    assert [list(prompt.tokens) for prompt in prompts] == tokens_of_transformers(bundle.with_name("sdxs"), TRICKY)
    assert {len(prompt.tokens) for prompt in prompts} == {LENGTH}


def test_a_network_of_v_prediction_makes_what_diffusers_makes(tmp_path: Path) -> None:
    folder = write_pipeline(tmp_path / "sdxs", prediction="v_prediction")
    generator, encoder = load_sources(str(folder), fuse_decoder=True)
    prompts, seeds = ["a red cat", ""], [3, 4]
    tokens = torch.tensor(tokens_of_transformers(folder, prompts))
    noise = torch.from_numpy(np.concatenate([normal(seed, 0, 1, LATENT) for seed in seeds]))
    with torch.no_grad():
        images = generator.module(noise, encoder.module(tokens)).numpy()
    pixels = np.rint((images.clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)
    assert psnr_db(pixels, images_of_diffusers(folder, prompts, seeds), data_range=255.0) >= 50


def test_the_card_says_how_a_prompt_becomes_an_image(bundle: Path) -> None:
    card = (bundle / "README.md").read_text()
    assert "`tokenizer.json` (library tokenizers) splits a prompt into 77 numbers" in card
    assert f"| `{GENERATOR}` | `{ENCODER}` |" in card


def test_verify_runs_the_whole_way(bundle: Path) -> None:
    tokens, images = verify_bundle(bundle, progress=Silent())
    assert (tokens.file, tokens.status) == (TOKENIZER, "ok")
    assert tokens.reason.startswith("the token numbers of 4 prompts, by tokenizers ")
    assert (images.file, images.status) == (GENERATOR, "ok")
    done = CliRunner().invoke(app, ["verify", str(bundle)])
    assert "tokenizer.json: as written; golden tokens: ok" in done.output


def test_without_the_library_the_tokenizer_is_not_checked(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tokenizers" else find(name))
    tokens, images = verify_bundle(bundle, progress=Silent())
    assert tokens.status == "not checked"
    assert "turning prompts into token numbers needs 'tokenizers'" in tokens.reason
    assert images.status == "ok"


def refused(path: Path) -> EdgegenError:
    done = CliRunner().invoke(app, ["verify", str(path)])
    assert isinstance(done.exception, EdgegenError), (done.exception, done.output)
    return done.exception


@pytest.mark.parametrize("file", [ENCODER, TOKENIZER])
@pytest.mark.parametrize("damage", [
    lambda path: path.write_bytes(path.read_bytes()[:-1]),
    lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"),
    Path.unlink,
    lambda path: shutil.copyfile(path.with_name(GENERATOR), path),
])  # fmt: skip
def test_a_damaged_file_is_named(copy: Path, file: str, damage: Callable[[Path], object]) -> None:
    damage(copy / file)
    error = refused(copy)
    assert isinstance(error, DataError)
    assert file in str(error)


def test_another_encoder_makes_other_images(copy: Path) -> None:
    """Its hash is written again, so that only the images tell."""
    model = onnx.load(copy / ENCODER)
    weight = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    replace_file(copy, ENCODER, model.SerializeToString())
    error = refused(copy)
    assert isinstance(error, ParityError)
    assert GENERATOR in str(error)


def test_an_encoder_that_is_none_fails(copy: Path) -> None:
    replace_file(copy, ENCODER, (copy / GENERATOR).read_bytes())
    error = refused(copy)
    assert isinstance(error, ParityError)
    assert "failed" in str(error)


def test_another_tokenizer_is_named(copy: Path) -> None:
    content = json.loads((copy / TOKENIZER).read_text())
    content["model"]["merges"].pop(0)
    replace_file(copy, TOKENIZER, json.dumps(content).encode())
    error = refused(copy)
    assert isinstance(error, ParityError)
    assert 'tokenizer.json: failed: gives other token numbers for "a red cat, sitting' in str(error)
    replace_file(copy, TOKENIZER, b"{}")
    assert "not a file of the library tokenizers" in str(refused(copy))


def _set(path: str, value: object) -> Change:
    def change(manifest: dict[str, Any]) -> None:
        *parents, key = [int(part) if part.isdigit() else part for part in path.split(".")]
        place: Any = manifest
        for parent in parents:
            place = place[parent]
        place[key] = value

    return change


@pytest.mark.parametrize(("change", "message"), [
    (_set("golden.prompts.0.tokens.1", 7), "tokenizer.json: failed: gives other token numbers"),
    (_set("golden.prompts.1.text", "a cat"), "tokenizer.json: failed: gives other token numbers for 'a cat'"),
    (_set("text.tokenizer.pad_id", 3), "tokenizer.json: failed: gives other token numbers"),
    (_set("golden.samples.0.prompt", 2), f"{GENERATOR}: failed"),
])  # fmt: skip
def test_a_changed_prompt_fails(copy: Path, change: Change, message: str) -> None:
    edit_manifest(copy, change)
    error = refused(copy)
    assert isinstance(error, ParityError)
    assert message in str(error)


@pytest.mark.parametrize(("change", "message"), [
    (_set("golden.samples.0.prompt", 9), "golden.samples: one has no prompt"),
    (_set("golden.samples.0.prompt", None), "golden.samples: one has no prompt"),
    (_set("golden.prompts.0.tokens", [1, 2]), "golden.prompts: one has not 77 tokens"),
    (_set("artifacts.0.text_encoder", "other.onnx"), f"{GENERATOR}: other.onnx is no text encoder for onnx"),
    (_set("artifacts.0.text_encoder", None), f"{GENERATOR}: None is no text encoder for onnx"),
    (_set("text.encoders.0.runtime", "executorch"), f"{ENCODER} is no text encoder for onnx"),
    (_set("text.encoders.0.sha256", "0" * 64), f"{ENCODER}: its sha256 and that in `files` differ"),
    (_set("text.encoders.0.hidden_states.shape", ["batch_size", 77, 3]), "does not give what encoder_hidden_states"),
    (_set("text.encoders", []), "text.encoders"),
    (_set("text.input", "sample"), "text.input: sample is no input of 77 tokens with the role text"),
    (_set("text.tokenizer.length", 70), "text.input: encoder_hidden_states is no input of 70 tokens"),
    (_set("text.tokenizer.file", "../tokenizer.json"), "text.tokenizer.file"),
    (_set("text.tokenizer.file", "other.json"), "text.tokenizer: `files` says nothing of other.json"),
    (_set("text", None), "text: is missing, and a text encoder or a prompt is named"),
])  # fmt: skip
def test_a_manifest_that_contradicts_itself_is_refused(copy: Path, change: Change, message: str) -> None:
    edit_manifest(copy, change)
    with pytest.raises(DataError) as caught:
        read_bundle(copy)
    assert message in str(caught.value)


def test_an_export_that_lacks_a_part_makes_no_bundle(export: Path, tmp_path: Path) -> None:
    def refuse(message: str, error: type[EdgegenError] = DataError) -> None:
        with pytest.raises(error, match=message):
            bundle_source(str(export), tmp_path / "new", progress=Silent())
        assert not (tmp_path / "new").exists()

    assert read_text_pipeline(export / "sdxs") is None
    encoder = export / "text_encoder" / MANIFEST
    written = encoder.read_text()
    encoder.write_text(written.replace('"status": "ok"', '"status": "failed"'))
    refuse("sdxs_onnx_fp32.onnx: no text encoder of onnx that passed .* export the pipeline with onnx-fp32", UsageError)
    encoder.write_text(written)
    (export / TOKENIZER).write_bytes(b"{}")
    refuse("tokenizer.json does not hold what was written there")
    (export / TEXT).write_text('{"schema": "edgegen.text/1"}')
    refuse("text.json: generator: Field required; export the pipeline again")
    (export / TEXT).unlink()
    refuse("has the parts of a text pipeline and no text.json.* with --fuse-decoder", UsageError)


def test_an_artifact_gets_the_encoder_of_its_runtime_and_scheme(export: Path) -> None:
    """Else that in float32, and never one that failed."""
    pipeline = read_text_pipeline(export)
    assert pipeline is not None
    (plain,) = TextParts.of(export, pipeline).entries
    generator = {**plain.row, "file": "net.onnx", "scheme": "w8a8"}
    small = replace(plain, row={**plain.row, "file": "small.onnx", "scheme": "w8a8"})
    failed = replace(plain, row={**small.row, "parity": {"status": "failed"}})

    def chosen(*encoders: ManifestEntry, **changes: str) -> str:
        entry = replace(plain, row={**generator, **changes})
        return str(TextParts(export, pipeline, encoders).encoder_of(entry).row["file"])

    assert chosen(plain, small) == "small.onnx"
    assert chosen(plain) == chosen(plain, failed) == ENCODER
    assert chosen(plain, small, scheme="fp32") == ENCODER
    with pytest.raises(UsageError, match=r"net\.onnx: no text encoder of executorch that passed"):
        chosen(plain, small, backend="executorch")


@pytest.mark.slow
@pytest.mark.parametrize(("targets", "floor_db"), [(("executorch-fp32",), 50.0), (("onnx-fp32", "onnx-w8a8"), 15.0)])
def test_other_files_make_images_of_prompts(tmp_path: Path, targets: tuple[str, ...], floor_db: float) -> None:
    place = text_bundle(tmp_path / "bundle", targets)
    inside = read_bundle(place)
    assert inside.text is not None
    assert len(inside.artifacts) == len(targets)
    assert {check.status for check in verify_bundle(place, progress=Silent())} == {"ok"}
    prompts = [inside.golden.prompts[sample.prompt or 0].text for sample in inside.golden.samples]
    expected = images_of_diffusers(place.with_name("sdxs"), prompts, [sample.seed for sample in inside.golden.samples])
    for artifact in inside.artifacts:
        images = np.fromfile(place / artifact.golden.file, np.uint8).reshape(inside.golden.shape)
        assert min(psnr_db(*pair, data_range=255.0) for pair in zip(images, expected, strict=True)) >= floor_db


def test_a_pipeline_without_a_tokenizer_says_so(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle.with_name("sdxs"), tmp_path / "sdxs")
    sources = load_sources(str(tmp_path / "sdxs"), fuse_decoder=True)
    shutil.rmtree(tmp_path / "sdxs" / "tokenizer")
    output = tmp_path / "out"
    output.mkdir()
    (output / TEXT).write_text("of an older export")
    message = write_text_parts(tmp_path / "sdxs", output, sources)
    assert message is not None
    assert "no app can take a prompt: " in message
    assert not (output / TEXT).exists()
    assert write_text_parts(tmp_path / "sdxs", output, sources[:1]) is None


def test_the_same_export_gives_the_same_bytes(bundle: Path, export: Path, tmp_path: Path) -> None:
    again = bundled(export, tmp_path / "bundle")
    for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
        assert (again / path.relative_to(bundle)).read_bytes() == path.read_bytes(), path
