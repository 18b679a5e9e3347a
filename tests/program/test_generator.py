"""A saved program: what torch reads again, and a full disk that ends neither the process nor half a file quietly."""

from pathlib import Path

import pytest
import torch

from edgegen.errors import StorageError
from edgegen.program.capture import capture
from edgegen.program.generator import save_program
from edgegen.types import Signature

SIGNATURE = Signature.of(channels=1, size=8, num_classes=0)


@pytest.fixture
def program() -> torch.export.ExportedProgram:
    return capture(torch.nn.Conv2d(1, 1, 3, padding=1).eval(), SIGNATURE, batch=None)


def test_torch_reads_what_was_saved_and_the_bytes_do_not_depend_on_the_name(
    program: torch.export.ExportedProgram, tmp_path: Path
) -> None:
    saved = [save_program(program, tmp_path / f"{name}.pt2") for name in ("one", "other")]
    loaded = torch.export.load(saved[0].path)
    sample = torch.randn(2, 1, 8, 8)
    assert torch.equal(loaded.module()(sample), program.module()(sample))
    assert saved[0].path.read_bytes() == saved[1].path.read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_an_error_where_torch_would_abort(program: torch.export.ExportedProgram) -> None:
    with pytest.raises(StorageError, match=r"disk full: .* too few to write full"):
        save_program(program, Path("/dev/full"))
