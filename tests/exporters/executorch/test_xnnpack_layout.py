"""xnnpack_layout: the file computes the same with fewer turns of the picture, and the vendor's pass is put back."""

import pytest
import torch
from torch import Tensor, nn
from xnnpack_support import captured

from edgegen.exporters.executorch.xnnpack_layout import channels_last_views
from edgegen.support.vendor_logs import EXECUTORCH, quiet


class Recut(nn.Module):
    """Views of all kinds: through the channels, of the picture, back, of what is returned."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.reshape(1, 2, 16, 6).sigmoid().reshape(1, 4, 6, 8))
        rows = x.reshape(1, 6, 3, 16)
        x = torch.cat([rows[..., 8:], rows[..., :8]], dim=3).reshape(1, 6, 6, 8)
        out: Tensor = self.last(x).reshape(1, 4, 4, 12)
        return out


def turns(net: nn.Module, x: Tensor, *, kept: bool) -> tuple[int, Tensor]:
    """How many transpositions XNNPACK is given, and what the file computes."""
    from contextlib import nullcontext

    with quiet(EXECUTORCH):
        from executorch.backends.xnnpack._passes import XNNPACKPassManager
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import EdgeCompileConfig, to_edge, to_edge_transform_and_lower
        from executorch.runtime import Runtime

        edge = to_edge(captured(net, x), compile_config=EdgeCompileConfig(_skip_dim_order=True))
        with channels_last_views() if kept else nullcontext():
            passed = XNNPACKPassManager(edge.exported_program()).transform()
            lowered = to_edge_transform_and_lower(captured(net, x), partitioner=[XnnpackPartitioner()])
        buffer = lowered.to_executorch().buffer
        (out,) = Runtime.get().load_program(buffer).load_method("forward").execute([x])
        return sum("_to_copy" in str(node.target) for node in passed.graph.nodes), out.clone()


def test_fewer_turns_and_the_same_numbers(capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    net, x = Recut().eval(), torch.randn(1, 4, 8, 6)
    with torch.no_grad():
        expected = net(x)
    many, plain = turns(net, x, kept=False)
    few, ours = turns(net, x, kept=True)
    assert few < many
    torch.testing.assert_close(plain, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_the_vendors_pass_is_put_back() -> None:
    from executorch.backends.xnnpack._passes.channels_last_tagged_reshape_pass import ChannelsLastTaggedReshapePass

    before = ChannelsLastTaggedReshapePass.requires_nchw_inputs
    with channels_last_views():
        assert ChannelsLastTaggedReshapePass.requires_nchw_inputs is not before
    assert ChannelsLastTaggedReshapePass.requires_nchw_inputs is before
    with pytest.raises(ValueError, match="inside"), channels_last_views():
        raise ValueError("inside")
    assert ChannelsLastTaggedReshapePass.requires_nchw_inputs is before
