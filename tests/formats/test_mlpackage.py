"""What coremltools finds of other frameworks while it is imported."""

import importlib
import sys
from pathlib import Path

import pytest

from edgegen.formats.mlpackage import absent


@pytest.fixture
def framework(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "framework_of_a_test"
    package.mkdir()
    for name in ("__init__", "runtime", "exporter"):
        (package / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("framework_of_a_test", "framework_of_a_test.runtime", "framework_of_a_test.exporter"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_a_package_is_hidden_until_the_part_that_matters_was_imported(framework: None) -> None:
    part = ("framework_of_a_test.exporter",)
    with absent(part), pytest.raises(ImportError):
        importlib.import_module("framework_of_a_test")
    runtime = importlib.import_module("framework_of_a_test.runtime")
    with absent(part), pytest.raises(ImportError):
        importlib.import_module("framework_of_a_test")
    assert sys.modules["framework_of_a_test.runtime"] is runtime
    assert importlib.import_module("framework_of_a_test").runtime is runtime
    importlib.import_module("framework_of_a_test.exporter")
    with absent(part):
        importlib.import_module("framework_of_a_test")
