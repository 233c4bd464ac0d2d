"""Which kernel computes which op: the one place where that is decided, and the reason with it."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from graphc import ops
from graphc.codegen.absorbing import Before
from graphc.codegen.blocking import CONVOLUTIONS, fill_blocks, fits_planes, split_channels, stored_views
from graphc.codegen.kernels.base import Kernel
from graphc.codegen.kernels.conv import DirectConv
from graphc.codegen.kernels.conv_geometry import Geometry, make_geometry, order_weights, pack_bias
from graphc.codegen.kernels.conv_planes import PlanesConv
from graphc.codegen.kernels.conv_through import ThroughConv
from graphc.codegen.kernels.conv_transpose import (
    PhaseConv,
    make_axes,
    make_phase_geometry,
    order_phases,
)
from graphc.codegen.kernels.loop_nest import LoopNestKernel
from graphc.codegen.kernels.max_pool_route import MaxPoolRouteKernel
from graphc.codegen.kernels.pack import PackWeights
from graphc.codegen.kernels.planes import make_planes, pack_planes
from graphc.codegen.kernels.product import Product
from graphc.codegen.kernels.product_operands import Operands, find_operands, product_wanted, shortening_pays
from graphc.codegen.kernels.prologue import DepthwisePrologue, ElementwisePrologue, Prologue
from graphc.codegen.kernels.relayout import Relayout
from graphc.codegen.kernels.short_weights import ShortenWeights
from graphc.codegen.kernels.taps import gather_taps, gathers, order_taps
from graphc.codegen.kernels.tile import list_tiles
from graphc.codegen.kernels.weight_gradient import WeightGradient
from graphc.codegen.kernels.window import WindowKernel, pack_channels, pack_depthwise
from graphc.codegen.kernels.window_transpose import TransposedWindowKernel
from graphc.codegen.kernels.winograd import WinogradConv
from graphc.codegen.kernels.winograd_large import WinogradLarge
from graphc.codegen.kernels.winograd_rows import WinogradRows, make_rows_geometry
from graphc.codegen.kernels.winograd_shape import (
    BySize,
    Shape,
    find_rows,
    list_shapes,
    make_rows_shape,
    winograd_fits,
    winograd_pays,
)
from graphc.codegen.kernels.winograd_weights import WinogradWeights, order_late
from graphc.codegen.layout import DENSE, Layout
from graphc.codegen.lowering import lower
from graphc.codegen.nest import Buffer, Nest, loop_vars, total
from graphc.codegen.target import Target
from graphc.ir import DimLike, DType, Op
from graphc.ops.shape import FAR

POOLS = (ops.MaxPool, ops.AveragePool)
# Which candidate computes a convolution, given its description and the candidates' names, the analytic model's first
Choose = Callable[[str, Sequence[str]], str]
# The direct convolution's register tile, vectors and pixels, or Winograd's shape, or two of these
Candidate = tuple[int, int] | Shape | BySize


def select_kernels(
    op: Op,
    inputs: Sequence[Buffer],
    outputs: Sequence[Buffer],
    target: Target,
    precise: bool = False,
    fresh: bool = False,
    choose: Choose = lambda _, candidates: candidates[0],
    before: Before | None = None,
) -> list[Kernel]:
    """The kernels that compute `outputs = op(inputs)`, in order. Buffers beside those two are temporaries.

    Where a convolution has more than one candidate, `choose` decides. If `before` is given, the first input is not
    there: the kernel computes it.

    A convolution stays within 5e-6 of its largest output against float64; if `precise`, without Winograd, 1e-6.
    `fresh` weights are computed, or given, in every run.
    """
    if before:
        assert isinstance(op, ops.Conv2d)
        return _convolve_through(op, before, inputs[1:], outputs[0], target, choose)
    if isinstance(op, ops.Conv2d) and outputs[0].layout.block == target.lanes:
        return _convolve(op, inputs, outputs[0], target, not precise, fresh, choose)
    if isinstance(op, ops.ConvTranspose2d) and outputs[0].layout.block == target.lanes:
        return _convolve_transposed(op, inputs, outputs[0], target, not precise, fresh, choose)
    if isinstance(op, CONVOLUTIONS) and _fit_planes(op, inputs, outputs[0], target):
        return _convolve_planes(op, inputs, outputs[0], target)
    if isinstance(op, ops.Conv2dWeightGradient) and inputs[1].layout.block == target.lanes:
        return _differentiate_weights(op, inputs[0], inputs[1], outputs[0], target)
    if isinstance(op, ops.Linear | ops.MatMul):
        operands = find_operands(op, *inputs, outputs[0])
        if operands and (wanted := product_wanted(operands)) != 0:
            return _multiply(op, operands, wanted, inputs, outputs[0], target, fresh)
    if isinstance(op, POOLS) and outputs[0].layout == inputs[0].layout == Layout(target.lanes) and constant_count(op):
        kind = "max" if isinstance(op, ops.MaxPool) else "average"
        return [WindowKernel(kind, op.window, outputs[0], inputs[0], None, None, [], None, target)]
    if isinstance(op, ops.Identity) and _changes_blocks(inputs[0], outputs[0], target):
        return [Relayout(outputs[0], inputs[0], target)]
    if isinstance(op, ops.MaxPoolRoute) and outputs[0].layout.block == target.lanes:
        return [MaxPoolRouteKernel(op.window, outputs[0], inputs[0], inputs[1], target)]
    buffers, fills = (*inputs, *outputs), list[Nest]()
    block = max(b.layout.block for b in buffers)
    if isinstance(op, ops.Elementwise) and outputs[0].layout != DENSE:
        found = [fill_blocks(x, outputs[0], i) for i, x in enumerate(inputs)]
        pairs = zip(inputs, found, strict=True)
        filled = [nest.output.view(*nest.output.shape, 1, 1) if nest else x for x, nest in pairs]
        if views := stored_views((*filled, outputs[0])):
            buffers, fills = views, [nest for nest in found if nest]
    lowered = lower(op, *buffers)
    if block > 1:
        lowered = [split_channels(nest, block) for nest in lowered]
    return [LoopNestKernel(op.name, nest, target) for nest in (*fills, *lowered)]


def _fit_planes(op: ops.Conv2d | ops.ConvTranspose2d, inputs: Sequence[Buffer], y: Buffer, target: Target) -> bool:
    x, w, *rest = inputs
    dense = x.layout in (DENSE, Layout(target.lanes)) and all(b.layout == DENSE for b in (y, *rest))
    return dense and fits_planes(op, x.type, w.type, target)


def _changes_blocks(x: Buffer, y: Buffer, target: Target) -> bool:
    """Whether one is dense and the other in blocks of the target's lanes, and both float32."""
    return x.type.dtype == DType.F32 and {x.layout, y.layout} == {DENSE, Layout(target.lanes)}


def constant_count(op: ops.MaxPool | ops.AveragePool) -> bool:
    """Whether every window counts all its cells, so that an average divides by a constant."""
    return isinstance(op, ops.MaxPool) or (not op.ceil_mode and (op.count_padding or not any(op.padding)))


def list_candidates(
    op: ops.Conv2d, x: Buffer, w: Buffer, y: Buffer, target: Target, winograd: bool = True, fresh: bool = False
) -> dict[str, Candidate]:
    """All kernels that compute a convolution over blocks of channels, the best by the model first."""
    read = gather_taps(op, x, w, y)[:3] if gathers(op, x, w, y, target) else (op, x, w)
    g = make_geometry(*read, y, target)
    tiles = [(g.vectors, g.pixels), *list_tiles(g.k_blocks, target)]
    direct: dict[str, Candidate] = {f"direct {v}x{pixels}": (v, pixels) for v, pixels in tiles}
    shapes, pays = list[Shape | BySize](), True
    if winograd and x.layout == DENSE and (form := find_rows(op, w.type.static_shape())):
        shapes = [make_rows_shape(form, w, *tile, target) for tile in tiles]
    elif winograd and x.layout != DENSE and winograd_fits(op, w):
        shapes = list_shapes(op, w, y, target, fresh)
        pays = winograd_pays(op, w, y, shapes[0], target, fresh)
    other: dict[str, Candidate] = {shape.name: shape for shape in shapes}
    return other | direct if pays else direct | other


def _convolve(
    op: ops.Conv2d,
    inputs: Sequence[Buffer],
    y: Buffer,
    target: Target,
    winograd: bool,
    fresh: bool,
    choose: Choose,
    turned: bool = False,
) -> list[Kernel]:
    """If `turned`, the weights are [C,K/groups,R,S], and their last tap is the first of the convolution's."""
    x, stored, *rest = inputs
    bias = rest.pop(0) if op.bias else None
    w = stored.view(y.shape[1], x.shape[1] // op.groups, *stored.shape[2:]) if turned else stored
    if op.groups > 1 and w.shape[:2] == (op.groups, 1):
        return _convolve_depthwise(op, x, w, bias, rest, y, target, turned)
    kernels: list[Kernel] = []
    if w.shape[2:] == (1, 1) and op.stride != (1, 1) and not any(op.padding) and x.layout == y.layout:
        op, x, kernels = _skip_pixels(op, x, y, target)
    candidates = list_candidates(op, x, w, y, target, winograd, fresh)
    chosen = candidates[choose(f"{op} {x.type} {x.layout} {w.type}", list(candidates))]
    if isinstance(chosen, Shape | BySize):
        return kernels + _convolve_winograd(op, chosen, x, w, stored, bias, rest, y, target, turned)
    if gathers(op, x, w, y, target):
        return _convolve_taps(op, x, w, stored, bias, rest, y, target, chosen, turned)
    g = make_geometry(op, x, w, y, target, chosen)
    packs, packed_bias = _pack_bias(g, bias, y, target)
    pack = PackWeights(order_weights(g, turned), stored, y)
    return [*kernels, *packs, pack, DirectConv(op, g, y, x, pack.buffers[0], packed_bias, rest)]


def _convolve_winograd(
    op: ops.Conv2d,
    chosen: Shape | BySize,
    x: Buffer,
    w: Buffer,
    stored: Buffer,
    bias: Buffer | None,
    extra: Sequence[Buffer],
    y: Buffer,
    target: Target,
    turned: bool,
) -> list[Kernel]:
    """By minimal filtering; `w` is what is `stored`, read as [K,C,R,S]."""
    shapes = chosen.choices(*y.shape[2:]) if isinstance(chosen, BySize) else [(chosen, 1)]
    longest, _ = max(shapes, key=lambda s: s[0].k_tiles * s[0].vectors)  # has most zeros behind its bias
    g = make_geometry(op, x, w, y, target, (longest.vectors, longest.pixels))
    kernels, packed_bias = _pack_bias(g, bias, y, target)
    for shape, wanted in shapes:
        late = PackWeights(order_late(shape, turned), stored, y) if shape.late else None
        made = late or WinogradWeights(shape, w, y, turned)
        operands = y, x, made.buffers[0], packed_bias, extra
        kernels.append(made)
        if x.layout == DENSE:
            kernels.append(WinogradRows(op, make_rows_geometry(g, shape), shape, *operands))
        elif shape.large:
            kernels.append(WinogradLarge(op, shape, *operands))
        else:
            kernels.append(WinogradConv(op, shape, *operands, wanted))
    return kernels


def _convolve_through(
    op: ops.Conv2d, before: Before, weights: Sequence[Buffer], y: Buffer, target: Target, choose: Choose
) -> list[Kernel]:
    w, *rest = weights
    bias, x = rest.pop(0) if op.bias else None, before.inputs[before.image]
    kernels, prologue = _make_prologue(before, target)
    candidates = list_candidates(op, before.result, w, y, target, winograd=False)
    tile = candidates[choose(f"{op} {x.type} {x.layout} {w.type} {prologue.reason}", list(candidates))]
    assert isinstance(tile, tuple)
    g = make_geometry(op, before.result, w, y, target, tile)
    packs, packed_bias = _pack_bias(g, bias, y, target)
    pack = PackWeights(order_weights(g), w, y)
    return [*kernels, *packs, pack, ThroughConv(op, g, y, x, pack.buffers[0], packed_bias, rest, prologue)]


def _make_prologue(before: Before, target: Target) -> tuple[list[Kernel], Prologue]:
    op, x, result = before.op, before.inputs[before.image], before.result
    others = [v for i, v in enumerate(before.inputs) if i != before.image]
    if isinstance(op, ops.Elementwise):
        expr = op.expression(tuple(v.type.dtype for v in before.inputs))
        return [], ElementwisePrologue(str(expr), before.image, x, others)
    assert isinstance(op, ops.Conv2d)
    w, bias = others[0], others[1] if op.bias else None
    packs, packed, packed_bias = _pack_depthwise(w, bias, result, target)
    window = op.window((w.type.static_shape()[2], w.type.static_shape()[3]))
    return packs, DepthwisePrologue(window, x, packed, packed_bias, op.epilogue)


def _convolve_planes(
    op: ops.Conv2d | ops.ConvTranspose2d, inputs: Sequence[Buffer], y: Buffer, target: Target
) -> list[Kernel]:
    x, w, *rest = inputs
    bias, planes = rest.pop(0) if op.bias else None, make_planes(op, x, w, y, target)
    nest = pack_planes(planes, w, y, isinstance(op, ops.ConvTranspose2d))
    pack = LoopNestKernel("pack", nest, target)
    return [pack, PlanesConv(op, planes, y, x, nest.output, bias, rest)]


def _convolve_taps(
    op: ops.Conv2d,
    x: Buffer,
    w: Buffer,
    stored: Buffer,
    bias: Buffer | None,
    extra: Sequence[Buffer],
    y: Buffer,
    target: Target,
    tile: tuple[int, int],
    turned: bool,
) -> list[Kernel]:
    """A pointwise convolution of gathered inputs; `w` is what is `stored`, read as [K,C,R,S]."""
    pointwise, seen, flat, nest = gather_taps(op, x, w, y)
    g = make_geometry(pointwise, seen, flat, y, target, tile)
    packs, packed_bias = _pack_bias(g, bias, y, target)
    r, s = w.type.static_shape()[2:]
    pack = PackWeights(order_taps(g, (r, s), turned), stored, y)
    convolution = DirectConv(pointwise, g, y, seen, pack.buffers[0], packed_bias, extra)
    return [*packs, pack, LoopNestKernel("taps", nest, target), convolution]


def _skip_pixels(op: ops.Conv2d, x: Buffer, y: Buffer, target: Target) -> tuple[ops.Conv2d, Buffer, list[Kernel]]:
    """A 1x1 convolution at a stride as one at stride 1, and what copies the pixels that it sees.

    They then are one long row for its tiles: ResNet-50's of 14x14 to 7x7 takes 20 % less time.
    """
    seen = replace(x.temporary("pixels", x.type.with_shape(*x.shape[:2], *y.shape[2:])), layout=x.layout)
    every = ops.Slice((2, 3), (0, 0), (FAR, FAR), op.stride)
    nests = [split_channels(nest, target.lanes) for nest in lower(every, x, seen)]
    return replace(op, stride=(1, 1)), seen, [LoopNestKernel("pixels", nest, target) for nest in nests]


def _pack_bias(g: Geometry, bias: Buffer | None, y: Buffer, target: Target) -> tuple[list[Kernel], Buffer | None]:
    if bias is None:
        return [], None
    nest = pack_bias(g, bias, y)
    return [LoopNestKernel("pack", nest, target)], nest.output


def _convolve_transposed(
    op: ops.ConvTranspose2d,
    inputs: Sequence[Buffer],
    y: Buffer,
    target: Target,
    winograd: bool,
    fresh: bool,
    choose: Choose,
) -> list[Kernel]:
    x, w, *rest = inputs
    r, s = w.type.static_shape()[2:]
    if same := op.turned((r, s)):
        return _convolve(same, inputs, y, target, winograd, fresh, choose, turned=True)
    bias, axes = rest.pop(0) if op.bias else None, make_axes(op, w)
    if op.groups > 1 and w.shape[:2] == (op.groups, 1):
        packs, packed, packed_bias = _pack_depthwise(w, bias, y, target)
        return [*packs, TransposedWindowKernel(axes, y, x, packed, packed_bias, rest, op.epilogue, target)]
    g = make_phase_geometry(op, x, w, target)
    kernels, packed_bias = _pack_bias(g, bias, y, target)
    pack = PackWeights(order_phases(g, axes), w, y)
    return [*kernels, pack, PhaseConv(op, axes, g, y, x, pack.buffers[0], packed_bias, rest)]


def _differentiate_weights(
    op: ops.Conv2dWeightGradient, x: Buffer, g: Buffer, dw: Buffer, target: Target
) -> list[Kernel]:
    kernel = WeightGradient(op, dw, x, g, target)
    if kernel.parts == 1:
        return [kernel]
    flat = dw.view(dw.type.elements)
    part, element = loop_vars("pe", kernel.buffers[0].shape)
    nest = Nest(flat, (element,), (element,), total(kernel.buffers[0][part, element], part))
    return [kernel, LoopNestKernel("sum", nest, target)]


def _multiply(
    op: ops.Linear | ops.MatMul,
    o: Operands,
    wanted: DimLike,
    inputs: Sequence[Buffer],
    y: Buffer,
    target: Target,
    fresh: bool,
) -> list[Kernel]:
    """The blocked product; beside it the loop nest, where the sizes of a run decide which of the two does the work."""
    kernels: list[Kernel] = []
    if not fresh and shortening_pays(o, target):
        shorten = ShortenWeights(o.b, y, target)
        kernels, o = [shorten], replace(o, b=shorten.buffers[0], b_short=True)
    if isinstance(op, ops.Linear):
        bias, epilogue, extra = inputs[2] if op.bias else None, op.epilogue, inputs[2 + op.bias :]
    else:
        bias, epilogue, extra = None, None, ()
    product = Product(o, y, bias, extra, epilogue, target, wanted)
    if wanted == 1:
        return [*kernels, product]
    nests = [LoopNestKernel(op.name, nest, target, 1 - wanted) for nest in lower(op, *inputs, y)]
    return [*kernels, *nests, product]


def _convolve_depthwise(
    op: ops.Conv2d,
    x: Buffer,
    w: Buffer,
    bias: Buffer | None,
    extra: Sequence[Buffer],
    y: Buffer,
    target: Target,
    turned: bool,
) -> list[Kernel]:
    packs, packed, packed_bias = _pack_depthwise(w, bias, y, target, turned)
    window = op.window((w.type.static_shape()[2], w.type.static_shape()[3]))
    return [*packs, WindowKernel("conv", window, y, x, packed, packed_bias, extra, op.epilogue, target)]


def _pack_depthwise(
    w: Buffer, bias: Buffer | None, y: Buffer, target: Target, turned: bool = False
) -> tuple[list[Kernel], Buffer, Buffer | None]:
    nests = [pack_depthwise(w, y, target.lanes, turned), *([pack_channels(bias, y, target.lanes)] if bias else [])]
    kernels: list[Kernel] = [LoopNestKernel("pack", nest, target) for nest in nests]
    return kernels, nests[0].output, nests[1].output if bias else None
