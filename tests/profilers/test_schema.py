"""Measurements as files: the committed schema, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measured import profile, result

from edgegen.errors import DataError
from edgegen.profilers.schema import MeasuredFile, Profile, read
from edgegen.support.storage import write_json


def test_the_committed_schema_is_the_code_s() -> None:
    assert json.loads(Profile.schema_file.read_text(encoding="utf-8")) == Profile.json_schema()


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    made = profile(result(np.full((12, 5), 2.0)))
    write_json(tmp_path / "a.json", made.to_json())
    assert read(tmp_path / "a.json") == made
    assert made.to_json()["schema"] == "edgegen.profile/1"


def op(share: float) -> dict[str, Any]:
    return {"kind": "Conv", "count": 1, "ms": 0.5, "share": share}


@pytest.mark.parametrize("word", ["NaN", "Infinity", "1e999", "9" * 400])
def test_figures_that_are_no_numbers_are_refused(tmp_path: Path, word: str) -> None:
    text = json.dumps(profile(result(np.full((12, 5), 2.0))).to_json())
    assert '"drift": null' in text
    (tmp_path / "a.json").write_text(text.replace('"drift": null', f'"drift": {word}'))
    with pytest.raises(DataError, match=r"a.json: not JSON, or cut short .*(no number of JSON|beyond what a number)"):
        read(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one["latency"].update(p50_ms=1.9), "results.0.latency: .*p50_ms is 1.9, and its samples give 2"),
        (lambda one: one["latency"].update(blocks_ms=[]), "a latency without samples"),
        (
            lambda one: one["latency"].update(p50_ci95_ms=[1.9, 2.0]),
            "p50_ci95_ms is .1.9, 2.0., .* give 2, 2",
        ),
        (lambda one: one["latency"].update(p50_ci95_ms=[2.0, 99.0]), "p50_ci95_ms is .2.0, 99.0."),
        (lambda one: one["latency"].update(min_ms=0.1), "min_ms is 0.1, and its samples give 2"),
        (lambda one: one["latency"].update(mean_ms=2.1), "mean_ms is 2.1, and its samples give 2"),
        (lambda one: one["latency"]["blocks_ms"][0].__setitem__(0, 1e300), "blocks_ms.0.0: Input should be less than"),
        (lambda one: one.update(ops=[op(0.7), op(0.7)]), "the shares of its ops add up to 1.4"),
        (lambda one: one.update(ops=[op(-0.5)]), "ops.0.share: Input should be greater than or equal to 0"),
        (lambda one: one["artifact"].update(name=".."), "artifact.name: String should match pattern"),
        (lambda one: one["numerics"].update(passed=False), "a latency of a file that failed"),
        (lambda one: one["verdict"].update(performance_valid=False), "a latency where none is valid"),
        (lambda one: one["artifact"].update(name="/home/me/net.onnx"), "results.0.artifact.name"),
        (lambda one: one.update(p51_ms=3.0), "results.0.p51_ms: Extra inputs are not permitted"),
    ],
)
def test_figures_that_their_samples_do_not_give_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    content = profile(result(np.full((12, 5), 2.0))).to_json()
    change(content["results"][0])
    write_json(tmp_path / "a.json", content)
    with pytest.raises(DataError, match=f"a.json is no measurement of edgegen's: .*{message}"):
        read(tmp_path / "a.json")


def test_a_failed_file_has_no_latency() -> None:
    made = result(np.full((12, 5), 2.0), verdict={"status": "failed", "reasons": ["wrong"]}, latency=None)
    assert isinstance(made, MeasuredFile)
    with pytest.raises(ValueError, match="a latency of a file that failed"):
        result(np.full((12, 5), 2.0), verdict={"status": "failed", "reasons": ["wrong"]})
