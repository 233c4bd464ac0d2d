"""The kernels of training, over blocks of channels: drawn problems against the reference, between forbidden pages."""

import os
from typing import Any

import numpy as np
import pytest
from guarded_network import run_guarded
from hypothesis import given, settings
from hypothesis import strategies as st
from problem import SUMS, H, Input, N, Problem, W, image, normal, weight
from problems import with_epilogue
from test_executors import LEVELS, takes

from graphc import ops
from graphc.codegen.kernels.transpose import transpose
from graphc.codegen.plan import make_plan
from graphc.codegen.target import make_target
from graphc.driver import compile
from graphc.ir import Array, Builder, DType, Graph, TensorType, Value, dims, f32
from graphc.passes import optimize
from graphc.reference import run_reference
from graphc.verify import relative_difference

EXAMPLES = int(os.environ.get("GRAPHC_TEST_EXAMPLES", "12"))
CHANNELS = st.sampled_from([2, 5, 8, 16, 17, 24, 33, 48, 64, 80])
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
kernels = st.tuples(st.integers(1, 5), st.integers(1, 5))
padding = st.tuples(*[st.integers(0, 3)] * 4)
EPILOGUES = st.sampled_from([None, "max(x0, 0.0)", "select(gt(x1, 0.0), x0, 0.0)"])


@st.composite
def channels(draw: st.DrawFn) -> tuple[int, int, int]:
    """groups, input and output channels: one group, channels alone, or groups of whole blocks on every CPU."""
    match draw(st.sampled_from(["dense", "depthwise", "grouped"])):
        case "depthwise":
            return (c := draw(CHANNELS), c, c)
        case "grouped":
            return 2, 32 * draw(st.integers(1, 2)), 32 * draw(st.integers(1, 2))
    return 1, draw(CHANNELS), draw(CHANNELS)


@st.composite
def conv_transpose(draw: st.DrawFn) -> Problem:
    groups, c, k = draw(channels())
    kernel, stride, dilation, bias = draw(kernels), draw(pairs), draw(pairs), draw(st.booleans())
    pads, epilogue = draw(st.tuples(*[st.integers(0, 2)] * 4)), draw(EPILOGUES)
    weights = [weight(c, k // groups, *kernel), *([weight(k)] if bias else [])]
    if draw(st.booleans()):  # the gradient of a convolution over an image of HxW
        rows, columns = ops.Conv2d(stride, pads, dilation).window(kernel).positions(H, W)
        op = ops.ConvTranspose2d(stride, pads, (0, 0), dilation, groups, bias, epilogue, size=(H, W))
        extra = [image(k)] if epilogue and "x1" in epilogue else []
        operands = [Input(f32(N, c, rows, columns)), *weights, *extra]
        shaped = [] if extra else [image(1)]
        return Problem(op, (*operands, *shaped), SUMS, least_size=13, operands=len(operands))
    more = tuple(draw(st.integers(0, s - 1)) for s in stride)
    op = ops.ConvTranspose2d(stride, pads, (more[0], more[1]), dilation, groups, bias)
    operands = with_epilogue([image(c), *weights], lambda: op, epilogue)
    fused = ops.ConvTranspose2d(stride, pads, op.output_padding, dilation, groups, bias, epilogue)
    return Problem(fused, tuple(operands), SUMS, least_size=5)


@st.composite
def weight_gradient(draw: st.DrawFn) -> Problem:
    groups, c, k = draw(channels())
    op = ops.Conv2dWeightGradient(draw(pairs), draw(padding), draw(pairs), groups, kernel=draw(kernels))
    p, q = op.window.positions(H, W)
    g = lambda rng, shape: normal(rng, shape) / np.float32(np.sqrt(np.prod(shape[2:])))  # noqa: E731  # sums of about 1
    return Problem(op, (image(c), Input(f32(N, k, p, q), g)), SUMS, least_size=13)


PROBLEMS = {"transposed": conv_transpose(), "weight": weight_gradient()}


@pytest.mark.parametrize("name", PROBLEMS)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_kernels_agree_and_stay_inside(name: str, data: st.DataObject) -> None:
    problem = data.draw(PROBLEMS[name])
    side = st.integers(problem.least_size, problem.least_size + 24)
    sizes = {"N": data.draw(st.integers(1, 3)), "H": data.draw(side), "W": data.draw(side)}
    check(problem.build(), problem.arrays(sizes), data)


def check(graph: Graph, inputs: list[Array], data: st.DataObject) -> None:
    if not takes(graph, inputs):
        return
    expected = run_reference(graph, inputs, DType.F64)
    found = run_guarded(graph, data.draw(st.sampled_from(LEVELS)), inputs, data.draw(st.booleans()))
    for a, b in zip(found, expected, strict=True):
        assert relative_difference(a, b) < SUMS


def blocked(channels: int, *others: TensorType) -> tuple[Builder, list[Value]]:
    """A graph with images [N,channels,H,W] that a convolution has made, in blocks, and more inputs."""
    net = Builder("blocked")
    taps = np.random.default_rng(0).integers(-1, 2, (channels, 3, 1, 1)).astype(np.float32)
    x = net.apply(ops.Conv2d(bias=False), net.input("x", f32("N", 3, "H", "W")), net.param("w", taps))
    return net, [x, *(net.input(f"x{i}", t) for i, t in enumerate(others))]


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_max_pool_routes_agree_and_stay_inside(data: st.DataObject) -> None:
    kernel, c = data.draw(kernels), data.draw(CHANNELS)
    pads = tuple(data.draw(st.integers(0, min(kernel[i % 2] - 1, 2))) for i in range(4))
    op = ops.MaxPoolRoute(kernel, data.draw(pairs), pads, data.draw(pairs), data.draw(st.booleans()))  # type: ignore[arg-type]
    y = ops.MaxPool(**op.window_fields()).infer(f32("N", c, "H", "W"))
    assert isinstance(y, TensorType)
    net, (x, g) = blocked(c, y)
    n, height, width = data.draw(st.integers(1, 2)), data.draw(st.integers(13, 30)), data.draw(st.integers(13, 30))
    rng = np.random.default_rng(0)
    images = rng.integers(-2, 3, (n, 3, height, width)).astype(np.float32)  # whole numbers: many cells are equal
    shape = tuple(dims.evaluate(d, {"N": n, "H": height, "W": width}) for d in y.shape)
    check(net.build(net.apply(op, x, g)), [images, normal(rng, shape)], data)


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_sums_over_channels_agree_and_stay_inside(data: st.DataObject) -> None:
    """Batch statistics, and sums of expressions over images in blocks and numbers for each channel."""
    c = data.draw(CHANNELS)
    net, (x, g, m) = blocked(c, f32("N", c, "H", "W"), f32(c))
    mean, variance = net.add(ops.Moments(), (x,))
    column = net.apply(ops.Reshape((c, 1, 1)), m)
    keep = data.draw(st.booleans())
    total = net.apply(ops.Sum((0, 2, 3), keep, "(x0 * (x1 - x2))"), g, x, column)
    plain = net.apply(ops.Sum((0, 2, 3), keep), x)
    moved = net.apply(ops.Fused("(x0 * (x1 - x2))"), g, x, column)
    graph = net.build(mean, variance, total, plain, moved)
    n, height, width = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 30)), data.draw(st.integers(1, 30))
    rng = np.random.default_rng(0)
    inputs = [normal(rng, s) for s in ((n, 3, height, width), (n, c, height, width), (c,))]
    check(graph, inputs, data)


@pytest.mark.parametrize(
    ("op", "shape", "kernel"),
    [
        (ops.ConvTranspose2d((2, 2), (1, 1, 1, 1), bias=False), (64, 64, 3, 3), "conv_phases_4x6"),
        (ops.ConvTranspose2d((1, 1), (1, 1, 1, 1), bias=False), (64, 64, 4, 4), "conv_blocked_4x6"),
        (ops.ConvTranspose2d((1, 1), (1, 1, 1, 1), bias=False), (64, 64, 3, 3), "winograd"),
        (ops.ConvTranspose2d((2, 2), groups=64, bias=False), (64, 1, 2, 2), "window_phases_2_stride2"),
        (ops.ConvTranspose2d((1, 1), groups=64, bias=False), (64, 1, 3, 3), "window_conv_3_stride1"),
    ],
)
def test_the_intended_kernel_is_chosen(op: ops.ConvTranspose2d, shape: tuple[int, ...], kernel: str) -> None:
    net = Builder("net")
    y = net.apply(op, net.input("x", f32("N", 64, "H", "W")), net.param("w", np.ones(shape, np.float32)))
    steps = make_plan(optimize(net.build(y)), make_target("x86-64-v4")).steps
    assert any(s.kernel.name.startswith(kernel) for s in steps)


@pytest.mark.parametrize(
    ("c", "k", "groups", "kernel"),
    [
        (64, 64, 1, "weight_gradient_blocked_2x8"),
        (64, 48, 1, "weight_gradient_blocked_3x8"),
        (3, 64, 1, "weight_gradient_dense_4x3"),
        (64, 64, 64, "weight_gradient_depthwise_1x8"),
    ],
)
def test_weight_gradients_are_the_same_bits_on_any_number_of_threads(c: int, k: int, groups: int, kernel: str) -> None:
    net = Builder("net")
    x, g = net.input("x", f32("N", c, "H", "W")), net.input("g", f32("N", k, "H", "W"))
    graph = net.build(net.apply(ops.Conv2dWeightGradient((1, 1), (1, 1, 1, 1), groups=groups, kernel=(3, 3)), x, g))
    names = {s.kernel.name for s in make_plan(graph, make_target("x86-64-v4")).steps}
    assert kernel in names
    rng = np.random.default_rng(0)
    inputs = [normal(rng, (3, channels, 37, 50)) for channels in (c, k)]
    results = [compile(graph, threads=threads)(*inputs) for threads in (1, 2, 3)]
    assert all(r.tobytes() == results[0].tobytes() for r in results)


@pytest.mark.parametrize("k", [12, 64])
def test_a_first_layer_of_one_channel_trains_on_every_level(k: int) -> None:
    """Without fused multiply-adds a tile has up to 4 vectors, also with 16 registers."""
    net = Builder("net")
    x, g = net.input("x", f32("N", 1, "H", "W")), net.input("g", f32("N", k, "H", "W"))
    graph = net.build(net.apply(ops.Conv2dWeightGradient((1, 1), (1, 1, 1, 1), kernel=(3, 3)), x, g))
    inputs = [normal(np.random.default_rng(0), (2, channels, 9, 12)) for channels in (1, k)]
    for found in (compile(graph, threads=1, cpu=cpu)(*inputs) for cpu in LEVELS):
        assert relative_difference(found, run_reference(graph, inputs, DType.F64)[0]) < SUMS


def test_weight_gradients_of_other_taps_are_other_code() -> None:
    """The sums in scratch are as many as the taps: 2x2 and 3x3 share no function."""
    net = Builder("net")
    x, g = net.input("x", f32("N", 32, "H", "W")), net.input("g", f32("N", 32, "H", "W"))
    small = net.apply(ops.Conv2dWeightGradient((1, 1), (0, 0, 1, 1), kernel=(2, 2)), x, g)
    graph = net.build(small=small, large=net.apply(ops.Conv2dWeightGradient((1, 1), (1,) * 4, kernel=(3, 3)), x, g))
    rng = np.random.default_rng(0)
    inputs = [normal(rng, (2, 32, 6, 7)) for _ in range(2)]
    expected = run_reference(graph, inputs, DType.F64)
    for found, wanted in zip(compile(graph, threads=2)(*inputs), expected, strict=True):
        assert relative_difference(found, wanted) < 1e-6


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_squares_are_transposed(lanes: int) -> None:
    """By the shuffles' masks alone, carried out on numbers."""

    class Masks:
        def shuffle_vector(self, x: list[int], y: list[int], mask: Any) -> list[int]:
            both = [*x, *y]
            return [both[i.constant] for i in mask.constant]

    rows = [[lanes * i + j for j in range(lanes)] for i in range(lanes)]
    assert transpose(Masks(), rows) == [list(column) for column in zip(*rows, strict=True)]  # type: ignore[arg-type, comparison-overlap]
