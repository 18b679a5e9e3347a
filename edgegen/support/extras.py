"""The optional dependencies (extras): which packages are in each, and which are installed; none is imported."""

import importlib.util
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from edgegen.errors import MissingExtraError

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxruntime", "onnxscript", "onnxslim"),
    "coreml": ("coremltools",),
    "executorch": ("executorch", "torchao"),
    "report": ("jinja2", "matplotlib"),
    "tensorboard": ("tensorboard",),
    "diffusers": ("diffusers",),
    "optimum": ("optimum",),
    "datasets": ("datasets",),
    "fid": ("torch_fidelity",),
    "dinov2": ("transformers",),
    "text": ("transformers",),
    "qnn": ("onnxruntime_qnn",),
}
# What the pip line alone does not say.
NOTES: Mapping[str, str] = {"qnn": "it is there for Linux on x86-64 alone"}


def missing(extra: str) -> list[str]:
    """The packages of an extra that are not installed."""
    return [package for package in EXTRAS[extra] if _is_absent(package)]


def _is_absent(package: str) -> bool:
    """A namespace alone does not count as installed: our own wheel puts a folder into that of optimum."""
    spec = importlib.util.find_spec(package)
    return spec is None or (spec.origin is None and version_of(package) is None)


def require(extra: str, *, purpose: str) -> None:
    """Raises MissingExtraError, with the pip line, when a package of the extra is not installed."""
    for error in lacking(extra, purpose=purpose):
        raise error


def lacking(extra: str, *, purpose: str) -> list[MissingExtraError]:
    """What `require` raises, for each package of the extra that is not installed."""
    note = NOTES.get(extra, "")
    return [MissingExtraError(package, extra=extra, purpose=purpose, note=note) for package in missing(extra)]


def version_of(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
