"""The plan: which kernels, where tensors lie, and that neither layout nor sharing of memory changes a result."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from graphc import nn
from graphc.codegen.layout import DENSE, Layout
from graphc.codegen.nest import Buffer
from graphc.codegen.plan import Plan, make_plan
from graphc.codegen.select import select_kernels
from graphc.codegen.target import make_target
from graphc.driver import compile
from graphc.errors import UnsupportedError
from graphc.ir import Builder, DType, Graph, Value, dims, f32
from graphc.ops import Conv2d
from graphc.passes import optimize
from graphc.reference import run_reference
from graphc.runtime.jit import JitCode, make_network
from graphc.verify import relative_difference


def residual_network() -> Graph:
    net = Builder("residual")
    x = net.input("image", f32("N", 3, "H", "W"))
    x = nn.relu(nn.conv2d(x, 8, 3, padding=1, name="stem"))
    for i in range(4):
        y = nn.relu(nn.conv2d(x, 8, 3, padding=1, name=f"block{i}.a"))
        x = nn.relu(nn.add(nn.conv2d(y, 8, 3, padding=1, name=f"block{i}.b"), x))
    return net.build(features=x, pooled=nn.global_average_pool(x))


def live_ranges(plan: Plan) -> dict[str, tuple[int, int]]:
    """First and last step of every buffer that has a slot."""
    ranges: dict[str, tuple[int, int]] = {}
    for i, step in enumerate(plan.steps):
        for b in step.kernel.buffers:
            if plan.places[b.name].kind == "slot":
                ranges[b.name] = (ranges.get(b.name, (i, i))[0], i)
    return ranges


def test_tensors_that_share_a_slot_never_live_at_once() -> None:
    plan = make_plan(residual_network(), make_target())
    ranges = live_ranges(plan)
    assert len(plan.slots) < len(ranges) / 2  # memory is shared at all
    for (a, first), (b, second) in itertools.combinations(ranges.items(), 2):
        if plan.places[a] == plan.places[b]:
            assert first[1] < second[0] or second[1] < first[0], f"{a} and {b} overlap"


def test_peak_memory_grows_with_the_image_and_matches_the_code() -> None:
    graph = residual_network()
    plan, net = make_plan(graph, make_target()), compile(graph, optimized=False)
    for sizes in ({"N": 1, "H": 8, "W": 8}, {"N": 2, "H": 33, "W": 17}, {"N": 1, "H": 200, "W": 300}):
        assert 0 <= net.workspace_bytes(**sizes) - plan.peak_bytes(sizes) <= 64


def test_no_name_of_a_layer_meets_one_of_the_plan() -> None:
    net = Builder("net")
    x = net.input("x", f32(1, 2, 64, 64))
    total = nn.sum(x, name="sum")
    others = [nn.mul(x, float(i + 2), name=name) for i, name in enumerate(("output 5", "sum.1", "sum.2", "sum.3"))]
    outputs = [total, *(nn.neg(y) for y in others), others[0], x]
    graph = net.build(**{f"y{i}": v for i, v in enumerate(outputs)})
    image = np.random.default_rng(0).standard_normal((1, 2, 64, 64)).astype(np.float32)
    expected = run_reference(graph, [image])
    for a, b in zip(compile(graph, optimized=False)(image), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-3)


def test_equal_layers_share_one_function() -> None:
    plan = make_plan(residual_network(), make_target())
    keys = [s.kernel.key for s in plan.steps if s.node.op.name == "conv2d"]
    assert len(keys) == 9 and len(set(keys)) == 1  # also the stem: the number of input channels is an argument


def test_a_key_tells_apart_what_the_code_does() -> None:
    target = make_target()

    def key(op: Conv2d, h: str, channels: int = 4) -> str:
        x, w = Buffer("x", f32("N", channels, h, "W")), Buffer("w", f32(16, channels, 3, 3))
        y = Buffer("y", op.infer(x.type, w.type))  # type: ignore[arg-type]
        return select_kernels(op, [x, w], [y], target)[0].key

    plain = Conv2d(bias=False)
    assert key(plain, "H") == key(plain, "2*H")  # the size is an argument
    assert key(plain, "W") != key(plain, "H")  # one argument serves both dims
    different = [key(plain, "H"), key(plain, "H", 5), key(Conv2d(bias=False, stride=(2, 1)), "H"),
                 key(Conv2d(bias=False, epilogue="max(x0, 0.0)"), "H")]  # fmt: skip
    assert len(set(different)) == len(different)


@pytest.mark.parametrize("block", [4, 16])
def test_any_kernel_runs_in_any_layout(block: int) -> None:
    """Layout is the choice of code generation: blocked intermediates give what dense ones give."""
    net = Builder("mixed")
    x = net.input("image", f32("N", 3, "H", "W"))
    x = nn.relu(nn.conv2d(x, 10, 3, padding=1, name="a"))
    y = nn.max_pool(nn.batch_norm(x, name="bn"), 2)
    z = nn.softmax(nn.concat([nn.conv2d(y, 7, 1, name="b"), nn.average_pool(x, 2)]))
    graph = net.build(z)
    image = np.random.default_rng(0).standard_normal((2, 3, 11, 14)).astype(np.float32)
    (expected,) = run_reference(graph, [image], DType.F64)
    blocked = {v: Layout(block) for node in graph.nodes[::2] for v in node.outputs if v.type.rank == 4}
    assert relative_difference(run_plan(graph, blocked)(image), expected) < 1e-5


def run_plan(graph: Graph, layouts: dict[object, Layout]) -> object:
    """A network compiled with these layouts."""
    from graphc import driver

    lowered = driver.lower(graph, "net", "native", optimized=False, layouts=layouts)
    code = JitCode(lowered.object_code())
    return make_network(code, "net", lowered.plan.weight_block(), 1, (compile, (graph,)))


def convolved(x: Value, maps: int, kernel: int = 1) -> Value:
    return nn.relu(nn.conv2d(x, maps, kernel, padding=kernel // 2, name=f"{x.name}_{maps}_{kernel}"))


CONCATS: dict[str, Callable[[Value], Value]] = {
    "inception": lambda x: nn.concat([convolved(x, 16), convolved(x, 48, 3), nn.max_pool(x, 3, 1, padding=1)]),
    "nested": lambda x: nn.concat([nn.concat([x, convolved(x, 16, 3)]), convolved(x, 20)]),
    "dense": lambda x: nn.concat([x, y := convolved(x, 16), convolved(nn.relu(nn.concat([x, y])), 32, 3)]),
    "residual": lambda x: nn.concat([nn.add(x, convolved(x, 32, 3)), nn.conv2d(x, 20, 1, name="b")]),
}


@pytest.mark.parametrize("name", CONCATS)
def test_concats_cost_nothing(name: str) -> None:
    """What makes an operand writes it into the result: no step is the concat's own, and nothing is overwritten."""
    net = Builder("net")
    x = convolved(net.input("x", f32("N", 32, "H", "W")), 32)
    graph = net.build(nn.global_max_pool(convolved(CONCATS[name](x), 24)))
    assert not [s for s in make_plan(optimize(graph), make_target()).steps if s.node.op.name == "concat"]
    image = np.random.default_rng(0).standard_normal((2, 32, 9, 14)).astype(np.float32)
    (expected,) = run_reference(graph, [image], DType.F64)
    assert relative_difference(compile(graph, threads=2)(image), expected) < 1e-5


def test_a_concat_copies_what_lies_elsewhere() -> None:
    """An operand that occurs twice, or stands in another order in another concat, has its place only once."""
    net = Builder("net")
    x = net.input("x", f32("N", 32, "H", "W"))
    a, b = convolved(x, 32), convolved(x, 32, 3)
    graph = net.build(nn.mul(nn.relu(nn.concat([a, b, a])), nn.concat([b, a, b])))
    image = np.random.default_rng(0).standard_normal((2, 32, 9, 14)).astype(np.float32)
    (expected,) = run_reference(graph, [image], DType.F64)
    assert relative_difference(compile(graph, threads=2)(image), expected) < 1e-5


def test_blocked_layout_rounds_channels_up() -> None:
    assert Layout(16).stored_shape((dims.symbol("N"), 20, 5, 7)) == (dims.symbol("N"), 2, 5, 7, 16)
    assert DENSE.stored_shape((1, 20, 5, 7)) == (1, 20, 5, 7)


def test_what_depends_on_sizes_is_not_computed_at_the_start() -> None:
    """The grid is a weight, and of constant shape; the pixels that it means depend on the size of the image."""
    net = Builder("net")
    x = net.input("image", f32(1, 3, "H", "W"))
    grid = net.param("grid", np.linspace(-1, 1, 60, dtype=np.float32).reshape(1, 5, 6, 2))
    graph = net.build(nn.grid_sample(x, grid))
    for size in ((7, 9), (20, 11)):
        image = np.random.default_rng(0).standard_normal((1, 3, *size)).astype(np.float32)
        assert relative_difference(compile(graph)(image), run_reference(graph, [image])[0]) < 1e-5


def test_everything_without_code_is_named_at_once() -> None:
    net = Builder("wide")
    x = net.input("x", f32(*range(2, 11)))  # 9 dims
    a = nn.transpose(x, (1, 0, *range(2, 9)), name="first")
    graph = net.build(nn.transpose(nn.relu(a, name="middle"), (1, 0, *range(2, 9)), name="last"))
    with pytest.raises(UnsupportedError) as caught:
        make_plan(graph, make_target())
    assert len(caught.value.problems) == 2
    assert "'first'" in str(caught.value) and "'last'" in str(caught.value)


def test_more_dims_than_there_is_code_for() -> None:
    net = Builder("net")
    y = nn.transpose(net.input("x", f32(*range(2, 11))), (1, 0, *range(2, 9)), name="swap")
    with pytest.raises(UnsupportedError, match="transpose 'swap': no code generation for more than 8 dims, got 9"):
        compile(net.build(y))


def test_operands_of_one_shape_are_joined_by_one_function() -> None:
    """Each with code of its own, a thousand took LLVM 20 seconds."""
    net = Builder("net")
    xs = [net.input(f"x{i}", f32("N", 2 + i % 2, "H", "W")) for i in range(6)]
    steps = make_plan(net.build(nn.concat(xs, 1)), make_target("x86-64-v3")).steps
    assert len({s.kernel.key for s in steps}) == 1 and len(steps) == 6
