"""Large filters by minimal filtering along their columns: where it is chosen, how exact it is, which bits."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problem import SUMS, Input, Problem, image, weight
from test_executors import LEVELS

import graphc
from graphc import nn, ops
from graphc.codegen import select
from graphc.codegen.kernels.transforms import sum_runs
from graphc.codegen.kernels.winograd_large import WinogradLarge
from graphc.codegen.plan import make_plan
from graphc.codegen.target import make_target
from graphc.ir import Builder, DimLike, DType, Graph, f32
from graphc.passes import optimize
from graphc.reference import run_reference
from graphc.verify import relative_difference


def layer(c: int, k: int, kernel: int | tuple[int, int], pad: int, size: tuple[DimLike, DimLike] = ("H", "W")) -> Graph:
    net = Builder("net")
    return net.build(nn.relu(nn.conv2d(net.input("x", f32("N", c, *size)), k, kernel, 1, pad, name="conv")))


def kernels_of(graph: Graph, precise: bool = False, cpu: str = "x86-64-v4") -> list[str]:
    steps = make_plan(optimize(graph), make_target(cpu), precise=precise).steps
    return [s.kernel.name for s in steps if s.kernel.name not in ("dense_to_blocks", "blocks_to_dense")]


@pytest.mark.parametrize(
    ("graph", "kernel"),
    [
        (layer(512, 4096, 7, 3, (8, 8)), "winograd4x1_7x7_2x10_late"),  # of VGG-16 as a fully convolutional network
        (layer(512, 4096, 7, 0), "winograd4x1_7x7_2x10_late"),
        (layer(512, 4096, 7, 0, (7, 7)), "conv_blocked_4x6"),  # a single result: three others would be computed too
        (layer(256, 512, 6, 0, (12, 12)), "winograd4x1_6x6_2x10_late"),
        (layer(64, 32, (11, 3), 4), "winograd4x1_11x3_2x10_late"),
        (layer(64, 32, (9, 1), 4), "winograd4x1_9x1_2x10_late"),
        (layer(64, 32, (3, 9), 4), "conv_blocked_2x10"),
        (layer(64, 32, 17, 4), "conv_blocked_2x10"),  # the code would be large
        (layer(8, 32, 7, 3), "conv_blocked_2x10"),
    ],
)
def test_the_intended_kernel_is_chosen(graph: Graph, kernel: str) -> None:
    assert kernels_of(graph) == [kernel]
    assert kernels_of(graph, precise=True)[-1].startswith("conv_")


@pytest.mark.parametrize("cpu", LEVELS)
@settings(max_examples=6)
@given(data=st.data())
def test_it_is_the_convolution(cpu: str, data: st.DataObject) -> None:
    """Of any size, also where no window lies in the image as a whole, or some lie outside."""
    draw, count = data.draw, st.sampled_from([16, 24, 33, 40, 72])
    r, s, c, k = draw(st.integers(6, 16)), draw(st.integers(2, 9)), draw(count), draw(count)
    op = ops.Conv2d((1, 1), draw(st.tuples(*[st.integers(0, 12)] * 4)), epilogue="max(x0, x1)")
    p, q = op.window((r, s)).positions(*image(c).type.shape[2:])
    operands = image(c), weight(k, c, r, s), weight(k), Input(f32("N", k, p, q))
    problem = Problem(op, operands, SUMS, least_size=16)
    plan = make_plan(problem.build(), make_target(cpu))
    assert any(isinstance(step.kernel, WinogradLarge) for step in plan.steps)
    nets = [graphc.compile(problem.build(), threads=threads, cpu=cpu) for threads in (1, 2)]
    for seed in range(3):
        side = st.sampled_from([16, 17, 18, 23, 40])
        inputs = problem.arrays({"N": draw(st.integers(1, 2)), "H": draw(side), "W": draw(side)}, seed)
        (expected,) = run_reference(problem.build(), inputs, DType.F64)
        results = [net(*inputs) for net in nets]
        assert relative_difference(results[0], expected) < 5e-6
        assert results[0].tobytes() == results[1].tobytes()


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (8, 8), (17, 33)])
@pytest.mark.parametrize("cpu", LEVELS)
def test_sizes_that_are_known(size: tuple[int, int], cpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """V and M have room for no more than the image; register tiles beyond 16 are another part of the work."""
    monkeypatch.setattr(select, "winograd_pays", lambda *_: True)
    graph = layer(24, 530, 7, 3, size)
    assert any("winograd" in name for name in kernels_of(graph, cpu=cpu))
    x = np.random.default_rng(0).standard_normal((2, 24, *size)).astype(np.float32)
    (expected,) = run_reference(graph, [x], DType.F64)
    results = [graphc.compile(graph, threads=threads, cpu=cpu)(x) for threads in (1, 2, 3)]
    assert all(r.tobytes() == results[0].tobytes() for r in results)
    assert relative_difference(results[0], expected) < 5e-6


@pytest.mark.parametrize("kernel", [6, 7, (11, 2)], ids=str)
@pytest.mark.parametrize("channels", [24, 200, 512])
def test_accuracy_contract(channels: int, kernel: int | tuple[int, int]) -> None:
    graph = layer(channels, 64, kernel, 3)
    x = np.random.default_rng(channels).standard_normal((1, channels, 13, 19)).astype(np.float32)
    (expected,) = run_reference(graph, [x], DType.F64)
    assert relative_difference(graphc.compile(graph, threads=1)(x), expected) < 5e-6


RESULTS = [(1, 1), (1, 6), (6, 2), (6, 6), (6, 7), (7, 6), (7, 7)]


@pytest.mark.parametrize(
    ("results", "pad", "cpu"),
    [
        *((n, 0, cpu) for n in RESULTS for cpu in LEVELS),
        *((n, 3, "native") for n in RESULTS[3:]),
        ((14, 15), 9, "native"),
    ],
    ids=str,
)
def test_few_results_are_computed_directly(results: tuple[int, int], pad: int, cpu: str) -> None:
    """With the same weights, to the accuracy of direct kernels; also where taps see nothing but padding."""
    graph = layer(40, 72, (7, 6), pad)
    height, width = (p + r - 1 - 2 * pad for p, r in zip(results, (7, 6), strict=True))
    nets = [graphc.compile(graph, threads=threads, cpu=cpu) for threads in (1, 2)]
    x = np.random.default_rng(0).standard_normal((2, 40, height, width)).astype(np.float32)
    found = [net(x) for net in nets]
    assert found[0].tobytes() == found[1].tobytes()
    assert found[0].shape == (2, 72, *results)
    (expected,) = run_reference(graph, [x], DType.F64)
    assert relative_difference(found[0], expected) < (1e-6 if max(results) < 7 else 5e-6)


@pytest.mark.parametrize("pad", [0, 3])
@pytest.mark.parametrize("size", [(70, 61), (70, 12), (11, 61), (12, 12), (13, 12), (13, 13)], ids=str)
def test_tiles_change_no_bit(size: tuple[int, int], pad: int) -> None:
    """No tile has few results where the image has many."""
    graph = layer(24, 32, 7, pad)
    x = np.random.default_rng(0).standard_normal((1, 24, *size)).astype(np.float32)
    compiled = graphc.compile(graph, threads=2)
    rows, columns = json.loads(compiled.meta["tiling"])["axes"]
    assert (rows[0], columns[0]) == (4, 1)  # 4 rows of results; of columns, each one alone
    for tile in (1, 8, (24, 31)):
        assert compiled.tiled(x, tile=tile, max_memory=None).tobytes() == compiled(x).tobytes()


def test_transposed_weights_are_turned() -> None:
    net = Builder("net")
    op = ops.ConvTranspose2d((1, 1), (3, 2, 3, 2), bias=False)
    w = np.random.default_rng(0).standard_normal((24, 40, 7, 6)).astype(np.float32)
    graph = net.build(net.apply(op, net.input("x", f32("N", 24, "H", "W")), net.param("w", w)))
    assert kernels_of(graph) == ["winograd4x1_7x6_2x10_late"]
    x = np.random.default_rng(1).standard_normal((1, 24, 19, 33)).astype(np.float32)
    (expected,) = run_reference(graph, [x], DType.F64)
    assert relative_difference(graphc.compile(graph, threads=1)(x), expected) < 5e-6


@pytest.mark.parametrize("r", range(5, 17))
def test_runs_filter(r: int) -> None:
    """AT ((G g) * (BT d)), summed over runs, is the sum over k of g[k] * d[i+k], exactly, in fractions."""
    t, rng = sum_runs(4, r, 4), np.random.default_rng(r)
    g, d = rng.integers(-9, 10, r), rng.integers(-9, 10, t.side)
    products = ((np.array(t.weights) @ g) * (np.array(t.data) @ d)).tolist()
    assert len(products) == t.products == (t.places - 1) * t.phases + t.last
    sums = [sum(products[i * t.phases : (i + 1) * t.phases]) for i in range(t.places)]
    assert (np.array(t.results) @ np.array(sums)).tolist() == [int(g @ d[i : i + r]) for i in range(4)]
