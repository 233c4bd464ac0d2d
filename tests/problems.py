"""Problems for executors: for every op, how to draw its attributes and the types and data of its inputs.

`PROBLEMS` maps an op's name to a hypothesis strategy; test_executors.py runs each through the NumPy reference in
float64, the compiled code and ONNX Runtime. Sizes are odd as often as even, batches have one to three images.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st
from index_problems import INDEX_PROBLEMS
from problem import (
    SINGLE_ROUNDING,
    SUMS,
    Data,
    H,
    Input,
    N,
    Problem,
    W,
    anything,
    below,
    image,
    normal,
    pairs,
    positive,
    shapes4,
    weight,
)  # fmt: skip

from graphc import ops
from graphc.ir import Array, DimLike, DType, Op, TensorType, dims, f32
from graphc.ops.window import Window


def elementwise(op: Op, data: Data = normal, tolerance: float = SINGLE_ROUNDING) -> st.SearchStrategy[Problem]:
    return st.builds(lambda c: Problem(op, (image(c, data),), tolerance), st.integers(1, 5))


@st.composite
def broadcast(draw: st.DrawFn, op: Op, left: Data = normal, right: Data = normal) -> Problem:
    c = draw(st.integers(1, 4))
    shapes = [f32(N, c, H, W), f32(c, 1, 1), f32(), f32(N, 1, H, W), f32(H, W), f32(1, c, 1, W), f32(N, c, H, 1)]
    a, b = Input(shapes[0], left), Input(draw(st.sampled_from(shapes)), right)
    return Problem(op, (a, b) if draw(st.booleans()) or left is not right else (b, a))


padding4 = st.tuples(*[st.integers(0, 2)] * 4)
EPILOGUES = (None, "max(x0, 0.0)", "max((x0 + x1), 0.0)", "(tanh(x0) * x1)")


def with_epilogue(op_inputs: list[Input], op: Callable[[], Op], epilogue: str | None) -> tuple[Input, ...]:
    """The operands, and one of the result's type for each that the epilogue reads."""
    result = op().infer(*(x.type for x in op_inputs))
    assert isinstance(result, TensorType)
    return (*op_inputs, Input(result)) if epilogue and "x1" in epilogue else tuple(op_inputs)


@st.composite
def conv2d(draw: st.DrawFn) -> Problem:
    groups, c, k = draw(st.sampled_from([1, 1, 2, 3])), draw(st.integers(1, 4)), draw(st.integers(1, 9))
    kernel, bias, epilogue = (
        draw(st.tuples(st.integers(1, 5), st.integers(1, 5))),
        draw(st.booleans()),
        draw(st.sampled_from(EPILOGUES)),
    )
    fields = {"stride": draw(pairs), "padding": draw(padding4), "dilation": draw(pairs), "groups": groups, "bias": bias}
    operands = [image(c * groups), weight(k * groups, c, *kernel), *([weight(k * groups)] if bias else [])]
    operands = list(with_epilogue(operands, lambda: ops.Conv2d(**fields), epilogue))
    return Problem(ops.Conv2d(**fields, epilogue=epilogue), tuple(operands), SUMS, least_size=13)


@st.composite
def conv_transpose2d(draw: st.DrawFn) -> Problem:
    groups, c, k = draw(st.sampled_from([1, 1, 2])), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    kernel, stride, bias = draw(pairs), draw(pairs), draw(st.booleans())
    dilation = draw(pairs)
    extra = tuple(draw(st.integers(0, s - 1)) for s in stride)  # ONNX Runtime refuses more, whatever the dilation
    pads = draw(st.tuples(*[st.integers(0, 1)] * 4))
    weights = (weight(c * groups, k, *kernel), *([weight(k * groups)] if bias else []))
    if draw(st.booleans()):
        p, q = Window(kernel, stride, pads, dilation).positions(H, W)
        op = ops.ConvTranspose2d(stride, pads, (0, 0), dilation, groups, bias, size=(H, W))
        operands = (Input(f32(N, c * groups, p, q)), *weights)
        return Problem(op, (*operands, image(1)), SUMS, least_size=7, operands=len(operands))
    op, epilogue = ops.ConvTranspose2d(stride, pads, extra, dilation, groups, bias), draw(st.sampled_from(EPILOGUES))
    operands = with_epilogue([image(c * groups), *weights], lambda: op, epilogue)
    return Problem(replace(op, epilogue=epilogue), operands, SUMS, least_size=3)


@st.composite
def locally_connected2d(draw: st.DrawFn) -> Problem:
    c, k, kernel, stride = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(pairs), draw(pairs)
    pads, (p, q), bias = draw(st.tuples(*[st.integers(0, 1)] * 4)), draw(pairs), draw(st.booleans())
    h = (p - 1) * stride[0] + kernel[0] - pads[0] - pads[2]
    w = (q - 1) * stride[1] + kernel[1] - pads[1] - pads[3]
    h, w = (max(h, 1), max(w, 1))
    p = (h + pads[0] + pads[2] - kernel[0]) // stride[0] + 1
    q = (w + pads[1] + pads[3] - kernel[1]) // stride[1] + 1
    operands = [Input(f32(N, c, h, w)), weight(k, c, *kernel, p, q), *([weight(k, p, q)] if bias else [])]
    return Problem(ops.LocallyConnected2d(stride, pads, bias), tuple(operands), SUMS)


lengths = st.one_of(st.integers(1, 40), st.integers(41, 300))  # the code of products has blocks of 128 and 192


@st.composite
def linear(draw: st.DrawFn) -> Problem:
    c, k, bias = draw(lengths), draw(lengths), draw(st.booleans())
    lead = draw(st.sampled_from([(N,), (H,), (N, H), (H, W)]))
    epilogue = draw(st.sampled_from(EPILOGUES))
    operands = [Input(f32(*lead, c)), weight(k, c), *([weight(k)] if bias else [])]
    operands = list(with_epilogue(operands, lambda: ops.Linear(bias), epilogue))
    return Problem(ops.Linear(bias, epilogue), tuple(operands), SUMS)


@st.composite
def matmul(draw: st.DrawFn) -> Problem:
    c, k, m = draw(lengths), draw(lengths), draw(lengths)
    a, b = draw(st.sampled_from([
        (f32(N, H, c), f32(N, c, W)), (f32(H, c), f32(c, W)), (f32(N, 2, H, W), f32(W, c)), (f32(c), f32(N, c, W)),
        (f32(N, H, c), f32(c)), (f32(c), f32(c)), (f32(H, c), f32(c, k)), (f32(m, H), f32(H, k)),
        (f32(N, m, H), f32(H, k)), (f32(m, c), f32(N, c, k)), (f32(N, 2, m, c), f32(N, 2, c, k)),
    ]))  # fmt: skip
    # ONNX Runtime, where it optimizes, forgets to turn a matrix that meets a vector
    turned = [min(a.rank, b.rank) > 1 and draw(st.booleans()) for _ in (a, b)]
    a, b = (
        x.with_shape(*x.shape[:-2], x.shape[-1], x.shape[-2]) if t else x for x, t in zip((a, b), turned, strict=True)
    )
    return Problem(ops.MatMul(*turned), (Input(a), Input(b)), SUMS)


@st.composite
def pool(draw: st.DrawFn, make: Callable[..., Op], *names: str) -> Problem:
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    fields: dict[str, object] = {"kernel": kernel, "stride": draw(pairs)}
    dilation = draw(pairs) if "dilation" in names else (1, 1)
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    # ONNX Runtime wants padding below the kernel, whatever the dilation
    most = [min(k - 1, 2) for k in kernel]
    fields["padding"] = tuple(draw(st.integers(0, most[i % 2])) for i in range(4))
    if "dilation" in names:
        fields["dilation"] = dilation
    if "ceil_mode" in names:
        fields["ceil_mode"] = draw(st.booleans())
    if "count_padding" in names:
        fields["count_padding"] = draw(st.booleans())
    opset = 19 if make is ops.AveragePool else 18  # where it learns dilations
    return Problem(make(**fields), (image(draw(st.integers(1, 4))),), least_size=max(extent), opset=opset)


@st.composite
def conv2d_weight_gradient(draw: st.DrawFn) -> Problem:
    groups, c, k = draw(st.sampled_from([1, 1, 2, 3])), draw(st.integers(1, 4)), draw(st.integers(1, 9))
    window = {"stride": draw(pairs), "padding": draw(padding4), "dilation": draw(pairs)}
    op = ops.Conv2dWeightGradient(**window, groups=groups, kernel=draw(pairs))
    p, q = op.window.positions(H, W)
    g = lambda rng, shape: normal(rng, shape) / np.float32(np.sqrt(np.prod(shape[2:])))  # noqa: E731  # sums of about 1
    return Problem(op, (image(c * groups), Input(f32(N, k * groups, p, q), g)), SUMS, least_size=7)


@st.composite
def average_pool_gradient(draw: st.DrawFn) -> Problem:
    names = "kernel", "stride", "padding", "dilation", "ceil_mode", "count_padding"
    problem = draw(pool(ops.AveragePool, *names[3:]))
    op = ops.AveragePoolGradient(**{name: getattr(problem.op, name) for name in names}, size=(H, W))
    result = problem.op.infer(problem.inputs[0].type)
    assert isinstance(result, TensorType)
    return Problem(op, (Input(result), image(1)), least_size=problem.least_size, operands=1)


@st.composite
def max_pool_routes(draw: st.DrawFn, forward: bool) -> Problem:
    """From an image to the cells at indices that a pool has given, or back."""
    pooled = draw(pool(ops.MaxPoolWithIndices, "dilation", "ceil_mode")).op
    assert isinstance(pooled, ops.MaxPoolWithIndices)
    shape = (2, 3, draw(st.integers(12, 17)), draw(st.integers(12, 17)))
    y, places = pooled.infer(f32(*shape))
    indices = Input(places, lambda rng, _: pooled.eval(normal(rng, shape))[1])
    if forward:
        return Problem(ops.PickCells(**pooled.window_fields()), (Input(f32(*shape)), indices))
    return Problem(ops.MaxPoolGradient(**pooled.window_fields(), size=shape[2:]), (Input(y), indices))


@st.composite
def max_pool_route(draw: st.DrawFn) -> Problem:
    problem = draw(pool(ops.MaxPoolWithIndices, "dilation", "ceil_mode"))
    assert isinstance(problem.op, ops.MaxPoolWithIndices)
    y, _ = problem.op.infer(problem.inputs[0].type)
    op = ops.MaxPoolRoute(**problem.op.window_fields())
    return Problem(op, (*problem.inputs, Input(y)), least_size=problem.least_size)


@st.composite
def slice_gradient(draw: st.DrawFn) -> Problem:
    c = draw(st.integers(1, 5))
    op = _slice(draw, c)
    assert isinstance(op, ops.Slice)
    gradient = ops.SliceGradient(op.axes, op.starts, op.ends, op.steps, shape=(N, c, H, W))
    return Problem(gradient, (Input(op.infer(f32(N, c, H, W))), image(1)), least_size=4, operands=1)


@st.composite
def sizes(draw: st.DrawFn, make: Callable[..., Op], *choices: object) -> Problem:
    """An op without operands."""
    return Problem(make(draw(st.sampled_from(choices))), (image(1),), operands=0)


@st.composite
def max_unpool(draw: st.DrawFn) -> Problem:
    kernel = draw(pairs)
    padding = tuple(draw(st.integers(0, min(k - 1, 1))) for k in kernel * 2)
    x, like = Input(f32(1, 2, 3, 4)), draw(st.booleans())
    height, width = 3 * kernel[0] - padding[0] - padding[2], 4 * kernel[1] - padding[1] - padding[3]

    def places(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        return rng.permutation(2 * height * width)[: np.prod(shape)].reshape(shape)

    indices = Input(TensorType(DType.I64, (1, 2, 3, 4)), places)
    operands = (x, indices, *([Input(f32(1, 2, height, width))] if like else []))
    return Problem(ops.MaxUnpool(kernel, kernel, padding, like), operands)


def _slice(draw: st.DrawFn, c: int) -> Op:
    axes = draw(st.sampled_from([(2,), (3,), (2, 3)]))
    steps = tuple(draw(st.integers(1, 3)) for _ in axes)
    if draw(st.booleans()):  # backwards
        return ops.Slice(axes, tuple(-1 for _ in axes), tuple(-(2**63) + 1 for _ in axes), tuple(-s for s in steps))
    starts = tuple(draw(st.integers(-4, 2)) for _ in axes)
    ends = tuple(draw(st.integers(4, 9) | st.just(2**63 - 1)) if s >= 0 else 2**63 - 1 for s in starts)
    return ops.Slice(axes, starts, ends, steps)


def _pad(draw: st.DrawFn, c: int) -> Op:
    mode = draw(st.sampled_from(["constant", "reflect", "symmetric", "edge", "wrap"]))
    most = [0, 0 if mode in ("reflect",) and c == 1 else min(c - 1, 1), 2, 2]
    widths: list[DimLike] = [draw(st.integers(0, m)) for m in most * 2]
    if mode in ("constant", "reflect", "edge") and draw(st.booleans()):  # ONNX has the others as copies, of fixed sizes
        widths[draw(st.sampled_from([2, 3, 6, 7]))] = dims.parse(draw(st.sampled_from(["H//4", "W - W//2*2"])))
    return ops.Pad(tuple(widths), mode, draw(st.floats(-2, 2, width=32)) if mode == "constant" else 0.0)


def _upsample(make: Callable[..., Op]) -> Callable[[st.DrawFn, int], Op]:
    def draw_op(draw: st.DrawFn, c: int) -> Op:
        fields: dict[str, object] = {"scale": draw(pairs)}
        if make is ops.UpsampleBilinear:
            fields["align_corners"] = draw(st.booleans())
        if make is not ops.BedOfNails and draw(st.booleans()):
            fields["size"] = (
                draw(st.sampled_from([H * 2, H + 3, H * 3 + 1])),
                draw(st.sampled_from([W * 2, W, W + 5])),
            )
        return make(**fields)

    return draw_op


@st.composite
def concat(draw: st.DrawFn) -> Problem:
    axis = draw(st.sampled_from([0, 1, 2, 3]))
    c = draw(st.integers(1, 4))
    shapes = [[N, c, H, W] for _ in range(draw(st.integers(1, 4)))]
    for s in shapes:
        s[axis] = draw(st.integers(1, 5)) if axis == 1 else s[axis]
    return Problem(ops.Concat(axis), tuple(Input(f32(*s)) for s in shapes))


@st.composite
def reduce(draw: st.DrawFn, make: Callable[..., Op], data: Data = normal, tolerance: float = SUMS) -> Problem:
    axes = draw(st.sampled_from([None, (0,), (1,), (2,), (3,), (2, 3), (1, 2), (0, 3), (1, 2, 3), (0, 1, 2, 3)]))
    return Problem(make(axes, draw(st.booleans())), (image(draw(st.integers(1, 5)), data),), tolerance)


@st.composite
def sum_of_terms(draw: st.DrawFn) -> Problem:
    """As the pass fuse_sums makes them."""
    plain = draw(reduce(ops.Sum))
    assert isinstance(plain.op, ops.Sum)
    c = plain.inputs[0].type.shape[1]
    expr, others = draw(st.sampled_from([("(x0 * x0)", ()), ("(x0 * x1)", (f32(c, 1, 1),)), ("(x1 - x0)", (f32(W),))]))
    return replace(plain, op=replace(plain.op, expr=expr), inputs=(*plain.inputs, *map(Input, others)))


FUSED = (  # with the dtypes of x0, x1, ...: what the import of ONNX writes and no other op has
    ("(tanh(x0) * select(gt(x0, 0.5), x0, -x0))", "f32"),
    ("round((x0 * 3.0))", "f32"),
    ("fmod(x0, x1)", "f32 f32"),
    ("(expm1(x0) + erf(x0))", "f32"),
    ("select(gt(x0, 0), 1, select(lt(x0, 0), -1, x0))", "f32"),
    ("select(gt(x0, 0), 1, select(lt(x0, 0), -1, x0))", "i32"),
    ("fmod(x0, x1)", "i32 i32"),
    ("(x0 / x1)", "i64 i64"),
    ("select(ne(lt(x0, 0), lt(x1, 0)), (x0 + x1), x0)", "i64 i64"),
    ("logical_or(logical_not(x0), ne(x0, x1))", "bool bool"),
    ("select(x0, x1, x2)", "bool i64 i64"),
    ("to_i32(x0)", "f32"),
    ("to_i64(x0)", "f32"),
    ("to_f32(x0)", "i64"),
    ("to_i32(x0)", "i64"),
    ("to_bool(x0)", "i32"),
    ("to_f32(x0)", "bool"),
    ("to_f32(ne(x0, x0))", "f32"),
    ("eq(abs(x0), inf)", "f32"),
    ("to_u8(max(min((round(x0) + to_f32(x1)), 255.0), 0.0))", "f32 u8"),
    ("to_i8(max(min((round(x0) + to_f32(x1)), 127.0), -128.0))", "f32 i8"),
    ("(to_f32((to_i32(x0) - to_i32(x1))) * 0.5)", "u8 u8"),
    ("(x0 / x1)", "u32 u32"),
    ("(x0 - x1)", "u64 u64"),
    ("to_u16(x0)", "i32"),
    ("to_i16(x0)", "u8"),
    ("to_f32(x0)", "u64"),
    ("lt(x0, x1)", "u8 u8"),
    ("eq(x0, x1)", "i8 i8"),
    ("max(x0, x1)", "u64 u64"),
    ("min(x0, x1)", "u8 u8"),
    ("select(gt(x0, 0), 1, select(lt(x0, 0), -1, x0))", "i8"),
    ("to_f16(x0)", "f32"),
    ("to_f16(x0)", "i32"),
    ("to_f32(x0)", "f16"),
    ("to_i32(x0)", "f16"),
    ("(exp(x0) + erf(x1))", "f64 f64"),
    ("(tanh(x0) * log((abs(x1) + 1.0)))", "f64 f64"),
)


@st.composite
def fused(draw: st.DrawFn) -> Problem:
    expression, dtypes = draw(st.sampled_from(FUSED))
    c, types = draw(st.integers(1, 4)), [DType(name) for name in dtypes.split()]
    return Problem(ops.Fused(expression), tuple(Input(TensorType(t, (N, c, H, W)), anything(t)) for t in types))


def near_one(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.uniform(0.98, 1.02, shape).astype(np.float32)


@st.composite
def arg_reduce(draw: st.DrawFn, make: Callable[..., Op]) -> Problem:
    dtype = draw(st.sampled_from([DType.F32, DType.I64]))  # of few integers, some are equal
    x = Input(TensorType(dtype, (N, draw(st.integers(1, 4)), H, W)), anything(dtype))
    return Problem(make(draw(st.integers(-4, 3)), draw(st.booleans()), draw(st.booleans())), (x,))


@st.composite
def expand(draw: st.DrawFn) -> Problem:
    c = draw(st.integers(1, 3))
    x, shape = draw(st.sampled_from([
        (f32(N, 1, H, W), (N, c, H, W)), (f32(N, 1, H, W), (2, N, c, H, W)), (f32(N, c, H, 1), (1, 5)),
        (f32(1, H, 1), (3, 1, 4)), (f32(H, W), (c, H, W)), (f32(N, c, 1, W), (W, W)), (f32(), (2, 3)),
    ]))  # fmt: skip
    return Problem(ops.Expand(shape), (Input(x),))


@st.composite
def cross_entropy(draw: st.DrawFn) -> Problem:
    classes, maps = draw(st.integers(2, 12)), draw(st.booleans())
    shape = (N, classes, H, W) if maps else (N, classes)
    labels = TensorType(DType.I64, (N, H, W) if maps else (N,))
    return Problem(ops.SoftmaxCrossEntropy(), (Input(f32(*shape)), Input(labels, below(classes))), SUMS)


def binary(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.integers(0, 2, shape).astype(np.float32)


def axis_op(make: Callable[[int], Op]) -> st.SearchStrategy[Problem]:
    return shapes4(lambda draw, c: make(draw(st.sampled_from([1, 2, 3, -1]))), tolerance=SUMS)


PROBLEMS: dict[str, st.SearchStrategy[Problem]] = {
    "conv2d": conv2d(),
    "conv2d_weight_gradient": conv2d_weight_gradient(),
    "conv_transpose2d": conv_transpose2d(),
    "locally_connected2d": locally_connected2d(),
    "linear": linear(),
    "matmul": matmul(),
    **{op.name: elementwise(op) for op in (
        ops.Identity(), ops.Relu(), ops.Sigmoid(), ops.Tanh(), ops.Softplus(), ops.Exp(), ops.Neg(), ops.Abs(),
        ops.Dropout(0.3), ops.HardThreshold(0.1), ops.LeakyRelu(0.2), ops.Elu(1.3), ops.Clip(-0.5, 1.0),
    )},
    "log": elementwise(ops.Log(), positive),
    "sqrt": elementwise(ops.Sqrt(), positive),
    **{op.name: broadcast(op) for op in (ops.Add(), ops.Sub(), ops.Mul(), ops.Maximum(), ops.Minimum())},
    "div": broadcast(ops.Div(), normal, positive),
    "pow": broadcast(ops.Pow(), positive, normal),
    "fused": fused(),
    "max_pool": pool(ops.MaxPool, "dilation", "ceil_mode"),
    "min_pool": pool(ops.MinPool, "dilation", "ceil_mode"),
    "max_pool_with_indices": pool(ops.MaxPoolWithIndices, "dilation", "ceil_mode"),
    "average_pool": pool(ops.AveragePool, "dilation", "ceil_mode", "count_padding"),
    "l2_pool": pool(ops.L2Pool, "ceil_mode"),
    "average_pool_gradient": average_pool_gradient(),
    "max_pool_gradient": max_pool_routes(False),
    "max_pool_route": max_pool_route(),
    "moments": st.builds(lambda c: Problem(ops.Moments(), (image(c),), SUMS), st.integers(1, 5)),
    "pick_cells": max_pool_routes(True),
    "max_unpool": max_unpool(),
    "channel_l2_pool": shapes4(lambda draw, c: ops.ChannelL2Pool(draw(st.integers(1, c)), draw(st.integers(1, 3)))),
    "global_average_pool": shapes4(lambda draw, c: ops.GlobalAveragePool(), SUMS),
    "global_max_pool": shapes4(lambda draw, c: ops.GlobalMaxPool()),
    "batch_norm": st.builds(lambda c: Problem(ops.BatchNorm(1e-4), (
        image(c), weight(c), weight(c), weight(c), weight(c, data=positive)), SUMS), st.integers(1, 5)),
    "local_response_norm": shapes4(lambda draw, c: ops.LocalResponseNorm(
        draw(st.integers(1, 6)), draw(st.sampled_from([1e-4, 0.1])), draw(st.sampled_from([0.75, 0.5, 1.1])), 1.5)),
    "softmax": axis_op(ops.Softmax),
    "log_softmax": axis_op(ops.LogSoftmax),
    "upsample_nearest": shapes4(_upsample(ops.UpsampleNearest)),
    "upsample_bilinear": shapes4(_upsample(ops.UpsampleBilinear), tolerance=SUMS),
    "bed_of_nails": shapes4(_upsample(ops.BedOfNails)),
    "flatten": shapes4(lambda draw, c: ops.Flatten(draw(st.integers(0, 3)))),
    "reshape": shapes4(lambda draw, c: ops.Reshape(
        draw(st.sampled_from([(N, -1), (N, c, H * W), (-1,), (N * c, 1, W, H)])))),
    "transpose": shapes4(lambda draw, c: ops.Transpose(tuple(draw(st.permutations(range(4)))))),
    "concat": concat(),
    "split": shapes4(lambda draw, c: draw(st.sampled_from([
        ops.Split(1, (1,) * c), ops.Split(-3, (c,)), ops.Split(2, (1, H - 1)), ops.Split(-1, (W - 2, 1, 1))])),
        least_size=3),
    "slice": shapes4(_slice, least_size=4),
    "slice_gradient": slice_gradient(),
    "extent": sizes(ops.Extent, H * W, N * 3 + H // 2, 7),
    "iota": sizes(ops.Iota, (H,), (N, 2, W), (5, 3), ()),
    "pad": shapes4(_pad, least_size=3),
    "sum": reduce(ops.Sum) | sum_of_terms(),
    "mean": reduce(ops.Mean),
    "prod": reduce(ops.Prod, near_one),
    "reduce_max": reduce(ops.ReduceMax),
    "reduce_min": reduce(ops.ReduceMin),
    "arg_max": arg_reduce(ops.ArgMax),
    "arg_min": arg_reduce(ops.ArgMin),
    "expand": expand(),
    "mean_squared_error": st.builds(lambda c: Problem(
        ops.MeanSquaredError(), (image(c), image(c)), SUMS), st.integers(1, 3)),
    "binary_cross_entropy_with_logits": st.builds(lambda c: Problem(
        ops.BinaryCrossEntropyWithLogits(), (image(c), image(c, binary)), SUMS), st.integers(1, 3)),
    "softmax_cross_entropy": cross_entropy(),
    **INDEX_PROBLEMS,
    "l2_penalty": st.builds(lambda c: Problem(ops.L2Penalty(0.3), (image(c),), SUMS), st.integers(1, 3)),
}  # fmt: skip
