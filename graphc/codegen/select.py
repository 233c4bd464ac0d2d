"""Which kernel computes which op: the one place where that is decided, and the reason with it."""

from collections.abc import Callable, Sequence

from graphc import ops
from graphc.codegen.blocking import split_channels, stored_views
from graphc.codegen.kernels.base import Kernel
from graphc.codegen.kernels.conv import DirectConv
from graphc.codegen.kernels.conv_geometry import make_geometry, pack_bias, pack_weights
from graphc.codegen.kernels.loop_nest import LoopNestKernel
from graphc.codegen.kernels.relayout import Relayout
from graphc.codegen.kernels.tile import list_tiles
from graphc.codegen.kernels.window import WindowKernel, pack_channels, pack_depthwise
from graphc.codegen.kernels.winograd import WinogradConv
from graphc.codegen.kernels.winograd_shape import make_shape, winograd_fits, winograd_pays
from graphc.codegen.kernels.winograd_weights import WinogradWeights
from graphc.codegen.layout import DENSE, Layout
from graphc.codegen.lowering import lower
from graphc.codegen.nest import Buffer
from graphc.codegen.target import Target
from graphc.ir import DType, Op

POOLS = (ops.MaxPool, ops.AveragePool)
# Which candidate computes a convolution, given its description and the candidates' names, the analytic model's first
Choose = Callable[[str, Sequence[str]], str]


def select_kernels(
    op: Op,
    inputs: Sequence[Buffer],
    outputs: Sequence[Buffer],
    target: Target,
    precise: bool = False,
    choose: Choose = lambda _, candidates: candidates[0],
) -> list[Kernel]:
    """The kernels that compute `outputs = op(inputs)`, in order. Buffers beside those two are temporaries.

    Where a convolution has more than one candidate, `choose` decides.

    A convolution stays within 5e-6 of its largest output against float64; if `precise`, without Winograd, 1e-6.
    """
    if isinstance(op, ops.Conv2d) and outputs[0].layout.block == target.lanes:
        return _convolve(op, inputs, outputs[0], target, precise, choose)
    if isinstance(op, POOLS) and outputs[0].layout == inputs[0].layout == Layout(target.lanes) and constant_count(op):
        kind = "max" if isinstance(op, ops.MaxPool) else "average"
        return [WindowKernel(kind, op.window, outputs[0], inputs[0], None, None, [], None, target)]
    if isinstance(op, ops.Identity) and _changes_blocks(inputs[0], outputs[0], target):
        return [Relayout(outputs[0], inputs[0], target)]
    buffers = (*inputs, *outputs)
    block = max(b.layout.block for b in buffers)
    if isinstance(op, ops.Elementwise) and outputs[0].layout != DENSE:
        buffers = stored_views(buffers) or buffers
    nests = lower(op, *buffers)
    if block > 1:
        nests = [split_channels(nest, block) for nest in nests]
    return [LoopNestKernel(op.name, nest, target) for nest in nests]


def _changes_blocks(x: Buffer, y: Buffer, target: Target) -> bool:
    """Whether one is dense and the other in blocks of the target's lanes, and both float32."""
    return x.type.dtype == DType.F32 and {x.layout, y.layout} == {DENSE, Layout(target.lanes)}


def constant_count(op: ops.MaxPool | ops.AveragePool) -> bool:
    """Whether every window counts all its cells, so that an average divides by a constant."""
    return isinstance(op, ops.MaxPool) or (not op.ceil_mode and (op.count_padding or not any(op.padding)))


def list_candidates(
    op: ops.Conv2d, x: Buffer, w: Buffer, y: Buffer, target: Target, precise: bool
) -> dict[str, tuple[int, int] | None]:
    """All kernels that compute a convolution over blocks of channels, the best by the model first.

    A name, and the vectors and pixels of its register tile; None is for Winograd's.
    """
    g = make_geometry(op, x, w, y, target)
    tiles = [(g.vectors, g.pixels), *list_tiles(g.k_blocks, target)]
    direct: dict[str, tuple[int, int] | None] = {f"direct {v}x{pixels}": (v, pixels) for v, pixels in tiles}
    if x.layout != y.layout or precise or not winograd_fits(op, w):
        return direct
    winograd: dict[str, tuple[int, int] | None] = {"winograd": None}
    return winograd | direct if winograd_pays(op, w, y, target) else direct | winograd


def _convolve(
    op: ops.Conv2d, inputs: Sequence[Buffer], y: Buffer, target: Target, precise: bool, choose: Choose
) -> list[Kernel]:
    x, w, *rest = inputs
    bias = rest.pop(0) if op.bias else None
    if op.groups > 1 and w.shape[:2] == (op.groups, 1):
        return _convolve_depthwise(op, x, w, bias, rest, y, target)
    candidates = list_candidates(op, x, w, y, target, precise)
    tile = candidates[choose(f"{op} {x.type} {x.layout} {w.type}", list(candidates))]
    g = make_geometry(op, x, w, y, target, tile)
    bias_nest = pack_bias(g, bias, y) if bias else None
    kernels: list[Kernel] = [LoopNestKernel("pack", bias_nest, target)] if bias_nest else []
    packed_bias = bias_nest.output if bias_nest else None
    if tile is None:
        shape = make_shape(w, target)
        weights = WinogradWeights(shape, w, y)
        return [*kernels, weights, WinogradConv(op, shape, y, x, weights.buffers[0], packed_bias, rest)]
    nest = pack_weights(g, w, y)
    return [*kernels, LoopNestKernel("pack", nest, target), DirectConv(op, g, y, x, nest.output, packed_bias, rest)]


def _convolve_depthwise(
    op: ops.Conv2d, x: Buffer, w: Buffer, bias: Buffer | None, extra: Sequence[Buffer], y: Buffer, target: Target
) -> list[Kernel]:
    nests = [pack_depthwise(w, y, target.lanes), *([pack_channels(bias, y, target.lanes)] if bias else [])]
    packed, packed_bias = nests[0].output, nests[1].output if bias else None
    window = op.window((w.type.static_shape()[2], w.type.static_shape()[3]))
    kernel = WindowKernel("conv", window, y, x, packed, packed_bias, extra, op.epilogue, target)
    return [*(LoopNestKernel("pack", nest, target) for nest in nests), kernel]
