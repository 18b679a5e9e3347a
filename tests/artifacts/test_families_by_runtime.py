"""Every family of networks in every runtime: exported, executed and compared with PyTorch, on tiny configs.

None is skipped, and a missing vendor fails.
"""

import re
from pathlib import Path

import pytest
from families import NETWORKS
from support_table import (
    ANY_SIZE,
    FAMILIES,
    ITS_OWN_SIZE,
    NPU,
    ROUNDED,
    RUNTIMES,
    TRANSFORMERS,
    WITHOUT_SIZE,
    in_manual,
    sized,
    table,
)

from edgegen.artifacts.export import ExportSettings, export_source
from edgegen.artifacts.export_result import ExportResult
from edgegen.artifacts.target import Target
from edgegen.recipe import Export
from edgegen.support.extras import missing
from edgegen.support.progress import Silent

FLOOR_DB = 60.0  # the project's goal for fp32 files; a cell of the matrix asks for more

REASONS = {  # why a family has no file for other sizes
    **dict.fromkeys(WITHOUT_SIZE, r"^no file for any size: sample \[.*\] is no image$"),
    **dict.fromkeys(ITS_OWN_SIZE, r"could not capture \w+ for any size \(perhaps it takes only its own\): shape '"),
    **dict.fromkeys(TRANSFORMERS, r"^coremltools could not convert the program: "),
}


def export(source: Path, output: Path, *wanted: str) -> ExportResult:
    chosen = tuple(Target.parse(text) for text in wanted)
    # `generate` has tests of its own. iOS 18 is the first that takes several sizes of two inputs.
    files = Export(generate=False, coreml_target="iOS18", heights_widths=sizes(chosen, source))
    settings = ExportSettings(chosen, export=files, measure=False, samples=2)
    (done,) = export_source(str(source), output, settings, progress=Silent())
    return done


def sizes(chosen: tuple[Target, ...], source: Path) -> tuple[tuple[int, int], ...]:
    """One further size of the noise, twice as wide as what the tiny configs take."""
    size = 64 if source.name == "autoencoder_tiny" else 8
    return ((size, 2 * size),) if any(target.kind().any_size for target in chosen) else ()


# 13 to 60 seconds each, nearly all of it in the vendors' converters; the others, or shorter tests of one runtime, have
# the same operators.
SLOW = (
    "edge_unet",
    "edge_unet_class",
    "sd3",
    "dit",
    "pixart",
    "pixart_sized",
    "flux",
    "unet2d",
    "unet2d_image_conditional",
    "unet2d_skip",
    "unet2d_condition",
    "unet2d_condition_sdxl",
    "unet2d_condition_image",
    "unet1d",
    "unet1d_trajectory",
    "flux_guidance",
    "auraflow",
    "sana",
    "sana_sprint",
    "autoencoder_kl",
)


@pytest.mark.long
@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in NETWORKS]
)
def test_a_family_runs_true_in_every_runtime(family: str, tmp_path: Path, in_process: None) -> None:
    run_true(family, list(RUNTIMES), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", [family for family in NETWORKS if sized(family)])
def test_a_family_runs_true_at_other_sizes(family: str, tmp_path: Path, in_process: None) -> None:
    run_true(family, sized(family), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", NETWORKS)
def test_a_family_is_rounded_alike_for_every_runtime(family: str, tmp_path: Path, in_process: None) -> None:
    run_true(family, list(ROUNDED), tmp_path, floor_db=30.0)


@pytest.mark.slow
@pytest.mark.skipif(bool(missing("qnn")), reason="onnxruntime-qnn is not installed: pip install 'edgegen[qnn]'")
@pytest.mark.parametrize("family", NETWORKS)
def test_a_family_is_the_npus_in_every_scheme(family: str, tmp_path: Path, in_process: None) -> None:
    done = run_true(family, list(NPU), tmp_path, floor_db=30.0)
    for parity in done.parity.values():
        assert re.fullmatch(r"all \d+ nodes on the NPU", parity.arithmetic)


def run_true(family: str, wanted: list[str], tmp_path: Path, *, floor_db: float = FLOOR_DB) -> ExportResult:
    """Every one of `wanted` is made, and none is false."""
    done = export(NETWORKS[family](tmp_path / family), tmp_path / "out", *wanted)
    assert not done.failures
    assert [
        str(Target(one.artifact.backend, one.artifact.scheme, one.artifact.variant)) for one in done.built
    ] == wanted
    for one in done.built:
        parity = done.parity[one.artifact.file]
        assert parity.status == "ok", (one.artifact.file, parity)
        assert (parity.psnr_db or 0.0) >= floor_db, (one.artifact.file, parity)
    return done


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # coremltools leaves folders when it fails
@pytest.mark.parametrize("family", [family for family in NETWORKS if len(sized(family)) < len(ANY_SIZE)])
def test_an_empty_cell_is_an_error_that_says_why(family: str, tmp_path: Path, in_process: None) -> None:
    absent = [target for target in ANY_SIZE if target not in sized(family)]
    done = export(NETWORKS[family](tmp_path / family), tmp_path / "out", *absent)
    assert not done.built
    assert list(done.failures) == absent
    for target, error in done.failures.items():
        assert re.search(REASONS[family], str(error)), (target, error)


def test_the_manual_says_so() -> None:
    assert list(FAMILIES) == list(NETWORKS)
    found = in_manual()
    assert found is not None
    assert found[1] == table(), "run: python tests/support_table.py"


@pytest.mark.long
def test_the_same_source_gives_the_same_bytes(tmp_path: Path, in_process: None) -> None:
    source = NETWORKS["autoencoder_tiny"](tmp_path / "tiny")
    first, second = (export(source, tmp_path / name, *RUNTIMES) for name in ("first", "second"))
    hashes = [one.artifact.sha256 for one in first.built]
    assert len(hashes) == len(RUNTIMES)
    assert hashes == [one.artifact.sha256 for one in second.built]
