"""What a dense map says of windows: all classifiers, and which pixels are those of the classifier and which are not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc import compile, models
from graphc.errors import UnsupportedError
from graphc.geometry import find_geometry
from graphc.ir import DType, Graph, dims
from graphc.models import NETWORKS
from graphc.passes import find_windows, fully_convolutional
from graphc.reference import random_inputs, run_reference
from graphc.verify import relative_difference

SEGMENTERS = ("unet", "segnet", "fcn32s", "fcn16s", "fcn8s", "digit_masks")  # which take any size as they are
FLAT = ("xor", "mlp")  # which read no images
CLASSIFIERS = [name for name in NETWORKS if name not in SEGMENTERS + FLAT]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_becomes_a_map(name: str) -> None:
    """One score for a window, another for each stride more; with the pool dropped, the map that it averaged."""
    classifier = NETWORKS[name]()
    dense = fully_convolutional(classifier)
    windows = find_windows(dense)
    assert windows is not None
    assert windows.map == (1, 1)
    assert bool(windows.padded) == (name not in ("lenet5", "digits"))
    (height, width), (down, right) = windows.size, windows.stride
    assert [v.type.shape[2:] for v in classifier.inputs] in ([windows.size], [dense.inputs[0].type.shape[2:]])
    sizes = {"N": 2, "H": height + 2 * down, "W": width + 3 * right}
    classes = classifier.outputs[0].type.shape[1]
    assert [dims.evaluate(d, sizes) for d in dense.outputs[0].type.shape] == [2, classes, 3, 4]
    dropped = find_windows(fully_convolutional(classifier, gap="drop"))
    assert dropped is not None
    pooled = any(n.op.name == "global_average_pool" for n in classifier.nodes)
    assert (dropped.map > (1, 1)) == pooled


@pytest.mark.parametrize("name", FLAT)
def test_what_reads_no_image_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedError, match=r"input '\w+': expected images \[N,C,H,W\]"):
        fully_convolutional(NETWORKS[name]())


# Of each family one, as small as it comes; windows that are several strides wide leave rows that see no padding.
SMALL: dict[str, Callable[[], Graph]] = {
    "lenet5": models.lenet5,
    "digits": models.digits,
    "convnet10": models.convnet10,
    "alexnet": lambda: models.alexnet(10, 63),
    "zfnet": lambda: models.zfnet(10, 63),
    "vgg11": lambda: models.vgg11(10, 32),
    "googlenet": lambda: models.googlenet(10, 96),
    "inception_v3": lambda: models.inception_v3(10, 75),
    "resnet18": lambda: models.resnet18(10, 96),
    "densenet121": lambda: models.densenet121(10, 32),
    "squeezenet1_1": lambda: models.squeezenet1_1(10, 96),
    "shufflenet_v2_x0_5": lambda: models.shufflenet_v2_x0_5(10, 96),
    "mobilenet_v2": lambda: models.mobilenet_v2(10, 96),
}


@pytest.mark.parametrize("name", SMALL)
def test_the_pixels_that_are_called_the_same_are_and_no_others(name: str) -> None:
    """Every value of a classifier on one window, and of its dense form on an image around that window."""
    dense = fully_convolutional(SMALL[name]())
    windows = find_windows(dense)
    assert windows is not None
    (height, width), (down, right) = windows.size, windows.stride
    (image,) = random_inputs(dense, {"N": 1, "H": height + 2 * down, "W": width + 2 * right})
    alone = image[:, :, down : down + height, right : right + width]
    places = find_geometry(dense)
    values = [v for v in dense.values() if v.name in windows.parts and v.type.rank == 4 and v not in dense.inputs]
    by_window, by_image = (run_reference(dense, [x], DType.F64, keep=values) for x in (alone, image))
    differ = 0
    for v, a, b in zip(values, by_window, by_image, strict=True):
        place, (rows, columns) = places[v], windows.parts[v.name]
        assert place is not None and a.shape[2:] == (rows.count, columns.count)
        top, left = int(down / place.rows.stride), int(right / place.columns.stride)
        b = b[:, :, top : top + rows.count, left : left + columns.count]
        difference = np.abs(a - b).max(axis=(0, 1)) / np.abs(a).max()
        np.testing.assert_allclose(difference[rows.first : rows.last, columns.first : columns.last], 0, atol=1e-12)
        for line in (*difference[: rows.first], *difference[rows.last :]):
            assert line.max() > 1e-12, v
        for line in (*difference.T[: columns.first], *difference.T[columns.last :]):
            assert line.max() > 1e-12, v
        differ += not rows.whole
    assert (differ > 0) == bool(windows.padded)


@pytest.mark.parametrize("name", ["lenet5", "digits"])
def test_without_padding_native_maps_are_the_sliding_windows(name: str) -> None:
    classifier = NETWORKS[name]()
    dense = fully_convolutional(classifier)
    (image,) = random_inputs(dense, {"N": 1, "H": 45, "W": 50})
    scores = np.asarray(compile(dense, threads=1)(image))
    run = compile(classifier, threads=1)
    starts = [(y, x) for y in range(scores.shape[2]) for x in range(scores.shape[3])]
    windows = np.concatenate([image[:, :, 4 * y : 4 * y + 32, 4 * x : 4 * x + 32] for y, x in starts])
    slid = np.asarray(run(windows)).T.reshape(scores.shape[1:])
    assert scores.shape[2:] == (4, 5)
    assert relative_difference(scores[0], slid) < 1e-5


@pytest.mark.parametrize("name", ["lenet5", "vgg11", "resnet18", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_imported_classifiers_become_the_same_maps(name: str, tmp_path: Path) -> None:
    """An ONNX file has no metadata `window`; where its sizes are fixed, they are the window."""
    classifier = SMALL[name]()
    graphc.export_onnx(classifier, tmp_path / "net.onnx")
    imported = graphc.load(tmp_path / "net.onnx")
    windows = find_windows(fully_convolutional(classifier))
    assert windows is not None
    (height, width), (down, right) = windows.size, windows.stride
    for gap in ("window", "drop"):
        dense, again = (fully_convolutional(g, gap, windows.size) for g in (classifier, imported))
        images = random_inputs(dense, {"N": 1, "H": height + down, "W": width + 2 * right})
        (expected,), (got,) = run_reference(dense, images), run_reference(again, images)
        assert relative_difference(got, expected) < 1e-5
    found = find_windows(fully_convolutional(imported, window=windows.size))
    assert found is not None
    assert (found.size, found.stride, found.beyond) == (windows.size, windows.stride, windows.beyond)
