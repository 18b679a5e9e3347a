"""The public names: exactly these, each can be imported, and `import edgegen` loads nothing heavy."""

import subprocess
import sys

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
    "fold",
    "load_generator",
    "normal",
    "read_recipe",
    "run_recipe",
    "solve",
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
