"""Images read at places that are data: grid sampling (Jaderberg et al. 2015) and RoIAlign (He et al. 2017)."""

from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import Array, DType, Op, TensorType, dims
from graphc.ops.checks import check_image, check_inputs
from graphc.ops.index import check_indices, wrap

SAMPLE_MODES = {"nearest": (0,), "linear": (0, 1), "cubic": (-1, 0, 1, 2)}  # the cells read, from floor(place) on
SAMPLE_PADDINGS = ("zeros", "border", "reflection")
CUBIC = -0.75  # the usual free parameter of cubic convolution (Keys 1981), that of PyTorch, ONNX and OpenCV


@dataclass(frozen=True)
class GridSample(Op):
    """x [N,C,D1..Dd] read at the places that grid [N,P1..Pd,d] names -> y [N,C,P1..Pd], d from 1 to 3.

    A grid row holds the place in dims Dd, ..., D1 (x before y), -1 and 1 being the outer edges of the corner pixels, or
    with `align_corners` their centres. `mode` "nearest" rounds half to even; "linear" and "cubic" interpolate between 2
    and 4 pixels along each dim. Outside lie zeros, or what `padding` says: "border" repeats the edge pixel and
    "reflection" mirrors the image at its edges (with `align_corners`, at the centres of its corner pixels).
    """

    name: ClassVar[str] = "grid_sample"
    mode: str = "linear"
    padding: str = "zeros"
    align_corners: bool = False

    def infer(self, *types: TensorType) -> TensorType:
        x, grid = check_inputs(types, 2)
        if not 3 <= x.rank <= 5 or not x.dtype.is_float:
            raise ShapeError(f"expected a float image batch [N,C,...] with 1 to 3 spatial dims, got {x}")
        wanted = grid.rank == x.rank and grid.shape[-1] == x.rank - 2 and dims.same(grid.shape[0], x.shape[0])
        if not wanted or grid.dtype != x.dtype:
            dims_of_grid = f"{x.shape[0]},...,{x.rank - 2}"
            raise ShapeError(f"grid must be {x.dtype.value}[{dims_of_grid}] of rank {x.rank}, got {grid}")
        if self.mode not in SAMPLE_MODES or self.padding not in SAMPLE_PADDINGS:
            known = f"{', '.join(SAMPLE_MODES)} and {', '.join(SAMPLE_PADDINGS)}"
            raise ShapeError(f"mode and padding must be of {known}, got {self.mode!r} and {self.padding!r}")
        return x.with_shape(*x.shape[:2], *grid.shape[1:-1])

    def eval(self, *arrays: Array) -> Array:
        x, grid = arrays
        spatial, taps = x.shape[2:], SAMPLE_MODES[self.mode]
        rows = np.arange(len(x)).reshape(-1, *[1] * len(spatial))
        places = [self._place(grid[..., -1 - axis], d) for axis, d in enumerate(spatial)]
        lows = [np.floor(p) for p in places]
        shares = [weigh(self.mode, p - low) for p, low in zip(places, lows, strict=True)]
        y = np.zeros((*grid.shape[:-1], x.shape[1]), x.dtype)
        for cells in product(range(len(taps)), repeat=len(spatial)):
            weight, inside, index = np.ones_like(places[0]), np.asarray(True), []
            for low, share, cell, d in zip(lows, shares, cells, spatial, strict=True):
                i = self._cell(low.astype(np.int64) + taps[cell], d)
                inside = inside & (i >= 0) & (i < d)
                weight = weight * share[cell]
                index.append(np.clip(i, 0, d - 1))
            y += np.where(inside, weight, 0)[..., None] * np.moveaxis(x, 1, -1)[rows, *index]
        return np.ascontiguousarray(np.moveaxis(y, -1, 1))

    def _place(self, g: Array, d: int) -> Array:
        """The place in pixels."""
        place = (g + 1) * ((d - 1) / 2) if self.align_corners else ((g + 1) * d - 1) / 2
        return (np.rint(place) if self.mode == "nearest" else place).astype(g.dtype)

    def _cell(self, i: Array, d: int) -> Array:
        """The pixel that stands for pixel i, which may lie outside."""
        if self.padding == "border":
            return np.asarray(np.clip(i, 0, d - 1))
        if self.padding == "zeros":
            return i
        if self.align_corners:  # ... 2 1 0 1 2 ..., with period 2d - 2; a single pixel repeats
            period = max(2 * d - 2, 1)
            return np.asarray(np.minimum(i % period, period - i % period) if d > 1 else np.zeros_like(i))
        return np.asarray(np.minimum(i % (2 * d), 2 * d - 1 - i % (2 * d)))  # ... 1 0 0 1 2 ...


def weigh(mode: str, t: Array) -> list[Array]:
    """The weights of the cells around a place t behind one of them, 0 <= t < 1."""
    if mode == "nearest":
        return [np.ones_like(t)]
    if mode == "linear":
        return [1 - t, t]
    return [cubic_weight(np.abs(t - tap), CUBIC) for tap in SAMPLE_MODES[mode]]


def cubic_weight(t: Array, a: float) -> Array:
    """The cubic convolution kernel at a distance t of 0 to 2 (Keys 1981)."""
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0)).astype(t.dtype)


@dataclass(frozen=True)
class RoiAlign(Op):
    """Boxes of images, each pooled to `size` cells. x [N,C,H,W], boxes [R,4], images [R] -> y [R,C,P,Q].

    A box is x1, y1, x2, y2, times `scale` in pixels of x, minus 1/2 if `half_pixel` (else it is at least one pixel wide
    and high); `images` says which image of the batch it lies in. Each cell reads samples x samples places, equally
    spaced, by linear interpolation, and takes their mean; or, with mode "max", the largest of their four weighted
    pixels. Places more than a pixel outside count as 0.
    """

    name: ClassVar[str] = "roi_align"
    size: tuple[int, int]
    samples: int
    scale: float = 1.0
    half_pixel: bool = True
    mode: str = "avg"

    def infer(self, *types: TensorType) -> TensorType:
        x, boxes, images = check_inputs(types, 3)
        channels = check_image(x)
        if boxes.dtype != x.dtype or boxes.rank != 2 or boxes.shape[1] != 4:
            raise ShapeError(f"boxes must be {x.dtype.value}[R,4], got {boxes}")
        if check_indices(images).rank != 1 or not dims.same(images.shape[0], boxes.shape[0]):
            raise ShapeError(f"images must be {DType.I64.value}[{boxes.shape[0]}], got {images}")
        if min(*self.size, self.samples) < 1 or len(self.size) != 2 or self.mode not in ("avg", "max"):
            raise ShapeError(f"expected a size and samples of at least 1 and mode avg or max, got {self}")
        return x.with_shape(boxes.shape[0], channels, *self.size)

    def eval(self, *arrays: Array) -> Array:
        x, boxes, images = arrays
        images = wrap(self.name, images, len(x))
        rows, columns = (self._sample(boxes, axis, x.shape[2 + axis]) for axis in (0, 1))
        maps = x[images]  # [R,C,H,W]
        r = np.arange(len(boxes)).reshape(-1, 1, 1)
        parts = []
        for (i, s), (j, t) in product(rows, columns):
            pixels = np.moveaxis(maps[r, :, i[:, :, None], j[:, None]], -1, 1)
            parts.append(pixels * (s[:, :, None] * t[:, None])[:, None])
        (p, q), k = self.size, self.samples
        cells = np.stack(parts).reshape(4, len(boxes), x.shape[1], p, k, q, k)
        if self.mode == "max":
            return np.asarray(cells.max(axis=(0, 4, 6)))
        return np.asarray(cells.sum(axis=(0, 4, 6)) / (k * k)).astype(x.dtype)

    def _sample(self, boxes: Array, axis: int, d: int) -> list[tuple[Array, Array]]:
        """The rows (columns) on both sides of each place, and their weights: each [R,P*samples]."""
        offset = 0.5 if self.half_pixel else 0.0
        start, end = (boxes[:, i] * self.scale - offset for i in (1 - axis, 3 - axis))
        length = end - start if self.half_pixel else np.maximum(end - start, 1)
        count = self.size[axis] * self.samples
        place = start[:, None] + (np.arange(count) + 0.5) * (length / count)[:, None]
        inside = (place >= -1) & (place <= d)
        place = np.clip(place, 0, d - 1)
        low = place.astype(np.int64)
        share = np.where(inside, place - low, 0).astype(boxes.dtype)
        rest = np.where(inside, 1 - (place - low), 0).astype(boxes.dtype)
        return [(low, rest), (np.minimum(low + 1, d - 1), share)]
