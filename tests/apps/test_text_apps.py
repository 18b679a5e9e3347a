"""Projects that take a prompt: their files."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from app_bundles import photo_bundle
from bundles import bundled
from text_pipelines import text_bundle

from edgegen.apps.project import TEMPLATES, filled, write_app
from edgegen.apps.web import web_plan
from edgegen.errors import UsageError
from edgegen.formats.bundle_folder import read_bundle

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("in_process_of_module")]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, in_process_of_module: None) -> Path:
    return text_bundle(tmp_path_factory.mktemp("text app") / "bundle")


@pytest.fixture(scope="module")
def project(bundle: Path) -> Path:
    write_app("android", bundle, bundle.with_name("project"), name="Words")
    return bundle.with_name("project")


def texts_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".png"]


def test_tokenizer_and_encoder_come_along(bundle: Path, project: Path) -> None:
    assets = project / "app/src/main/assets/bundle"
    there = {path.relative_to(assets).as_posix() for path in assets.rglob("*") if path.is_file()}
    models = {"sdxs_onnx_fp32.onnx", "text_encoder_onnx_fp32.onnx", "tokenizer.json"}
    golden = "golden/sdxs_onnx_fp32.onnx.u8"
    assert there == models | {golden, "README.md", "manifest.json", "manifest.json.sha256"}
    assert read_bundle(assets) == read_bundle(bundle)


def test_the_library_is_pinned_and_nothing_is_left_of_the_template(project: Path) -> None:
    catalogue = tomllib.loads((project / "gradle/libs.versions.toml").read_text())
    names = {"djl-tokenizers", "djl-tokenizers-native", "fbjni"}
    assert names <= set(catalogue["libraries"])
    build = (project / "app/build.gradle.kts").read_text()
    used = set(re.findall(r"(?:implementation|runtimeOnly)\(libs\.((?:\w+\.)*\w+)\)", build))
    assert {name.replace("-", ".") for name in names} <= used
    assert used <= {name.replace("-", ".") for name in catalogue["libraries"]}
    texts = [path for path in project.rglob("*") if path.is_file() and "assets" not in path.parts]
    assert [path for path in texts if "{{" in path.read_text()] == []
    assert 'prompt = "a red cat"' in (project / "README.md").read_text()


def test_a_page_has_its_tokenizer_in_the_lock_file(bundle: Path, tmp_path: Path) -> None:
    write_app("web", bundle, tmp_path / "page", name="Words")
    package = json.loads((tmp_path / "page/package.json").read_text())
    lock = json.loads((tmp_path / "page/package-lock.json").read_text())
    assert package["dependencies"] == lock["packages"][""]["dependencies"]
    row = lock["packages"]["node_modules/@huggingface/tokenizers"]
    assert row["version"] == package["dependencies"]["@huggingface/tokenizers"]
    assert row["integrity"].startswith("sha512-")
    assert list(lock["packages"]) == sorted(lock["packages"])
    assert "@huggingface/tokenizers" in (tmp_path / "page/src/tokenizer.ts").read_text()
    there = {path.name for path in (tmp_path / "page/public/bundle").iterdir()}
    assert {"tokenizer.json", "text_encoder_onnx_fp32.onnx", "sdxs_onnx_fp32.onnx"} <= there
    texts = [path for path in texts_in(tmp_path / "page") if "bundle" not in path.parts]
    assert [path for path in texts if "{{" in path.read_text()] == []
    inside = read_bundle(bundle)
    assert inside.text is not None
    (encoder,) = inside.text.encoders
    other = encoder.model_copy(update={"file": "text_encoder.pte", "runtime": "executorch"})
    both = inside.model_copy(update={"text": inside.text.model_copy(update={"encoders": (other, encoder)})})
    assert "text_encoder.pte" not in web_plan(both, bundle, name="Words").assets  # what no page runs
    assert '{ prompt: "a red cat" }' in (tmp_path / "page/README.md").read_text()


def test_sections_of_a_template() -> None:
    template = "a\n{{#text}}\n  b {{name}}\n{{/text}}\nc\n"
    assert filled(template, {"text": "yes", "name": "x"}) == "a\n  b x\nc\n"
    assert filled(template, {"text": "", "name": "x"}) == "a\nc\n"


def test_no_section_stands_in_code() -> None:
    paths = [path for path in texts_in(TEMPLATES) if "{{#" in path.read_text()]
    assert {path.name for path in paths} == {
        "build.gradle.kts", "libs.versions.toml", "package-lock.json", "package.json", "proguard-rules.pro",
        "Package.swift", "project.pbxproj", "README.md",
    }  # fmt: skip


def test_a_project_without_text_has_no_tokenizer(bundle: Path, tmp_path: Path) -> None:
    """And of a generator alone, whose hidden states no app can make, there is none."""
    photo = photo_bundle(tmp_path / "photo")
    for platform in ("android", "web"):
        write_app(platform, photo, tmp_path / platform, name="Enlarge")
        paths = [path for path in texts_in(tmp_path / platform) if "bundle" not in path.parts]
        text = "\n".join(path.read_text() for path in paths)
        assert not re.search(r"djl|fbjni =|huggingface", text)
        assert "was made without a tokenizer" in text
        assert not [path for path in paths if "tokenizers" in path.parts]
    alone = bundled(bundle.with_name("export") / "sdxs", tmp_path / "alone")
    for platform in ("android", "web"):
        with pytest.raises(
            UsageError, match=r"needs 'encoder_hidden_states' \(text, float32\), which the app does not"
        ):
            write_app(platform, alone, tmp_path / "none", name="Words")
