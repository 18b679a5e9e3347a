"""3x3 convolutions of an ONNX model by Winograd's F(4x4, 3x3): 36 multiplications where the plain sum needs 144.

    Y = A^T [ (G g G^T) * (B^T d B) ] A          (arXiv:1509.09308, Eq. 8; the sum over channels is inside [ ])

d are tiles of the image, 6 wide and 4 apart; the product is one matrix product over the channels for each of the 36
places in a tile. onnxruntime 1.32 runs 3x3 convolutions on x86 at the speed of its matrix product and has no Winograd
form, so that only fewer multiplications make them faster: 0.5 to 0.8 of the time where there are enough of them.

Every step is an op that onnxruntime runs well: the tiles and B^T d B are one convolution with stride 4 of each channel
alone; the 36 products are one 1x1 convolution in 36 groups (a batched MatMul reads its weights slower: they are not
packed); A is a product, and DepthToSpace puts the pixels in their places. The weights stay 3x3 in the file:
G g G^T is made of ops on constants, which onnxruntime evaluates when it loads the file. In memory they take 4 times
the room. The result differs by rounding alone, some 1e-5 of the largest output.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgegen.exporters.growth import Growth, Layer

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

M, N = 4, 6  # outputs of a tile along one axis, and its width; N * N products
POINTS = (0, 1, -1, 2, -2)  # of the interpolation, beside infinity: the smallest numbers give the least rounding
PREFIX = "winograd"

# Where it pays, measured on x86-64 (AVX-512) with onnxruntime 1.32 and one thread. Below 256 pixels reading four
# times the weights costs more than the multiplications saved, below 96 channels the transforms do.
LEAST_PIXELS, LEAST_CHANNELS = 256, 96
LANES = 16  # onnxruntime blocks the channels of a group by this many; other widths take a slow path


@dataclass(frozen=True)
class Transforms:
    """The matrices of F(4, 3) along one axis: A^T (4, 6), G (6, 3), B^T (6, 6), in float64."""

    at: NDArray[np.float64]
    g: NDArray[np.float64]
    bt: NDArray[np.float64]


def transforms() -> Transforms:
    """Toom-Cook's matrices, by exact arithmetic at POINTS and infinity (arXiv:1509.09308, section 4).

    G evaluates the filter and divides by prod_k (p_j - p_k), A^T is evaluation transposed, B^T has the coefficients
    of the polynomials prod_{k != j} (x - p_k); the last row (or column) stands for infinity.
    """
    points = [Fraction(p) for p in POINTS]
    at, g, bt = np.zeros((M, N)), np.zeros((N, 3)), np.zeros((N, N))
    for j, point in enumerate(points):
        others = [p for p in points if p != point]
        scale = prod((point - p for p in others), start=Fraction(1))
        at[:, j] = [float(point**i) for i in range(M)]
        g[j] = [float(point**i / scale) for i in range(3)]
        bt[j, : N - 1] = _monic(others)
    at[M - 1, N - 1] = g[N - 1, 2] = 1.0
    bt[N - 1] = _monic(points)
    return Transforms(at, g, bt)


def _monic(roots: list[Fraction]) -> list[float]:
    """Coefficients of prod (x - root), lowest power first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *coefficients], [*(root * c for c in coefficients), Fraction(0)]
        coefficients = [a - b for a, b in zip(shifted, scaled, strict=True)]
    return [float(c) for c in coefficients]


@dataclass(frozen=True)
class WinogradSite:
    """A 3x3 convolution: its node, the channels in and out, the known size of its result, the pixels added around."""

    node: "NodeProto"
    inputs: int
    outputs: int
    rows: int
    columns: int
    padding: int = 1

    @property
    def name(self) -> str:
        """Its layer in the network, of a node that is named after one."""
        name: str = self.node.name
        return name.rpartition("/")[0] or name

    @property
    def pays(self) -> bool:
        """Whether the image divides into tiles and the work is large enough to gain."""
        fits = self.rows % M == 0 and self.columns % M == 0 and self.inputs % LANES == 0 and self.outputs % LANES == 0
        large = self.pixels >= LEAST_PIXELS and min(self.inputs, self.outputs) >= LEAST_CHANNELS
        return fits and large

    @property
    def pixels(self) -> int:
        """Of the image; the time saved for each byte of memory is in proportion to them."""
        return self.rows * self.columns

    @property
    def memory(self) -> int:
        """Bytes that its float32 weights take more than before."""
        return 4 * (N * N - 9) * self.inputs * self.outputs


def winograd(model: "ModelProto", growth: Growth) -> int:
    """Rewrite, in place, every 3x3 convolution that gains by it, as far as `growth` allows; gives their number.

    Rewritten are those with constant weights, stride 1, padding 1 or 0, no groups and no dilation, on images (batch,
    channels, height, width) of known size; the batch may be symbolic. The largest images come first. All others stay.
    `model` is of opset 13 or more and holds the shapes of its values, as torch.onnx writes them;
    `onnx.shape_inference.infer_shapes` adds them elsewhere.
    """
    graph = model.graph
    constants = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    shapes = _shapes(graph)
    sites = {i: site for i, node in enumerate(graph.node) if (site := _site(node, constants, shapes)) is not None}
    layers = {i: Layer(site.name, site.memory, site.pixels) for i, site in sites.items()}
    chosen = growth.choose(layers, rewrite="winograd")
    sites = {i: sites[i] for i in chosen}
    if not sites:
        return 0
    _share_constants(graph)
    nodes: list[NodeProto] = []
    for i, node in enumerate(graph.node):
        nodes += _Writer(graph, sites[i]).nodes if i in sites else [node]
    del graph.node[:]
    graph.node.extend(nodes)
    return len(sites)


def _shapes(graph: Any) -> dict[str, list[int | None]]:
    """name -> sizes, None where symbolic; of all values whose shape the graph holds."""
    return {
        value.name: [dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim]
        for value in [*graph.input, *graph.output, *graph.value_info]
    }


def _site(
    node: "NodeProto", constants: dict[str, tuple[int, ...]], shapes: dict[str, list[int | None]]
) -> WinogradSite | None:
    """The convolution at `node`; None for another operator, and where it does not pay."""
    if node.op_type != "Conv" or node.domain or not all(name in constants for name in node.input[1:]):
        return None
    from onnx.helper import get_attribute_value

    attributes = {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}
    plain = {"group": 1, "strides": [1, 1], "dilations": [1, 1], "auto_pad": b"NOTSET"}
    weight, shape = constants[node.input[1]], shapes.get(node.input[0], [])
    if weight[2:] != (3, 3) or len(shape) != 4 or attributes.get("pads") not in ([0] * 4, [1] * 4):
        return None
    if any(attributes.get(key, value) != value for key, value in plain.items()):
        return None
    _, inputs, rows, columns = shape
    if inputs is None or rows is None or columns is None:
        return None
    padding = attributes["pads"][0]
    added = 2 * padding - 2
    site = WinogradSite(node, inputs, weight[0], rows + added, columns + added, padding)
    return site if site.pays else None


def _share_constants(graph: Any) -> None:
    """The transforms of both axes at once, as Kronecker products: of the weights, as a kernel, of the outputs."""
    matrices = transforms()
    _add(graph, f"{PREFIX}_weights", np.kron(matrices.g, matrices.g))
    _add(graph, f"{PREFIX}_tiles", np.kron(matrices.bt, matrices.bt).reshape(N * N, 1, N, N))
    _add(graph, f"{PREFIX}_outputs", np.kron(matrices.at, matrices.at))


def _add(graph: Any, name: str, values: NDArray[Any]) -> str:
    from onnx.numpy_helper import from_array

    kind = np.float32 if values.dtype.kind == "f" else np.int64
    graph.initializer.append(from_array(np.ascontiguousarray(values, dtype=kind), name))
    return name


class _Writer:
    """Writes the ops of one convolution into `nodes`, their shapes' constants into `graph`."""

    def __init__(self, graph: Any, site: WinogradSite) -> None:
        self.graph, self.site = graph, site
        self.nodes: list[NodeProto] = []
        self.name = f"{PREFIX}_{site.node.output[0]}"
        self._write()

    def _write(self) -> None:
        site = self.site
        x, weight, *bias = site.node.input
        rows, columns, places = site.rows // M, site.columns // M, N * N
        # (outputs * inputs, 9) -> (36, outputs, inputs): constants, evaluated when the file is loaded.
        kernels = self._op("Transpose", self._reshape(weight, -1, 9), perm=[1, 0])
        kernels = self._reshape(self._op("MatMul", f"{PREFIX}_weights", kernels), places * site.outputs, -1, 1, 1)
        # (batch * inputs, 1, height, width) -> (batch * inputs, 36, height / 4, width / 4)
        missing = 2 - 2 * site.padding
        images = self._reshape(x, -1, 1, site.rows + missing, site.columns + missing)
        steps: dict[str, Any] = {"kernel_shape": [N, N], "strides": [M, M], "pads": [site.padding] * 4}
        tiles = self._op("Conv", images, f"{PREFIX}_tiles", **steps)
        tiles = self._reshape(tiles, -1, site.inputs, places, rows * columns)
        tiles = self._reshape(self._op("Transpose", tiles, perm=[0, 2, 1, 3]), -1, places * site.inputs, rows, columns)
        # (batch, 36 * inputs, ...) -> (batch, 36 * outputs, ...) -> (batch, 16 * outputs, ...)
        products = self._op("Conv", tiles, kernels, group=places, kernel_shape=[1, 1])
        products = self._reshape(products, -1, places, site.outputs * rows * columns)
        pixels = self._op("MatMul", f"{PREFIX}_outputs", products)
        pixels = self._reshape(pixels, -1, M * M * site.outputs, rows, columns)
        out = site.node.output[0]
        pixels = self._op("DepthToSpace", pixels, blocksize=M, out="" if bias else out)
        if bias:
            self._op("Add", pixels, self._reshape(bias[0], 1, -1, 1, 1), out=out)

    def _op(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        from onnx.helper import make_node

        out = out or f"{self.name}_{len(self.nodes)}"
        name = f"{self.site.node.name}.{PREFIX}_{len(self.nodes)}_{kind}"
        self.nodes.append(make_node(kind, list(inputs), [out], name=name, **attributes))
        return out

    def _reshape(self, value: str, *shape: int) -> str:
        target = _add(self.graph, f"{self.name}_{len(self.nodes)}_shape", np.array(shape))
        return self._op("Reshape", value, target)
