"""ShuffleNet v2: half the channels pass a block untouched, and a shuffle mixes the halves."""

from collections.abc import Sequence

from graphc import nn
from graphc.ir import Builder, Graph, Value, f32


def shufflenet_v2(name: str, channels: Sequence[int], num_classes: int, size: int, seed: int) -> Graph:
    """A ShuffleNet v2 (Ma et al. 2018, "Practical guidelines for efficient CNN architecture design").

    [N,3,size,size] -> [N,num_classes]; parameters are named as in torchvision. `channels` are those of the three
    stages of 4, 8 and 4 blocks; each stage halves height and width.
    """
    net = Builder(name, seed)
    x = net.input("image", f32("N", 3, size, size))
    x = nn.relu(_conv(x, 24, 3, stride=2, padding=1, conv="conv1.0", norm="conv1.1"))
    x = nn.max_pool(x, 3, stride=2, padding=1)
    before = 24
    for stage, (k, count) in enumerate(zip(channels, (4, 8, 4), strict=True), 2):
        x = _halve(x, before, k // 2, f"stage{stage}.0")
        for i in range(1, count):
            kept, x = nn.split(x, (k // 2, k // 2))
            x = _shuffle(kept, _branch(x, k // 2, 1, f"stage{stage}.{i}.branch2"))
        before = k
    x = nn.relu(_conv(x, 1024, 1, conv="conv5.0", norm="conv5.1"))
    return net.build(logits=nn.linear(nn.flatten(nn.global_average_pool(x)), num_classes, name="fc"))


def _halve(x: Value, channels: int, half: int, name: str) -> Value:
    """[N,channels,H,W] -> [N,2*half,H/2,W/2]: both branches see all channels."""
    y = _depthwise(x, channels, 2, conv=f"{name}.branch1.0", norm=f"{name}.branch1.1")
    y = nn.relu(_conv(y, half, 1, conv=f"{name}.branch1.2", norm=f"{name}.branch1.3"))
    return _shuffle(y, _branch(x, half, 2, f"{name}.branch2"))


def _branch(x: Value, half: int, stride: int, name: str) -> Value:
    x = nn.relu(_conv(x, half, 1, conv=f"{name}.0", norm=f"{name}.1"))
    x = _depthwise(x, half, stride, conv=f"{name}.3", norm=f"{name}.4")
    return nn.relu(_conv(x, half, 1, conv=f"{name}.5", norm=f"{name}.6"))


def _shuffle(a: Value, b: Value) -> Value:
    """The channels of a and b [N,C,H,W] in turn: [N,2*C,H,W]."""
    x = nn.concat([a, b])
    n, c, h, w = x.type.shape
    return nn.reshape(nn.transpose(nn.reshape(x, (n, 2, c // 2, h, w)), (0, 2, 1, 3, 4)), (n, c, h, w))


def _depthwise(x: Value, channels: int, stride: int, *, conv: str, norm: str) -> Value:
    x = nn.conv2d(x, channels, 3, stride, padding=1, groups=channels, bias=False, name=conv)
    return nn.batch_norm(x, name=norm)


def _conv(x: Value, channels: int, kernel: int, stride: int = 1, padding: int = 0, *, conv: str, norm: str) -> Value:
    return nn.batch_norm(nn.conv2d(x, channels, kernel, stride, padding, bias=False, name=conv), name=norm)


def shufflenet_v2_x0_5(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """ShuffleNet v2 of half width, 1,366,792 parameters."""
    return shufflenet_v2("shufflenet_v2_x0_5", (48, 96, 192), num_classes, size, seed)


def shufflenet_v2_x1_0(num_classes: int = 1000, size: int = 224, seed: int = 0) -> Graph:
    """ShuffleNet v2 of full width, 2,278,604 parameters."""
    return shufflenet_v2("shufflenet_v2_x1_0", (116, 232, 464), num_classes, size, seed)
