"""Products of matrices: right, inside their buffers, and the same bits whatever the threads, on every CPU level."""

from itertools import product

import numpy as np
import pytest
from guards import guard
from hypothesis import given, settings
from hypothesis import strategies as st
from test_executors import LEVELS

from graphc.codegen.kernels import product_operands
from graphc.codegen.plan import make_plan
from graphc.codegen.target import make_target
from graphc.driver import compile
from graphc.ir import Array, Builder, DType, Graph, dims, f32
from graphc.ops import Linear, MatMul
from graphc.reference import run_reference
from graphc.verify import relative_difference

FORMS = tuple(product((False, True), repeat=2))


def multiply(turn_a: bool, turn_b: bool, columns: int, depth: int, rows: int | None = None) -> Graph:
    """One matmul, of N rows if `rows` is None, else with N k."""
    m, k = (dims.symbol("N"), depth) if rows is None else (rows, dims.symbol("N"))
    net = Builder("net")
    a = net.input("a", f32(k, m) if turn_a else f32(m, k))
    b = net.input("b", f32(columns, k) if turn_b else f32(k, columns))
    return net.build(net.apply(MatMul(turn_a, turn_b), a, b))


def draw_inputs(graph: Graph, n: int) -> list[Array]:
    rng = np.random.default_rng(n)
    shapes = [tuple(dims.evaluate(d, {"N": n}) for d in v.type.shape) for v in graph.inputs]
    return [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]


@pytest.fixture
def products_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocked product computes results of any size."""
    for name in ("LEAST_PRODUCT", "LEAST_DEPTH", "LEAST_COLUMNS", "LARGE_RESULT", "LONG_SUM"):
        monkeypatch.setattr(product_operands, name, 1)


def check(graph: Graph, sizes: list[int], cpu: str, at_start: bool = False) -> None:
    """With operands between forbidden pages, on one thread and three: the same bits, within 1e-6 of the largest one."""
    assert any(step.kernel.name.startswith("product") for step in make_plan(graph, make_target(cpu)).steps)
    one, three = (compile(graph, threads=threads, cpu=cpu) for threads in (1, 3))
    for n in sizes:
        inputs = [guard(a, at_start) for a in draw_inputs(graph, n)]
        (expected,), found = run_reference(graph, inputs, DType.F64), one(*inputs)
        assert isinstance(found, np.ndarray)
        assert relative_difference(found, expected) < 1e-6, n
        np.testing.assert_array_equal(found, three(*inputs))


@pytest.mark.usefixtures("products_everywhere")
@pytest.mark.parametrize(("turn_a", "turn_b"), FORMS)
@settings(max_examples=3)
@given(data=st.data())
def test_products_of_any_size(turn_a: bool, turn_b: bool, data: st.DataObject) -> None:
    columns, depth, rows = (data.draw(st.one_of(st.integers(1, 20), st.integers(21, 300))) for _ in range(3))
    graph = multiply(turn_a, turn_b, columns, depth, rows if data.draw(st.booleans()) else None)
    sizes = [data.draw(st.integers(1, 8)), data.draw(st.integers(9, 20)), data.draw(st.integers(21, 300))]
    check(graph, sizes, data.draw(st.sampled_from(LEVELS)), data.draw(st.booleans()))


@pytest.mark.parametrize(("turn_a", "turn_b"), FORMS)
def test_long_sums(turn_a: bool, turn_b: bool) -> None:
    """Sums over 9000 k round no more than those over few: they are added up in parts."""
    if turn_a and not turn_b:
        check(multiply(True, False, 1001, 1, rows=1100), [9000], LEVELS[0])
    else:
        check(multiply(turn_a, turn_b, 77, 9000), [5, 12], LEVELS[0])


def test_rows_of_a_layer() -> None:
    """Each number of rows up to FEW has code of its own."""
    net = Builder("net")
    x, w, b = (
        net.input(name, type) for name, type in zip("xwb", (f32("N", 4100), f32(83, 4100), f32(83)), strict=True)
    )
    check(net.build(net.apply(Linear(), x, w, b)), [*range(1, 10), 17], LEVELS[0])
    check(multiply(False, False, 83, 4100), [*range(1, 10), 17], LEVELS[0])


def test_a_run_chooses_nest_or_product() -> None:
    """The gradient of many weights: of each pair of kernels one has tasks, the product from LONG_SUM images on."""
    graph = multiply(True, False, 1027, 1, rows=1025)
    steps = make_plan(graph, make_target(LEVELS[0])).steps
    for n in (1, product_operands.LONG_SUM - 1, product_operands.LONG_SUM, 500):
        tasks = [dims.evaluate(step.kernel.tasks, {"N": n}) > 0 for step in steps]
        assert tasks == [n < product_operands.LONG_SUM, n >= product_operands.LONG_SUM]
    check(graph, [product_operands.LONG_SUM - 1, product_operands.LONG_SUM], LEVELS[0], at_start=True)
