"""Grid sampling, RoIAlign and interpolation: the loop nests do what the references do, and these what ONNX says."""

from itertools import product

import numpy as np
import pytest
from nest_interpreter import check_lowering
from onnx.reference import ReferenceEvaluator
from onnx_models import make_model, node

from graphc import ops
from graphc.errors import ShapeError
from graphc.ir import Array, Op, parse_type
from graphc.ops.interpolate import COORDINATES
from graphc.ops.sample import SAMPLE_MODES, SAMPLE_PADDINGS


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("mode", SAMPLE_MODES)
@pytest.mark.parametrize("padding", SAMPLE_PADDINGS)
@pytest.mark.parametrize("aligned", [True, False])
def test_grid_sample_in_every_way(mode: str, padding: str, aligned: bool) -> None:
    op = ops.GridSample(mode, padding, aligned)
    check_lowering(op, draw(2, 3, 5, 4), 2 * draw(2, 3, 3, 2, seed=1), tolerance=1e-4)
    check_lowering(op, draw(2, 3, 5, 1, 3), 2 * draw(2, 3, 3, 1, 3, seed=1), tolerance=1e-4)
    check_lowering(op, draw(2, 3, 6), 2 * draw(2, 4, 1, seed=1), tolerance=1e-4)


@pytest.mark.parametrize("aligned", [True, False])
def test_grid_sample_at_the_pixels_is_the_image(aligned: bool) -> None:
    x, (h, w) = draw(1, 2, 4, 5), (4, 5)
    rows, columns = ((2 * np.arange(d) - (d - 1)) / (d - 1 if aligned else d) for d in (h, w))
    grid = np.stack(np.meshgrid(columns, rows), -1)[None].astype(np.float32)
    for mode in SAMPLE_MODES:
        y = ops.GridSample(mode, "reflection", aligned).eval(x, grid)
        np.testing.assert_allclose(y, x, atol=2e-6)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("half_pixel", [True, False])
def test_roi_align(mode: str, half_pixel: bool) -> None:
    boxes = np.random.default_rng(2).uniform(-3, 20, (5, 4)).astype(np.float32)  # some of them empty, or outside
    images = np.array([0, 1, 1, -1, 0])
    check_lowering(ops.RoiAlign((3, 2), 2, 0.5, half_pixel, mode), draw(2, 3, 9, 8), boxes, images, tolerance=1e-4)


def test_roi_align_of_a_linear_image_is_the_centre_of_each_cell() -> None:
    x = np.arange(10.0)[None, None, :, None] * 3 + np.arange(12.0)
    y = ops.RoiAlign((2, 3), 2, half_pixel=False).eval(x, np.array([[2.0, 1.0, 8.0, 5.0]]), np.array([0]))
    np.testing.assert_allclose(y[0, 0], np.array([[2.0], [4.0]]) * 3 + np.array([3.0, 5.0, 7.0]))


WAYS = [(mode, coordinates) for mode, coordinates in product(("nearest", "linear", "cubic"), COORDINATES)]


@pytest.mark.parametrize(("mode", "coordinates"), WAYS)
def test_interpolate_in_every_way(mode: str, coordinates: str) -> None:
    x, more = draw(2, 5, 3), {"crop": (0.2, 1.1), "extrapolation": 7.0}
    for (size, scale), antialias, outside in product(
        ((7, None), (3, None), (1, None), (3, 0.6), (8, 1.7)), (True, False), (True, False)
    ):
        op = ops.Interpolate(1, size, mode, coordinates, scale, antialias=antialias, exclude_outside=outside, **more)
        check_lowering(op, x)


@pytest.mark.parametrize(("mode", "coordinates"), WAYS)
@pytest.mark.parametrize("scale", [0.67, 0.83, 2.27])  # no place is a whole number, or half of one
def test_interpolate_is_onnx_resize(mode: str, coordinates: str, scale: float) -> None:
    if coordinates in ("tf_half_pixel_for_nn", "pytorch_half_pixel"):
        pytest.skip("onnx's reference lacks the one, and has another place for a size of 1 in the other")
    x, crop = draw(1, 1, 10, 8), np.array([0, 0, 0.1, 0, 1, 1, 0.8, 1], np.float32)
    scale = float(np.float32(scale))
    size = int(10 * scale)
    for rounding, antialias in (("floor", 0), ("ceil", 0), ("round_prefer_ceil", 0), ("round_prefer_floor", 1)):
        if mode == "nearest" and antialias:
            continue
        attributes = {"mode": mode, "coordinate_transformation_mode": coordinates, "antialias": antialias}
        model = make_model(
            [node("Resize", "x roi s", nearest_mode=rounding, extrapolation_value=3.0, **attributes)], opset=19,
            data={"roi": crop, "s": np.array([1, 1, scale, 1], np.float32)}, inputs={"x": (1, 1, 10, 8)},
        )  # fmt: skip
        model.graph.output[0].type.tensor_type.elem_type = 1
        op = ops.Interpolate(
            2, size, mode, coordinates, scale, rounding,
            antialias=bool(antialias), crop=(float(crop[2]), float(crop[6])), extrapolation=3.0,
        )  # fmt: skip
        (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
        np.testing.assert_allclose(op.eval(x), expected, atol=1e-5, err_msg=str(op))


@pytest.mark.parametrize(("op", "types", "message"), [
    (ops.GridSample(), "f32[N,3,H,W] f32[N,H,W,3]", "grid must be"),
    (ops.GridSample("area"), "f32[N,3,H,W] f32[N,5,6,2]", "mode and padding must be of nearest"),
    (ops.RoiAlign((2, 2), 0), "f32[N,3,H,W] f32[5,4] i64[5]", "samples of at least 1"),
    (ops.RoiAlign((2, 2), 1), "f32[N,3,H,W] f32[5,4] i64[6]", "images must be"),
    (ops.Interpolate(1, 5, "area"), "f32[N,3]", "mode must be one of nearest, linear, cubic"),
    (ops.Interpolate(1, 0), "f32[N,3]", "must be positive"),
    (ops.Interpolate(0, 5, antialias=True), "f32[N,3]", "antialias wants a scale, or constant sizes"),
])  # fmt: skip
def test_shape_rules(op: Op, types: str, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(*map(parse_type, types.split()))
