"""Convolutions of gathered inputs: exact on small integers, whatever the stride, the padding and the CPU."""

import numpy as np
import pytest
from test_executors import LEVELS

import graphc
from graphc import nn, ops
from graphc.codegen.plan import make_plan
from graphc.codegen.target import make_target
from graphc.ir import Builder, DType, Graph, f32
from graphc.passes import optimize
from graphc.reference import run_reference

CHANNELS = 384  # enough that direct convolutions make passes on every CPU


def gathered(graph: Graph, cpu: str) -> bool:
    steps = make_plan(optimize(graph), make_target(cpu), precise=True).steps
    return any(s.kernel.name == "nest_taps" for s in steps)


def integers(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(-3, 4, shape).astype(np.float32)


def check(graph: Graph, cpu: str, *size: int) -> None:
    assert gathered(graph, cpu)
    x = integers(3, CHANNELS, *size)
    (expected,) = run_reference(graph, [x], DType.F64)
    for threads in (1, 2):
        net = graphc.compile(graph, threads=threads, cpu=cpu, precise=True)
        np.testing.assert_array_equal(net(x), expected)


@pytest.mark.parametrize("cpu", LEVELS)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "size"),
    [
        ((3, 3), (2, 2), (1, 1, 1, 1), (1, 1), (14, 14)),
        ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), (7, 7)),
        ((2, 4), (1, 3), (0, 3, 2, 1), (1, 1), (5, 23)),
        ((3, 3), (2, 1), (0, 0, 0, 0), (2, 3), (15, 11)),  # stays inside
    ],
)
def test_it_is_the_convolution(
    cpu: str, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int, int, int],
    dilation: tuple[int, int], size: tuple[int, int],
) -> None:  # fmt: skip
    net = Builder("net")
    x = net.input("x", f32("N", CHANNELS, *size))
    op = ops.Conv2d(stride, padding, dilation)
    w, b = net.param("w", integers(64, CHANNELS, *kernel)), net.param("b", integers(64))
    check(net.build(nn.relu(net.apply(op, x, w, b))), cpu, *size)


@pytest.mark.parametrize("cpu", LEVELS)
def test_transposed_weights_are_turned(cpu: str) -> None:
    net = Builder("net")
    x, w = net.input("x", f32("N", CHANNELS, 6, 9)), net.param("w", integers(CHANNELS, 64, 3, 2))
    op = ops.ConvTranspose2d((1, 1), (1, 0, 1, 0), bias=False)
    check(net.build(net.apply(op, x, w)), cpu, 6, 9)


def test_it_reads_a_part_of_a_concat() -> None:
    net = Builder("net")
    x, v = net.input("x", f32("N", CHANNELS, 8, 8)), net.param("v", integers(CHANNELS, CHANNELS, 1, 1))
    w = net.param("w", integers(64, CHANNELS, 3, 3))
    part = net.apply(ops.Conv2d(bias=False), x, v)
    y = net.apply(ops.Conv2d((1, 1), (1, 1, 1, 1), bias=False), part, w)
    check(net.build(nn.concat([part, y])), "native", 8, 8)
