"""Which values lie in blocks of channels, and loop nests over such values.

A value lies in blocks where a convolution makes it, and stays so through what treats all channels alike: then one
vector is one pixel of a block, whatever the window or the shape of the image.
"""

from collections.abc import Mapping
from dataclasses import replace

from graphc import ops
from graphc.codegen.layout import DENSE, Layout
from graphc.codegen.moving import find_moved
from graphc.codegen.nest import Buffer, Load, Nest, Reduce, Var, loop_vars, size, split_channel, walk
from graphc.codegen.target import Target
from graphc.ir import DType, Graph, Node, TensorType, Value, dims
from graphc.ops.scalar import Call, Expr, call

# Ops that treat all channels alike, so that a lane can be a channel
CHANNELWISE = (
    *(ops.Elementwise, ops.BatchNorm, ops.MaxPool, ops.MinPool, ops.AveragePool, ops.L2Pool, ops.MaxPoolRoute),
    *(ops.UpsampleNearest, ops.UpsampleBilinear, ops.BedOfNails),
)
CONVOLUTIONS = (ops.Conv2d, ops.ConvTranspose2d)
POOLED = (ops.GlobalAveragePool, ops.GlobalMaxPool)  # their result has one pixel: its blocks are dense
REDUCTIONS = (ops.Moments, ops.Sum, ops.Mean)
FEWEST_CHANNELS = 0.5  # of a block: with fewer, the idle lanes cost more than the conversion saves


def choose_layouts(graph: Graph, target: Target) -> dict[Value, Layout]:
    """The layout of every value that does not lie dense.

    Weight gradients want blocks: while a network is trained, convolutions that could make either make those.
    """
    blocked, trained = Layout(target.lanes), any(isinstance(n.op, ops.Conv2dWeightGradient) for n in graph.nodes)
    chosen: dict[Value, Layout] = {}
    for node in graph.nodes:
        made = makes_blocks(node, target) and (trained or not makes_planes(node, node.inputs[0] not in chosen, target))
        if made or _keeps_blocks(graph, node, chosen, target):
            chosen[node.outputs[0]] = blocked
        else:
            chosen |= dict.fromkeys(find_moved(graph, node, chosen, target), blocked)
    return chosen


def makes_blocks(node: Node, target: Target) -> bool:
    """Whether the node is a convolution that a kernel over blocks of channels computes."""
    op, lanes = node.op, target.lanes
    if not isinstance(op, CONVOLUTIONS) or node.outputs[0].type.dtype != DType.F32:
        return False
    c, k = node.inputs[0].type.shape[1], node.outputs[0].type.shape[1]
    assert isinstance(c, int) and isinstance(k, int)
    r, s = node.inputs[1].type.static_shape()[2:]
    in_phases = isinstance(op, ops.ConvTranspose2d) and op.turned((r, s)) is None
    if op.groups == c == k > 1:  # depthwise: a lane is a channel
        return k >= lanes * FEWEST_CHANNELS
    if in_phases and c < lanes * FEWEST_CHANNELS:
        return False
    if op.groups > 1:
        return (c // op.groups) % lanes == 0 and (k // op.groups) % lanes == 0
    return k >= lanes * FEWEST_CHANNELS


def makes_planes(node: Node, dense: bool, target: Target) -> bool:
    """Whether the node is a convolution whose lanes better are pixels: of few channels; `dense` says how x lies."""
    if not isinstance(node.op, CONVOLUTIONS):
        return False
    x, w = (v.type for v in node.inputs[:2])
    if not fits_planes(node.op, x, w, target):
        return False
    (r, s), k, half = w.static_shape()[2:], node.outputs[0].type.shape[1], target.lanes * FEWEST_CHANNELS
    assert isinstance(k, int)
    return k < half or dense or (k == half and r * s > 1)


def fits_planes(op: ops.Conv2d | ops.ConvTranspose2d, x: TensorType, w: TensorType, target: Target) -> bool:
    """Whether the kernel with pixels in the lanes can compute the convolution, into fewer channels than lanes.

    It can at stride 1 along the rows; or transposed, if windows two columns wide lie side by side.
    """
    first, second, r, s = w.static_shape()
    if isinstance(op, ops.Conv2d):
        k, fits = first, op.stride[1] == 1
    elif op.turned((r, s)):
        k, fits = second, True
    else:
        k, fits = second, s == 2 and op == ops.ConvTranspose2d(stride=(r, s), bias=op.bias, epilogue=op.epilogue)
    width = x.shape[3]
    wide = not isinstance(width, int) or width >= target.lanes
    return fits and wide and op.groups == 1 and k < target.lanes and x.dtype == DType.F32


def reads_blocks(node: Node, target: Target) -> bool:
    """Whether the node is a weight gradient that a kernel over blocks of channels computes."""
    op, lanes = node.op, target.lanes
    if not isinstance(op, ops.Conv2dWeightGradient) or node.outputs[0].type.dtype != DType.F32:
        return False
    k, c_group, _, _ = node.outputs[0].type.static_shape()
    if op.groups > 1 and (c_group > 1 or op.groups != k):
        return c_group % lanes == 0 and (k // op.groups) % lanes == 0
    return k >= lanes * FEWEST_CHANNELS


def wanted_layout(node: Node, position: int, layout: Layout, layouts: Mapping[Value, Layout], target: Target) -> Layout:
    """How the node wants to read its input number `position`, which lies in `layout`."""
    blocked = Layout(target.lanes)
    if makes_blocks(node, target) and node.outputs[0] in layouts:
        assert isinstance(node.op, CONVOLUTIONS)
        if position == 0:
            channels = node.inputs[0].type.shape[1]
            assert isinstance(channels, int)
            return blocked if channels >= target.lanes * FEWEST_CHANNELS else DENSE
        return blocked if position >= 2 + node.op.bias else DENSE
    if position == 0 and makes_planes(node, layout == DENSE, target):
        return layout
    if isinstance(node.op, ops.Conv2dWeightGradient) and reads_blocks(node, target):
        channels = node.inputs[0].type.shape[1]
        assert isinstance(channels, int)
        return DENSE if position == 0 and channels < target.lanes * FEWEST_CHANNELS else blocked
    if isinstance(node.op, (ops.Elementwise, *REDUCTIONS)):
        return _meet(node, position, layout, layouts, target)
    if isinstance(node.op, ops.MaxPoolRoute) and node.outputs[0] in layouts:
        return blocked
    keeps = node.outputs[0] in layouts or isinstance(node.op, POOLED)
    return layout if keeps else DENSE


def _meet(node: Node, position: int, layout: Layout, layouts: Mapping[Value, Layout], target: Target) -> Layout:
    """For an op that treats all elements alike: images are in blocks if its result is, or if it adds up channels that
    are; what repeats along them stays as it is."""
    op, shape = node.op, node.inputs[position].type.shape
    if isinstance(op, ops.Elementwise):
        blocked, full = node.outputs[0] in layouts, node.outputs[0].type.shape
    else:
        lying = [v for v in node.inputs if v in layouts]
        blocked, full = bool(lying) and adds_up_channels(node), lying[0].type.shape if lying else ()
    if not blocked:
        return DENSE
    return Layout(target.lanes) if shape == full else layout


def adds_up_channels(node: Node) -> bool:
    """Whether the node reduces images [N,C,H,W] to a number for each channel."""
    x = max((v.type for v in node.inputs), key=lambda t: t.rank)
    match node.op:
        case ops.Moments():
            return x.rank == 4
        case ops.Sum() | ops.Mean():
            return x.rank == 4 and node.op.reduced(x) == {0, 2, 3}
    return False


def _keeps_blocks(graph: Graph, node: Node, chosen: Mapping[Value, Layout], target: Target) -> bool:
    y = node.outputs[0]
    if y.type.rank != 4 or y.type.dtype != DType.F32 or len(node.outputs) > 1:
        return False
    if isinstance(node.op, ops.Concat):
        *channels, _ = [v.type.shape[1] for v in node.inputs]
        aligned = all(isinstance(c, int) and c % target.lanes == 0 for c in channels)
        return node.op.axis == 1 and aligned and all(v in chosen for v in node.inputs)
    if isinstance(node.op, ops.Elementwise):
        return any(v in chosen and v.type.shape == y.type.shape for v in node.inputs)
    return isinstance(node.op, CHANNELWISE) and node.inputs[0] in chosen


def stored_views(buffers: tuple[Buffer, ...]) -> tuple[Buffer, ...] | None:
    """The operands of an elementwise op over blocks as dense tensors [N, blocks, H, W, lanes], if that is possible.

    The result is last. Operands are of its type, of one element, or [C,1,1] with whole blocks of channels.
    """
    *_, y = buffers
    views = []
    for x in buffers:
        *_, c, h, w = (1, 1, 1, *x.shape)
        if x.layout == y.layout and x.shape == y.shape:
            views.append(x.stored())
        elif x.layout != DENSE or (h, w) != (1, 1):
            return None
        elif c == 1:
            views.append(x.view(1, 1, 1, 1, 1))
        elif isinstance(c, int) and c % y.layout.block == 0 and x.type.elements == c:
            views.append(x.view(1, c // y.layout.block, 1, 1, y.layout.block))
        else:
            return None
    return tuple(views)


def fill_blocks(x: Buffer, y: Buffer, number: int) -> Nest | None:
    """[C,1,1] with zeros up to whole blocks of y's channels; None if x is not so, or has whole blocks."""
    *_, c, h, w = (1, 1, 1, *x.shape)
    if x.layout != DENSE or (h, w) != (1, 1) or x.type.elements != c or not isinstance(c, int):
        return None
    if c == 1 or c % y.layout.block == 0:
        return None
    whole = -(-c // y.layout.block) * y.layout.block
    filled = y.temporary(f"operand {number}", x.type.with_shape(whole, 1, 1))
    (i,) = loops = loop_vars("i", (whole,))
    return Nest(filled.view(whole), loops, loops, x.view(c).get(i, fill=0.0))


def split_channels(nest: Nest, block: int) -> Nest:
    """The nest with its loop over channels split into blocks and, innermost, the lanes of one, if it has one.

    rewrite: for n k p q: y[n,k,p,q] = f(k) -> for n kb p q kl: y[n, kb*block+kl, p, q] = f(kb*block+kl)
    checks:  y lies in such blocks, or has one pixel, or is [K]; its channel is k, or k and whole blocks
    """
    y = nest.output
    if not (y.type.rank == 1 or (y.type.rank == 4 and (y.layout.block == block or y.shape[2:] == (1, 1)))):
        return nest
    axis = 1 if y.type.rank == 4 else 0
    k = next((e for e in walk(nest.index[axis]) if isinstance(e, Var)), None)
    if k is None or k not in nest.loops:
        return nest
    blocks, lane = Var("kb", dims.ceil_div(k.extent, block)), Var("kl", block)
    channel = blocks * block + lane
    partly = not isinstance(k.extent, int) or k.extent % block != 0
    index = tuple(_replace(i, k, channel, partly) for i in nest.index)
    if split_channel(index[axis], block) is None or (partly and index[axis] != channel):
        return nest
    loops = (*(blocks if v == k else v for v in nest.loops), lane)
    where = nest.where and _replace(nest.where, k, channel, partly)
    if partly and y.layout.block == 1:
        inside = call("lt", channel, size(k.extent))
        where = inside if where is None else call("logical_and", where, inside)
    value = _replace(nest.value, k, channel, partly)
    tasks = 3 if len(nest.loops) == 4 else len(nest.loops)  # rows: columns run inside a task
    return replace(nest, loops=loops, index=index, value=value, where=where, parallel=min(nest.parallel, tasks))


def _replace(e: Expr, var: Var, by: Expr, partly: bool) -> Expr:
    """The expression with a variable replaced; where blocks are `partly` filled, dense operands end earlier."""
    match e:
        case Var():
            return by if e == var else e
        case Call(fn=fn, args=args):
            return call(fn, *(_replace(a, var, by, partly) for a in args))
        case Load(buffer=buffer, index=index, fill=fill):
            moved = tuple(_replace(i, var, by, partly) for i in index)
            if partly and fill is None and buffer.layout == DENSE and moved != index:
                fill = 0.0
            return Load(buffer, moved, fill)
        case Reduce(kind=kind, vars=vars, body=body):
            return Reduce(kind, vars, _replace(body, var, by, partly))
    return e
