"""SqueezeNet: blocks that squeeze to a few maps before they expand, for a network of few parameters."""

from graphc import nn
from graphc.ir import Builder, Graph, Value, f32


def squeezenet1_0(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """SqueezeNet 1.0 (Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters").

    [N,3,size,size] -> [N,num_classes]; names and 1,248,424 parameters as in torchvision.
    """
    net = Builder("squeezenet1_0", seed)
    x = net.input("image", f32("N", 3, size, size))
    x = nn.relu(nn.conv2d(x, 96, 7, stride=2, name="features.0"))
    x = nn.max_pool(x, 3, stride=2, ceil_mode=True)
    x = _fire(x, 16, 64, "features.3")
    x = _fire(x, 16, 64, "features.4")
    x = _fire(x, 32, 128, "features.5")
    x = nn.max_pool(x, 3, stride=2, ceil_mode=True)
    x = _fire(x, 32, 128, "features.7")
    x = _fire(x, 48, 192, "features.8")
    x = _fire(x, 48, 192, "features.9")
    x = _fire(x, 64, 256, "features.10")
    x = nn.max_pool(x, 3, stride=2, ceil_mode=True)
    x = _fire(x, 64, 256, "features.12")
    return net.build(logits=_classify(x, num_classes))


def squeezenet1_1(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """SqueezeNet 1.1: less than half the work of 1.0, by smaller first filters and earlier pooling.

    [N,3,size,size] -> [N,num_classes]; names and 1,235,496 parameters as in torchvision.
    """
    net = Builder("squeezenet1_1", seed)
    x = net.input("image", f32("N", 3, size, size))
    x = nn.relu(nn.conv2d(x, 64, 3, stride=2, name="features.0"))
    x = nn.max_pool(x, 3, stride=2, ceil_mode=True)
    x = _fire(x, 16, 64, "features.3")
    x = _fire(x, 16, 64, "features.4")
    x = nn.max_pool(x, 3, stride=2, ceil_mode=True)
    x = _fire(x, 32, 128, "features.6")
    x = _fire(x, 32, 128, "features.7")
    x = nn.max_pool(x, 3, stride=2, ceil_mode=True)
    x = _fire(x, 48, 192, "features.9")
    x = _fire(x, 48, 192, "features.10")
    x = _fire(x, 64, 256, "features.11")
    x = _fire(x, 64, 256, "features.12")
    return net.build(logits=_classify(x, num_classes))


def _fire(x: Value, squeezed: int, expanded: int, name: str) -> Value:
    """[N,C,H,W] -> [N,2*expanded,H,W]."""
    x = nn.relu(nn.conv2d(x, squeezed, 1, name=f"{name}.squeeze"))
    one = nn.relu(nn.conv2d(x, expanded, 1, name=f"{name}.expand1x1"))
    return nn.concat([one, nn.relu(nn.conv2d(x, expanded, 3, padding=1, name=f"{name}.expand3x3"))])


def _classify(x: Value, num_classes: int) -> Value:
    x = nn.relu(nn.conv2d(nn.dropout(x, 0.5), num_classes, 1, name="classifier.1"))
    return nn.flatten(nn.global_average_pool(x))
