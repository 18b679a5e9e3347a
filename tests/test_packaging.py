"""The wheel: one package with all of its folders and the recipes; installed in another environment it runs."""

import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from helpers import TINY, environment

ROOT = Path(__file__).parents[1]


def test_the_list_of_packages_equals_the_folders_that_are_packages() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    places = {
        "edgegen": ROOT / "edgegen",
        "edgegen.exporters": ROOT / "exporters",
        "edgegen.quantize": ROOT / "quantize",
    }
    packages = set()
    for name, place in places.items():
        for init in place.rglob("__init__.py"):
            below = init.parent.relative_to(place).parts
            packages.add(".".join((name, *below)))
    # Optimum's folder of subcommands is shared by several packages and must have no __init__.py.
    assert not list((ROOT / "optimum_plugin").rglob("__init__.py"))
    assert sorted(listed) == sorted({*packages, "optimum.commands.register"})


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    arguments = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


def templates() -> list[str]:
    """The files of the apps' templates, without what a build beside them leaves."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT / "edgegen/apps/templates", capture_output=True, text=True)
    return listed.stdout.splitlines()


def test_the_wheel_holds_one_package_with_its_data_and_a_file_for_optimum(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"edgegen", "optimum"}
    expected = [
        "recipes/digits.toml",
        "recipes/signals.toml",
        "exporters/onnx/backend.py",
        "quantize/support_matrix.py",
        "report/report.html.jinja",
        "py.typed",
    ]
    expected += [f"profilers/runners/{name}" for name in ("page.html", "page.css", "page.js", "page_worker.js")]
    expected += [f"apps/templates/{path}" for path in templates()]
    assert {f"edgegen/{name}" for name in expected} <= set(names)
    sources = {
        str(Path(package, path.relative_to(ROOT / folder)))
        for folder, package in (
            ("edgegen", "edgegen"),
            ("exporters", "edgegen/exporters"),
            ("quantize", "edgegen/quantize"),
            ("optimum_plugin", "optimum/commands/register"),
        )
        for path in (ROOT / folder).rglob("*.py")
        if "__pycache__" not in path.parts
    }
    assert {name for name in names if name.endswith(".py")} == sources


@pytest.mark.long
def test_the_wheel_runs_in_another_environment_and_folder(wheel: Path, tmp_path: Path) -> None:
    """Its dependencies are those of this environment, which saves a gigabyte of downloads."""
    # pip, too, takes an edgegen on PYTHONPATH for an installed one.
    variables = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    venv, work = tmp_path / "venv", tmp_path / "work"
    work.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (site,) = (venv / "lib").glob("python*/site-packages")
    # A line of a .pth file adds a folder, whose own .pth files are not read: this environment's edgegen stays out.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(venv),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True, env=variables)
    (work / "tiny.toml").write_text(TINY)

    def edgegen(*arguments: str) -> str:
        command = [str(venv / "bin" / "edgegen"), *arguments]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, env=variables, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run(
        [str(venv / "bin" / "python"), "-c", "import edgegen.quantize; print(edgegen.quantize.__file__)"],
        cwd=work,
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(site) in where.stdout
    assert "distill" in edgegen("run", "digits", "--dry-run")
    edgegen("run", "tiny.toml", "--to", "distill")
    assert (work / "runs" / "tiny" / "distill" / "latest" / "generator" / "config.json").exists()


def test_cuda_wheels_are_the_dependencies_that_a_cuda_machine_may_lack() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[>=]", each)[0] for each in project["dependencies"]}
    there = {"torch", "numpy", "safetensors", "accelerate", "typer", "rich", "scikit-learn", "scipy"}
    lines = (ROOT / "Makefile").read_text().partition("\ncuda-wheels:")[2].partition("\n\n")[0].splitlines()
    assert set(lines[-1].split()) == needed - there
    assert lines[0].partition(" cuda-wheels ")[2].split() == lines[-1].split()
