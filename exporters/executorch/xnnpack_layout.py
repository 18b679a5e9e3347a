"""XNNPACK's layout pass, without transpositions at views that only split height x width in another way.

ExecuTorch 1.5.1 runs convolutions channels-last and turns an image to channels-first before every view, since a view
in general goes through all axes. One from (batch, channels, h, w) to (batch, channels, h', w') moves no number in
either layout: [h w, c] = [h' w', c]. The views of the rewrites winograd_rows and upsample_cat are of this kind;
with two transpositions at each view they would cost more than they save.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def channels_last_views() -> Iterator[None]:
    """Within, lowering to XNNPACK leaves such views in the layout of what they read. Not for threads at once."""
    from executorch.backends.xnnpack._passes.channels_last_tagged_reshape_pass import ChannelsLastTaggedReshapePass
    from executorch.exir.dialects._ops import ops

    original = ChannelsLastTaggedReshapePass.requires_nchw_inputs

    def requires_nchw_inputs(self: Any, node: Any) -> bool:
        if node.target == ops.edge.aten.view_copy.default:
            before, after = node.args[0].meta["val"].shape, node.meta["val"].shape
            if len(before) == len(after) == 4 and before[:2] == after[:2]:
                return False
        return bool(original(self, node))

    ChannelsLastTaggedReshapePass.requires_nchw_inputs = requires_nchw_inputs
    try:
        yield
    finally:
        ChannelsLastTaggedReshapePass.requires_nchw_inputs = original
