"""Weights of fully connected layers in 24 bits: the format bit by bit, the products, and where they are used."""

import ctypes

import numpy as np
import pytest
from guarded_network import run_guarded
from test_executors import LEVELS

from graphc.codegen.kernels import product_operands
from graphc.codegen.kernels.short_weights import BITS, BLOCK, BLOCK_BYTES, LEAST_EXPONENT
from graphc.codegen.plan import Plan, make_plan
from graphc.codegen.target import make_target
from graphc.driver import compile, lower
from graphc.ir import Array, Builder, DType, Graph, f32
from graphc.ops import Linear
from graphc.reference import run_reference
from graphc.verify import relative_difference

WIDE = [cpu for cpu in LEVELS if make_target(cpu).lanes >= product_operands.LEAST_LANES]


@pytest.fixture
def all_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of weights is kept in 24 bits."""
    for name in ("LEAST_SHORTENED", "LEAST_PRODUCT", "LEAST_DEPTH", "LEAST_COLUMNS"):
        monkeypatch.setattr(product_operands, name, 1)


def layer(w: Array, rows: int | None = None, bias: bool = False) -> Graph:
    """y = x w^T, of N rows."""
    net = Builder("layer")
    x = net.input("x", f32("N" if rows is None else rows, w.shape[1]))
    extra = [net.param("b", np.linspace(-1, 1, len(w), dtype=np.float32))] if bias else []
    return net.build(net.apply(Linear(bias=bias), x, net.param("w", w), *extra))


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def shorten(w: Array) -> Array:
    """What the format makes of weights, in NumPy."""
    rows, depth = w.shape
    padded = np.zeros((rows, -(-depth // BLOCK) * BLOCK))
    padded[:, :depth] = w
    blocks = padded.reshape(rows, -1, BLOCK)
    _, exponent = np.frexp(np.abs(blocks).max(-1, keepdims=True))
    scale = np.ldexp(1.0, np.maximum(exponent, LEAST_EXPONENT) - BITS)
    m = np.minimum(np.rint(blocks / scale), 2**BITS - 1)
    return np.asarray((m * scale).reshape(rows, -1)[:, :depth])


def blocks_in_memory(graph: Graph) -> Array:
    """The weights that a network of one layer has made for itself, decoded."""
    net, plan = compile(graph, threads=1), lower(graph, "net", "native").plan
    (step,) = plan.setup
    y, w = step.kernel.buffers
    (own,) = (ctypes.c_void_p * 7).from_address(net._idle[0].value or 0)[6:]
    rows, depth = w.type.static_shape()
    count = rows * -(-depth // BLOCK)
    stored = ctypes.string_at((own or 0) + plan.places[y.name].index, count * BLOCK_BYTES)
    block = np.frombuffer(stored, np.dtype([("m", "u1", (BLOCK, 3)), ("scale", "<f4")]), count)
    words = np.zeros((count, BLOCK, 4), np.uint8)
    words[..., 1:] = block["m"]
    decoded = words.view("<i4")[..., 0].astype(np.float64) * block["scale"][:, None]
    return np.asarray(decoded.reshape(rows, -1)[:, :depth])


def kernels(plan: Plan) -> list[str]:
    return [step.kernel.name for step in (*plan.setup, *plan.steps)]


@pytest.mark.usefixtures("all_short")
@pytest.mark.skipif(make_target().lanes < product_operands.LEAST_LANES, reason="this CPU's vectors are too short")
@pytest.mark.parametrize("depth", [1, 64, 200])
def test_the_format(depth: int) -> None:
    """Bit by bit, of weights of very different sizes; as near as 2**-24 of the power of two above a block's largest."""
    w = draw(7, depth) * np.float32(10) ** draw(7, depth, seed=1)
    w[1], w[2, 0], w[3, -1], w[4] = 0, 1e30, 3.4e38, w[4] * np.float32(1e-36)
    found = blocks_in_memory(layer(w))
    np.testing.assert_array_equal(found, shorten(w))
    for begin in range(0, depth, BLOCK):
        part, exact = found[:, begin : begin + BLOCK], w[:, begin : begin + BLOCK].astype(np.float64)
        power = np.exp2(np.maximum(np.frexp(np.abs(exact).max(1, keepdims=True))[1], LEAST_EXPONENT))
        assert (np.abs(part - exact) <= power * 2.0**-23).all()
        assert (np.abs(part - exact) <= power * 2.0**-24).mean() > 0.99  # but for those that would be a bit too large


@pytest.mark.usefixtures("all_short")
@pytest.mark.parametrize("cpu", WIDE)
@pytest.mark.parametrize("depth", [130, 9000])
def test_products_of_few_rows_and_of_many(depth: int, cpu: str) -> None:
    """Numbers of rows with code of their own, between them, and beyond; the same bits on any number of threads."""
    w = draw(91, depth) / np.float32(np.sqrt(depth))
    graph = layer(w, bias=True)
    assert "shorten_weights" in kernels(make_plan(graph, make_target(cpu)))
    one, three = (compile(graph, threads=threads, cpu=cpu) for threads in (1, 3))
    for rows in (*range(1, 10), 17, 200):
        x = draw(rows, depth, seed=rows)
        (expected,), found = run_reference(graph, [x], DType.F64), one(x)
        assert relative_difference(found, expected) < 1e-6, rows
        np.testing.assert_array_equal(found, three(x))


@pytest.mark.usefixtures("all_short")
@pytest.mark.parametrize("cpu", WIDE)
@pytest.mark.parametrize("at_start", [False, True])
def test_nothing_is_read_or_written_beyond_the_blocks(cpu: str, at_start: bool) -> None:
    for depth in (63, 144):
        graph = layer(draw(50, depth))
        for rows in (1, 3, 8, 11):
            x = draw(rows, depth, seed=rows)
            (found,), (expected,) = run_guarded(graph, cpu, [x], at_start), run_reference(graph, [x], DType.F64)
            assert relative_difference(found, expected) < 1e-6


@pytest.mark.usefixtures("all_short")
def test_integers_stay_as_they_are() -> None:
    rng = np.random.default_rng(0)
    w = rng.integers(-(2**20), 2**20, (40, 200)).astype(np.float32)
    x = rng.integers(-1, 2, (2, 200)).astype(np.float32)
    x[:, 8:] = 0  # so that float32 holds the sums
    np.testing.assert_array_equal(compile(layer(w))(x), x @ w.T)


@pytest.mark.usefixtures("all_short")
def test_weights_that_are_no_numbers_spoil_their_rows_alone() -> None:
    w = draw(5, 100)
    w[1, 3], w[3, 99] = np.nan, np.inf
    found = compile(layer(w))(draw(1, 100))
    assert np.isfinite(found).tolist() == [[True, False, True, False, True]]


def test_where_weights_are_kept_in_24_bits() -> None:
    """Large ones, the same in every run, for a batch that may be small, on vectors of 8 lanes or more."""
    target, large, small = make_target(WIDE[0]), draw(512, 512), draw(512, 511)
    assert kernels(make_plan(layer(large), target)) == ["shorten_weights", "product_nt_4x6"]
    assert "shorten_weights" in kernels(make_plan(layer(large, rows=8), target))
    assert "shorten_weights" not in kernels(make_plan(layer(small), target))
    assert "shorten_weights" not in kernels(make_plan(layer(large, rows=9), target))
    assert "shorten_weights" not in kernels(make_plan(layer(large), make_target("x86-64-v2")))
    net = Builder("given")
    x, w = net.input("x", f32("N", 512)), net.input("w", f32(512, 512))
    given = net.build(net.apply(Linear(bias=False), x, w))
    assert kernels(make_plan(given, target)) == ["product_nt_4x6"]
