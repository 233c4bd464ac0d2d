"""Residual networks: each block adds to its input what it has learnt."""

from collections.abc import Sequence

from graphc import nn
from graphc.ir import Builder, Graph, Value, f32


def resnet(name: str, repeats: Sequence[int], bottleneck: bool, num_classes: int, size: int, seed: int) -> Graph:
    """A residual network (He et al. 2015, "Deep residual learning for image recognition").

    [N,3,size,size] -> [N,num_classes]; parameters are named as in torchvision. Four layers of blocks, each of half the
    resolution of the one before; a `bottleneck` block convolves 1x1, 3x3, 1x1 with four times as many channels at its
    ends, the others 3x3 twice.
    """
    net = Builder(name, seed)
    x = net.input("image", f32("N", 3, size, size))
    x = nn.relu(_conv(x, 64, 7, stride=2, conv="conv1", norm="bn1"))
    x = nn.max_pool(x, 3, stride=2, padding=1)
    for i, count in enumerate(repeats):
        for j in range(count):
            stride = 2 if i and not j else 1
            x = (_bottleneck if bottleneck else _basic)(x, 64 << i, stride, f"layer{i + 1}.{j}")
    x = nn.flatten(nn.global_average_pool(x))
    return net.build(logits=nn.linear(x, num_classes, name="fc"))


def _basic(x: Value, channels: int, stride: int, name: str) -> Value:
    y = nn.relu(_conv(x, channels, 3, stride, conv=f"{name}.conv1", norm=f"{name}.bn1"))
    y = _conv(y, channels, 3, conv=f"{name}.conv2", norm=f"{name}.bn2")
    return nn.relu(nn.add(y, _shortcut(x, channels, stride, name)))


def _bottleneck(x: Value, channels: int, stride: int, name: str) -> Value:
    """With the stride at the 3x3, as torchvision has it: the paper's first 1x1 would skip three pixels of four."""
    y = nn.relu(_conv(x, channels, 1, conv=f"{name}.conv1", norm=f"{name}.bn1"))
    y = nn.relu(_conv(y, channels, 3, stride, conv=f"{name}.conv2", norm=f"{name}.bn2"))
    y = _conv(y, 4 * channels, 1, conv=f"{name}.conv3", norm=f"{name}.bn3")
    return nn.relu(nn.add(y, _shortcut(x, 4 * channels, stride, name)))


def _shortcut(x: Value, channels: int, stride: int, name: str) -> Value:
    """x, or its 1x1 convolution where the block changes its shape."""
    if stride == 1 and x.shape[1] == channels:
        return x
    return _conv(x, channels, 1, stride, conv=f"{name}.downsample.0", norm=f"{name}.downsample.1")


def _conv(x: Value, channels: int, kernel: int, stride: int = 1, *, conv: str, norm: str) -> Value:
    x = nn.conv2d(x, channels, kernel, stride, padding=kernel // 2, bias=False, name=conv)
    return nn.batch_norm(x, name=norm)


def resnet18(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """ResNet-18, 11,689,512 parameters."""
    return resnet("resnet18", (2, 2, 2, 2), False, num_classes, size, seed)


def resnet34(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """ResNet-34, 21,797,672 parameters."""
    return resnet("resnet34", (3, 4, 6, 3), False, num_classes, size, seed)


def resnet50(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """ResNet-50, 25,557,032 parameters."""
    return resnet("resnet50", (3, 4, 6, 3), True, num_classes, size, seed)


def resnet101(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """ResNet-101, 44,549,160 parameters."""
    return resnet("resnet101", (3, 4, 23, 3), True, num_classes, size, seed)


def resnet152(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """ResNet-152, 60,192,808 parameters."""
    return resnet("resnet152", (3, 8, 36, 3), True, num_classes, size, seed)
