"""The demo's promises about digits, on a whole run of the shipped recipe (minutes)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_digits_recipe_keeps_its_promises(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgegen.cli.main", "run", "digits"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "runs/digits/report/latest/report.json").read_text())
    assert [row["parity"]["status"] for row in report["artifacts"]] == ["ok"] * 6
    assert 3 * report["parameters"]["student"] <= report["parameters"]["teacher"]
    quality = report["quality"]
    assert quality["finished"]["1"]["fd_local"] <= 1.5 * quality["teacher"]["20"]["fd_local"]
    assert report["extractor"]["accuracy"] > 0.97
    judged = {name for name, table in quality.items() if table}
    assert judged >= {"teacher", "slimmed", "student", "finished", "floor"}
    assert quality["scheduler"] is None, "a teacher that was trained here has no scheduler of its own"
