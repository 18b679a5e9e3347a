"""The library's own functions: texts and paths alike, errors before any work (docs/api.md is run as a whole)."""

from pathlib import Path

import pytest

import edgegen
from edgegen.errors import DataError, RecipeError, UsageError
from edgegen.formats.manifest import write_manifest
from edgegen.types import Artifact, Parity, Signature


def test_a_recipe_is_read_by_name_text_and_path(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('name = "x"\n[slim]\nkeep = 0.3\n')
    assert edgegen.read_recipe(str(path)) == edgegen.read_recipe(path)
    assert edgegen.read_recipe("digits").name == "digits"
    with pytest.raises(RecipeError, match="no recipe file"):
        edgegen.read_recipe(tmp_path / "y.toml")


def test_targets_that_cannot_be_made_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no backend 'onix'"):
        edgegen.export("nothing", tmp_path / "out", to=["onix"])
    digits = edgegen.read_recipe("digits")
    budget = digits.quantize.model_copy(update={"budget": "fd_local<=+5%"})
    with pytest.raises(UsageError, match="fd_local needs images to compare with"):
        edgegen.export(
            "nothing", tmp_path / "out", to=["onnx-w8a8"], recipe=digits.model_copy(update={"quantize": budget})
        )
    assert not (tmp_path / "out").exists()


def test_the_files_of_a_folder_are_as_they_were_written_or_refused(tmp_path: Path) -> None:
    import hashlib

    file = tmp_path / "x.onnx"
    file.write_bytes(b"whole")
    artifact = Artifact(
        "x.onnx", "onnx", "fp32", 5, hashlib.sha256(b"whole").hexdigest(), "none", details={"extra_files": {}}
    )
    parity = Parity("ok", "a runtime", 80.0, 4, 120.0, 1e-6)
    signature = Signature.of(channels=1, size=8, num_classes=0)
    write_manifest(tmp_path, [artifact], signature, lineage={}, parity={"x.onnx": parity})
    assert edgegen.verify(tmp_path) == edgegen.verify(str(tmp_path)) == {"x.onnx": parity}
    file.write_bytes(b"other")
    with pytest.raises(DataError, match=r"x\.onnx"):
        edgegen.verify(tmp_path)
