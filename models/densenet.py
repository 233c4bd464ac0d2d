"""DenseNet: each layer sees the maps of all layers before it."""

from collections.abc import Sequence

from graphc import nn
from graphc.ir import Builder, Graph, Value, f32


def densenet(
    name: str, growth: int, first: int, repeats: Sequence[int], num_classes: int, size: int, seed: int
) -> Graph:
    """A DenseNet-BC (Huang et al. 2016, "Densely connected convolutional networks").

    [N,3,size,size] -> [N,num_classes]; parameters are named as in torchvision. `first` maps enter the first block, and
    each layer of a block adds `growth` maps; between blocks, a transition halves maps, height and width.
    """
    net = Builder(name, seed)
    x = net.input("image", f32("N", 3, size, size))
    x = nn.conv2d(x, first, 7, stride=2, padding=3, bias=False, name="features.conv0")
    x = nn.relu(nn.batch_norm(x, name="features.norm0"))
    x = nn.max_pool(x, 3, stride=2, padding=1)
    maps = first
    for i, count in enumerate(repeats):
        if i:
            maps //= 2
            x = nn.relu(nn.batch_norm(x, name=f"features.transition{i}.norm"))
            x = nn.average_pool(nn.conv2d(x, maps, 1, bias=False, name=f"features.transition{i}.conv"), 2)
        for j in range(count):
            x = nn.concat([x, _dense_layer(x, growth, f"features.denseblock{i + 1}.denselayer{j + 1}")])
        maps += count * growth
    x = nn.relu(nn.batch_norm(x, name="features.norm5"))
    return net.build(logits=nn.linear(nn.flatten(nn.global_average_pool(x)), num_classes, name="classifier"))


def _dense_layer(x: Value, growth: int, name: str) -> Value:
    x = nn.relu(nn.batch_norm(x, name=f"{name}.norm1"))
    x = nn.conv2d(x, 4 * growth, 1, bias=False, name=f"{name}.conv1")
    x = nn.relu(nn.batch_norm(x, name=f"{name}.norm2"))
    return nn.conv2d(x, growth, 3, padding=1, bias=False, name=f"{name}.conv2")


def densenet121(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """DenseNet-121, 7,978,856 parameters."""
    return densenet("densenet121", 32, 64, (6, 12, 24, 16), num_classes, size, seed)


def densenet161(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """DenseNet-161, 28,681,000 parameters."""
    return densenet("densenet161", 48, 96, (6, 12, 36, 24), num_classes, size, seed)


def densenet169(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """DenseNet-169, 14,149,480 parameters."""
    return densenet("densenet169", 32, 64, (6, 12, 32, 32), num_classes, size, seed)


def densenet201(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """DenseNet-201, 20,013,928 parameters."""
    return densenet("densenet201", 32, 64, (6, 12, 48, 32), num_classes, size, seed)
