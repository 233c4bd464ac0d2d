"""MobileNet v2: depthwise convolutions between a few channels that are expanded and projected back."""

from graphc import nn
from graphc.ir import Builder, Graph, Value, f32

# expansion, output channels, repeats, stride of the first (table 2 of the paper)
MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """MobileNet v2 (Sandler et al. 2018, "MobileNetV2: inverted residuals and linear bottlenecks").

    [N,3,size,size] -> [N,num_classes]; names and 3,504,872 parameters as in torchvision.
    """
    net = Builder("mobilenet_v2", seed)
    x = net.input("image", f32("N", 3, size, size))
    x = _relu6(_conv(x, 32, 3, 2, conv="features.0.0", norm="features.0.1"))
    channels, index = 32, 1
    for expansion, out_channels, repeats, first_stride in MOBILENET_V2:
        for i in range(repeats):
            stride = 1 if i else first_stride
            x = _inverted_residual(x, channels, expansion, out_channels, stride, f"features.{index}.conv")
            channels, index = out_channels, index + 1
    x = _relu6(_conv(x, 1280, 1, conv=f"features.{index}.0", norm=f"features.{index}.1"))
    x = nn.dropout(nn.flatten(nn.global_average_pool(x)), 0.2)
    return net.build(logits=nn.linear(x, num_classes, name="classifier.1"))


def _inverted_residual(x: Value, channels: int, expansion: int, out_channels: int, stride: int, name: str) -> Value:
    """Expand 1x1, convolve 3x3 depthwise, project 1x1 without activation; plus x where the shape allows."""
    y, inner, index = x, channels * expansion, 0
    if expansion != 1:
        y, index = _relu6(_conv(y, inner, 1, conv=f"{name}.0.0", norm=f"{name}.0.1")), 1
    y = _relu6(_conv(y, inner, 3, stride, inner, conv=f"{name}.{index}.0", norm=f"{name}.{index}.1"))
    y = _conv(y, out_channels, 1, conv=f"{name}.{index + 1}", norm=f"{name}.{index + 2}")
    return nn.add(x, y) if stride == 1 and channels == out_channels else y


def _conv(x: Value, channels: int, kernel: int, stride: int = 1, groups: int = 1, *, conv: str, norm: str) -> Value:
    x = nn.conv2d(x, channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False, name=conv)
    return nn.batch_norm(x, name=norm)


def _relu6(x: Value) -> Value:
    return nn.clip(x, 0.0, 6.0)
