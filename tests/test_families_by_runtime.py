"""Every family of networks in every runtime: exported, executed and compared with PyTorch, on tiny configs.

None is skipped, and a missing vendor fails.
"""

from pathlib import Path

import pytest
from families import NETWORKS

from edgegen.build import Target
from edgegen.exporters.base import LowerOptions
from edgegen.exporting import Exported, ExportSettings, export_source
from edgegen.progress import Silent

TARGETS = ("onnx-fp32", "executorch-fp32", "coreml-fp32")
FLOOR_DB = 60.0  # the project's goal for fp32 files; a cell of the matrix asks for more
# ExecuTorch lowers each method by itself: without `generate`, which has tests of its own, it takes half the time.
LOWER = LowerOptions(generate=False)


def export(source: Path, output: Path, *targets: str) -> Exported:
    chosen = tuple(Target.parse(text) for text in targets)
    settings = ExportSettings(chosen, lower=LOWER, measure=False, samples=2)
    (done,) = export_source(str(source), output, settings, progress=Silent())
    return done


@pytest.mark.slow
@pytest.mark.parametrize("family", NETWORKS)
def test_a_family_runs_true_in_every_runtime(family: str, tmp_path: Path, in_process: None) -> None:
    done = export(NETWORKS[family](tmp_path / family), tmp_path / "out", *TARGETS)
    assert not done.failures
    assert [f"{one.artifact.backend}-{one.artifact.scheme}" for one in done.built] == list(TARGETS)
    for one in done.built:
        parity = done.parity[one.artifact.file]
        assert parity.status == "ok", (one.artifact.file, parity)
        assert (parity.psnr_db or 0.0) >= FLOOR_DB, (one.artifact.file, parity)


def test_the_same_source_gives_the_same_bytes(tmp_path: Path, in_process: None) -> None:
    source = NETWORKS["autoencoder_tiny"](tmp_path / "tiny")
    first, second = (export(source, tmp_path / name, *TARGETS) for name in ("first", "second"))
    hashes = [one.artifact.sha256 for one in first.built]
    assert len(hashes) == len(TARGETS)
    assert hashes == [one.artifact.sha256 for one in second.built]
