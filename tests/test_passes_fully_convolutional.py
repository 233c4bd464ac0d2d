"""Classifiers as networks for images of any size: each pixel is what the classifier says about one window."""

import re
from dataclasses import replace

import numpy as np
import pytest
from rewriting import read, show

from graphc.errors import InputError, UnsupportedError
from graphc.ir import Array, DType, Graph
from graphc.ir.verify import verify
from graphc.passes import fully_convolutional, optimize, padded_layers
from graphc.reference import run_reference

# An unpadded classifier of 12x12 images with every kind of layer that may follow flattening. Its stride is 2.
CLASSIFIER = """
    graph classifier(%image: f32[N,2,12,12]) {
      %conv1.weight: f32[4,2,3,3] = param()
      %fc1.weight: f32[6,100] = param()
      %fc1.bias: f32[6] = param()
      %bn.scale: f32[6] = param()
      %bn.bias: f32[6] = param()
      %bn.mean: f32[6] = param()
      %bn.var: f32[6] = param()
      %mm.weight: f32[6,5] = param()
      %mm.bias: f32[5] = param()
      %half: f32[] = const(0.5)
      %fc3.weight: f32[3,10] = param()
      %conv1: f32[N,4,10,10] = conv2d(%image, %conv1.weight, bias=False)
      %act1: f32[N,4,10,10] = relu(%conv1)
      %pool1: f32[N,4,5,5] = max_pool(%act1, kernel=(2, 2), stride=(2, 2))
      %flat: f32[N,100] = flatten(%pool1)
      %drop: f32[N,100] = dropout(%flat)
      %act2: f32[N,100] = tanh(%drop)
      %fc1: f32[N,6] = linear(%act2, %fc1.weight, %fc1.bias)
      %bn: f32[N,6] = batch_norm(%fc1, %bn.scale, %bn.bias, %bn.mean, %bn.var)
      %mm: f32[N,5] = matmul(%bn, %mm.weight)
      %biased: f32[N,5] = add(%mm.bias, %mm)
      %halved: f32[N,5] = mul(%biased, %half)
      %both: f32[N,10] = concat(%halved, %biased, axis=-1)
      %fc3: f32[N,3] = linear(%both, %fc3.weight, bias=False)
      %probs: f32[N,3] = softmax(%fc3, axis=-1)
      return %probs, logits=%fc3
    }
"""

DENSE = """
    graph classifier(%image: f32[N,2,H,W]) {
    %conv1: f32[N,4,H-2,W-2] = conv2d(%image, %conv1.weight, bias=False)
    %act1: f32[N,4,H-2,W-2] = relu(%conv1)
    %pool1: f32[N,4,H//2-1,W//2-1] = max_pool(%act1, kernel=(2, 2), stride=(2, 2))
    %drop: f32[N,4,H//2-1,W//2-1] = dropout(%pool1)
    %act2: f32[N,4,H//2-1,W//2-1] = tanh(%drop)
    %fc1: f32[N,6,H//2-5,W//2-5] = conv2d(%act2, %fc1.weight, %fc1.bias)
    %bn: f32[N,6,H//2-5,W//2-5] = batch_norm(%fc1, %bn.scale, %bn.bias, %bn.mean, %bn.var)
    %mm: f32[N,5,H//2-5,W//2-5] = conv2d(%bn, %mm.weight, bias=False)
    %biased: f32[N,5,H//2-5,W//2-5] = add(%mm.bias, %mm)
    %halved: f32[N,5,H//2-5,W//2-5] = mul(%biased, %half)
    %both: f32[N,10,H//2-5,W//2-5] = concat(%halved, %biased)
    %fc3: f32[N,3,H//2-5,W//2-5] = conv2d(%both, %fc3.weight, bias=False)
    %probs: f32[N,3,H//2-5,W//2-5] = softmax(%fc3)
    return %probs, logits=%fc3
    }
"""


def slide(classifier: Graph, image: Array, window: int, stride: int) -> list[Array]:
    """Each output of the classifier for every window of an image [N,C,H,W], as maps [N,K,P,Q]."""
    rows, columns = ((length - window) // stride + 1 for length in image.shape[2:])
    scores = [
        run_reference(classifier, [image[:, :, y * stride :, x * stride :][:, :, :window, :window]], DType.F64)
        for y in range(rows)
        for x in range(columns)
    ]
    return [
        np.stack([s.reshape(len(image), -1) for s in output], axis=-1).reshape(len(image), -1, rows, columns)
        for output in zip(*scores, strict=True)
    ]


def check_windows(classifier: Graph, dense: Graph, window: int, stride: int, *sizes: tuple[int, int]) -> None:
    for height, width in ((window, window), *sizes):
        image = np.random.default_rng(0).standard_normal((2, 2, height, width)).astype(np.float32)
        expected = slide(classifier, image, window, stride)
        got = run_reference(verify(dense), [image], DType.F64)
        for a, b in zip(expected, got, strict=True):
            np.testing.assert_allclose(b, a, rtol=0, atol=1e-5)


def test_every_pixel_is_the_classifier_on_its_window() -> None:
    classifier = read(CLASSIFIER)
    dense = fully_convolutional(classifier)
    assert show(dense) == "\n".join(line.strip() for line in DENSE.strip().splitlines())
    assert padded_layers(classifier) == []
    check_windows(classifier, dense, 12, 2, (12, 20), (19, 16))
    assert dense.meta == {"window": "12x12"}


def test_parameters_keep_their_names_and_numbers() -> None:
    classifier = read(CLASSIFIER)
    dense = fully_convolutional(classifier)
    assert set(dense.params) == set(classifier.params)
    assert all(p.trainable == classifier.params[name].trainable for name, p in dense.params.items())
    weight, transposed = (classifier.params[name].array for name in ("fc1.weight", "mm.weight"))
    assert np.array_equal(dense.params["fc1.weight"].array, weight.reshape(6, 4, 5, 5))
    assert np.array_equal(dense.params["mm.weight"].array, transposed.T.reshape(5, 6, 1, 1))


def test_the_dense_network_is_optimized_like_any_other() -> None:
    classifier = read(CLASSIFIER)
    dense = optimize(fully_convolutional(classifier))
    assert [n.name for n in dense.nodes] == ["conv1", "pool1", "act2", "fc1", "mm", "halved", "both", "fc3", "probs"]
    check_windows(classifier, dense, 12, 2, (15, 18))


def test_an_optimized_classifier_can_be_made_dense() -> None:
    """Its layers have epilogues, one of them with a residual."""
    classifier = optimize(
        read("""
        graph classifier(%image: f32[N,2,6,6]) {
          %w: f32[8,72] = param()
          %b: f32[8] = param()
          %v: f32[8,8] = param()
          %flat: f32[N,72] = flatten(%image)
          %fc1: f32[N,8] = linear(%flat, %w, %b)
          %act1: f32[N,8] = relu(%fc1)
          %fc2: f32[N,8] = linear(%act1, %v, bias=False)
          %sum: f32[N,8] = add(%fc2, %act1)
          %act2: f32[N,8] = tanh(%sum)
          return %act2
        }""")
    )
    assert [n.op.name for n in classifier.nodes] == ["flatten", "linear", "linear"]
    dense = fully_convolutional(classifier)
    assert [n.op.name for n in dense.nodes] == ["conv2d", "conv2d"]
    check_windows(classifier, dense, 6, 1, (9, 7))


def with_pool(pool: str, size: str = "10,10", after: str = "1,1") -> str:
    """A convolution, a pool (whose result has the dims N, 4 and `after`) and a linear layer on images of this size."""
    squeezed = "" if after else "%pooled"
    map_size = "8,8" if size == "10,10" else "H-2,W-2"
    return f"""
        graph classifier(%image: f32[N,2,{size}]) {{
          %w: f32[4,2,3,3] = param()
          %fc.weight: f32[3,4] = param()
          %fc.bias: f32[3] = param()
          %conv: f32[N,4,{map_size}] = conv2d(%image, %w, bias=False)
          %pooled: f32[N,4{"," + after if after else ""}] = {pool}
          {"" if squeezed else "%flat: f32[N,4] = flatten(%pooled)"}
          %fc: f32[N,3] = linear({squeezed or "%flat"}, %fc.weight, %fc.bias)
          return %fc
        }}"""


POOLS = {
    "global average": (with_pool("global_average_pool(%conv)"), "average_pool"),
    "global maximum": (with_pool("global_max_pool(%conv)"), "max_pool"),
    "mean": (with_pool("mean(%conv, axes=(2, 3))"), "average_pool"),
    "mean without the dims": (with_pool("mean(%conv, axes=(-1, -2), keepdims=False)", after=""), "average_pool"),
    "maximum without the dims": (with_pool("reduce_max(%conv, axes=(2, 3), keepdims=False)", after=""), "max_pool"),
    "average of all": (with_pool("average_pool(%conv, kernel=(8, 8), stride=(1, 1))"), "average_pool"),
}


@pytest.mark.parametrize(("text", "op"), POOLS.values(), ids=POOLS.keys())
def test_global_pools_become_windows(text: str, op: str) -> None:
    classifier = read(text)
    dense = fully_convolutional(classifier, gap="window")
    assert str(dense.nodes[1].op) == f"{op}(kernel=(8, 8), stride=(1, 1))"
    assert [n.name for n in dense.nodes] == ["conv", "pooled", "fc"]
    check_windows(classifier, dense, 10, 1, (14, 11))


@pytest.mark.parametrize("text", [text for text, _ in POOLS.values()], ids=POOLS.keys())
def test_global_pools_can_be_dropped(text: str) -> None:
    """The layer behind an average is linear: the mean of the activation map is the score."""
    classifier = read(text)
    dense = verify(fully_convolutional(classifier, gap="drop"))
    assert [n.name for n in dense.nodes] == ["conv", "fc"]
    image = np.random.default_rng(1).standard_normal((2, 2, 10, 10)).astype(np.float32)
    (activations,) = run_reference(dense, [image], DType.F64)
    assert activations.shape == (2, 3, 8, 8)
    if "average" in text or "mean" in text:
        (scores,) = run_reference(classifier, [image], DType.F64)
        np.testing.assert_allclose(activations.mean(axis=(2, 3)), scores, rtol=0, atol=1e-5)


def test_a_network_for_any_size_needs_the_window_that_it_averaged_over() -> None:
    text = with_pool("global_average_pool(%conv)", "H,W")
    classifier = read(text)
    dense = fully_convolutional(classifier, window=(10, 10))
    assert str(dense.nodes[1].op) == "average_pool(kernel=(8, 8), stride=(1, 1))"
    check_windows(read(with_pool("global_average_pool(%conv)")), dense, 10, 1, (12, 13))
    with pytest.raises(InputError, match=r"global_average_pool 'pooled': .*window=\(height, width\), got none"):
        fully_convolutional(classifier)
    assert [n.name for n in fully_convolutional(classifier, gap="drop").nodes] == ["conv", "fc"]


def test_the_metadata_know_the_window() -> None:
    graph = read(with_pool("global_average_pool(%conv)", "H,W"))
    dense = fully_convolutional(replace(graph, meta={"window": "10x12"}))
    assert str(dense.nodes[1].op) == "average_pool(kernel=(8, 10), stride=(1, 1))"
    assert dense.meta == {"window": "10x12"}
    with pytest.raises(InputError, match="metadata window: expected one like 224x224, got 'large'"):
        fully_convolutional(replace(graph, meta={"window": "large"}))


def test_what_is_fully_convolutional_stays_so() -> None:
    graph = read("""
        graph segmenter(%image: f32[N,1,H,W]) {
          %w: f32[3,1,3,3] = param()
          %conv: f32[N,3,H-2,W-2] = conv2d(%image, %w, bias=False)
          %up: f32[N,3,2*H-4,2*W-4] = upsample_nearest(%conv)
          %shuffled: f32[N,1,3,2*H-4,2*W-4] = reshape(%up, shape=(-1, 1, 3, 2*H-4, 2*W-4))
          %back: f32[N,3,2*H-4,2*W-4] = reshape(%shuffled, shape=(-1, 3, 2*H-4, 2*W-4))
          return %back
        }""")
    assert str(fully_convolutional(graph)) == str(graph)


def test_batch_and_sizes_are_freed() -> None:
    graph = read("""
        graph g(%left: f32[1,1,8,6], %right: f32[1,1,8,6]) {
          %w: f32[2,96] = param()
          %both: f32[1,2,8,6] = concat(%left, %right)
          %flat: f32[1,96] = reshape(%both, shape=(1, 96))
          %map: f32[1,2,8,6] = reshape(%flat, shape=(1, 2, 8, 6))
          %again: f32[1,96] = reshape(%map, shape=(-1, 96))
          %fc: f32[1,2] = linear(%again, %w, bias=False)
          %square: f32[1,2,1,1] = reshape(%fc, shape=(1, 2, 1, 1))
          return %square
        }""")
    dense = verify(fully_convolutional(graph))
    assert [str(v.type) for v in dense.inputs] == ["f32[N,1,H,W]"] * 2
    assert show(dense).splitlines()[1:] == [
        "%both: f32[N,2,H,W] = concat(%left, %right)",
        "%fc: f32[N,2,H-7,W-5] = conv2d(%both, %w, bias=False)",
        "return square=%fc",
        "}",
    ]


def test_a_pool_that_happens_to_cover_the_map_keeps_its_stride() -> None:
    """As the last one of a VGG for small images does: it subsamples, and is no global pool."""
    classifier = read(with_pool("max_pool(%conv, kernel=(8, 8), stride=(8, 8))"))
    for gap in ("window", "drop"):
        dense = fully_convolutional(classifier, gap=gap)
        assert str(dense.nodes[1].op) == "max_pool(kernel=(8, 8), stride=(8, 8))"
        check_windows(classifier, dense, 10, 8, (18, 27))


def test_weights_computed_from_parameters() -> None:
    graph = read("""
        graph g(%image: f32[N,2,3,3]) {
          %kernel: f32[3,2,3,3] = param()
          %gain: f32[3,1] = param()
          %rows: f32[3,18] = flatten(%kernel)
          %weight: f32[3,18] = mul(%rows, %gain)
          %flat: f32[N,18] = flatten(%image)
          %fc: f32[N,3] = linear(%flat, %weight, bias=False)
          return %fc, %gain
        }""")
    dense = fully_convolutional(graph)
    assert {name: str(p.value.type) for name, p in dense.params.items()} == {
        "weight": "f32[3,2,3,3]",
        "gain": "f32[3,1]",
    }
    assert [n.name for n in dense.nodes] == ["fc"]


def test_a_weight_in_two_shapes_has_two_names() -> None:
    graph = read("""
        graph g(%image: f32[N,2,2,2]) {
          %w: f32[8,8] = param()
          %flat: f32[N,8] = flatten(%image)
          %fc1: f32[N,8] = linear(%flat, %w, bias=False)
          %fc2: f32[N,8] = linear(%fc1, %w, bias=False)
          %fc3: f32[N,8] = linear(%fc2, %w, bias=False)
          %fc4: f32[N,8] = matmul(%fc3, %w)
          return %fc4
        }""")
    dense = fully_convolutional(graph)
    assert [str(p.value.type) for p in dense.params.values()] == ["f32[8,2,2,2]", "f32[8,8,1,1]", "f32[8,8,1,1]"]
    assert list(dense.params) == ["w", "w_1", "w_2"]
    check_windows(graph, dense, 2, 1, (4, 5))


REFUSED = {
    "reads a flattened map in another order": (
        ["%t: f32[N,9,4] = reshape(%flat, shape=(-1, 9, 4))"],
        [r"reshape 't': cannot be done in every place of a map; it reads %flat \(4x3x3\)"],
    ),
    "a constant for each place": (
        ["%t: f32[N,36] = add(%flat, %row)"],
        [r"add 't': cannot be done in every place of a map; it reads %flat \(4x3x3\)"],
    ),
    "a softmax over places": (
        ["%t: f32[N,36] = softmax(%flat)", "%u: f32[N,4,3,3] = softmax(%conv, axis=3)"],
        [r"softmax 't': cannot be done .*", r"softmax 'u': normalises over the image \(axis 3\)"],
    ),
    "squeeze and excitation": (
        ["%s: f32[N,4,1,1] = global_average_pool(%conv)", "%t: f32[N,4,3,3] = mul(%conv, %s)"],
        ["mul 't': combines a value for the whole image with a map"],
    ),
    "shapes that hold the size": (
        [
            "%t: f32[N,4,9] = reshape(%conv, shape=(-1, 4, 9))",
            "%u: f32[N,4,6,6] = upsample_nearest(%conv, size=(6, 6))",
            "%v: f32[N,4,2,2] = slice(%conv, axes=(2, 3), starts=(0, 0), ends=(2, 2), steps=(1, 1))",
            "%w.0: f32[N,4,1,3], %w.1: f32[N,4,2,3] = split(%conv, axis=2, sizes=(1, 2))",
            "%x: f32[N,4,3,3] = add(%conv, %place)",
        ],
        [
            r"reshape 't': its shape \(-1, 4, 9\) holds the size of the image",
            r"upsample_nearest 'u': its result f32\[N,4,6,6\] does not depend on H, W",
            r"slice 'v': 0:2:1 \(axis 2\) is one place of the image",
            "split 'w': .*H-2.*",
            "add 'x': .* which fixes the size of the image",
        ],
    ),
    "reads the whole image": (
        ["%t: f32[N,4,3,1] = mean(%conv, axes=(3,))", "%u: f32[] = reduce_max(%conv, keepdims=False)"],
        [
            r"mean 't': its result f32\[N,4,H-2,1\] does not depend on W",
            r"reduce_max 'u': its result f32\[\] does not depend on H, N, W",
        ],
    ),
    "places of one image": (
        [
            "%s: f32[N,4,3,3] = cum_sum(%conv, axis=3)",
            "%p: i64[3] = positions(%conv, axis=2)",
            "%i: i64[N,4,1,3] = arg_max(%conv, axis=2)",
            "%t: f32[N,4,1,3] = gather_elements(%conv, %i, axis=2)",
        ],
        [
            r"cum_sum 's': counts along the image \(axis 3\)",
            r"positions 'p': counts along the image \(axis 2\)",
            r"arg_max 'i': its result i64\[N,4,1,W-2\] does not depend on H",
        ],
    ),
    "mixes maps and vectors": (
        ["%fc: f32[N,3] = linear(%flat, %fcw, bias=False)", "%t: f32[N,4,3,3] = add(%conv, %fc)"],
        [r"add 't': cannot be done in every place of a map; it reads %conv \(a map\), %fc \(3x1x1\)"],
    ),
    "two flattened maps": (
        ["%p: f32[N,4,2,2] = max_pool(%conv, kernel=(2, 2), stride=(1, 1))", "%g: f32[N,16] = flatten(%p)",
         "%t: f32[N,52] = concat(%flat, %g)"],
        [r"concat 't': cannot be done .* it reads %flat \(4x3x3\), %g \(4x2x2\)", "output 'g' is 4x2x2 flattened, .*"],
    ),
    "a computed weight": (
        ["%t: f32[N,36] = matmul(%flat, %flat)"],
        [r"matmul 't': expected a parameter as its weight, got %flat: f32\[N,36\]"],
    ),
}  # fmt: skip


def refused(lines: list[str]) -> Graph:
    last = [line.split(":")[0].split(",")[0] for line in lines]
    return read("\n".join([
        "graph g(%image: f32[N,1,5,5]) {",
        "%w: f32[4,1,3,3] = param()", "%row: f32[36] = param()", "%place: f32[1,1,3,3] = param()",
        "%fcw: f32[3,36] = param()",
        "%conv: f32[N,4,3,3] = conv2d(%image, %w, bias=False)",
        "%flat: f32[N,36] = flatten(%conv)",
        *lines, f"return {', '.join(last)}", "}",
    ]))  # fmt: skip


@pytest.mark.parametrize(("lines", "problems"), REFUSED.values(), ids=REFUSED.keys())
def test_every_node_that_does_not_fit_is_named(lines: list[str], problems: list[str]) -> None:
    with pytest.raises(UnsupportedError, match="network 'g' cannot be made fully convolutional: ") as caught:
        fully_convolutional(refused(lines))
    assert len(caught.value.problems) == len(problems)
    for problem, expected in zip(caught.value.problems, problems, strict=True):
        assert re.fullmatch(expected, problem), problem


def test_what_hangs_on_a_refused_node_is_not_named() -> None:
    lines = ["%t: f32[N,4,9] = reshape(%conv, shape=(-1, 4, 9))", "%u: f32[N,4,9] = relu(%t)"]
    with pytest.raises(UnsupportedError) as caught:
        fully_convolutional(refused(lines))
    assert len(caught.value.problems) == 1


def test_a_flattened_map_is_no_output() -> None:
    with pytest.raises(UnsupportedError, match="output 'act' is 4x3x3 flattened, which no map of pixels can be"):
        fully_convolutional(refused(["%act: f32[N,36] = relu(%flat)"]))


def test_inputs_must_be_images() -> None:
    with pytest.raises(UnsupportedError, match=r"input 'x': expected images \[N,C,H,W\], got f32\[N,4\]"):
        fully_convolutional(read("graph g(%x: f32[N,4]) {\n%y: f32[N,4] = relu(%x)\nreturn %y\n}"))


def test_arguments_are_checked() -> None:
    graph = read(CLASSIFIER)
    with pytest.raises(InputError, match="gap: expected 'window' or 'drop', got 'keep'"):
        fully_convolutional(graph, gap="keep")
    with pytest.raises(InputError, match=r"input 'image': expected images of 12x24, got f32\[N,2,12,12\]"):
        fully_convolutional(graph, window=(12, 24))


def test_padded_layers_are_named() -> None:
    graph = read("""
        graph g(%x: f32[N,1,8,8]) {
          %w: f32[1,1,3,3] = param()
          %v: f32[1,1,2,2] = param()
          %plain: f32[N,1,6,6] = conv2d(%x, %w, bias=False)
          %padded: f32[N,1,8,7] = conv2d(%x, %w, padding=(1, 1, 1, 0), bias=False)
          %pool: f32[N,1,4,4] = max_pool(%x, kernel=(2, 2), stride=(2, 2))
          %padded_pool: f32[N,1,5,5] = average_pool(%x, kernel=(2, 2), stride=(2, 2), padding=(1, 1, 1, 1))
          %hanging_pool: f32[N,1,3,3] = max_pool(%x, kernel=(3, 3), stride=(3, 3), ceil_mode=True)
          %border: f32[N,1,9,8] = pad(%x, padding=(0, 0, 1, 0, 0, 0, 0, 0))
          %apart: f32[N,1,16,16] = conv_transpose2d(%x, %v, stride=(2, 2), bias=False)
          %overlapping: f32[N,1,17,17] = conv_transpose2d(%x, %w, stride=(2, 2), bias=False)
          %nearest: f32[N,1,16,16] = upsample_nearest(%x)
          %bilinear: f32[N,1,16,16] = upsample_bilinear(%x)
          return %plain, %padded, %pool, %padded_pool, %hanging_pool, %border, %apart, %overlapping, %nearest, %bilinear
        }""")
    expected = ["padded", "padded_pool", "hanging_pool", "border", "overlapping", "bilinear"]
    assert padded_layers(graph) == expected


def test_padding_shows_at_windows_inside_the_image() -> None:
    """The classifier saw zeros where the dense network sees the window's neighbours: only a lone window is the same."""
    classifier = read("""
        graph g(%image: f32[N,2,6,6]) {
          %w: f32[4,2,3,3] = param()
          %fc: f32[3,144] = param()
          %conv: f32[N,4,6,6] = conv2d(%image, %w, padding=(1, 1, 1, 1), bias=False)
          %flat: f32[N,144] = flatten(%conv)
          %scores: f32[N,3] = linear(%flat, %fc, bias=False)
          return %scores
        }""")
    dense = fully_convolutional(classifier)
    assert padded_layers(classifier) == ["conv"]
    check_windows(classifier, dense, 6, 1)
    with pytest.raises(AssertionError):
        check_windows(classifier, dense, 6, 1, (7, 8))
