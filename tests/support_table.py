"""The table of README.md that says which family is exported to which runtime: as Markdown, from what is tested.

Every cell is "yes", because `test_families_by_runtime.py` exports, runs and compares each of them. To renew the table
in README.md: `python tests/support_table.py`.
"""

from pathlib import Path

from families import NETWORKS

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- support -->", "<!-- /support -->"
TARGETS = {"onnx-fp32": "ONNX", "executorch-fp32": "ExecuTorch", "coreml-fp32": "Core ML"}
FAMILIES = {
    "edge_unet": "edgegen's own network, unconditional",
    "edge_unet_class": "edgegen's own network, class-conditional",
    "unet2d": "`UNet2DModel`, unconditional",
    "unet2d_class": "`UNet2DModel`, class-conditional",
    "unet2d_image_conditional": "`UNet2DModel`, image-conditional",
    "unet2d_condition": "`UNet2DConditionModel`, text-conditional (Stable Diffusion 1 and 2)",
    "unet2d_condition_sdxl": "`UNet2DConditionModel`, with text and sizes (Stable Diffusion XL)",
    "unet2d_condition_image": "`UNet2DConditionModel`, with an image and a noise level (upscaler)",
    "dit": "`DiTTransformer2DModel`",
    "pixart": "`PixArtTransformer2DModel`",
    "pixart_sized": "`PixArtTransformer2DModel`, with resolution and aspect ratio",
    "sd3": "`SD3Transformer2DModel`",
    "autoencoder_kl": "`AutoencoderKL`, its decoder",
    "autoencoder_tiny": "`AutoencoderTiny`, its decoder",
    "unet1d": "`UNet1DModel`, audio (Dance Diffusion)",
    "unet1d_trajectory": "`UNet1DModel`, trajectories (Diffuser)",
}


def table() -> str:
    """Family x runtime as a Markdown table, a line for each of `NETWORKS`, without a line end at its end.

    Raises KeyError for a family that `FAMILIES` does not describe.
    """
    rows = [["network", *(f"{runtime} fp32" for runtime in TARGETS.values())], ["---"] * (1 + len(TARGETS))]
    rows += [[FAMILIES[name], *("yes" for _ in TARGETS)] for name in NETWORKS]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def in_readme(text: str) -> str:
    """What stands between the two markers. Raises ValueError where one is missing."""
    return _split(text)[1].strip()


def _split(text: str) -> tuple[str, str, str]:
    """What is before, between and after the two markers."""
    before, begin, rest = text.partition(BEGIN)
    inside, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README.md needs the markers {BEGIN} and {END}: the support table goes between them")
    return before, inside, after


if __name__ == "__main__":
    before, _, after = _split(README.read_text(encoding="utf-8"))
    README.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")
