"""Symbolic dimensions: the canonical form means what the expression meant, for every size."""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.errors import ShapeError
from graphc.ir import Dim, DimLike, dims

H, W = dims.symbol("H"), dims.symbol("W")
Sizes = Mapping[str, int]


@dataclass
class Expression:
    """A dim, and what the same expression is by plain integer arithmetic."""

    dim: DimLike
    value: Callable[[Sizes], int]

    def __repr__(self) -> str:
        return str(self.dim)


def combine(op: Callable[[DimLike, DimLike], DimLike], a: Expression, b: Expression, plain: Callable[[int, int], int]):
    return Expression(op(a.dim, b.dim), lambda sizes: plain(a.value(sizes), b.value(sizes)))


BINARY = (
    (lambda a, b: a + b, lambda a, b: a + b),
    (lambda a, b: a - b, lambda a, b: a - b),
    (lambda a, b: a * b, lambda a, b: a * b),
    (dims.minimum, min),
    (dims.maximum, max),
)
symbols = st.sampled_from("NHW").map(lambda s: Expression(dims.symbol(s), lambda sizes: sizes[s]))
integers = st.integers(-9, 9).map(lambda i: Expression(i, lambda _: i))
divisors = st.integers(1, 9).map(lambda i: Expression(i, lambda _: i)) | symbols
expressions = st.recursive(
    symbols | integers,
    lambda inner: (
        st.builds(lambda op, a, b: combine(op[0], a, b, op[1]), st.sampled_from(BINARY), inner, inner)
        | st.builds(lambda a, b: combine(dims.floor_div, a, b, lambda x, y: x // y), inner, divisors)
        | st.builds(lambda a, b: combine(lambda x, _: dims.ceil_div(x, b), a, a, lambda x, _: -(-x // b)), inner,
                    st.integers(1, 9))
    ),
    max_leaves=12,
)  # fmt: skip
sizes = st.fixed_dictionaries({s: st.integers(1, 60) for s in "NHW"})


@given(expressions, sizes)
def test_canonical_form_equals_brute_force(e: Expression, values: Sizes) -> None:
    assert dims.evaluate(e.dim, values) == e.value(values)


@given(expressions, sizes)
def test_bounds_hold(e: Expression, values: Sizes) -> None:
    low, high = dims.bounds(e.dim)
    assert low <= e.value(values) <= high


def test_bounds_decide_which_is_larger() -> None:
    assert dims.bounds((H - 1) // 2 + H * W + 3) == (4, float("inf"))
    assert dims.maximum(H // 2, 0) == H // 2
    assert dims.minimum(1 - H, W) == 1 - H
    assert str(dims.minimum(H, W)) == "min(H,W)"
    assert dims.bounds(dims.minimum(H // (W + 2), 7) - 9) == (-9, -2)


@given(expressions, sizes)
def test_substituting_one_symbol_at_a_time(e: Expression, values: Sizes) -> None:
    d = e.dim
    for name in values:
        d = dims.substitute(d, {name: values[name]})
    assert d == e.value(values)
    assert isinstance(d, int)


@given(expressions)
def test_text_round_trip(e: Expression) -> None:
    assert dims.parse(str(e.dim)) == e.dim


@given(expressions)
def test_pickling_keeps_equality_and_hash(e: Expression) -> None:
    copy = pickle.loads(pickle.dumps(e.dim))
    assert copy == e.dim
    assert hash(copy) == hash(e.dim)


@given(expressions)
def test_a_dim_without_symbols_is_an_int(e: Expression) -> None:
    assert isinstance(e.dim, Dim) == bool(dims.symbols_of(e.dim))


@given(expressions, expressions)
def test_equal_forms_are_decided(a: Expression, b: Expression) -> None:
    with dims.assumptions() as assumed:
        assert dims.same(a.dim + b.dim, b.dim + a.dim)
        assert dims.same(a.dim * b.dim, b.dim * a.dim)
        assert dims.same(dims.minimum(a.dim, b.dim), dims.minimum(b.dim, a.dim))
        assert dims.same(dims.maximum(a.dim, b.dim), dims.maximum(b.dim, a.dim))
        assert not dims.same(a.dim, a.dim + 1)
    assert not assumed


@given(expressions, expressions, st.integers(1, 9), st.integers(1, 9))
def test_floor_div_identities(a: Expression, b: Expression, m: int, n: int) -> None:
    x, y = a.dim, b.dim
    assert (x * m) // m == x
    assert (x * m + y * (m * n)) // m == x + y * n
    assert (x * (m * n)) // m == x * n
    assert dims.ceil_div(x * m, m) == x
    assert (x + m * n) // m == x // m + n


@given(expressions, expressions)
def test_exact_division_by_a_symbolic_dim(a: Expression, b: Expression) -> None:
    """What a reshape with one dim left open divides: the elements by the product of the known dims."""
    if isinstance(b.dim, Dim):
        assert (a.dim * b.dim) // b.dim == a.dim


@given(st.sampled_from([H, W, H * W, dims.minimum(H, W)]), st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)),
                                                                   max_size=5))  # fmt: skip
def test_nested_divisions_merge(x: Dim, steps: list[tuple[int, int]]) -> None:
    """(((x + a)//b) + c)//d is one division: sizes of stacked strided layers stay short, and their equality decided."""
    d: DimLike = x
    for plus, divisor in steps:
        d = (d + plus) // divisor
    assert str(d).count("//") <= 1


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("H", "H"),
        ("(H//2)//2", "H//4"),
        ("2*(H+1)-H", "H+2"),
        ("(2*H)//2", "H"),
        ("(4*H+6)//4", "H+1"),
        ("(H*W)//W", "H"),
        ("(3*H*W+6*W)//(3*W)", "H+2"),
        ("H-H", "0"),
        ("min(H,H+3)", "H"),
        ("max(H-1,H+3)", "H+3"),
        ("-H*W+H", "-H*W+H"),
        ("2*(H//2)", "2*(H//2)"),
        ("(H-5)//3*W", "W*((H-5)//3)"),
        ("-(H//2)", "-(H//2)"),
        ("7//2", "3"),
    ],
)
def test_canonical_text(text: str, canonical: str) -> None:
    assert str(dims.parse(text)) == str(dims.parse(canonical))
    assert dims.parse(text) == dims.parse(canonical)


@pytest.mark.parametrize("text", ["H", "2*(H//2)", "((H+1)//3)*W", "H+2", "-H*W+H", "min(H,W)", "max(1,H-3)", "H//W"])
def test_text_is_kept(text: str) -> None:
    assert str(dims.parse(text)) == text


@pytest.mark.parametrize("text", ["", "H+", "H/2", "H**2", "f(H)", "'H'", "1.5", "min(H)", "True", "lambda: H"])
def test_what_is_no_dim_is_refused(text: str) -> None:
    with pytest.raises(ShapeError, match="cannot read"):
        dims.parse(text)


@pytest.mark.parametrize("name", ["", "2H", "min", "inf", "a b", "if", "None"])
def test_what_is_no_symbol_is_refused(name: str) -> None:
    with pytest.raises(ShapeError, match="expected an identifier"):
        dims.symbol(name)


def test_division_by_what_is_not_positive_is_refused() -> None:
    for divisor in (0, -2):
        with pytest.raises(ShapeError, match="must be positive"):
            dims.floor_div(H, divisor)
    with pytest.raises(ShapeError, match="must be positive"):
        dims.evaluate(dims.floor_div(H, W - 3), {"H": 8, "W": 3})


def test_a_missing_size_is_named() -> None:
    with pytest.raises(ShapeError, match=r"dimension H\+W: no value for W"):
        dims.evaluate(H + W, {"H": 3})


def test_undecided_equality_becomes_an_assumption() -> None:
    with dims.assumptions() as outer:
        assert dims.same(H, 2 * (H // 2))
        with dims.assumptions() as inner:
            assert dims.same(H, W)
    assert inner == [(H, W)]
    assert outer == [(H, 2 * (H // 2))]
    assert dims.same(H, W)  # nobody listens: not recorded, not refused


def test_product() -> None:
    assert dims.product(()) == 1
    assert dims.product((2, H, 3)) == 6 * H
