"""`edgegen app web`: names, files, and what in a project can be checked without npm."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from app_bundles import classes_bundle, photo_bundle, students_bundle
from bundles import edit_manifest
from typer.testing import CliRunner

from edgegen.apps.project import TEMPLATES, write_app
from edgegen.apps.web import web_plan
from edgegen.cli.main import app
from edgegen.errors import DataError, UsageError
from edgegen.formats.bundle import Bundle
from edgegen.formats.bundle_folder import read_bundle
from edgegen.profilers.devices import browser
from edgegen.support.storage import sha256_of

pytestmark = pytest.mark.usefixtures("in_process_of_module")
NAME = """Blüten & "Co's" <1> {{x}}"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, in_process_of_module: None) -> Path:
    return classes_bundle(tmp_path_factory.mktemp("page bundles") / "net")


@pytest.fixture(scope="module")
def project(bundle: Path) -> Path:
    place = bundle.parent / "a project"
    write_app("web", bundle, place, name=NAME)
    return place


class Page(HTMLParser):
    """The title, and what the page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.places: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.places += [value or "" for name, value in attrs if name in ("href", "src")]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_only_onnx_files_and_what_proves_them_are_in_the_page(bundle: Path, project: Path) -> None:
    inside = project / "public/bundle"
    there = {path.relative_to(inside).as_posix() for path in inside.rglob("*") if path.is_file()}
    model = "net_onnx_fp32.onnx"
    assert there == {"manifest.json", "manifest.json.sha256", "README.md", model, f"golden/{model}.u8"}
    assert {path: sha256_of(inside / path) for path in there} == {path: sha256_of(bundle / path) for path in there}
    assert read_bundle(inside) == read_bundle(bundle)
    assert f'MODELS: readonly string[] = ["{model}"];' in (project / "src/config.ts").read_text()


def test_the_pictures_that_are_given_come_along(tmp_path: Path) -> None:
    write_app("web", photo_bundle(tmp_path / "photo"), tmp_path / "app", name="Enlarge")
    assert (tmp_path / "app/public/bundle/golden/input-0.bin").is_file()
    assert "generator.generate(42, { image: photo })" in (tmp_path / "app/README.md").read_text()


def test_the_files_of_all_students_come_along(tmp_path: Path) -> None:
    bundle = students_bundle(tmp_path / "nets", targets=("onnx-fp32",))
    plan = web_plan(read_bundle(bundle), bundle, name="Nets")
    models = {path for path in plan.assets if path.endswith(".onnx")}
    assert models == {"net-0_onnx_fp32.onnx", "net-1_onnx_fp32.onnx"}
    assert json.loads(plan.values["models"]) == ["net-0_onnx_fp32.onnx"]  # one model, of which people choose classes


def test_names_are_quoted_where_they_stand(project: Path) -> None:
    page = Page((project / "index.html").read_text())
    assert page.texts.count(NAME) == 2
    assert json.loads((project / "public/app.webmanifest").read_text())["name"] == NAME
    assert json.loads((project / "package.json").read_text())["name"] == "blutencos1x"
    assert (project / "README.md").read_text().startswith(f"# {NAME}\n")


def test_what_the_page_refers_to_is_there_and_nothing_comes_from_another_host(project: Path) -> None:
    page = Page((project / "index.html").read_text())
    assert len(page.places) >= 4
    for place in page.places:
        assert place.startswith("./")  # below any folder of a host
        assert any((folder / place).is_file() for folder in (project, project / "public")), place
    main = (project / "src/main.ts").read_text()
    assert set(re.findall(r'element(?:<\w+>)?\("([\w-]+)"\)', main)) <= set(page.ids)
    icons = json.loads((project / "public/app.webmanifest").read_text())["icons"]
    assert all((project / "public" / icon["src"]).is_file() for icon in icons)
    for path in (project / "src").iterdir():
        for module in re.findall(r'from "\./([\w-]+)"', path.read_text()):
            assert (project / f"src/{module}.ts").is_file(), f"{path.name}: {module}"
        assert not re.search(r"https?://(?!www\.w3\.org)", path.read_text()), path


def test_versions_are_pinned_once(project: Path) -> None:
    package = json.loads((project / "package.json").read_text())
    lock = json.loads((project / "package-lock.json").read_text())
    wanted = package["dependencies"] | package["devDependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
    assert wanted["onnxruntime-web"] == browser.VERSION  # what `edgegen profile --device browser` measures
    root = lock["packages"][""]
    assert root["name"] == lock["name"] == package["name"]
    assert root["dependencies"] | root["devDependencies"] == wanted
    for name, version in wanted.items():
        assert lock["packages"][f"node_modules/{name}"]["version"] == version
    others = {path: row for path, row in lock["packages"].items() if path}
    assert all(row["integrity"].startswith("sha512-") for row in others.values())
    hosts = {row.get("resolved", "https://registry.npmjs.org/").split("/")[2] for row in others.values()}
    assert hosts == {"registry.npmjs.org"}


def test_no_placeholder_is_left_and_the_same_input_gives_the_same_bytes(
    bundle: Path, project: Path, tmp_path: Path
) -> None:
    there = [path for path in project.rglob("*") if path.is_file() and "bundle" not in path.parts]
    sources = [path for path in there if path.suffix != ".png"]
    assert len(sources) > 20
    assert [path for path in sources if "{{" in path.read_text().replace(NAME, "")] == [
        # as HTML and JSON have the name
        path for path in sources if path.name in ("index.html", "app.webmanifest")
    ]  # fmt: skip
    assert (project / ".gitignore").read_text() == "node_modules/\ndist/\n"
    write_app("web", bundle, tmp_path / "again", name=NAME)
    files = {path.relative_to(project): path.read_bytes() for path in project.rglob("*") if path.is_file()}
    again = {path.relative_to(tmp_path / "again"): path for path in (tmp_path / "again").rglob("*") if path.is_file()}
    assert files == {path: place.read_bytes() for path, place in again.items()}


def test_bundles_without_a_file_for_pages_are_refused(bundle: Path, tmp_path: Path) -> None:
    content = json.loads((bundle / "manifest.json").read_text())
    rows = content["artifacts"]
    (onnx,) = (row for row in rows if row["runtime"] == "onnx")

    def plan(*artifacts: object) -> None:
        changed = Bundle.model_validate_json(json.dumps(content | {"artifacts": artifacts}), strict=True)
        web_plan(changed, bundle, name="Net")

    with pytest.raises(UsageError, match=r"no \.onnx file that a page can run: it has net_executorch_fp32\.pte;"):
        plan(*(row for row in rows if row is not onnx))
    with pytest.raises(UsageError, match=r"net_onnx_fp32\.onnx takes 4 samples at once, and the app makes one"):
        plan(onnx | {"batch": 4})
    image = onnx["inputs"][0] | {"role": "image", "low": 0.0, "high": 1.0}
    with pytest.raises(UsageError, match=r"net_onnx_fp32\.onnx takes several images, and the app gives it one"):
        plan(onnx | {"inputs": [image, image | {"name": "class_labels"}]})
    with pytest.raises(UsageError, match=r"no runtime of pages 'executorch'; there are: onnx"):
        write_app("web", bundle, tmp_path / "none", name="Net", runtime="executorch")
    assert not (tmp_path / "none").exists()


def test_folders_with_other_files_stay_as_they_are(bundle: Path, tmp_path: Path) -> None:
    write_app("web", bundle, tmp_path / "app", name="One")
    with pytest.raises(UsageError, match="is an app already; --force replaces it"):
        write_app("web", bundle, tmp_path / "app", name="Two")
    assert "# One" in (tmp_path / "app/README.md").read_text()
    write_app("web", bundle, tmp_path / "app", name="Two", force=True)
    assert "# Two" in (tmp_path / "app/README.md").read_text()


def test_the_command_says_what_to_do_next(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "a bundle"
    shutil.copytree(bundle, copy)
    place = tmp_path / "my page"
    done = CliRunner().invoke(app, ["app", "web", str(copy), "--name", "Net", "-o", str(place)])
    assert done.exit_code == 0, done.output
    assert f"next: cd '{place}' && npm ci && npm run dev" in done.output
    edit_manifest(copy, lambda manifest: manifest.update(schema="edgegen.bundle/9"))
    done = CliRunner().invoke(app, ["app", "web", str(copy), "--name", "Net", "-o", str(tmp_path / "other")])
    assert isinstance(done.exception, DataError)
    assert not (tmp_path / "other").exists()


def test_the_template_is_text_without_what_npm_leaves() -> None:
    paths = [path for path in (TEMPLATES / "web").rglob("*") if path.is_file()]
    assert not {"node_modules", "dist"} & {part for path in paths for part in path.parts}
    texts = [path for path in paths if path.name != "apple-touch-icon.png"]
    assert all(path.read_text(encoding="utf-8").endswith("\n") for path in texts)
