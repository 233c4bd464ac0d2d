"""The kernels over blocks of channels: that the intended ones are chosen, and how exact they are."""

import numpy as np
import pytest

from graphc import models, nn
from graphc.codegen.kernels.transforms import POINTS, make_transform
from graphc.codegen.plan import make_plan
from graphc.codegen.target import make_target
from graphc.driver import compile
from graphc.ir import Array, Builder, DType, Graph, f32
from graphc.passes import optimize
from graphc.reference import run_reference
from graphc.verify import relative_difference


def convolution(
    channels: int, kernel: int, out: int | None = None, stride: int = 1, groups: int = 1, dilation: int = 1
) -> Graph:
    net = Builder("net")
    x = net.input("x", f32("N", channels, "H", "W"))
    padding = dilation * (kernel // 2)
    y = nn.conv2d(x, out or channels, kernel, stride, padding, dilation, groups, name="conv")
    return net.build(nn.relu(y))


def kernels_of(graph: Graph, precise: bool = False) -> list[str]:
    """The names of the kernels that run, without what prepares weights and layouts."""
    steps = make_plan(optimize(graph), make_target("x86-64-v4"), precise=precise).steps
    return [s.kernel.name for s in steps if s.kernel.name != "nest_identity"]


@pytest.mark.parametrize(
    ("graph", "kernel"),
    [
        (convolution(3, 7, 64, stride=2), "conv_dense_4x6"),
        (convolution(256, 1, 64), "conv_pointwise_4x6"),
        (convolution(64, 1, 96), "conv_pointwise_3x8"),
        (convolution(64, 3), "winograd4x4_4x6"),
        (convolution(64, 3, stride=2), "conv_blocked_4x6"),
        (convolution(64, 3, dilation=2), "conv_blocked_4x6"),
        (convolution(64, 5, 32), "conv_blocked_2x10"),
        (convolution(64, 3, groups=2), "conv_blocked_2x10"),
        (convolution(64, 3, groups=64), "window_conv_3_stride1"),
        (convolution(6, 3, groups=2), "nest_conv2d"),
    ],
)
def test_the_intended_kernel_is_chosen(graph: Graph, kernel: str) -> None:
    assert kernels_of(graph) == [kernel]


def test_precise_convolutions_are_direct() -> None:
    assert kernels_of(convolution(64, 3), precise=True) == ["conv_blocked_4x6"]


def test_nothing_of_a_resnet_is_left_to_the_generic_kernel() -> None:
    left = {name for name in kernels_of(models.resnet50()) if name.startswith("nest")}
    assert left == {"nest_global_average_pool", "nest_linear"}


def run_both(graph: Graph, x: Array, precise: bool) -> float:
    (expected,) = run_reference(graph, [x], DType.F64)
    return relative_difference(compile(graph, threads=1, precise=precise)(x), expected)


@pytest.mark.parametrize("channels", [24, 64, 200, 512])
@pytest.mark.parametrize(("precise", "bound"), [(False, 5e-6), (True, 1e-6)])
def test_accuracy_contract(channels: int, precise: bool, bound: float) -> None:
    x = np.random.default_rng(channels).standard_normal((1, channels, 13, 19)).astype(np.float32)
    assert run_both(convolution(channels, 3), x, precise) < bound


@pytest.mark.parametrize("graph", [convolution(64, 3), convolution(40, 1, 24), convolution(3, 5, 17, stride=2)])
def test_direct_kernels_are_exact_on_small_integers(graph: Graph) -> None:
    rng = np.random.default_rng(0)
    whole = {n: rng.integers(-8, 9, p.value.type.static_shape()).astype(np.float32) for n, p in graph.params.items()}
    graph = graph.with_params(whole)
    x = rng.integers(-8, 9, (2, *graph.inputs[0].type.shape[1:2], 9, 11)).astype(np.float32)
    (expected,) = run_reference(graph, [x])
    np.testing.assert_array_equal(compile(graph, threads=2, precise=True)(x), expected)


@pytest.mark.parametrize("graph", [convolution(64, 3, 256), convolution(64, 1), convolution(64, 3, groups=64)])
def test_threads_change_no_bit(graph: Graph) -> None:
    x = np.random.default_rng(0).standard_normal((2, 64, 37, 50)).astype(np.float32)
    results = [compile(graph, threads=threads)(x) for threads in (1, 2, 3)]
    assert all(r.tobytes() == results[0].tobytes() for r in results)


@pytest.mark.parametrize(("m", "r"), POINTS)
def test_transforms_filter(m: int, r: int) -> None:
    """AT ((G g) * (BT d)) is the sum over k of g[k] * d[i+k], exactly, in fractions."""
    t = make_transform(m, r)
    rng = np.random.default_rng(0)
    g, d = rng.integers(-9, 10, r), rng.integers(-9, 10, m + r - 1)
    product = (np.array(t.weights) @ g) * (np.array(t.data) @ d)
    assert (np.array(t.results) @ product).tolist() == [int(g @ d[i : i + r]) for i in range(m)]
