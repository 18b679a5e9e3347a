"""The table of what exports where, in docs/export.md; tests/artifacts/test_families_by_runtime.py runs every cell.

python tests/support_table.py     writes it into docs/export.md
"""

import re
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "export.md"
MARKS = "<!-- support table: python tests/support_table.py -->", "<!-- end of the support table -->"

# What the tiny configs of tests/families.py stand for: the network, and the kind of generator.
FAMILIES = {
    "edge_unet": ("edgegen's own U-Net", "unconditional"),
    "edge_unet_class": ("edgegen's own U-Net", "class"),
    "unet2d": ("`UNet2DModel`", "unconditional"),
    "unet2d_class": ("`UNet2DModel`", "class"),
    "unet2d_image_conditional": ("`UNet2DModel`", "image beside the noise (super-resolution, translation)"),
    "unet2d_skip": ("`UNet2DModel`", "unconditional, skip blocks (FIR resampling)"),
    "unet2d_condition": ("`UNet2DConditionModel`", "text, latent (Stable Diffusion)"),
    "unet2d_condition_sdxl": ("`UNet2DConditionModel`", "text, pooled text and sizes, latent (SDXL)"),
    "unet2d_condition_image": ("`UNet2DConditionModel`", "text, class and image, latent"),
    "dit": ("`DiTTransformer2DModel`", "class, latent"),
    "pixart": ("`PixArtTransformer2DModel`", "text, latent"),
    "pixart_sized": ("`PixArtTransformer2DModel`", "text and sizes, latent"),
    "sd3": ("`SD3Transformer2DModel`", "text and pooled text, latent"),
    "flux": ("`FluxTransformer2DModel`", "text and pooled text, latent (FLUX.1 schnell)"),
    "flux_guidance": ("`FluxTransformer2DModel`", "the same with guidance inside (FLUX.1 dev)"),
    "auraflow": ("`AuraFlowTransformer2DModel`", "text, latent"),
    "sana": ("`SanaTransformer2DModel`", "text and its mask, latent"),
    "sana_sprint": ("`SanaTransformer2DModel`", "the same, trained for one step (SANA-Sprint)"),
    "autoencoder_kl": ("`AutoencoderKL` decoder", "latent to image"),
    "autoencoder_tiny": ("`AutoencoderTiny` decoder", "latent to image"),
    "unet1d": ("`UNet1DModel`", "audio"),
    "unet1d_trajectory": ("`UNet1DModel`", "trajectory"),
}
RUNTIMES = {"onnx-fp32": "ONNX", "executorch-fp32": "ExecuTorch", "coreml-fp32": "Core ML"}
ANY_SIZE = {"onnx-fp32:any_size": "ONNX, any size", "coreml-fp32:sizes": "Core ML, several sizes"}
ROUNDED = ("onnx-w8a8", "executorch-w8a8", "coreml-w8a8")
NPU = ("onnx-fp16:qnn", "onnx-w8a8:qnn", "onnx-w8a16:qnn")
# coremltools has no patches and positions of an open size
TRANSFORMERS = ("pixart", "pixart_sized", "sd3", "flux", "flux_guidance", "auraflow", "sana", "sana_sprint")
WITHOUT_SIZE = ("unet1d", "unet1d_trajectory")
ITS_OWN_SIZE = ("dit",)  # its position embeddings are of the size that it was trained for


def sized(family: str) -> list[str]:
    """Those of ANY_SIZE that are "yes"; of RUNTIMES all are."""
    if family in (*WITHOUT_SIZE, *ITS_OWN_SIZE):
        return []
    return [target for target in ANY_SIZE if "coreml" not in target or family not in TRANSFORMERS]


def table() -> str:
    """The table's lines."""
    columns = {**RUNTIMES, **ANY_SIZE, ROUNDED: "w8a8 in all three", NPU: "Snapdragon's NPU (simulated)"}
    lines = ["| network | generator | " + " | ".join(columns.values()) + " |", "|---" * (2 + len(columns)) + "|"]
    for family, (network, kind) in FAMILIES.items():
        cells = ["yes" if target in [*RUNTIMES, *sized(family), ROUNDED, NPU] else "" for target in columns]
        lines.append("| " + " | ".join([network, kind, *cells]) + " |")
    return "\n".join(lines)


def in_manual() -> re.Match[str] | None:
    """What stands between the marks."""
    first, last = map(re.escape, MARKS)
    return re.search(f"{first}\n(.*?)\n{last}", PAGE.read_text(), re.DOTALL)


if __name__ == "__main__":
    match = in_manual()
    if match is None:
        raise SystemExit(f"{PAGE} has no lines {MARKS[0]} and {MARKS[1]}")
    text = PAGE.read_text()
    PAGE.write_text(text[: match.start(1)] + table() + text[match.end(1) :])
