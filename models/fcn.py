"""Fully convolutional networks for segmentation: VGG-16 whose coarse scores are upsampled and refined by finer ones."""

import numpy as np

from graphc import nn, ops
from graphc.ir import Array, Builder, Graph, Value, f32
from graphc.models.vgg import VGG16
from graphc.nn.arguments import builder_of


def fcn(name: str, stride: int, num_classes: int, seed: int, features: int = 4096) -> Graph:
    """A network of Long et al. 2015, "Fully convolutional networks for semantic segmentation", on VGG-16.

    [N,3,H,W] -> [N,num_classes,H,W] for any H and W; layers are named as the paper's authors do. Scores at 1/32 of the
    resolution, from the `features` of fc6 and fc7, are doubled and added to those of pool4, and again of pool3, down to
    `stride`, then upsampled by it.

    The authors pad the image by 100 pixels to have enough to crop; here the poolings round up, fc6 pads by 3 and each
    upsampled map is cut at its end, which lays every pixel over the same place without that border's work.
    """
    net = Builder(name, seed)
    x = image = net.input("image", f32("N", 3, "H", "W"))
    pools = []
    for i, stage in enumerate(VGG16, 1):
        for j, channels in enumerate(stage, 1):
            x = nn.relu(nn.conv2d(x, channels, 3, padding=1, name=f"conv{i}_{j}"))
        x = nn.max_pool(x, 2, ceil_mode=True, name=f"pool{i}")
        pools.append(x)
    x = nn.dropout(nn.relu(nn.conv2d(x, features, 7, padding=3, name="fc6")), 0.5)
    x = nn.dropout(nn.relu(nn.conv2d(x, features, 1, name="fc7")), 0.5)
    x = nn.conv2d(x, num_classes, 1, name="score_fr")
    level = 5  # x has 1 / 2^level of the resolution
    while 1 << level > stride:
        level -= 1
        finer = nn.conv2d(pools[level - 1], num_classes, 1, name=f"score_pool{level}")
        x = nn.add(finer, upsample_scores(x, 2, finer, f"upscore_pool{level}"))
    return net.build(scores=upsample_scores(x, stride, image, f"upscore{stride}", fixed=True))


def upsample_scores(x: Value, scale: int, like: Value, name: str, fixed: bool = False) -> Value:
    """x in the height and width of `like`, by a transposed convolution that starts as bilinear interpolation.

    Each class has a filter of its own; where `fixed`, it stays what it is. Beyond the border lie zeros, so that scores
    fade there, those of all classes alike.
    """
    net, classes = builder_of(x), x.type.shape[1]
    assert isinstance(classes, int)
    kernel = np.tile(bilinear_kernel(scale), (classes, 1, 1, 1))
    weight = net.param(f"{name}.weight", kernel, trainable=not fixed)
    op = ops.ConvTranspose2d((scale, scale), (scale // 2,) * 4, groups=classes, bias=False)
    y = net.apply(op, x, weight, name=name)
    return nn.slice(y, (2, 3), (0, 0), like.type.shape[2:])


def bilinear_kernel(scale: int) -> Array:
    """[2*scale,2*scale], for an even scale: a pyramid over the centres of two by two neighbours."""
    taps = 1 - np.abs(np.arange(2 * scale) - (scale - 0.5)) / scale
    return np.outer(taps, taps).astype(np.float32)


def fcn32s(num_classes: int = 21, seed: int = 0) -> Graph:
    """FCN-32s, 134,346,581 parameters and 86,016 fixed ones."""
    return fcn("fcn32s", 32, num_classes, seed)


def fcn16s(num_classes: int = 21, seed: int = 0) -> Graph:
    """FCN-16s, 134,357,690 parameters and 21,504 fixed ones."""
    return fcn("fcn16s", 16, num_classes, seed)


def fcn8s(num_classes: int = 21, seed: int = 0) -> Graph:
    """FCN-8s, 134,363,423 parameters and 5,376 fixed ones."""
    return fcn("fcn8s", 8, num_classes, seed)
