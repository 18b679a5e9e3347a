"""The plan: a changed key of the recipe re-runs what depends on it and nothing else."""

import copy
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import TINY

from edgegen.errors import DataError, MissingExtraError, UsageError
from edgegen.pipeline.graph import NAMES, STAGES, check, select
from edgegen.pipeline.needed_extras import require_extras
from edgegen.pipeline.planning import plan
from edgegen.pipeline.run_folder import RunFolder
from edgegen.recipe import parse

ALL = set(NAMES) - {"finish", "refine", "bundle"}  # which the tiny recipe does not ask for
FILES = {"export", "quantize", "verify", "profile", "report"}
SHIPPED = {"choose"} | FILES


def keys(values: dict[str, Any], base: Path) -> dict[str, str]:
    recipe = parse(values, where="test")
    planned = plan(recipe, select(recipe), base=base, folder=RunFolder(base / "run"))
    return {item.stage.name: item.key for item in planned}


def changed(path: str, value: object) -> dict[str, Any]:
    values = tomllib.loads(TINY)
    *tables, key = path.split(".")
    place = values
    for table in tables:
        place = place.setdefault(table, {})
    place[key] = value
    return values


@pytest.mark.parametrize(
    ("path", "value", "stages"),
    [
        ("seed", 1, ALL),
        ("data.holdout", 0.3, ALL),
        ("teacher.steps", 41, ALL - {"data", "extractor"}),
        ("teacher.checkpoint_every", 3, {"report"}),
        ("pairs.solver", "euler", ALL - {"data", "extractor", "teacher"}),
        ("slim.steps", 25, ALL - {"data", "extractor", "teacher", "pairs"}),
        ("slim.keep", 0.8, ALL - {"data", "extractor", "teacher", "pairs"}),
        ("distill.learning_rate", 0.1, ALL - {"data", "extractor", "teacher", "pairs", "slim", "baseline"}),
        ("distill.distance", "l2", ALL - {"data", "extractor", "teacher", "pairs", "slim"}),
        ("evaluate.extractor_steps", 31, {"extractor", "evaluate"} | SHIPPED),
        ("evaluate.seeds", 3, {"evaluate"} | SHIPPED),
        ("evaluate.ship", "student", SHIPPED),
        ("evaluate.steps", [1, 3], {"evaluate", "profile", "report"}),
        ("evaluate.samples", 20, {"evaluate"} | SHIPPED),
        ("slim.anneal_steps", 3, {"slim", "distill", "evaluate"} | SHIPPED),
        ("quantize.samples", 9, FILES - {"export"}),
        ("export.artifacts", ["onnx-fp32", "onnx-w8a8"], FILES),
        ("verify.samples", 5, {"verify", "profile", "report"}),
        ("profile.min_runs", 4, {"profile", "report"}),
        ("compute.compile", True, ALL - {"data"}),
    ],
)
def test_a_changed_key_re_runs_what_depends_on_it(tmp_path: Path, path: str, value: object, stages: set[str]) -> None:
    before, after = keys(tomllib.loads(TINY), tmp_path), keys(changed(path, value), tmp_path)
    assert {name for name in before if before[name] != after[name]} == stages


def test_the_name_of_the_run_changes_only_what_carries_it(tmp_path: Path) -> None:
    before, after = keys(tomllib.loads(TINY), tmp_path), keys(changed("name", "other"), tmp_path)
    assert {name for name in before if before[name] != after[name]} == FILES


def test_a_changed_input_file_re_runs_everything(tmp_path: Path) -> None:
    values = changed("data.source", "x.npz")
    np.savez(tmp_path / "x.npz", np.zeros(1))
    before = keys(values, tmp_path)
    np.savez(tmp_path / "x.npz", np.ones(1))
    assert set(before.values()).isdisjoint(keys(copy.deepcopy(values), tmp_path).values())


def test_a_changed_measurement_makes_the_report_anew_and_nothing_else(tmp_path: Path) -> None:
    recipe = changed("report.measurements", ["board.json"])
    with pytest.raises(DataError, match=r"report\.measurements: no file .*board\.json"):
        keys(recipe, tmp_path)
    (tmp_path / "board.json").write_text("{}")
    before = keys(recipe, tmp_path)
    (tmp_path / "board.json").write_text("[]")
    after = keys(recipe, tmp_path)
    assert {stage for stage in before if before[stage] != after[stage]} == {"report"}


def test_an_input_below_a_link_or_the_home_folder_is_seen_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "real").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "class").symlink_to(tmp_path / "real")
    for source in ("~/images", "hf:~/images:train"):
        before = keys(changed("data.source", source), tmp_path / "elsewhere")["data"]
        (tmp_path / "real" / f"{len(source)}.png").write_bytes(b"new")
        assert keys(changed("data.source", source), tmp_path / "elsewhere")["data"] != before


def test_stages_need_only_earlier_ones() -> None:
    for number, stage in enumerate(STAGES):
        assert set(stage.needs) <= set(NAMES[:number])


def test_selecting_stages() -> None:
    recipe = parse(tomllib.loads(TINY), where="test")
    assert [stage.name for stage in select(recipe, to="slim")] == ["data", "teacher", "pairs", "slim"]
    makes_student = ["data", "teacher", "pairs", "slim", "distill"]
    exported = [stage.name for stage in select(recipe, only="export")]
    assert exported == [*makes_student, "baseline", "extractor", "choose", "export"]
    student = parse(changed("evaluate.ship", "student"), where="test")
    assert [stage.name for stage in select(student, only="export")] == [*makes_student, "choose", "export"]
    without = parse(changed("baseline.enabled", False), where="test")
    assert "baseline" not in [stage.name for stage in select(without)]
    with pytest.raises(UsageError, match=r"no stage 'destill'; there are: .* Did you mean 'distill'\?"):
        select(recipe, to="destill")


def test_weights_are_refined_only_where_the_recipe_asks_for_it() -> None:
    def stages(**tables: Any) -> list[str]:
        recipe = parse({**tomllib.loads(TINY), **tables}, where="test")
        check(recipe, select(recipe))
        return [stage.name for stage in select(recipe)]

    assert "refine" not in stages()
    assert "refine" in stages(recover={})
    assert "refine" in stages(quantize={"methods": ["rounding"]})
    mixed = {"artifacts": ["onnx-fp32", "onnx-mixed"]}
    assert "refine" in stages(export=mixed, quantize={"budget": "psnr>=40"})
    with pytest.raises(UsageError, match=r"recovery and methods are for w8a8, .*; none of them is among .*coreml-w6"):
        stages(export={"artifacts": ["onnx-fp32", "coreml-w6"]}, recover={})
    with pytest.raises(UsageError, match=r"coreml-w8: coremltools.* compresses every large weight; float layers are"):
        stages(export={"artifacts": ["coreml-w8"]}, quantize={"float_layers": ["net.head"]})
    with pytest.raises(UsageError, match="a mixed file needs a budget"):
        stages(export=mixed)
    with pytest.raises(UsageError, match=r"onnx-w8a8:any_size: recovery, .* know one size of image"):
        stages(export={"artifacts": ["onnx-w8a8:any_size"]}, recover={})
    with pytest.raises(UsageError, match="budget 'psnr' cannot be read"):
        stages(quantize={"budget": "psnr"})


def test_an_artifact_that_does_not_exist_is_refused_before_any_work() -> None:
    recipe = parse(changed("export.artifacts", ["onnx-w3"]), where="test")
    with pytest.raises(UsageError, match=r"no quantization scheme 'w3' for backend 'onnx'; there are: .*onnx w8a8"):
        check(recipe, select(recipe))


@pytest.mark.parametrize(
    ("artifact", "sizes", "message"),
    [
        ("coreml-fp16:sizes", [], "coreml-fp16:sizes needs the sizes"),
        ("onnx-fp32", [[8, 16]], "the sizes 8x16 go with"),
    ],
)
def test_sizes_and_their_artifact_need_each_other(artifact: str, sizes: list[list[int]], message: str) -> None:
    recipe = parse(changed("export", {"artifacts": [artifact], "heights_widths": sizes}), where="test")
    with pytest.raises(UsageError, match=message):
        check(recipe, select(recipe))


def test_a_missing_extra_is_an_error_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgegen.support.extras._is_absent", lambda package: package == "coremltools")
    recipe = parse(tomllib.loads(TINY), where="test")
    with pytest.raises(
        MissingExtraError, match=r"coreml-fp16 needs 'coremltools'.*pip install 'edgegen\[coreml\]'"
    ) as e:
        require_extras(recipe, select(recipe), base=Path())
    assert e.value.exit_code == 3
    require_extras(recipe, select(recipe, to="slim"), base=Path())
    check(recipe, select(recipe))  # a dry run needs nothing of it
