"""Concats that cost nothing: what makes an operand writes it into its channels of the result.

Concats are walked from the last to the first, so that a chain, as in a DenseNet, where each concat is an operand of the
next, ends up in one buffer.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from graphc import ops
from graphc.codegen.layout import DENSE, Layout
from graphc.ir import Graph, Node, Value


@dataclass(frozen=True)
class Part:
    """A value's place in a larger one: the channels of `whole` from `channel` on."""

    whole: Value
    channel: int


def place_parts(graph: Graph, layouts: Mapping[Value, Layout]) -> dict[Value, Part]:
    """The values in blocks of channels that lie in the result of a concat; what has a place already is copied there.

    rewrite: t = concat(x, y) -> t = buffer; x in t[:, :C]; y in t[:, C:]
    checks:  x lies in blocks of channels, as t does; no other concat has a place for it, or one with the same order
    """
    parts: dict[Value, Part] = {}
    for node in reversed(graph.nodes):
        if not joins_blocks(node, layouts):
            continue
        y = node.outputs[0]
        channels = operand_channels(node)
        if y not in parts and (own := _common_whole(node, channels, parts)):
            parts[y] = own
            continue
        base = parts.get(y, Part(y, 0))
        for x, channel in zip(node.inputs, channels, strict=True):
            parts.setdefault(x, Part(base.whole, base.channel + channel))
    return parts


def joins_blocks(node: Node, layouts: Mapping[Value, Layout]) -> bool:
    """Whether the node is a concat of whole blocks of channels."""
    layout = layouts.get(node.outputs[0], DENSE)
    if not isinstance(node.op, ops.Concat) or layout == DENSE or any(layouts.get(x) != layout for x in node.inputs):
        return False
    return node.op.axis == 1 and all(channel % layout.block == 0 for channel in operand_channels(node))


def operand_channels(node: Node) -> list[int]:
    """The channel of the result at which each operand of a concat begins."""
    starts = [0]
    for x in node.inputs[:-1]:
        channels = x.type.shape[1]
        assert isinstance(channels, int)
        starts.append(starts[-1] + channels)
    return starts


def _common_whole(node: Node, channels: list[int], parts: Mapping[Value, Part]) -> Part | None:
    """Where the result lies if later concats have placed all operands in its order already."""
    first = parts.get(node.inputs[0])
    if first is None:
        return None
    wanted = [Part(first.whole, first.channel + c) for c in channels]
    return first if [parts.get(x) for x in node.inputs] == wanted else None
