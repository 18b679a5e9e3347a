"""einsum: as one matrix product equal to numpy's; what is no product of two operands goes to torch."""

import numpy as np
import pytest
import torch

from edgegen.exporters.rewrites.einsum import OPS, einsum

SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "h": 6, "w": 7, "i": 6, "j": 7, "n": 3, "m": 2}


def operands(equation: str) -> list[torch.Tensor]:
    rng = np.random.default_rng(0)
    parts = equation.split("->")[0].replace(" ", "").replace("...", "").split(",")
    return [torch.from_numpy(rng.standard_normal([SIZES[letter] for letter in part])) for part in parts]


@pytest.mark.parametrize(
    "equation",
    [
        "bchw,bcij->bhwij",  # attention over pictures: weights, and mixing
        "bhwij,bcij->bchw",
        "bhwc,cd->bhwd",
        "ab,bc->ac",
        "ab, cb -> ca",
        "nab,nbc->nca",
        "abc,cbd->ad",
        "abc,dcb->da",
        "bac,bdc->bda",
        "ab,b->a",
        "ab,ab->",
        "nhwc,nc->nhw",
        "abn,bmn->nam",
        "ahb,bwa->wh",
    ],
)
def test_a_product_equals_numpys(equation: str) -> None:
    given = operands(equation)
    expected = np.einsum(equation, *(value.numpy() for value in given))
    program = torch.export.export(Module(equation), tuple(given))
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert torch.ops.aten.einsum.default not in targets
    np.testing.assert_allclose(einsum(equation, given).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(
    "equation", ["ab->ba", "aab,b->a", "ab,ac->abc", "ab,cd->ac", "ab,bc,cd->ad", "...ab,bc->...ac", "ab,bc"]
)
def test_the_rest_is_left_to_torch(equation: str) -> None:
    given = [torch.randn(2, 2, dtype=torch.float64) for _ in operands(equation)]
    given = [torch.randn(2, 2, 2, dtype=torch.float64), *given[1:]] if "aab" in equation else given
    given = [*given[:-1], torch.randn(2, dtype=torch.float64)] if equation == "aab,b->a" else given
    torch.testing.assert_close(einsum(equation, given), torch.einsum(equation, given))


def test_the_table_names_the_operator() -> None:
    assert OPS[torch.ops.aten.einsum.default] is einsum


class Module(torch.nn.Module):
    def __init__(self, equation: str) -> None:
        super().__init__()
        self.equation = equation

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        return einsum(self.equation, given)
