"""Which artifacts the apps can run: what they fill in, and what they can show."""

from edgegen.formats.bundle import BundledArtifact, Input, Output


def why_unfit(artifact: BundledArtifact) -> str:
    """Why no app can run it, to be read after its name; "" where apps can."""
    if artifact.batch not in (None, 1):
        return f"takes {artifact.batch} samples at once, and the app makes one"
    for spec in artifact.inputs:
        if not _is_filled(spec, artifact):
            return f"needs '{spec.name}' ({spec.role}, {spec.dtype}), which the app does not make"
    if sum(spec.role == "image" for spec in artifact.inputs) > 1:
        return "takes several images, and the app gives it one"
    if not any(_is_shown(method.output) for method in artifact.methods):
        return "gives no image of float32 or uint8"
    return ""


def _is_filled(spec: Input, artifact: BundledArtifact) -> bool:
    if spec.role == "text":
        return spec.dtype == "float32" and artifact.text_encoder is not None
    if spec.role == "noise":
        return spec.dtype == "float32"
    if spec.role == "class":
        return spec.dtype in ("int64", "int32")
    return spec.role == "image" and spec.dtype == "float32" and len(spec.shape) == 4


def _is_shown(output: Output) -> bool:
    return (output.dtype, output.layout) in (("float32", "NCHW"), ("float32", "NHWC"), ("uint8", "NHWC"))
