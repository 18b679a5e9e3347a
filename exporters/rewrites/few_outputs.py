"""A convolution with few outputs -> one of r x r pixels at once with stride r, and a pixel shuffle.

    y[o, r i + a, r j + b] = sum_cst W'[(o, a, b), c, s, t] x[c, r i + s, r j + t],   W'[(o, a, b), c, s, t] =
    W[o, c, s - a, t - b] where that exists, else 0:  kernels of k + r - 1 in place of k.

CPUs compute LANES outputs at once, whatever number there is. The image of a last layer has three, and 13 of 16 are
thrown away: 81 products of 16 for each pixel of a 9x9 convolution, and 100 / 4 by this form with r = 2.
"""

from torch import Tensor, fx

from edgegen.exporters.rewrites._graph import (
    ATEN,
    Convolution,
    calls,
    constant,
    convolution,
    finish,
    in_place_of,
    replace,
    store,
)

LANES = 16  # float32 numbers of an AVX-512 register; 8 outputs are computed at once on ARM, where it saves less
BLOCKS = (1, 2, 4)


def rewrite(module: fx.GraphModule) -> None:
    """Replace every convolution that takes fewer products so, in place."""
    for node in calls(module, ATEN.conv2d.default):
        site = convolution(module, node)
        if site is None or (block := _block(site)) == 1:
            continue
        bias = site.bias
        if bias is not None:
            values = constant(module, bias)
            if values is None:
                continue
            bias = store(module, _name(site, "bias"), values.repeat_interleave(block**2), before=node)
        kernel = store(module, _name(site, "kernel"), block_kernel(site.weight, block), before=node)
        with in_place_of(module, node):
            arguments = (site.x, kernel, bias, [block, block], list(site.padding))
            pixels = module.graph.call_function(ATEN.conv2d.default, arguments)
        replace(module, node, ATEN.pixel_shuffle.default, pixels, block)
    finish(module)


def block_kernel(weight: Tensor, block: int) -> Tensor:
    """W' (outputs * block^2, inputs, k + block - 1, k + block - 1) of W (outputs, inputs, k, k)."""
    outputs, inputs, height, width = weight.shape
    kernel = weight.new_zeros(outputs, block, block, inputs, height + block - 1, width + block - 1)
    for a in range(block):
        for b in range(block):
            kernel[:, a, b, :, a : a + height, b : b + width] = weight
    return kernel.flatten(0, 2)


def _block(site: Convolution) -> int:
    """The number of rows and columns at once that takes the fewest products; 1 where it must not be."""
    if not site.is_dense:
        return 1
    kernel = site.weight.shape[2:]
    rows, columns = site.result_size

    def products(block: int) -> float:  # for each pixel
        lanes = -(-site.weight.shape[0] * block**2 // LANES) * LANES
        return lanes * (kernel[0] + block - 1) * (kernel[1] + block - 1) / block**2

    return min((block for block in BLOCKS if rows % block == columns % block == 0), key=products)


def _name(site: Convolution, part: str) -> str:
    return f"{site.name}_block_{part}".replace(".", "_")
