"""`edgegen app ios`: names, folders, and what in a project can be checked without a compiler."""

import json
import plistlib
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from app_bundles import classes_bundle, students_bundle
from typer.testing import CliRunner

from edgegen.apps.ios import ios_plan
from edgegen.apps.names import quoted
from edgegen.apps.project import TEMPLATES, write_app
from edgegen.cli.main import app
from edgegen.errors import ExportError, UsageError
from edgegen.formats.bundle import Bundle
from edgegen.formats.bundle_folder import read_bundle
from edgegen.support.storage import sha256_of

pytestmark = pytest.mark.usefixtures("in_process_of_module")
NAME = """Blüten & "Co's" <1> \\(x)"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, in_process_of_module: None) -> Path:
    place = tmp_path_factory.mktemp("app bundles") / "net"
    return classes_bundle(place, targets=("onnx-fp32", "executorch-fp32", "coreml-fp32"))


@pytest.fixture(scope="module")
def project(bundle: Path) -> Path:
    place = bundle.parent / "a project"
    write_app("ios", bundle, place, name=NAME)
    return place


def project_file(text: str) -> Any:
    """Xcode's project file, a property list in NeXTSTEP's notation: dictionaries, lists and strings."""
    tokens = re.findall(
        r'"(?:\\.|[^"\\])*"|[{}();=,]|[^\s{}();=,"]+', re.sub(r"//.*?$|/\*.*?\*/", "", text, flags=re.M)
    )
    position = 0

    def take(*expected: str) -> str:
        nonlocal position
        position += 1
        token: str = tokens[position - 1]
        assert not expected or token in expected, (expected, tokens[position - 10 : position + 3])
        return token

    def value() -> Any:
        token = take()
        if token == "{":
            pairs: dict[str, Any] = {}
            while tokens[position] != "}":
                key = take().strip('"')
                take("=")
                assert key not in pairs
                pairs[key] = value()
                take(";")
            take("}")
            return pairs
        if token == "(":
            items = []
            while tokens[position] != ")":
                items.append(value())
                take(",")
            take(")")
            return items
        return re.sub(r"\\(.)", r"\1", token[1:-1]) if token.startswith('"') else token

    whole = value()
    assert position == len(tokens)
    return whole


@pytest.fixture(scope="module")
def over_executorch(bundle: Path) -> Path:
    place = bundle.parent / "over ExecuTorch"
    write_app("ios", bundle, place, name=NAME, runtime="executorch")
    return place


def settings_of(project: Path) -> list[dict[str, str]]:
    """Of each configuration: of the project, of the app, of its tests."""
    (path,) = project.glob("*.xcodeproj/project.pbxproj")
    objects = project_file(path.read_text())["objects"].values()
    return [item["buildSettings"] for item in objects if item["isa"] == "XCBuildConfiguration"]


@pytest.mark.parametrize("name", ["project", "over_executorch"])
def test_the_project_refers_to_what_is_there(name: str, request: pytest.FixtureRequest) -> None:
    project = request.getfixturevalue(name)
    content = project_file((project / "blutencos1x.xcodeproj/project.pbxproj").read_text())
    objects = content["objects"]
    kinds = {key: item["isa"] for key, item in objects.items()}
    assert kinds[content["rootObject"]] == "PBXProject"
    keys = re.findall(r"\bED\d{22}\b", json.dumps([content["rootObject"], *objects.values()]))
    assert set(keys) == set(objects)  # nothing refers to nothing, and nothing is left over
    paths = [item["path"] for item in objects.values() if item.get("sourceTree") == "<group>" and "path" in item]
    paths += [item["relativePath"] for item in objects.values() if "relativePath" in item]
    assert sorted(paths) == ["App", "AppTests", "EdgegenKit", "EdgegenRuntime", "bundle"]
    assert all((project / path).is_dir() for path in paths)
    names = {item["buildSettings"].get("INFOPLIST_KEY_CFBundleDisplayName") for item in objects.values()
             if item["isa"] == "XCBuildConfiguration"}  # fmt: skip
    assert names == {None, NAME}
    products = {item["productName"] for item in objects.values() if item["isa"] == "XCSwiftPackageProductDependency"}
    packages = [(project / name / "Package.swift").read_text() for name in ("EdgegenKit", "EdgegenRuntime")]
    assert products == {name for text in packages for name in re.findall(r'\.library\(name: "(\w+)"', text)}
    assert {path.name for path in project.iterdir()} >= {"App", "EdgegenKit", "EdgegenRuntime"}
    assert not (project / "runtimes").exists()
    sources = [path.name for path in (project / "EdgegenRuntime").rglob("*") if path.is_file()]
    assert sorted(sources) == ["DeviceRuntime.swift", "Package.swift"]


def test_the_model_and_what_proves_it_are_in_the_app(bundle: Path, project: Path) -> None:
    inside = read_bundle(project / "bundle")
    assert inside == read_bundle(bundle)
    artifact = next(row for row in inside.artifacts if row.runtime == "coreml")
    there = {
        path.relative_to(project / "bundle").as_posix() for path in (project / "bundle").rglob("*") if path.is_file()
    }
    needed = {file.path for file in inside.files if artifact.holds(file.path)} | {artifact.golden.file, "README.md"}
    assert len(needed) > 3
    assert there == needed | {"manifest.json", "manifest.json.sha256"}
    hashes = {file.path: file.sha256 for file in inside.files}
    assert {path: sha256_of(project / "bundle" / path) for path in needed} == {path: hashes[path] for path in needed}
    assert f'artifactFile = "{artifact.file}"' in (project / "App/GeneratorModel.swift").read_text()


def test_no_placeholder_is_left_and_property_lists_are_read(project: Path) -> None:
    sources = [
        path for path in project.rglob("*") if path.is_file() and "bundle" not in path.relative_to(project).parts
    ]
    assert {path.suffix for path in sources} >= {".swift", ".pbxproj", ".xcprivacy", ".md"}
    for path in sources:
        assert "{{" not in path.read_text(), path
    readme = (project / "README.md").read_text()
    assert "generate(seed: 42, label: 3)" in readme
    assert "in Core ML" in readme
    assert "ExecuTorch" not in readme
    privacy = plistlib.loads((project / "App/PrivacyInfo.xcprivacy").read_bytes())
    assert privacy["NSPrivacyTracking"] is False
    assert (project / ".gitignore").is_file()
    assert not list((TEMPLATES / "ios").rglob(".gitignore"))


def test_a_title_is_a_literal_of_swift(project: Path) -> None:
    """Swift reads \\(...) in a string as code."""
    view = (project / "App/ContentView.swift").read_text()
    assert r'Text(verbatim: "Blüten & \"Co' "'" r's\" <1> \\(x)")' in view
    assert quoted('a\\b"c') == r'"a\\b\"c"'


def test_the_same_bundle_and_name_give_the_same_bytes(bundle: Path, project: Path, tmp_path: Path) -> None:
    write_app("ios", bundle, tmp_path / "again", name=NAME)

    def content(folder: Path) -> dict[str, bytes]:
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert content(project) == content(tmp_path / "again")


def test_a_bundle_without_a_core_ml_file_is_refused_by_name(bundle: Path, tmp_path: Path) -> None:
    other = classes_bundle(tmp_path / "other", targets=("onnx-fp32",))
    with pytest.raises(
        UsageError,
        match=r"coreml or executorch that .*: it has net_onnx.*; make it with one, e\.g\. --artifact coreml-fp32",
    ):
        write_app("ios", other, tmp_path / "out", name="Net")
    with pytest.raises(UsageError, match=r"no runtime of iOS 'onnx'; there are: coreml, executorch\."):
        write_app("ios", bundle, tmp_path / "out", name="Net", runtime="onnx")
    with pytest.raises(UsageError, match=r"has a \$, which Xcode reads as a variable"):
        write_app("ios", bundle, tmp_path / "out", name="$(HOME)")
    assert not (tmp_path / "out").exists()


def test_a_prompt_is_refused_by_name(bundle: Path) -> None:
    inside = read_bundle(bundle)
    artifacts = tuple(row.model_copy(update={"text_encoder": "text.mlpackage"}) for row in inside.artifacts)
    with pytest.raises(UsageError, match=r"net_coreml_fp32\.mlpackage takes a prompt, .* web and Android apps"):
        ios_plan(inside.model_copy(update={"artifacts": artifacts}), bundle, name="Net")


def changed(bundle: Path, runtime: str, **values: object) -> Bundle:
    """The bundle with one of its artifacts alone, and other facts of that."""
    inside = read_bundle(bundle)
    artifacts = tuple(row.model_copy(update=values) for row in inside.artifacts if row.runtime == runtime)
    return inside.model_copy(update={"artifacts": artifacts})


def test_an_app_over_executorch(bundle: Path, project: Path, over_executorch: Path) -> None:
    """Only the app is linked with -all_load, and nothing else links the packages: a second copy has no backends."""
    package = (over_executorch / "EdgegenRuntime/Package.swift").read_text()
    products = set(re.findall(r'\.product\(name: "(\w+)", package: "executorch"\)', package))
    assert products == {"executorch", "backend_xnnpack", "kernels_optimized"}
    (branch,) = re.findall(r'executorch\.git", branch: "swiftpm-([\d.]+)"', package)
    assert f"`swiftpm-{branch}`" in (over_executorch / "README.md").read_text()
    assert "unsafeFlags" not in package
    assert [settings.get("OTHER_LDFLAGS") for settings in settings_of(over_executorch) if "TEST_HOST" not in settings
            and "PRODUCT_NAME" in settings] == ["$(inherited) -all_load"] * 2  # fmt: skip
    assert sum("OTHER_LDFLAGS" in settings for settings in settings_of(over_executorch)) == 2
    assert not any("OTHER_LDFLAGS" in settings for settings in settings_of(project))
    assert (
        "import ExecuTorch"
        in (over_executorch / "EdgegenRuntime/Sources/EdgegenRuntime/DeviceRuntime.swift").read_text()
    )
    assert (over_executorch / "bundle/net_executorch_fp32.pte").is_file()
    plan = ios_plan(changed(bundle, "executorch", variant="coreml", scheme="w8a8"), bundle, name="Net")
    assert (plan.values["delegate"], plan.values["quantized"]) == ("backend_coreml", "yes")
    with pytest.raises(
        UsageError, match=r"net_executorch_fp32\.pte is for vulkan, and the app's libraries have XNNPACK"
    ):
        ios_plan(changed(bundle, "executorch", variant="vulkan"), bundle, name="Net")


@pytest.mark.parametrize(
    ("version", "ios", "xcode"), [(7, "17.0", "16"), (8, "17.0", "16"), (9, "18.0", "16"), (10, "26.0", "26")]
)
def test_the_oldest_system_is_that_of_the_file(
    bundle: Path, tmp_path: Path, version: int, ios: str, xcode: str
) -> None:
    inside = read_bundle(bundle)
    (file,) = (row.file for row in inside.artifacts if row.runtime == "coreml")
    shutil.copytree(bundle / file, tmp_path / file)
    (model,) = (tmp_path / file).rglob("*.mlmodel")
    model.write_bytes(bytes([8, version]) + model.read_bytes()[2:])
    plan = ios_plan(inside, tmp_path, name="Net")
    assert (plan.values["ios"], plan.values["xcode"]) == (ios, xcode)
    model.write_bytes(bytes([8, 99]) + model.read_bytes()[2:])
    with pytest.raises(UsageError, match=r"net_coreml_fp32\.mlpackage: has version 99 of Core ML's specification"):
        ios_plan(inside, tmp_path, name="Net")
    model.write_bytes(b"")
    with pytest.raises(
        ExportError, match=r"cannot read the Core ML package net_coreml_fp32\.mlpackage .*begins with b''"
    ):
        ios_plan(inside, tmp_path, name="Net")


def test_the_oldest_system_is_in_the_project(project: Path) -> None:
    assert [settings["IPHONEOS_DEPLOYMENT_TARGET"] for settings in settings_of(project) if "SDKROOT" in settings] == [
        "17.0"
    ] * 2
    assert '.iOS("17.0")' in (project / "EdgegenRuntime/Package.swift").read_text()


def test_an_image_of_core_ml_s_is_shown(bundle: Path) -> None:
    """What `coreml-...:generate` gives, a CVPixelBuffer."""
    inside = read_bundle(bundle)
    (artifact,) = (row for row in inside.artifacts if row.runtime == "coreml")
    (method,) = artifact.methods
    image = method.output.model_copy(update={"dtype": "uint8", "layout": "CVPixelBuffer"})
    methods = (method.model_copy(update={"output": image}),)
    plan = ios_plan(changed(bundle, "coreml", methods=methods), bundle, name="Net")
    assert plan.values["models"] == f"`{artifact.file}`"


def test_all_students_are_in_the_app(tmp_path: Path) -> None:
    nets = students_bundle(tmp_path / "nets", targets=("coreml-fp32",))
    files = [f"net-{number}_coreml_fp32.mlpackage" for number in range(2)]
    plan = write_app("ios", nets, tmp_path / "out", name="Nets")
    assert plan.shown[0].startswith(", ".join(files))
    for file in files:
        assert (tmp_path / "out/bundle" / file / "Manifest.json").is_file()
    readme = (tmp_path / "out/README.md").read_text()
    assert ", ".join(f"`{file}`" for file in files) in readme
    (model,) = (nets / files[1]).rglob("*.mlmodel")
    model.write_bytes(bytes([8, 9]) + model.read_bytes()[2:])
    assert ios_plan(read_bundle(nets), nets, name="Nets").values["ios"] == "18.0"  # one of them needs it


def test_the_command_says_what_to_do_next(bundle: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["app", "ios", str(bundle), "--name", "Import", "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "com.example.appimport" in done.output
    assert (tmp_path / "out/appimport.xcodeproj/project.pbxproj").is_file()
