"""Images of few channels by minimal filtering along their columns: where it is chosen, how exact it is, which bits."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problem import SUMS, Input, Problem, image, weight
from test_executors import LEVELS

import graphc
from graphc import nn, ops
from graphc.codegen.kernels.winograd_shape import find_rows
from graphc.codegen.plan import make_plan
from graphc.codegen.target import make_target
from graphc.ir import Builder, DType, Graph, f32
from graphc.passes import optimize
from graphc.reference import run_reference
from graphc.verify import relative_difference


def first_layer(channels: int, kernel: int, out: int, stride: int = 1, dilation: int = 1) -> Graph:
    net = Builder("net")
    x = net.input("x", f32("N", channels, "H", "W"))
    return net.build(nn.relu(nn.conv2d(x, out, kernel, stride, kernel // 2, dilation, name="conv")))


def kernel_of(graph: Graph, precise: bool = False, cpu: str = "x86-64-v4") -> str:
    names = [s.kernel.name for s in make_plan(optimize(graph), make_target(cpu), precise=precise).steps]
    (name,) = [n for n in names if n != "blocks_to_dense"]
    return name


@pytest.mark.parametrize(
    ("graph", "kernel"),
    [
        (first_layer(3, 7, 64, stride=2), "winograd4x1_7x7_stride2_4x6"),
        (first_layer(3, 11, 64, stride=4), "winograd4x1_11x11_stride4_4x6"),
        (first_layer(3, 3, 32, stride=2), "winograd4x1_3x3_stride2_2x10"),
        (first_layer(3, 3, 64), "winograd4x1_3x3_4x6"),
        (first_layer(1, 3, 64), "conv_dense_4x6"),  # few products, whatever takes them
        (first_layer(3, 3, 16, stride=2), "conv_dense_1x14"),  # few results to share the transform
        (first_layer(3, 5, 64), "conv_dense_4x6"),  # too many points
        (first_layer(3, 7, 64, stride=2, dilation=2), "conv_dense_4x6"),
    ],
)
def test_the_intended_kernel_is_chosen(graph: Graph, kernel: str) -> None:
    assert kernel_of(graph) == kernel
    assert kernel_of(graph, precise=True).startswith("conv_dense")


@pytest.mark.parametrize("cpu", LEVELS)
@settings(max_examples=5)
@given(data=st.data())
def test_it_is_the_convolution(cpu: str, data: st.DataObject) -> None:
    stride = (data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3)))
    r, s = data.draw(st.integers(stride[0] + 1, 4 * stride[0])), data.draw(st.integers(1, 5))
    c, k = data.draw(st.sampled_from([2, 3, 3, 5])), data.draw(st.sampled_from([24, 40, 64, 100]))
    op = ops.Conv2d(stride, data.draw(st.tuples(*[st.integers(0, 3)] * 4)), epilogue="max(x0, x1)")
    p, q = op.window((r, s)).positions(*image(c).type.shape[2:])
    operands = image(c), weight(k, c, r, s), weight(k), Input(f32("N", k, p, q))
    problem = Problem(op, operands, SUMS, least_size=16)
    net = graphc.compile(problem.build(), threads=2, cpu=cpu)
    for seed in range(2):
        side = st.integers(16, 100)
        inputs = problem.arrays({"N": data.draw(st.integers(1, 2)), "H": data.draw(side), "W": data.draw(side)}, seed)
        (expected,) = run_reference(problem.build(), inputs, DType.F64)
        assert relative_difference(net(*inputs), expected) < 5e-6


@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (11, 4), (3, 1), (3, 2)])
@pytest.mark.parametrize("smooth", [False, True])
def test_accuracy_contract(kernel: int, stride: int, smooth: bool) -> None:
    """Also where filters look for edges in smooth images, and results are small beside what is added up."""
    graph, rng = first_layer(3, kernel, 32, stride), np.random.default_rng(kernel)
    x = rng.standard_normal((1, 3, 50, 70))
    if smooth:
        x = np.cumsum(np.cumsum(x, 2), 3)
        w = graph.params["conv.weight"].array
        bias = {"conv.bias": graph.params["conv.bias"].array}
        graph = graph.with_params(bias | {"conv.weight": w - w.mean((2, 3), keepdims=True)})
    x = (x / np.abs(x).max()).astype(np.float32)
    (expected,) = run_reference(graph, [x], DType.F64)
    assert relative_difference(graphc.compile(graph, threads=1)(x), expected) < 5e-6


def test_threads_and_tiles_change_no_bit() -> None:
    net = Builder("net")
    y = nn.relu(nn.conv2d(net.input("x", f32("N", 3, "H", "W")), 64, 7, 2, 3, name="conv"))
    graph = net.build(nn.max_pool(y, 3, 2, 1))
    x = np.random.default_rng(0).standard_normal((2, 3, 150, 211)).astype(np.float32)
    whole = graphc.compile(graph, threads=1)(x)
    for threads in (2, 3):
        assert graphc.compile(graph, threads=threads)(x).tobytes() == whole.tobytes()
    compiled = graphc.compile(graph, threads=2)
    rows, columns = json.loads(compiled.meta["tiling"])["axes"]
    assert (rows[0], columns[0]) == (8, 4)  # 4 rows of results at stride 2; of columns, each one alone
    for tile in (8, 40, (64, 48)):
        assert compiled.tiled(x, tile=tile, max_memory=None).tobytes() == whole.tobytes()


def test_transposed_weights_are_turned() -> None:
    net = Builder("net")
    op = ops.ConvTranspose2d((1, 1), (1, 1, 1, 1), bias=False)
    w = np.random.default_rng(0).standard_normal((3, 32, 3, 3)).astype(np.float32)
    graph = net.build(net.apply(op, net.input("x", f32("N", 3, "H", "W")), net.param("w", w)))
    assert kernel_of(graph) == "winograd4x1_3x3_2x10"
    x = np.random.default_rng(1).standard_normal((1, 3, 19, 33)).astype(np.float32)
    (expected,) = run_reference(graph, [x], DType.F64)
    assert relative_difference(graphc.compile(graph, threads=1)(x), expected) < 5e-6


def test_it_pays_whatever_the_size_and_the_cpu() -> None:
    """Else the geometry of tiles, which knows neither, would not be that of the kernel."""
    op = ops.Conv2d((2, 2), (3, 3, 3, 3))
    form = find_rows(op, (64, 3, 7, 7))
    assert form is not None and (form[0].m, form[1].m) == (4, 1)
    assert find_rows(op, (64, 8, 7, 7)) is None  # in blocks on every CPU


def test_large_filters_make_no_large_code() -> None:
    for stride, kernel in ((3000, (9000, 3)), (2, (7, 9000)), (5, (17, 17))):
        assert find_rows(ops.Conv2d((stride, stride)), (64, 3, *kernel)) is None
