"""What a result says: the best classes in words, a map as a line of numbers, or as a heat map over its picture."""

from collections.abc import Sequence
from math import ceil

import numpy as np

from graphc.errors import InputError
from graphc.geometry import Geometry
from graphc.ir import Array, DType, TensorType
from graphc.pictures import Picture, choose_zoom, draw_labels, find_peaks, mark_detections, overlay

THRESHOLD = 0.5  # of a peak: likelier that class than all others together
FEW = 8  # numbers that are shown in full


def describe_result(name: str, result: Array, labels: Sequence[str] | None, top: int) -> list[str]:
    """Lines that tell a result: of class scores [N,K] the `top` best with their probabilities, else the range."""
    if result.ndim == 2 and result.shape[1] > 1 and result.dtype.kind == "f":
        return [line for row in to_probabilities(result) for line in _rank(row, labels, top)]
    line = f"{name} {TensorType(DType.of(result.dtype), result.shape)}"
    if result.size <= FEW:
        return [f"{line}: {', '.join(f'{x:g}' for x in result.ravel())}"]
    return [f"{line}: {result.min():g} to {result.max():g}, mean {result.mean():g}"]


def to_probabilities(scores: Array) -> Array:
    """Softmax over dim 1, unless that is what the scores are: none negative, their sums 1."""
    if (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        return scores
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def draw_overlay(
    picture: Array, scores: Array, geometry: Geometry | None, labels: Sequence[str] | None, name: str
) -> tuple[Picture, str]:
    """The picture f32[H,W,3] with the map of scores [1,K,P,Q] over it, its peaks boxed; and a line that counts them.

    With several classes, the heat is the probability of the best one but "background". Errors: InputError.
    """
    if scores.ndim != 4 or len(scores) != 1 or geometry is None:
        shape = list(scores.shape)
        raise InputError(f"overlay: expected a map [1,K,P,Q] each pixel of which sees a part of the image, output "
                         f"'{name}' is {shape}; --dense makes a map of a classifier's scores")  # fmt: skip
    rows, columns = geometry.rows, geometry.columns
    if rows.stride.denominator != 1 or columns.stride.denominator != 1:
        raise InputError(f"overlay: expected a map of the image's size or smaller, output '{name}' is finer")
    stride, offset = (int(rows.stride), int(columns.stride)), (float(rows.centre), float(columns.centre))
    if scores.shape[1] == 1:
        return overlay(picture, scores[0, 0], stride, offset), f"{scores.min():g} to {scores.max():g}"
    chances = to_probabilities(scores)[0]
    names = labels if labels and len(labels) == len(chances) else None
    background = names.index("background") if names and "background" in names else None
    # Windows that overlap by more than half see the same thing; the best of them speaks for it.
    radius = max(1, ceil(max(rows.field / rows.stride, columns.field / columns.stride) / 2) - 1)
    peaks = find_peaks(chances, background, THRESHOLD, radius)
    things = chances if background is None else np.delete(chances, background, axis=0)
    heat = overlay(picture, things.max(axis=0), stride, offset, 0, 1)
    marks = mark_detections(peaks, stride, offset, (float(rows.field), float(columns.field)), names)
    zoom = choose_zoom(*picture.shape[:2])
    return draw_labels(heat, marks, zoom), f"peaks above {THRESHOLD}: {len(peaks)}"


def _rank(chances: Array, labels: Sequence[str] | None, top: int) -> list[str]:
    names = labels if labels and len(labels) == len(chances) else range(len(chances))
    best = np.argsort(-chances, kind="stable")[:top]
    return [f"{chances[i]:.4f}  {names[i]}" for i in best]
