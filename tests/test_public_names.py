"""The public names: exactly these, each can be imported, and `import edgegen` loads nothing heavy."""

import subprocess
import sys
from pathlib import Path

import edgegen

NAMES = [
    "Artifact",
    "EdgeUNet",
    "EdgeUNetConfig",
    "EdgegenError",
    "Latency",
    "Parity",
    "Recipe",
    "Signature",
    "build_artifact",
    "capture_program",
    "check_parity",
    "export",
    "fold",
    "load_generator",
    "normal",
    "read_recipe",
    "run_recipe",
    "sample",
    "solve",
    "verify",
]
HEAVY = ("torch", "onnx", "onnxruntime", "executorch", "coremltools", "diffusers", "transformers", "accelerate")


def test_the_public_names_are_these_and_can_be_imported() -> None:
    assert sorted(edgegen.__all__) == NAMES
    assert all(getattr(edgegen, name) is not None for name in NAMES)
    assert dir(edgegen) == edgegen.__all__


def test_importing_edgegen_and_its_command_line_loads_nothing_heavy() -> None:
    code = f"import edgegen, edgegen.cli.main, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_planning_a_run_loads_nothing_heavy() -> None:
    code = (
        "import sys; from edgegen.pipeline.run import dry_run; dry_run('digits');"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_records_of_the_training_methods_load_nothing_heavy() -> None:
    code = (
        "import sys; from edgegen.registry import load, names;"
        "[load('objective', name)() for name in names('objective')];"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_mistyped_recipe_is_refused_without_anything_heavy(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('name = "x"\n[slim]\nkeep = 0.3\n[distill]\ndistence = "l2"\n')
    code = (
        "import sys; from edgegen.errors import RecipeError; from edgegen.pipeline.run import dry_run\n"
        "try: dry_run('x.toml')\n"
        f"except RecipeError as e: print('distence' in str(e), [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "True []"
