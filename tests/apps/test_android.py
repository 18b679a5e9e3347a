"""`edgegen app android`: names, folders, and what in a project can be checked without a compiler."""

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from app_bundles import classes_bundle, photo_bundle
from bundles import edit_manifest
from typer.testing import CliRunner

from edgegen.apps.names import identifier
from edgegen.apps.project import TEMPLATES, write_app
from edgegen.cli.main import app
from edgegen.errors import DataError, UsageError
from edgegen.formats.bundle import Bundle
from edgegen.formats.bundle_folder import read_bundle
from edgegen.formats.bundle_zip import write_zip
from edgegen.support.storage import sha256_of

pytestmark = pytest.mark.usefixtures("in_process_of_module")
NAME = """Blüten & "Co's" <1>"""
SOURCES = (".kt", ".kts", ".xml", ".toml", ".properties", ".pro", ".md", ".gitignore")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, in_process_of_module: None) -> Path:
    return classes_bundle(tmp_path_factory.mktemp("app bundles") / "net")


@pytest.fixture(scope="module")
def project(bundle: Path) -> Path:
    place = bundle.parent / "project"
    write_app("android", bundle, place, name=NAME)
    return place


def texts(project: Path) -> dict[str, str]:
    """The sources by path, without what comes from the bundle."""
    paths = [path for path in project.rglob("*") if path.is_file() and "assets" not in path.parts]
    return {path.relative_to(project).as_posix(): path.read_text() for path in paths}


def test_the_model_and_what_proves_it_are_in_the_assets(bundle: Path, project: Path) -> None:
    assets = project / "app/src/main/assets/bundle"
    inside = read_bundle(assets)
    assert inside == read_bundle(bundle)
    artifact = next(row for row in inside.artifacts if row.runtime == "executorch")
    there = {path.relative_to(assets).as_posix() for path in assets.rglob("*") if path.is_file()}
    needed = {artifact.file, artifact.golden.file, "README.md"}
    assert there == needed | {"manifest.json", "manifest.json.sha256"}
    hashes = {file.path: file.sha256 for file in inside.files}
    assert {path: sha256_of(assets / path) for path in needed} == {path: hashes[path] for path in needed}
    assert f'ARTIFACT = "{artifact.file}"' in (project / "app/src/main/kotlin/ModelFiles.kt").read_text()


def test_all_files_are_read_by_parsers_of_their_languages(project: Path) -> None:
    for path in project.rglob("*.xml"):
        ElementTree.parse(path)
    catalogue = tomllib.loads((project / "gradle/libs.versions.toml").read_text())
    assert set(catalogue) == {"versions", "libraries", "plugins"}
    strings = ElementTree.parse(project / "app/src/main/res/values/strings.xml").getroot()
    assert strings[0].text == r"Blüten & \"Co\'s\" <1>"
    tree_sitter = pytest.importorskip("tree_sitter", reason="no tree-sitter: pip install 'edgegen[test]'")
    language = pytest.importorskip("tree_sitter_kotlin", reason="no tree-sitter-kotlin: pip install 'edgegen[test]'")
    parser = tree_sitter.Parser(tree_sitter.Language(language.language()))
    sources = [*project.rglob("*.kts")]  # a compiler reads the others in test_android_kotlin.py
    assert len(sources) == 5
    for path in sources:
        assert not parser.parse(path.read_bytes()).root_node.has_error, path
    assert parser.parse(b"android { compileSdk = }").root_node.has_error


def test_every_version_stands_in_the_catalogue_and_everything_in_it_is_used(project: Path) -> None:
    catalogue = tomllib.loads((project / "gradle/libs.versions.toml").read_text())
    builds = {path: text for path, text in texts(project).items() if path.endswith(".kts")}
    for path, text in builds.items():
        assert not re.search(r"\d+\.\d+\.\d+", text), path
    used = set(re.findall(r"\blibs\.((?:\w+\.)*\w+)", "\n".join(builds.values())))
    used = {name.removesuffix(".get") for name in used} - {"versions.toml"}  # which a comment names
    defined = {f"versions.{name}" for name in catalogue["versions"]}
    defined |= {f"plugins.{name.replace('-', '.')}" for name in catalogue["plugins"]}
    defined |= {name.replace("-", ".") for name in catalogue["libraries"]}
    assert used <= defined
    referred = {f"versions.{row['version']['ref']}" for table in ("libraries", "plugins") for row in
                catalogue[table].values() if "version" in row}  # fmt: skip
    assert referred <= defined
    other = {"onnxruntime", "versions.onnxruntime"}  # the runtime that this project has not
    assert defined - used - referred == other - referred


def test_resources_and_classes_that_are_named_are_there(project: Path) -> None:
    sources = texts(project)
    kotlin = "\n".join(text for path, text in sources.items() if path.endswith(".kt"))
    strings = ElementTree.parse(project / "app/src/main/res/values/strings.xml").getroot()
    manifest = sources["app/src/main/AndroidManifest.xml"]
    used = set(re.findall(r"R\.string\.(\w+)", kotlin)) | set(re.findall(r"@string/(\w+)", manifest))
    assert used == {row.get("name") for row in strings}
    for kind, name in re.findall(r'"@(drawable|style)/([\w.]+)"', manifest):
        resources = "\n".join(text for path, text in sources.items() if "/res/" in path)
        assert f"drawable/{name}.xml" in "\n".join(sources) if kind == "drawable" else f'name="{name}"' in resources
    for name in re.findall(r'android:name="\.(\w+)"', manifest):
        assert f"class {name}" in kotlin
    for module in re.findall(r'":(\w+)"', sources["settings.gradle.kts"]):
        assert f"{module}/build.gradle.kts" in sources


def test_no_placeholder_is_left_and_none_is_unknown(project: Path) -> None:
    assert {path for path, text in texts(project).items() if "{{" in text} == set()
    assert {Path(path).suffix or Path(path).name for path in texts(project)} <= {*SOURCES, ".edgegen-app"}
    assert (project / ".gitignore").is_file()
    assert len(texts(project)) > 30


def test_the_same_input_gives_the_same_bytes(bundle: Path, project: Path, tmp_path: Path) -> None:
    place = tmp_path / "a folder" / "again"
    write_app("android", bundle, place, name=NAME)
    files = {path.relative_to(project): path.read_bytes() for path in project.rglob("*") if path.is_file()}
    assert files == {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert [path.name for path in place.parent.iterdir()] == ["again"]
    write_zip(bundle, tmp_path / "net.zip")
    write_app("android", tmp_path / "net.zip", tmp_path / "of a zip", name=NAME)
    place = tmp_path / "of a zip"
    assert files == {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_the_runtime_follows_the_bundle_or_the_option(bundle: Path, tmp_path: Path) -> None:
    write_app("android", bundle, tmp_path / "onnx", name="Net", runtime="onnx")
    build = (tmp_path / "onnx/app/build.gradle.kts").read_text()
    assert "implementation(libs.onnxruntime)" in build
    assert "executorch)" not in build
    assert "OrtSession" in (tmp_path / "onnx/app/src/main/kotlin/ModelRuntime.kt").read_text()
    assert not (tmp_path / "onnx/runtimes").exists()
    photo = photo_bundle(tmp_path / "photo")
    write_app("android", photo, tmp_path / "enlarge", name="Enlarge")
    assets = tmp_path / "enlarge/app/src/main/assets/bundle"
    assert (assets / "golden/input-0.bin").is_file()
    assert "OrtSession" in (tmp_path / "enlarge/app/src/main/kotlin/ModelRuntime.kt").read_text()
    with pytest.raises(UsageError, match=r"no file of executorch that the Android app can run: it has x2_onnx"):
        write_app("android", photo, tmp_path / "none", name="Enlarge", runtime="executorch")
    with pytest.raises(UsageError, match=r"no runtime of Android 'onxn'.*Did you mean 'onnx'"):
        write_app("android", photo, tmp_path / "none", name="Enlarge", runtime="onxn")
    with pytest.raises(UsageError, match=r"no platform 'windows'; there are: android, ios, web"):
        write_app("windows", photo, tmp_path / "none", name="Enlarge")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda row: row.update(variant="vulkan"), "is for vulkan, and the app's library has XNNPACK"),
        (
            lambda row: row.update(runtime="onnx", variant="qnn"),
            "is for Snapdragon's NPU, and the app's library has no",
        ),
        (lambda row: row.update(batch=4), "takes 4 samples at once, and the app makes one"),
        (lambda row: row["inputs"][1].update(role="text"), r"needs 'class_labels' \(text, int64\)"),
        (lambda row: row["inputs"][0].update(dtype="float16"), r"needs 'sample' \(noise, float16\)"),
        (lambda row: [m["output"].update(dtype="int32") for m in row["methods"]], "gives no image of float32 or uint8"),
    ],
)
def test_files_that_the_app_cannot_run_are_named(bundle: Path, change: Callable[..., object], reason: str) -> None:
    content = json.loads((bundle / "manifest.json").read_text())
    content["artifacts"] = [row for row in content["artifacts"] if row["runtime"] == "executorch"]
    change(content["artifacts"][0])
    from edgegen.apps.android import android_plan

    with pytest.raises(UsageError, match=rf"the Android app can run: net_executorch_fp32.pte {reason}"):
        android_plan(Bundle.model_validate_json(json.dumps(content), strict=True), bundle, name="Net")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Flowers", "flowers"),
        ("My  App", "myapp"),
        ("Blüten & Straße", "blutenstrasse"),
        ("class", "appclass"),
        ("When", "appwhen"),
        ("native", "appnative"),
        ("3D", "app3d"),
        ('"$x" `y`', "xy"),
        ("../../etc", "etc"),
        ("Ölgemälde 2", "olgemalde2"),
    ],
)
def test_names_become_identifiers(name: str, expected: str) -> None:
    assert identifier(name) == expected
    assert re.fullmatch(r"[a-z][a-z0-9]*", expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "--name: is empty"),
        ("  \n ", "--name: is empty"),
        ("花", "has no letter a-z and no digit"),
        ("x" * 51, "has 51 characters; at most 50"),
        ("a\x07b", "has characters that nothing prints"),
    ],
)
def test_names_that_nothing_accepts_are_refused(bundle: Path, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        write_app("android", bundle, tmp_path / "app", name=name)
    assert list(tmp_path.iterdir()) == []


def test_texts_of_the_name_are_quoted_where_they_stand(bundle: Path, tmp_path: Path) -> None:
    for position, (name, expected) in enumerate(
        [("@home", r"\@home"), ("?", None), ("a{{package}}b", "a{{package}}b"), ("50% & 'x'", r"50% & \'x\'")]
    ):
        place = tmp_path / str(position)
        if expected is None:
            with pytest.raises(UsageError, match="no letter"):
                write_app("android", bundle, place, name=name)
            continue
        write_app("android", bundle, place, name=name)
        root = ElementTree.parse(place / "app/src/main/res/values/strings.xml").getroot()
        assert root[0].text == expected


def test_folders_with_other_files_stay_as_they_are(bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "app"
    write_app("android", bundle, place, name="One")
    with pytest.raises(UsageError, match="is an app already; --force replaces it"):
        write_app("android", bundle, place, name="Two")
    assert "# One" in (place / "README.md").read_text()
    (place / "old.txt").write_text("")
    write_app("android", bundle, place, name="Two", force=True)
    assert "# Two" in (place / "README.md").read_text()
    assert not (place / "old.txt").exists()
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("x")
    (tmp_path / "link").symlink_to(foreign)
    for target, message in (
        (foreign, "is a folder with other files"),
        (foreign / "thesis.tex", "is no folder"),
        (tmp_path / "link", "is no folder"),
        (bundle, "holds the bundle"),
        (bundle.parent, "holds the bundle"),
        (bundle / "app", "or lies in it"),
    ):
        with pytest.raises(UsageError, match=message):
            write_app("android", bundle, target, name="Two", force=True)
    assert (foreign / "thesis.tex").read_text() == "x"


def test_a_damaged_bundle_gives_no_app(bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    content = (copy / "net_executorch_fp32.pte").read_bytes()
    (copy / "net_executorch_fp32.pte").write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"net_executorch_fp32.pte: has \d+ bytes"):
        write_app("android", copy, tmp_path / "app", name="Net")
    (copy / "net_executorch_fp32.pte").write_bytes(content)
    edit_manifest(copy, lambda manifest: manifest.update(schema="edgegen.bundle/9"))
    with pytest.raises(DataError, match=r"edgegen\.bundle/9"):
        write_app("android", copy, tmp_path / "app", name="Net")
    assert not (tmp_path / "app").exists()


def test_the_command(bundle: Path, tmp_path: Path) -> None:
    arguments = ["app", "android", str(bundle), "--name", "Net", "-o", str(tmp_path / "app")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "net_executorch_fp32.pte in executorch, package com.example.net" in done.output
    done = CliRunner().invoke(app, [*arguments, "--force", "--json"])
    assert json.loads(done.stdout)["values"]["package"] == "com.example.net"


def test_templates_are_text_without_names_of_machines() -> None:
    for path in (TEMPLATES / "android").rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert text.endswith("\n")
            assert "/home/" not in text
