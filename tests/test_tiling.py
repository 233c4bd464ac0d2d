"""Tiles against the whole image, bit for bit."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import graphc
from graphc import nn
from graphc.errors import InputError, ShapeError, UnsupportedError
from graphc.ir import Builder, Graph, Value, f32
from graphc.models import digit_masks
from graphc.runtime.tiling import AxisRule, list_lengths, make_tile_plan, parse_bytes, resident_bytes


class Layers:
    """Draws layers that look through windows, some wide enough for Winograd's kernels; a seed draws the same again."""

    def __init__(self, seed: int) -> None:
        self.rng, self.count = np.random.default_rng(seed), 0

    def below(self, bound: int) -> int:
        return int(self.rng.integers(bound))

    def pair(self, least: int, most: int) -> tuple[int, int]:
        return least + self.below(most - least + 1), least + self.below(most - least + 1)

    def pads(self, kernel: tuple[int, int]) -> tuple[int, int, int, int]:
        top, left, bottom, right = (self.below(k) for k in (*kernel, *kernel))
        return top, left, bottom, right

    @property
    def name(self) -> str:
        self.count += 1
        return f"layer{self.count}"

    def plain(self, x: Value, channels: int, kernel: int | tuple[int, int] = 3) -> Value:
        """A convolution that keeps the image's size."""
        return nn.conv2d(x, channels, kernel, padding="same", name=self.name)

    def conv(self, x: Value) -> Value:
        kernel, stride = self.pair(1, 4), self.pair(1, 3) if self.below(3) == 0 else (1, 1)
        channels = (3, 8, 17, 32)[self.below(4)]
        return nn.conv2d(x, channels, kernel, stride, self.pads(kernel), self.pair(1, 2), name=self.name)

    def winograd(self, x: Value) -> Value:
        kernel = ((3, 3), (5, 5), (1, 3), (7, 1), (6, 7))[self.below(5)]
        x = self.plain(x, 16, 1)
        return nn.relu(nn.conv2d(x, (16, 24)[self.below(2)], kernel, 1, self.pads(kernel), name=self.name))

    def phases(self, x: Value) -> Value:
        """Winograd's kernels at a stride: over blocks of channels, or along columns alone, of few channels."""
        few, kernel, stride = self.below(2), 3 + self.below(3), 2
        if few:
            kernel, stride = ((7, 2), (3, 1), (5, 2), (9, 4))[self.below(4)]
        x = self.plain(x, 3 if few else 16, 1)
        return nn.relu(nn.conv2d(x, 32, kernel, stride, self.pads((kernel, kernel)), name=self.name))

    def transposed(self, x: Value) -> Value:
        kernel, stride = self.pair(1, 4), self.pair(1, 3)
        top, left, bottom, right = (min(p, 1) for p in self.pads(kernel))
        extra, channels = (self.below(stride[0]), self.below(stride[1])), (4, 16)[self.below(2)]
        pads = (top, left, bottom, right)
        return nn.conv_transpose2d(x, channels, kernel, stride, pads, extra, self.pair(1, 2), name=self.name)

    def pool(self, x: Value) -> Value:
        kernel, stride, ceil = self.pair(1, 3), self.pair(1, 3), self.below(4) == 0
        if self.below(2):
            return nn.max_pool(x, kernel, stride, self.pads(kernel), 1, ceil)
        return nn.average_pool(x, kernel, stride, self.pads(kernel), ceil, bool(self.below(2)))

    def unpool(self, x: Value) -> Value:
        y, indices = nn.max_pool_with_indices(x, 2, 2)
        return nn.max_unpool(nn.tanh(y), indices, 2, like=x)

    def join(self, x: Value) -> Value:
        wide = self.plain(x, 16, (3, 5))
        match self.below(4):
            case 0:
                return nn.concat([wide, x])
            case 1:
                return nn.add(wide, self.plain(x, 16, 1))
            case 2:  # down and up again beside a skip
                down = self.plain(nn.max_pool(x, 2), 16)
                return nn.concat([nn.upsample_nearest(down, 2), x])
        return nn.concat([self.plain(self.plain(x, 16), 16), x])

    def other(self, x: Value) -> Value:
        match self.below(6):
            case 0:
                return nn.upsample_nearest(x, self.pair(1, 3))
            case 1:
                return nn.upsample_bilinear(x, self.pair(1, 3))
            case 2:
                return nn.softmax(x, 1)
            case 3:
                return nn.sigmoid(x)
            case 4:
                return nn.local_response_norm(x, 3, 0.1)
        return nn.pad(x, (0, 0, *self.pair(0, 2), 0, 0, *self.pair(0, 2)))

    def draw(self, x: Value) -> Value:
        makers = (
            self.conv,
            self.winograd,
            self.phases,
            self.transposed,
            self.pool,
            self.join,
            self.join,
            self.unpool,
        )
        return (*makers, self.conv, self.join, self.other)[self.below(10)](x)


def declare(*layers: Any, channels: int = 2) -> Graph:
    net = Builder("net")
    x = net.input("image", f32("N", channels, "H", "W"))
    for layer in layers:
        x = layer(x)
    return net.build(y=x)


@settings(max_examples=10, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.integers(0, 2**32))
def test_tiles_have_the_bits_of_the_whole(seed: int) -> None:
    layers = Layers(seed)
    try:
        graph = declare(*[layers.draw] * (1 + layers.below(4)))
    except ShapeError:  # skips of different sizes
        return
    net = graphc.compile(graph, threads=1 + layers.below(3))
    rule = json.loads(net.meta["tiling"])
    if "refused" in rule:  # paths of different strides
        return
    x = np.random.default_rng(0).standard_normal((1 + layers.below(2), 2, *layers.pair(17, 150))).astype(np.float32)
    try:
        whole = net(x)
    except InputError:  # a size that the network does not take
        return
    for _ in range(3):
        tile = layers.pair(1, 80)
        assert np.array_equal(net.tiled(x, tile=tile, max_memory=None), whole), tile


def test_every_number_of_threads_and_several_images() -> None:
    graph, x = digit_masks(), np.random.default_rng(0).random((2, 1, 136, 200), np.float32)
    whole = graphc.compile(graph, threads=1)(x)
    for threads in (1, 3):
        assert np.array_equal(graphc.compile(graph, threads=threads).tiled(x, tile=(32, 64), max_memory=None), whole)


def test_precise_kernels_need_less_around_a_tile() -> None:
    winograd, direct = (json.loads(graphc.compile(digit_masks(), precise=p).meta["tiling"]) for p in (False, True))
    assert winograd["axes"] == [[32, 142, 142, 15]] * 2
    assert direct["axes"] == [[8, 46, 46, 15]] * 2


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.global_average_pool, r"global_average_pool 'global_average_pool_1'.*fully_convolutional"),
        (lambda x: nn.mul(x, nn.global_max_pool(x)), r"global_max_pool '.*window; run the network on the whole image"),
        (lambda x: nn.upsample_bilinear(x, align_corners=True), r"upsample_bilinear '.*and align_corners"),
        (lambda x: nn.upsample_nearest(x, size=(7, 9)), "upsample_nearest '.*whole factors"),
        (lambda x: nn.softmax(x, 3), "softmax '"),
        (lambda x: nn.pad(x, (0, 0, 1, 1, 0, 0, 1, 1), "reflect"), "pad '.*pad by zeros"),
        (lambda x: nn.max_pool_with_indices(x, 2)[1], "max_pool_with_indices '"),
        (lambda x: nn.transpose(x, (0, 1, 3, 2)), "transpose '"),
    ],
)  # fmt: skip
def test_what_sees_the_whole_image_is_refused_by_name(layer: Any, words: str) -> None:
    net = graphc.compile(declare(layer))
    with pytest.raises(UnsupportedError, match=f"network 'net' cannot be tiled: {words}"):
        net.tiled(np.zeros((1, 2, 40, 40), np.float32))


def test_instance_norm_is_refused() -> None:
    def layer(x: Value) -> Value:
        mean = nn.mean(x, (2, 3))
        return nn.div(nn.sub(x, mean), nn.sqrt(nn.mean(nn.mul(x, x), (2, 3))))

    with pytest.raises(UnsupportedError, match=r"mean '.*depends on more of the image than a window"):
        graphc.compile(declare(layer)).tiled(np.zeros((1, 2, 8, 8), np.float32))


def test_fixed_sizes_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="its height and width must be open"):
        graphc.compile(graphc.models.digits()).tiled(np.zeros((1, 1, 32, 32), np.float32))


def test_cover_leaves_the_same_remainder_at_both_ends() -> None:
    rule = AxisRule(align=8, before=10, after=3, least=20)
    assert rule.cut(45, 16) == [(0, 16), (16, 32), (32, 45)]
    assert rule.cut(35, 16) == [(0, 16), (16, 35)]  # 3 pixels are no tile
    assert rule.cut(5, 8) == [(0, 5)]
    assert rule.cover((16, 32), 45) == (0, 37)
    assert rule.cover((32, 45), 45) == (16, 45)
    assert rule.cover((40, 45), 45) == (24, 45)  # 20 pixels at least
    assert rule.cover((0, 8), 45) == (0, 21)


def test_lengths_of_cores() -> None:
    assert list_lengths(100, 10) == [10, 20, 30, 40, 50, 100]
    assert list_lengths(7, 8) == [8]


def test_largest_tiles_that_fit_are_taken() -> None:
    net = graphc.compile(digit_masks(), threads=1)
    shape = (1, 1, 4000, 4000)
    whole = make_tile_plan(net, shape, None)
    assert (whole.count, whole.work) == (1, 1.0)
    limit = whole.resident + (300 << 20)
    plan = make_tile_plan(net, shape, limit)
    assert limit - (60 << 20) < plan.memory <= limit
    assert plan.work > 1
    assert plan.memory < make_tile_plan(net, shape, 2 * limit).memory
    with pytest.raises(InputError, match=r"max_memory: expected at least \d+ bytes for a tile of 320x352 pixels"):
        make_tile_plan(net, shape, "1MiB")


def test_sizes_of_memory() -> None:
    texts = ("1GiB", "512MB", "1.5KiB", "2e9", 7, None)
    assert [parse_bytes(t) for t in texts] == [2**30, 512 * 10**6, 1536, 2 * 10**9, 7, None]
    with pytest.raises(InputError, match="expected such as 1GiB"):
        parse_bytes("a lot")


def test_memory_is_given_back() -> None:
    net, x = graphc.compile(digit_masks(), threads=1), np.zeros((1, 1, 800, 800), np.float32)
    out = np.ones((1, 11, 800, 800), np.float32)
    before = resident_bytes()
    net.tiled(x, out, max_memory=None)
    assert resident_bytes() - before < net.workspace_bytes(N=1, H=800, W=800) / 4
