"""Shape arithmetic as exporters write it: it is done while the model is read, and right for every size of image."""

from collections import Counter

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import NodeProto
from onnx_models import floats, ints, make_model, node, number, run_onnxruntime

import graphc
from graphc.errors import InputError, UnsupportedError
from graphc.ir import DType, dims
from graphc.ir.verify import verify
from graphc.onnx import from_model, sizes
from graphc.onnx.sizes import Ratio
from graphc.reference import run_reference

H, W = dims.symbol("H"), dims.symbol("W")
HEIGHT_WIDTH = [node("Shape", "x", "s"), node("Gather", "s two", "h"), node("Gather", "s three", "w")]
DATA = {
    "two": ints(2).reshape(()), "three": ints(3).reshape(()), "i0": ints(0), "i1": ints(1), "i2": ints(2),
    "i3": ints(3), "i4": ints(4), "i8": ints(8), "minus": ints(-1), "hw": ints(2, 3), "zero": ints(0).reshape(()),
    "one": ints(1).reshape(()), "half": np.array([0.5], np.float32), "third": np.array([1 / 3], np.float32),
    "fhalf": number(0.5), "n4": ints(4).reshape(()), "ones4": ints(1, 1, 1, 1),
}  # fmt: skip


def lists(*names: str) -> list[NodeProto]:
    """Scalars as lists of one: h becomes h1."""
    return [node("Unsqueeze", f"{name} i0", f"{name}1") for name in names]


def chain(*nodes: NodeProto, outputs: str = "y", opset: int = 18) -> onnx.ModelProto:
    """A model of these nodes that knows its height and width, as scalars h and w and as lists h1 and w1."""
    return make_model([*HEIGHT_WIDTH, *lists("h", "w"), *nodes], data=DATA, outputs=outputs, opset=opset)


MODELS = {
    "interpolate": chain(  # F.interpolate(scale_factor=1.5) as floor(float(h) * 1.5)
        node("Cast", "h", "hf", to=1), node("Mul", "hf factor", "hs"), node("Floor", "hs", "hr"),
        node("Cast", "hr", "hi", to=7), *lists("hi"), node("Concat", "i1 i3 hi1 w1", "size", axis=0),
        node("Slice", "x i0 i1 i0", "x1"), node("Resize", "x1 - - size", mode="linear"),
        node("Constant", "", "factor", value_float=1.5),
    ),
    "scales_by_division": chain(  # Keras: the scale is the target's size by the image's
        node("Slice", "s i2 i4", "before"), node("Mul", "before i2", "after"), node("Cast", "before", "bf", to=1),
        node("Cast", "after", "af", to=1), node("Div", "af bf", "scale2"), node("Cast", "i1", "f1", to=1),
        node("Concat", "f1 f1 scale2", "scales", axis=0), node("Resize", "x - scales", mode="linear"),
    ),
    "pad_to_a_multiple": chain(  # (8 - h % 8) % 8 rows behind, as sliding windows want them
        node("Mod", "h1 i8", "r"), node("Sub", "i8 r", "m"), node("Mod", "m i8", "p"), node("Neg", "p", "np"),
        node("Neg", "np", "pp"), node("Concat", "i0 i0 i0 i0 i0 i0 pp i1", "pads", axis=0), node("Pad", "x pads"),
    ),
    "pad_edge": chain(
        node("Div", "w1 i2", "p"), node("Concat", "i0 i0 i1 p i0 i0 i0 p", "pads", axis=0),
        node("Pad", "x pads", mode="edge"),
    ),
    "floor_divide": chain(  # torch's floor division of integers, which ONNX rounds towards zero
        node("Neg", "h1", "n"), node("Div", "n i2", "d"), node("Sign", "n", "sn"), node("Sign", "i2", "sd"),
        node("Equal", "sn sd", "e"), node("Not", "e", "ne"), node("Mod", "n i2", "m"), node("Cast", "m", "mb", to=9),
        node("And", "ne mb", "o"), node("Cast", "o", "oi", to=7), node("Sub", "d oi", "floor"),
        node("Neg", "floor", "ceil"), node("Slice", "x i0 ceil i2"),
    ),
    "expand": chain(  # torch.expand(n, -1, h, w): dims of -1 become 1
        node("Concat", "minus i3 h1 w1", "wanted", axis=0), node("Equal", "wanted minus", "kept"),
        node("Where", "kept ones4 wanted", "shape"), node("ReduceMax", "x hw", "top"), node("Expand", "top shape"),
    ),
    "constant_of_shape": chain(
        node("ConstantOfShape", "s", "zeros"), node("Add", "x zeros"),
    ),
    "centre_crop": chain(  # to at most 4 rows
        node("Min", "h1 i4", "rows"), node("Sub", "h1 rows", "rest"), node("Div", "rest i2", "start"),
        node("Add", "start rows", "end"), node("Slice", "x start end i2"),
    ),
    "slice_from_the_end": chain(
        node("Div", "h1 i2", "part"), node("Neg", "part", "np"), node("Sub", "np i1", "start"),
        node("Sub", "w1 i2", "e"), node("Abs", "e", "end"), node("Concat", "start i0", "starts", axis=0),
        node("Concat", "h1 end", "ends", axis=0), node("Slice", "x starts ends hw"),
    ),
    "split": chain(
        node("Div", "h1 i2", "top"), node("Sub", "h1 top", "bottom"), node("Concat", "top bottom", "parts", axis=0),
        node("Split", "x parts", "a b", axis=2), node("Concat", "b a", axis=2),
    ),
    "split_in_two": chain(node("Split", "x", "a b", axis=2, num_outputs=2), node("Concat", "b a", axis=2)),
    "positions": chain(  # a coordinate grid: x + row/2
        node("Range", "zero h one", "r"), node("Cast", "r", "f", to=1), node("Mul", "f fhalf", "g"),
        node("Unsqueeze", "g i1", "column"), node("Add", "x column"),
    ),
    "positions_backwards": chain(
        node("Neg", "one", "back"), node("Range", "w zero back", "r"), node("Cast", "r", "f", to=1),
        node("Add", "x f"),
    ),
    "mean_by_hand": chain(
        node("ReduceSum", "x hw", "total"), node("Mul", "h w", "area"), node("Cast", "area", "a", to=1),
        node("Div", "total a"),
    ),
    "scale_of_attention": chain(
        node("Cast", "w", "a", to=1), node("Sqrt", "a", "root"), node("Div", "x root"),
    ),
    "shape_itself": chain(node("Shape", "x", "l"), node("Mul", "l l", "q"), node("Sub", "l q"), outputs="y h"),
    "quotients": chain(
        node("Sub", "h1 i4", "d"), node("Div", "d i3", "q"), node("Mod", "d i3", "m"), node("Max", "q m", "y"),
        node("Greater", "h1 w1", "g"), node("Xor", "g g", "f"), node("Or", "g f", "c"), node("Less", "h1 i3", "l"),
        node("GreaterOrEqual", "h1 i3", "ge"), node("LessOrEqual", "w1 i4", "le"),
        outputs="y g f c l ge le",
    ),
    "reductions": chain(
        node("ReduceSum", "s", "a", keepdims=0), node("ReduceMin", "s", "b"), node("ReduceProd", "s i0", "c"),
        node("Pow", "s i2", "d"), node("Cast", "s", "f", to=1), node("ReduceMax", "f", "e"),
        outputs="a b c d e",
    ),
    "numbers_by_other_ops": chain(  # a size that no size is needed for, by ops that shape arithmetic lacks
        node("Constant", "", "v", value_floats=[0.5, 2.5]), node("Exp", "v", "e"), node("ArgMax", "e", "k", axis=0),
        node("Add", "k i1", "end"), node("Slice", "x i0 end i1"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_agrees_with_onnxruntime_at_several_sizes(name: str) -> None:
    model = MODELS[name]
    graph = verify(from_model(model))
    run = graphc.compile(graph, threads=1)
    for seed, shape in enumerate([(1, 3, 6, 4), (2, 3, 9, 7), (1, 3, 4, 10)]):
        x = floats(*shape, seed=seed)
        expected = run_onnxruntime(model, {"x": x})
        native = run(x)
        for found in (run_reference(graph, [x]), native if isinstance(native, tuple) else (native,)):
            for a, b in zip(found, expected, strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * max(1.0, float(np.abs(b).max())))


def test_nothing_is_left_of_it() -> None:
    ops = Counter(node.op.name for node in from_model(MODELS["interpolate"]).nodes)
    assert ops == {"slice": 1, "upsample_bilinear": 1}
    text = str(from_model(MODELS["expand"]))
    assert "expand(%top, shape=(1, 3, H, W))" in text
    assert "f32[N,3,H+1,W+2*(W//2)] = pad(%x, padding=(0, 0, 1, W//2, 0, 0, 0, W//2)" in str(
        from_model(MODELS["pad_edge"])
    )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (chain(node("Cast", "h1", "f", to=1), node("Mul", "f third", "t"), node("Cast", "t", "i", to=7),
               node("Slice", "x i0 i i2")), "rounded after arithmetic with 0.333"),
        (chain(node("Cast", "h1", "f", to=1), node("Cast", "i3", "k", to=1), node("Div", "f k", "q"),
               node("Mul", "q k", "t"), node("Cast", "t", "i", to=7), node("Slice", "x i0 i i2")),
         r"more arithmetic with the rounded quotient \(H\)/\(3\)"),
        (chain(node("Sub", "h1 w1", "d"), node("Div", "h1 d", "i"), node("Slice", "x i0 i i2")),
         "a division by H-W, which may be 0 or less"),
        (chain(node("Cast", "h1", "f", to=1), node("Mul", "f half", "t"), node("Round", "t", "r"),
               node("Cast", "r", "i", to=7), node("Slice", "x i0 i i2")), "the nearest integer of"),
        (chain(node("Pow", "h1 w1", "p"), node("Slice", "x i0 p i2")), "to the power of W"),
        (chain(node("Range", "zero w h", "r"), node("Cast", "r", "f", to=1), node("Add", "x f")), "delta=H"),
    ],
)  # fmt: skip
def test_refusals(model: onnx.ModelProto, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        from_model(model)


def test_a_padding_below_0_is_refused_when_the_sizes_are_known() -> None:
    graph = from_model(chain(node("Sub", "h1 i4", "p"), node("Concat", "i0 i0 p i0 i0 i0 i0 i0", "pads", axis=0),
                             node("Pad", "x pads")))  # fmt: skip
    run = graphc.compile(graph, threads=1)
    assert run(floats(1, 3, 6, 2)).shape == (1, 3, 8, 2)
    with pytest.raises(InputError, match=r"must equal .*\(got N=1, H=3, W=2\)"):
        run(floats(1, 3, 3, 2))


sides = st.integers(1, 40)


@given(st.integers(-60, 60), st.integers(1, 9), sides, sides)
def test_division_is_that_of_onnx(shift: int, by: int, h: int, w: int) -> None:
    def at(d: object) -> int:
        assert isinstance(d, int | dims.Dim)
        return dims.evaluate(d, {"H": h, "W": w})

    a, b = H * 2 - W + shift, W + by
    x, y = at(a), at(b)
    truncated = abs(x) // y * (1 if x >= 0 else -1)
    assert at(sizes.divide(a, b)) == truncated
    assert at(sizes.divide(a, -by)) == -(abs(x) // by) * (1 if x >= 0 else -1)
    assert at(sizes.remainder(a, b)) == x % y
    assert at(sizes.less(a, b)) == (x < y)
    assert at(sizes.equal(a, b)) == (x == y)
    assert at(sizes.choose(sizes.less(a, b), a, b)) == min(x, y)
    assert at(sizes.sign(a)) == (x > 0) - (x < 0)
    assert at(sizes.magnitude(a)) == abs(x)


@given(st.integers(-64, 64), st.integers(-64, 64), st.sampled_from([1, 2, 4]), sides)
def test_ratios_are_floats(a: int, b: int, by: int, h: int) -> None:
    """Exact for the numbers that are allowed, so that floor and ceil are those of float32."""
    x, y = Ratio.of(H) * (a / 8) + b, Ratio.of(H) / by - 0.25

    def at(r: object) -> float:
        assert isinstance(r, Ratio)
        return dims.evaluate(r.numerator, {"H": h}) / dims.evaluate(r.denominator, {"H": h})

    p, q = np.float32(h) * np.float32(a / 8) + np.float32(b), np.float32(h) / np.float32(by) - np.float32(0.25)
    assert (at(x), at(y), at(x - y), at(-x)) == (p, q, p - q, -p)
    assert dims.evaluate(x.floor(), {"H": h}) == np.floor(p)
    assert dims.evaluate(x.ceil(), {"H": h}) == np.ceil(p)
    assert at(sizes.maximum(x, y)) == max(p, q)
    assert at(sizes.minimum(x, y)) == min(p, q)
    assert dims.evaluate(sizes.less(x, y), {"H": h}) == (p < q)


def test_settled_arrays_have_the_element_type() -> None:
    settled = sizes.settle(np.array([Ratio(3, 2), 2.0], object), DType.F32)
    assert settled.dtype == np.float32
    assert settled.tolist() == [1.5, 2.0]
    assert sizes.settle(np.array([1, H], object), DType.I64).dtype == object


def test_truth_values_of_sizes_choose() -> None:
    """H > 4 or not: where the answer depends on the size, so does what is chosen."""
    model = chain(node("Greater", "h1 i4", "g"), node("Where", "g i4 h1", "rows"), node("Slice", "x i0 rows i2"))
    graph = from_model(model)
    for h in (3, 4, 5, 9):
        (y,) = run_reference(graph, [floats(1, 3, h, 2)])
        assert y.shape == (1, 3, min(h, 4), 2)
