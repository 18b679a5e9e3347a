"""A file that kills or holds up the process that makes it: its error names it, and the other files are made."""

import re
from pathlib import Path

import deadly_package
import pytest
from torch import nn

from edgegen.artifacts.maker import Maker
from edgegen.artifacts.target import Target
from edgegen.errors import ExportError
from edgegen.program.generator import Generator
from edgegen.quantize.schemes import DEFAULT_OPTIONS
from edgegen.recipe import Export
from edgegen.support.children import Children
from edgegen.support.progress import Silent

MESSAGES = {
    "deadly-w8": r"the process that made net_deadly_w8\.deadly ended by SIGABRT",
    "deadly-fp16": r"the first run of net_deadly_fp16\.deadly did not end within 1 s: stopped",
}


@pytest.mark.long
def test_the_others_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deadly_package.install(tmp_path, monkeypatch)
    generator = Generator(nn.Tanh().eval(), deadly_package.SIGNATURE)
    targets = [Target.parse(text) for text in (*MESSAGES, "deadly-fp32")]
    with Children() as children:
        maker = Maker(
            generator,
            name="net",
            metadata={},
            options=Export(),
            quantization=DEFAULT_OPTIONS,
            refined=lambda scheme: None,
            children=children,
            seed=0,
            progress=Silent(),
        )
        results = {str(target): result for target, result in maker.make(targets, tmp_path / "out")}
    for target, message in MESSAGES.items():
        assert isinstance(results[target], ExportError)
        assert re.match(message, str(results[target]))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["net_deadly_fp32.deadly"]
