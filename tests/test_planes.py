"""Convolutions into few channels, with pixels in the lanes: where they are chosen, how exact they are, which bits."""

import numpy as np
import pytest
from guarded_network import run_guarded
from hypothesis import given, settings
from hypothesis import strategies as st
from problem import SUMS, Input, Problem, image, weight
from test_executors import LEVELS

import graphc
from graphc import nn, ops
from graphc.codegen.plan import make_plan
from graphc.codegen.target import make_target
from graphc.ir import Builder, DType, Graph, Value, f32
from graphc.passes import optimize
from graphc.reference import run_reference
from graphc.verify import relative_difference


def one_layer(c: int, k: int, kernel: int, stride: int = 1, width: int | str = "W", blocked: bool = False) -> Graph:
    """A convolution of C channels, which lie dense or, behind another one, in blocks, into K."""
    net = Builder("net")
    x = net.input("x", f32("N", 3 if blocked else c, "H", width))
    if blocked:
        x = nn.conv2d(x, c, 1, name="before")
    return net.build(nn.relu(nn.conv2d(x, k, kernel, stride, kernel // 2, name="conv")))


def steps_of(graph: Graph, cpu: str = "x86-64-v4") -> list[str]:
    return [s.kernel.name for s in make_plan(optimize(graph), make_target(cpu)).steps]


@pytest.mark.parametrize(
    ("graph", "kernels"),
    [
        (one_layer(1, 8, 3), ["conv_planes_8x3"]),
        (one_layer(8, 8, 3), ["conv_planes_8x3"]),
        (one_layer(3, 12, 3), ["conv_planes_6x3"]),  # dense already: it computes 12, and not 16
        (one_layer(8, 11, 1), ["conv_planes_6x3"]),
        (one_layer(32, 8, 3, blocked=True), ["conv_planes_8x3"]),
        (one_layer(32, 2, 1, blocked=True), ["conv_planes_2x8"]),
    ],
)
def test_few_channels_are_computed_with_pixels_in_the_lanes(graph: Graph, kernels: list[str]) -> None:
    assert steps_of(graph)[-len(kernels) :] == kernels


@pytest.mark.parametrize(
    "graph",
    [
        one_layer(3, 16, 3),  # a whole vector of channels
        one_layer(32, 8, 1, blocked=True),  # to turn the input would cost as much as idle lanes
        one_layer(3, 8, 3, stride=2),  # neighbouring pixels do not lie beside each other
        one_layer(8, 8, 3, width=15),  # narrower than a vector
    ],
)
def test_others_are_not(graph: Graph) -> None:
    assert not [name for name in steps_of(graph) if name.startswith("conv_planes")]


def test_what_few_are_depends_on_the_cpu() -> None:
    assert steps_of(one_layer(8, 4, 3), "x86-64-v3") == ["conv_planes_4x3"]
    assert steps_of(one_layer(8, 8, 3), "x86-64-v3")[-2:] == ["conv_blocked_1x9", "blocks_to_dense"]
    assert steps_of(one_layer(8, 3, 3), "x86-64-v2") == ["conv_planes_3x3"]


def check(problem: Problem, cpu: str, data: st.DataObject, sides: st.SearchStrategy[int]) -> None:
    """Against the reference in float64, at several sizes; two threads and one give the same bits."""
    graph = problem.build()
    nets = [graphc.compile(graph, threads=threads, cpu=cpu) for threads in (1, 2)]
    for seed in range(3):
        sizes = {"N": data.draw(st.integers(1, 2)), "H": data.draw(sides), "W": data.draw(sides)}
        inputs = problem.arrays(sizes, seed)
        (expected,) = run_reference(graph, inputs, DType.F64)
        one, two = (net(*inputs) for net in nets)
        assert relative_difference(one, expected) < 1e-6
        assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("cpu", LEVELS)
@settings(max_examples=8)
@given(data=st.data())
def test_it_is_the_convolution(cpu: str, data: st.DataObject) -> None:
    lanes = make_target(cpu).lanes
    c, k = data.draw(st.sampled_from([1, 2, 3, 8, 40])), data.draw(st.integers(1, lanes - 1))
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 5)))
    stride, dilation = (data.draw(st.integers(1, 3)), 1), data.draw(st.tuples(*[st.integers(1, 2)] * 2))
    op = ops.Conv2d(stride, data.draw(st.tuples(*[st.integers(0, 3)] * 4)), dilation, epilogue="max(x0, x1)")
    p, q = op.window(kernel).positions(*image(c).type.shape[2:])
    problem = Problem(op, (image(c), weight(k, c, *kernel), weight(k), Input(f32("N", k, p, q))), SUMS, least_size=13)
    assert steps_of(problem.build(), cpu)[0].startswith("conv_planes")
    check(problem, cpu, data, st.one_of(st.integers(13, 70), st.integers(380, 400)))


@pytest.mark.parametrize("cpu", LEVELS)
@settings(max_examples=5)
@given(data=st.data())
def test_windows_side_by_side(cpu: str, data: st.DataObject) -> None:
    """Transposed: each pixel becomes a window of results."""
    c, k, rows = (data.draw(st.integers(*limits)) for limits in ((1, 20), (1, make_target(cpu).lanes // 2 - 1), (1, 3)))
    op = ops.ConvTranspose2d((rows, 2), bias=data.draw(st.booleans()), epilogue="max(x0, 0.0)")
    operands = [image(c), weight(c, k, rows, 2), *([weight(k)] if op.bias else [])]
    problem = Problem(op, tuple(operands), SUMS)
    assert steps_of(problem.build(), cpu) == [steps_of(problem.build(), cpu)[0]]
    assert steps_of(problem.build(), cpu)[0].startswith("conv_planes")
    check(problem, cpu, data, st.one_of(st.integers(1, 50), st.integers(190, 200)))


@pytest.mark.parametrize("cpu", LEVELS)
@pytest.mark.parametrize("transposed", [False, True])
def test_an_input_in_blocks_is_turned_on_the_way(cpu: str, transposed: bool) -> None:
    net, k = Builder("net"), make_target(cpu).lanes // 2
    x = nn.conv2d(net.input("x", f32("N", 2, "H", "W")), 20, 1, name="before")
    y = nn.conv_transpose2d(x, k, 2, 2, name="up") if transposed else nn.conv2d(x, k, (3, 4), padding=2, name="conv")
    graph = net.build(y)
    assert [name.split("_")[:2] for name in steps_of(graph, cpu)[-1:]] == [["conv", "planes"]]
    for h, w in ((1, 1), (5, 3), (16, 16), (9, 17), (30, 100)):
        image = np.random.default_rng(h).standard_normal((2, 2, h, w)).astype(np.float32)
        (expected,) = run_reference(graph, [image], DType.F64)
        for at_start in (False, True):
            (found,) = run_guarded(graph, cpu, [image], at_start)
            assert relative_difference(found, expected) < 1e-6


def test_whole_numbers_are_exact() -> None:
    rng = np.random.default_rng(0)
    graph = one_layer(20, 8, 3)
    graph = graph.with_params({"conv.weight": rng.integers(-8, 8, (8, 20, 3, 3)), "conv.bias": rng.integers(-8, 8, 8)})
    x = rng.integers(-8, 8, (1, 20, 33, 70)).astype(np.float32)
    (expected,) = run_reference(graph, [x], DType.F64)
    assert (graphc.compile(graph, threads=2)(x) == expected).all()


def test_many_channels_stay_within_the_contract() -> None:
    graph = one_layer(700, 8, 3)
    x = np.random.default_rng(0).random((1, 700, 12, 40), np.float32)  # nothing cancels
    (expected,) = run_reference(graph, [x], DType.F64)
    assert relative_difference(graphc.compile(graph, threads=2)(x), expected) < 1e-6


def join(net: Builder, *layers: Value) -> Value:
    return nn.conv2d(nn.concat(layers, name="both"), 4, 3, padding=1, name="last")


@pytest.mark.parametrize("cpu", LEVELS)
@pytest.mark.parametrize("case", ["skip", "pools", "read beside", "an output", "twice"])
def test_operands_of_a_concat_lie_in_its_result(cpu: str, case: str) -> None:
    """Those that convolutions make and read; others are copied into it."""
    net = Builder("net")
    x = net.input("x", f32("N", 2, "H", "W"))
    a = nn.relu(nn.conv2d(x, 3, 3, padding=1, name="a"))
    up = nn.conv_transpose2d(nn.conv2d(nn.max_pool(a, 2), 32, 3, padding=1, name="low"), 2, 2, 2, name="up")
    match case:
        case "skip":
            graph = net.build(join(net, a, up))
        case "pools":
            graph = net.build(join(net, nn.max_pool(a, 2), nn.average_pool(a, 3, 2, 1)))
        case "read beside":  # by what wants images one after the other
            graph = net.build(join(net, a, up), nn.softmax(nn.flatten(a)))
        case "an output":
            graph = net.build(join(net, a, up), a)
        case _:
            graph = net.build(join(net, a, up, a))
    copies = [name for name in steps_of(graph, cpu) if "concat" in name or "identity" in name]
    assert len(copies) == (0 if case in ("skip", "pools") else 1)
    compiled = graphc.compile(graph, threads=2, cpu=cpu)
    for h, w in ((2, 2), (10, 34), (36, 50)):
        image = np.random.default_rng(w).standard_normal((3, 2, h, w)).astype(np.float32)
        found = compiled(image)
        for y, expected in zip(
            found if isinstance(found, tuple) else (found,), run_reference(graph, [image], DType.F64), strict=True
        ):
            assert relative_difference(y, expected) < 1e-5  # softmax's, whose results are small


def test_strips_of_tiles_give_the_bits_of_the_whole() -> None:
    net = Builder("net")
    x = net.input("x", f32("N", 1, "H", "W"))
    a = nn.relu(nn.conv2d(x, 8, 3, padding=1, name="a"))
    low = nn.relu(nn.conv2d(nn.max_pool(a, 2), 16, 3, padding=1, name="low"))
    graph = net.build(join(net, a, nn.conv_transpose2d(low, 8, 2, 2, name="up")))
    compiled = graphc.compile(graph, threads=2)
    image = np.random.default_rng(0).standard_normal((1, 1, 240, 130)).astype(np.float32)
    whole = compiled(image)
    for tile in ((8, 130), (40, 48), (64, 200)):
        assert compiled.tiled(image, tile=tile, max_memory=None).tobytes() == whole.tobytes()
