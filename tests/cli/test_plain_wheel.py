"""edgegen without any extra: what runs, and what it says is missing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import environment

from edgegen.support.extras import EXTRAS

pytestmark = pytest.mark.long

# Finders that know neither the packages of the extras nor their versions, as in a fresh environment.
BLOCK = """
import sys
BLOCKED = {blocked!r}
class Without:
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, *rest):
        return None if name.partition(".")[0] in BLOCKED else self.finder.find_spec(name, *rest)
    def find_distributions(self, *context):
        of = getattr(self.finder, "find_distributions", lambda *context: ())
        return (dist for dist in of(*context) if dist.name not in BLOCKED)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
sys.argv = ["edgegen", *{arguments!r}]
from edgegen.cli.main import main
main()
"""


def without_extras(*arguments: str) -> "subprocess.CompletedProcess[str]":
    blocked = {package for packages in EXTRAS.values() for package in packages}
    code = BLOCK.format(blocked=blocked, arguments=arguments)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> "subprocess.CompletedProcess[str]":
    return without_extras("run", "digits", "--dry-run", "--json", "--runs", str(tmp_path_factory.mktemp("runs")))


def test_a_run_is_planned_and_timed(planned: "subprocess.CompletedProcess[str]") -> None:
    assert planned.returncode == 0, planned.stderr
    rows = {row["stage"]: row for row in json.loads(planned.stdout)["stages"]}
    assert set(rows) >= {"data", "teacher", "export", "quantize", "verify", "report"}
    assert rows["teacher"]["seconds"] > 0
    assert rows["teacher"]["how"].startswith("measured: ")


def test_each_missing_extra_is_told_with_its_pip_line(planned: "subprocess.CompletedProcess[str]") -> None:
    told = [line for line in planned.stderr.splitlines() if line.startswith("missing: ")]
    for extra in ("onnx", "executorch", "coreml", "report"):
        assert any(f"pip install 'edgegen[{extra}]'" in line for line in told), planned.stderr


def test_the_run_itself_ends_with_the_exit_code_of_a_missing_extra(tmp_path: Path) -> None:
    done = without_extras("run", "digits", "--runs", str(tmp_path))
    assert done.returncode == 3
    assert "pip install 'edgegen[" in done.stderr
