"""Recipes: what is read, and what is refused with which words."""

from pathlib import Path

import pytest

from edgegen.errors import RecipeError, UsageError
from edgegen.formats.recipe_file import find, shipped
from edgegen.recipe import Recipe, parse, read

GOOD = {"name": "x", "slim": {"keep": 0.3}}


def test_shipped_recipes_are_read_and_examples_are_the_same_files() -> None:
    examples = Path(__file__).parents[1] / "examples"
    assert set(shipped()) == {"digits", "signals"}
    for name, path in shipped().items():
        assert read(path).name == name
        assert (examples / path.name).read_bytes() == path.read_bytes()


def test_defaults_are_filled_in() -> None:
    recipe = parse(GOOD, where="here")
    assert recipe.seed == 0
    assert recipe.evaluate.steps == (1, 2, 4, 20)
    assert recipe.export.targets(floating=True) == ["onnx-fp32", "executorch-fp32", "coreml-fp16"]
    assert recipe.export.targets(floating=False) == ["onnx-w8a8", "executorch-w8a8", "coreml-w8"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tacher": {}}, r"tacher: no key 'tacher'; there are: .* Did you mean 'teacher'\?"),
        ({"teacher": {"model": {"chanels": [8]}}}, r"teacher.model.chanels: no key .* Did you mean 'channels'\?"),
        ({"teacher": {"steps": "100"}}, r"teacher.steps: .*integer.*\(found '100'\)"),
        ({"teacher": {"steps": 0}}, r"teacher.steps: .*greater than or equal to 1 \(found 0\)"),
        ({"teacher": {"steps": 1.5}}, r"teacher.steps: .*integer.*\(found 1.5\)"),
        ({"teacher": {"learning_rate": float("nan")}}, r"teacher.learning_rate: "),
        ({"teacher": {"folder": "a", "steps": 3}}, "a teacher brought as a folder is not trained here: remove steps"),
        ({"teacher": {"size": "huge"}}, r"teacher.size: .*'auto', 'small', 'medium' or 'large' \(found 'huge'\)"),
        ({"teacher": {"size": "small", "model": {}}}, r"teacher: say how large: either size, or .* \[teacher.model\]"),
        (
            {"teacher": {"folder": "a", "size": "auto"}},
            "brought as a folder is not trained here: remove size",
        ),
        ({"teacher": {"model": {"channels": [8, 8], "attention": [2]}}}, r"attention \[2\] names a resolution beyond"),
        (
            {"distill": {"anneal_steps": 3}},
            r"distill.anneal_steps: no key .* The keys of method flow_guided_distillation are: distance, two",
        ),
        ({"distill": {"two_step_wieght": 1.0}}, r"no key 'two_step_wieght'; .* Did you mean 'two_step_weight'\?"),
        ({"teacher": {"flip": True}}, "teacher.flip: no key .* The keys of method flow_matching are: coupling"),
        ({"teacher": {"objective": {}}}, "teacher.objective: no key 'objective'"),
        ({"slim": {"keep": 0.3, "flip": 1}}, r"slim.flip: .*boolean \(found 1\)"),
        (
            {"distill": {"method": "flow_guided"}},
            r"distill.method: no method .* mean 'flow_guided_distillation'\?",
        ),
        ({"distill": {"distance": "l1"}}, r"distill.distance: .*'l2', 'pseudo_huber' or 'perceptual' \(found 'l1'\)"),
        ({"slim": {}}, "say how small: either keep"),
        ({"slim": {"keep": 0.3, "network": {}}}, "say how small: either keep"),
        ({"slim": {"keep": 1.0}}, r"slim.keep: .*less than 1 \(found 1.0\)"),
        ({"name": "../x"}, r"name: .*pattern.*\(found '../x'\)"),
        ({"pairs": {"solver": "rk4"}}, r"pairs.solver: .*'euler', 'heun', 'dpm_solver_pp' or 'rk45' \(found 'rk4'\)"),
        ({"export": {"artifacts": ["onnx"]}}, "artifact 'onnx' is not BACKEND-SCHEME"),
        ({"export": {"artifacts": ["onnx-fp32", "onnx-fp32"]}}, "lists one twice"),
        (
            {"bundle": {"artifacts": ["onnx-w8"]}},
            r"^here: bundle.artifacts: no artifact 'onnx-w8'; .* Did you mean 'onnx-w8a8'",
        ),
        (
            {"slim": {"network": "a.py:b", "init": "teacher"}},
            r"^here: slim.init = 'teacher': a student that cannot be sliced from the teacher",
        ),
        ({"data": []}, r"data: .*\(found \[\]\)"),
    ],
)
def test_errors_name_the_key_the_value_and_the_allowed_values(change: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse({**GOOD, **change}, where="here")


def test_all_faults_of_a_recipe_are_in_one_error() -> None:
    with pytest.raises(RecipeError) as caught:
        parse({"name": "x", "tacher": {}, "pears": {}, "distill": {"steps": 0, "flop": 1}}, where="here")
    assert str(caught.value).count("here: ") == 5
    assert caught.value.exit_code == 2


def test_a_missing_slim_table_is_explained() -> None:
    with pytest.raises(RecipeError, match=r"slim: missing; say how small: \[slim\] keep = 0.3"):
        parse({"name": "x"}, where="here")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("name = ")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match=r"bad.toml: not TOML: Invalid value"):
        read(tmp_path / "bad.toml")
    with pytest.raises(RecipeError, match=r"bytes.toml: not a text in UTF-8"):
        read(tmp_path / "bytes.toml")
    with pytest.raises(RecipeError, match=r"no recipe file .*nothing.toml'; beside it there are: bad.toml, bytes.toml"):
        find(str(tmp_path / "nothing.toml"))
    with pytest.raises(RecipeError, match=r"no recipe 'digit'; there are: digits, signals. Did you mean 'digits'\?"):
        find("digit")


def test_the_hash_changes_with_any_key() -> None:
    recipe = parse(GOOD, where="here")
    assert recipe.sha256() == Recipe.model_validate(GOOD).sha256()
    assert recipe.sha256() != parse({**GOOD, "seed": 1}, where="here").sha256()


def test_recipe_errors_are_usage_errors() -> None:
    assert issubclass(RecipeError, UsageError)
