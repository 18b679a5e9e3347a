"""Which runner in C++ takes which files."""

from edgegen.errors import UsageError
from edgegen.profilers.runners import onnx, pte
from edgegen.profilers.runners.toolchain import Program

CPU = "cpu"
PROVIDERS = (CPU, "xnnpack", "nnapi", "qnn")  # of ONNX Runtime, as onnx_runner.cpp knows them


def program(form: str, system: str, provider: str = CPU) -> Program:
    """The runner of files of a form ("onnx", "pte") for a system by its `uname -sm`.

    Raises MissingExtraError where the runtime is not installed here, NoProgramError where no runner can be made.
    """
    if form == "onnx":
        return onnx.program(system, provider)
    check_provider(form, provider)
    return pte.program(system)


def check_provider(form: str, provider: str) -> None:
    """Raises UsageError for a provider of ONNX Runtime with files of another runtime."""
    if provider != CPU and form != "onnx":
        raise UsageError(f"--provider {provider}: providers are ONNX Runtime's, and a .{form} has none")


def fetch(system: str) -> None:
    """Downloads what the runners for a system need, of the runtimes that are installed here. Raises DeviceError."""
    pte.fetch(system)
    onnx.fetch(system)
