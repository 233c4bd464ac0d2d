"""What `make guard` draws: structures, each compiled once and run at many sizes; the kernels that it must reach."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from hypothesis import strategies as st
from problem import SUMS, Data, H, Input, N, Problem, W, image, normal, weight
from problems import PROBLEMS, with_epilogue
from random_graphs import draw_graph
from test_executors import check as check_problem
from test_gradient_kernels import PROBLEMS as GRADIENTS
from test_gradient_kernels import blocked
from test_random_graphs import check as check_network

from graphc import nn, ops
from graphc.codegen.kernels.base import Kernel
from graphc.codegen.kernels.product_operands import LEAST_SHORTENED
from graphc.codegen.kernels.winograd import WinogradConv
from graphc.codegen.kernels.winograd_large import WinogradLarge
from graphc.codegen.kernels.winograd_rows import WinogradRows
from graphc.codegen.kernels.winograd_shape import FORMS, LARGE_ROWS, LARGEST_ROWS
from graphc.codegen.plan import Plan
from graphc.ir import Array, Builder, DimLike, DType, Graph, TensorType, dims, f32
from graphc.ops import OPS
from graphc.passes import eliminate_dead_code
from graphc.reference import random_inputs

Image = tuple[DimLike, DimLike]  # height and width
# See `family`. Loop nests are counted by the op that they compute.
FAMILIES = (
    *("conv_dense", "conv_blocked", "conv_pointwise", "conv_through", "conv_phases", "conv_planes", "nest_taps"),
    *("window_conv", "window_max", "window_average"),
    *("window_phases", "winograd", "winograd_edges", "winograd_large", "winograd_late", "winograd_phases"),
    *("winograd_rows", "winograd_weights"),
    *("pack_weights", "product", "shorten_weights"),
    *("weight_gradient_blocked", "weight_gradient_dense", "weight_gradient_depthwise", "max_pool_route"),
    *("dense_to_blocks", "blocks_to_dense", "move_channels", "nest_pack", "nest_pixels", "nest_sum", "carry_rows"),
)
# What is slower with fewer lanes
NOT_THERE = {"x86-64-v2": {"shorten_weights", "winograd_late"}}
# These are no code: their result is their operand's bytes, or passes rewrite them into others
WITHOUT_CODE = {"dropout", "flatten", "reshape", "identity", "batch_norm", "split"}


def family(kernel: Kernel) -> str:
    """The family of a kernel: what its name begins with, but for Winograd's, which all are called by their form."""
    if isinstance(kernel, WinogradRows | WinogradLarge):
        return "winograd_rows" if isinstance(kernel, WinogradRows) else "winograd_large"
    if isinstance(kernel, WinogradConv) and (kernel.shape.late or kernel.shape.stride > 1):
        return "winograd_late" if kernel.shape.late else "winograd_phases"
    if isinstance(kernel, WinogradConv) and any(kernel.shape.edges):
        return "winograd_edges"
    return next((f for f in sorted(FAMILIES, key=len, reverse=True) if kernel.name.startswith(f)), kernel.name)


def hostile(dtype: DType) -> Data:
    """Indices that lie outside of everything, and floats that no integer holds, beside usual ones."""
    if dtype.is_integer:
        least, most = (int(x) for x in dtype.limits)
        values: list[float] = [least, least + 1, most - 1, most, most // 2, 0, 1, 2, 5]
    elif dtype.is_float or dtype.is_half:
        values = [np.nan, np.inf, -np.inf, 3e38, -3e38, 2.0**31, -(2.0**63), 1e-40, 0.0, -0.0, 0.5, 1.0, 5.0]
    else:
        values = [False, True]
    with np.errstate(over="ignore"):  # f16 has infinity for the large ones
        choices = np.array(values).astype(dtype.numpy)
    return lambda rng, shape: rng.choice(choices, shape)


@dataclass(frozen=True)
class Drawn:
    """A graph, how to draw its inputs, and how far a result may be from the reference; None: it is not compared."""

    graph: Graph
    arrays: Callable[[dict[str, int], int], list[Array]]
    check: Callable[[list[Array], list[Array], str], None] | None
    least_size: int = 1


def draw_problem(problem: Problem, wild: bool) -> Drawn:
    if not wild:
        check = lambda found, expected, where: check_problem(problem, expected, found, where)  # noqa: E731
        return Drawn(problem.build(), problem.arrays, check, problem.least_size)
    wild_problem = replace(problem, inputs=tuple(replace(x, data=hostile(x.type.dtype)) for x in problem.inputs))
    return Drawn(wild_problem.build(), wild_problem.arrays, None, problem.least_size)


def draw_network(seed: int) -> Drawn:
    graph = eliminate_dead_code(draw_graph(seed))
    return Drawn(graph, partial(random_inputs, graph), check_network)


CHANNELS = st.sampled_from([1, 2, 3, 4, 7, 8, 15, 16, 17, 24, 33, 48, 64, 80, 100, 200])
MANY = st.sampled_from([16, 17, 20, 24, 32, 48, 64, 80, 100, 129, 200])
KERNELS = [(1, 1), (1, 1), (3, 3), (2, 2), (7, 7), (4, 3), (9, 9), (1, 5)]
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
EPILOGUES = st.sampled_from([None, "max(x0, 0.0)", "max((x0 + x1), 0.0)", "(tanh(x0) * x1)"])
ROUNDED = 1e-4  # of the largest result: what an epilogue makes of 5e-6 of a convolution's largest


def convolution(draw: st.DrawFn, op: ops.Conv2d, c: int, k: int, kernel: tuple[int, int], size: Image) -> Problem:
    """With weights that make results of about 1, and an epilogue."""
    taps = lambda rng, shape: normal(rng, shape) / np.float32(np.sqrt(np.prod(shape[1:])))  # noqa: E731
    bias, epilogue = draw(st.booleans()), draw(EPILOGUES)
    op = replace(op, bias=bias)
    weights = [weight(k, c // op.groups, *kernel, data=taps), *([weight(k)] if bias else [])]
    operands = with_epilogue([Input(f32(N, c, *size)), *weights], lambda: op, epilogue)
    least = max(d * (e - 1) + 1 for d, e in zip(op.dilation, kernel, strict=True))
    return Problem(replace(op, epilogue=epilogue), operands, ROUNDED, least)


def draw_pads(draw: st.DrawFn, kernel: tuple[int, int]) -> tuple[int, int, int, int]:
    pads = draw(st.tuples(*[st.integers(0, 4)] * 4))
    return draw(st.sampled_from([pads, (kernel[0] // 2, kernel[1] // 2) * 2, (0, 0, 0, 0)]))


@st.composite
def blocked_conv(draw: st.DrawFn) -> Problem:
    """Direct convolutions over blocks of channels."""
    c, k, kernel = draw(CHANNELS), draw(CHANNELS), draw(st.sampled_from(KERNELS))
    groups, stride, dilation = 1, (1, 1), (1, 1)
    match draw(st.sampled_from(["plain", "strided", "dilated", "depthwise", "grouped"])):
        case "strided":
            stride = draw(pairs)
        case "dilated":
            dilation = draw(pairs)
        case "depthwise":
            groups, k, stride, dilation = c, c, draw(pairs), draw(pairs)
        case "grouped":
            groups, c, k, stride = 2, 32 * draw(st.integers(1, 2)), 32 * draw(st.integers(1, 2)), draw(pairs)
    return convolution(draw, ops.Conv2d(stride, draw_pads(draw, kernel), dilation, groups), c, k, kernel, (H, W))


@st.composite
def winograd(draw: st.DrawFn) -> Problem:
    """Winograd's, of each form; those for small maps are chosen where the size is known."""
    large = draw(st.integers(LARGE_ROWS, LARGEST_ROWS)), draw(st.integers(1, LARGEST_ROWS))
    kernel, stride = draw(st.sampled_from([*sorted(FORMS), (large, (1, 1)), (large, (1, 1))]))
    few = kernel == large or draw(st.booleans())  # the reference takes memory for all taps
    c, k = (draw(MANY), draw(MANY)) if few else (draw(st.sampled_from([256, 300, 512])), draw(MANY) * 2)
    known = st.tuples(*(st.integers(max(7, extent), max(20, extent + 8)) for extent in kernel))
    size: Image = (H, W) if draw(st.booleans()) else draw(known)
    return convolution(draw, ops.Conv2d(stride, draw_pads(draw, kernel)), c, k, kernel, size)


@st.composite
def first_layer(draw: st.DrawFn) -> Problem:
    """Of images of few channels, which lie dense: directly, and by transforms of their columns."""
    c, k, stride = draw(st.integers(1, 7)), draw(MANY), draw(st.integers(1, 4))
    kernel = draw(st.integers(stride + 1, min(4 * stride, 11))), draw(st.integers(1, 11))
    op = ops.Conv2d((stride, draw(st.integers(1, 4))), draw_pads(draw, kernel))
    return convolution(draw, op, c, k, kernel, (H, W))


@st.composite
def weight_gradient(draw: st.DrawFn) -> Problem:
    """Of images of few channels, which lie dense, of many, and of each channel for itself."""
    c, k, groups = draw(st.sampled_from([1, 1, 2, 3, 4, 7])), draw(MANY), 1
    match draw(st.sampled_from(["dense", "blocked", "depthwise", "grouped"])):
        case "blocked":
            c = draw(MANY)
        case "depthwise":
            c = groups = k
        case "grouped":
            groups, c, k = 2, 32 * draw(st.integers(1, 2)), 32 * draw(st.integers(1, 2))
    kernel = draw(st.sampled_from(KERNELS))
    op = ops.Conv2dWeightGradient(draw(pairs), draw_pads(draw, kernel), draw(pairs), groups, kernel=kernel)
    p, q = op.window.positions(H, W)
    g = lambda rng, shape: normal(rng, shape) / np.float32(np.sqrt(np.prod(shape[2:])))  # noqa: E731  # sums of about 1
    least = max(d * (e - 1) + 1 for d, e in zip(op.dilation, kernel, strict=True))
    return Problem(op, (image(c), Input(f32(N, k, p, q), g)), ROUNDED, least)


@st.composite
def blocked_pools(draw: st.DrawFn) -> Drawn:
    """Pools, elementwise ops, concats, transposes and resizing of images in blocks of channels."""
    c, kernel = draw(CHANNELS), draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    pads = tuple(draw(st.integers(0, min(k - 1, 2))) for k in kernel * 2)
    net, (x,) = blocked(c)
    assert len(pads) == 4
    y = nn.max_pool(x, kernel, draw(pairs), pads, draw(pairs), draw(st.booleans()))
    z = nn.average_pool(x, kernel, draw(pairs), pads, draw(st.booleans()), draw(st.booleans()))
    mean = nn.average_pool(x, kernel, draw(pairs))
    taps = normal(np.random.default_rng(c), (16, 2 * c, 1, 1)) / np.float32(c)
    both = nn.concat([nn.relu(x), nn.add(x, nn.global_average_pool(x))], 1)
    joined = net.apply(ops.Conv2d(bias=False), both, net.param("joined", taps))
    graph = net.build(y, z, mean, joined, nn.transpose(x, (0, 2, 3, 1)), nn.upsample_nearest(x, 2), nn.softmax(x, 1))
    return Drawn(graph, partial(random_inputs, graph), check_network, 4 * 3)


@st.composite
def absorbed(draw: st.DrawFn) -> Drawn:
    """Elementwise ops and depthwise convolutions before 1x1 convolutions, one after the other."""
    c = 16 * draw(st.integers(1, 20))
    net, (x,) = blocked(c)
    for name in "ab":
        columns = [net.param(f"{name}{i}", normal(np.random.default_rng(i), (c, 1, 1))) for i in (0, 1)]
        match draw(st.sampled_from(["norm", "tanh", "depthwise"])):
            case "norm":
                y = nn.relu(nn.add(nn.mul(x, columns[0]), columns[1]))
            case "tanh":
                y = nn.mul(columns[0], nn.tanh(x))
            case _:
                kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
                y = nn.conv2d(x, c, kernel, 1, draw_pads(draw, kernel), groups=c, name=f"{name}.depthwise")
        k = draw(MANY) if name == "b" else 16 * draw(st.integers(1, 5))
        x = nn.conv2d(y, k, 1, name=f"{name}.conv")
        twice = draw(st.booleans())
        c, x = (2 * k, nn.concat([x, nn.max_pool(x, 3, 1, 1)], 1)) if twice else (k, x)
    graph = net.build(x)
    return Drawn(graph, partial(random_inputs, graph), check_network, 5)


@st.composite
def moved(draw: st.DrawFn) -> Drawn:
    """Channels of two images in blocks that are joined, shuffled and cut anywhere."""
    groups = draw(st.integers(2, 4))
    half = groups * draw(st.integers(-(-16 // groups), 40))
    net, (x,) = blocked(half)
    n, _, h, w = x.type.shape
    y = nn.reshape(nn.concat([x, nn.relu(x)], 1), (n, groups, 2 * half // groups, h, w))
    y = nn.reshape(nn.transpose(y, (0, 2, 1, 3, 4)), (n, 2 * half, h, w))
    cut = draw(st.integers(1, 2 * half - 1))
    parts = nn.split(y, (cut, 2 * half - cut))
    graph = net.build(*parts, nn.conv2d(parts[1], draw(MANY), 1, name="conv"))
    return Drawn(graph, partial(random_inputs, graph), check_network)


@st.composite
def blocked_routes(draw: st.DrawFn) -> Drawn:
    """The way back through max pools, and sums over channels."""
    kernel, c = draw(pairs), draw(CHANNELS)
    pads = tuple(draw(st.integers(0, kernel[i % 2] - 1)) for i in range(4))
    op = ops.MaxPoolRoute(kernel, draw(pairs), pads, draw(pairs), draw(st.booleans()))  # type: ignore[arg-type]
    y = ops.MaxPool(**op.window_fields()).infer(f32(N, c, H, W))
    assert isinstance(y, TensorType)
    net, (x, g, m) = blocked(c, y, f32(c))
    mean, variance = net.add(ops.Moments(), (x,))
    column = net.apply(ops.Reshape((c, 1, 1)), m)
    total = net.apply(ops.Sum((0, 2, 3), draw(st.booleans()), "(x0 * (x0 - x1))"), x, column)
    graph = net.build(net.apply(op, x, g), mean, variance, total)

    def arrays(sizes: dict[str, int], seed: int) -> list[Array]:
        rng = np.random.default_rng(seed)
        images = rng.integers(-2, 3, (sizes["N"], 3, sizes["H"], sizes["W"])).astype(np.float32)  # many cells are equal
        shape = tuple(dims.evaluate(d, sizes) for d in y.shape)
        return [images, normal(rng, shape), normal(rng, (c,))]

    return Drawn(graph, arrays, check_network, 7)


@st.composite
def products(draw: st.DrawFn) -> Problem:
    """Products that are large enough for blocks: of constant and of open lengths."""
    lengths = st.one_of(st.integers(8, 40), st.integers(41, 400))
    c, k, m = draw(lengths), draw(lengths), draw(lengths)
    if draw(st.booleans()):
        bias, lead = draw(st.booleans()), draw(st.sampled_from([(N,), (N, H), (H, W)]))
        operands = [Input(f32(*lead, c)), weight(k, c), *([weight(k)] if bias else [])]
        return Problem(ops.Linear(bias), tuple(operands), SUMS)
    turn_a, turn_b = draw(st.booleans()), draw(st.booleans())
    rows, depth, columns = draw(st.sampled_from([(m, c, k), (H, c, k), (m, H, k), (m, c, H), (H, W, k)]))
    a = (depth, rows) if turn_a else (rows, depth)
    b = (columns, depth) if turn_b else (depth, columns)
    return Problem(ops.MatMul(turn_a, turn_b), (Input(f32(*a)), Input(f32(*b))), SUMS, least_size=16)


@st.composite
def constant_layers(draw: st.DrawFn) -> Drawn:
    """Fully connected layers with so many weights that they are kept in 24 bits."""
    c = draw(st.integers(41, 1000))
    k = LEAST_SHORTENED // c + draw(st.integers(1, 40))
    net = Builder("layer", seed=c)
    graph = net.build(nn.linear(net.input("x", f32(*draw(st.sampled_from([(N, c), (N, H, c)])))), k, name="fc"))
    return Drawn(graph, partial(random_inputs, graph), check_network)


DRAWS: dict[str, st.SearchStrategy[Problem] | st.SearchStrategy[Drawn]] = {
    "blocked conv": blocked_conv(),
    "transposed conv": GRADIENTS["transposed"],
    "winograd": winograd(),
    "first layer": first_layer(),
    "weight gradient": weight_gradient(),
    "blocked pools": blocked_pools(),
    "absorbed ops": absorbed(),
    "moved channels": moved(),
    "blocked routes": blocked_routes(),
    "products": products(),
    "constant layers": constant_layers(),
    "networks": st.integers(0, 2**31).map(draw_network),
    **PROBLEMS,
}
# of these kinds so many times as many are drawn: they are most of the code
DRAWN_MORE = {
    "blocked conv": 6,
    "winograd": 4,
    "transposed conv": 3,
    "weight gradient": 4,
    "blocked pools": 2,
    "networks": 3,
}


def reached(plan: Plan, sizes: dict[str, int]) -> set[str]:
    """The families of the kernels that a run of these sizes executes."""
    steps = [s for s in (*plan.setup, *plan.steps) if dims.evaluate(s.kernel.tasks, sizes) > 0]
    return {family(step.kernel) for step in steps}


def wanted() -> set[str]:
    """Every family, and the loop nest of every op that has code."""
    return {*FAMILIES, *(f"nest_{name}" for name in OPS if name not in WITHOUT_CODE)}
