"""Names of plug-ins: the built-in ones load, and what is wrong with another package's is one clear error."""

import sys
from pathlib import Path
from typing import get_args

import pytest

from edgegen import registry
from edgegen.errors import UsageError
from edgegen.registry import BUILT_IN, Kind


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on sys.path for installed packages."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def install(site: Path, name: str, entry_points: str, **modules: str) -> None:
    """What pip writes for a distribution with entry points; `modules` are contents by name."""
    folder = site / f"{name}-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(entry_points)
    for module, text in modules.items():
        (site / f"{module}.py").write_text(text)
        sys.modules.pop(module, None)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in get_args(Kind) for name in BUILT_IN[kind]])
def test_every_built_in_loads(kind: Kind, name: str) -> None:
    assert registry.load(kind, name) is not None


def test_another_package_adds_a_name_and_cannot_take_a_built_in_one(site: Path) -> None:
    points = "[edgegen.devices]\nboard = added_device:connect\nhost = added_device:connect\n"
    install(site, "added", points, added_device="def connect(place): ...\n")
    assert registry.names("device")["board"] == "added_device:connect"
    assert registry.load("device", "board").__module__ == "added_device"
    assert registry.load("device", "host").__module__ == "edgegen.profilers.devices.host"


def test_an_unknown_name_lists_the_known_ones(site: Path) -> None:
    install(site, "added", "[edgegen.devices]\nboard = nowhere:connect\n")
    with pytest.raises(UsageError, match=r"no device 'bord'; there are: adb, arm64, board, .* Did you mean 'board'\?"):
        registry.load("device", "bord")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "ModuleNotFoundError: No module named 'broken_device'"),
        ("import not_installed_here\n", "ModuleNotFoundError: No module named 'not_installed_here'"),
        ("x = 1\n", "AttributeError: module 'broken_device' has no attribute 'connect'"),
        ("def connect(\n", "SyntaxError: '\\(' was never closed"),
    ],
)
def test_an_entry_point_that_cannot_be_loaded_names_the_package(site: Path, text: str | None, reason: str) -> None:
    modules = {} if text is None else {"broken_device": text}
    install(site, "broken-package", "[edgegen.devices]\nboard = broken_device:connect\n", **modules)
    message = (
        rf"the package broken-package adds the device 'board' by the entry point broken_device:connect, .*{reason}"
    )
    with pytest.raises(UsageError, match=message):
        registry.load("device", "board")


def test_one_name_of_two_packages_names_both(site: Path) -> None:
    for package in ("first", "second"):
        install(site, package, f"[edgegen.importers]\nlog = {package}_log:IMPORTER\n")
    with pytest.raises(UsageError, match="the importer 'log' is added by first and by second: uninstall all but one"):
        registry.load("importer", "log")
