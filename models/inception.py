"""GoogLeNet and its descendant Inception v3: blocks whose parallel branches see at several scales."""

from graphc import nn
from graphc.ir import Builder, Graph, Value, f32
from graphc.nn.arguments import PaddingLike, PairLike

# the nine blocks: 1x1 | 3x3 reduced, 3x3 | 5x5 reduced, 5x5 | pool projected (table 1 of the paper)
GOOGLENET = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def googlenet(num_classes: int = 1000, size: int = 224, aux: bool = False, seed: int = 0) -> Graph:
    """GoogLeNet with batch norm (Szegedy et al. 2014, "Going deeper with convolutions"; Ioffe & Szegedy 2015).

    [N,3,size,size] -> [N,num_classes]; names and 6,624,904 parameters as in torchvision, whose "5x5" branches have 3x3
    filters, too, and whose trained weights want pixels scaled to -1..1. With `aux`, the outputs aux1 and aux2 of the
    heads behind 4a and 4d follow, for training: 13,004,888 parameters. A head pools as in the paper, 5x5 at stride 3
    (torchvision: to 4x4, which lets its windows overlap unevenly).
    """
    net = Builder("googlenet", seed)
    x = net.input("image", f32("N", 3, size, size))
    x = _conv(x, 64, 7, stride=2, padding=3, name="conv1")
    x = nn.max_pool(x, 3, stride=2, ceil_mode=True)
    x = _conv(x, 64, 1, name="conv2")
    x = _conv(x, 192, 3, padding=1, name="conv3")
    x = nn.max_pool(x, 3, stride=2, ceil_mode=True)
    heads = {}
    for block, channels in GOOGLENET.items():
        x = _googlenet_block(x, channels, f"inception{block}")
        if block == "3b":
            x = nn.max_pool(x, 3, stride=2, ceil_mode=True)
        if block == "4e":
            x = nn.max_pool(x, 2, ceil_mode=True)
        if aux and block in ("4a", "4d"):
            name = "aux1" if block == "4a" else "aux2"
            heads[name] = _googlenet_head(x, num_classes, name)
    x = nn.dropout(nn.flatten(nn.global_average_pool(x)), 0.2)
    return net.build(logits=nn.linear(x, num_classes, name="fc"), **heads)


def _googlenet_block(x: Value, channels: tuple[int, ...], name: str) -> Value:
    one, reduced3, three, reduced5, five, projected = channels
    return nn.concat(
        [
            _conv(x, one, 1, name=f"{name}.branch1"),
            _conv(_conv(x, reduced3, 1, name=f"{name}.branch2.0"), three, 3, padding=1, name=f"{name}.branch2.1"),
            _conv(_conv(x, reduced5, 1, name=f"{name}.branch3.0"), five, 3, padding=1, name=f"{name}.branch3.1"),
            _conv(nn.max_pool(x, 3, stride=1, padding=1), projected, 1, name=f"{name}.branch4.1"),
        ]
    )


def _googlenet_head(x: Value, num_classes: int, name: str) -> Value:
    x = nn.flatten(_conv(nn.average_pool(x, 5, stride=3), 128, 1, name=f"{name}.conv"))
    x = nn.dropout(nn.relu(nn.linear(x, 1024, name=f"{name}.fc1")), 0.7)
    return nn.linear(x, num_classes, name=f"{name}.fc2")


def inception_v3(num_classes: int = 1000, size: int = 299, aux: bool = False, seed: int = 0) -> Graph:
    """Inception v3 (Szegedy et al. 2015, "Rethinking the Inception architecture for computer vision").

    [N,3,size,size] -> [N,num_classes]; names and 23,834,568 parameters as in torchvision, whose trained weights want
    pixels scaled to -1..1. With `aux`, the output aux of the head behind 6e follows, for training: 27,161,264.
    """
    net = Builder("inception_v3", seed)
    x = net.input("image", f32("N", 3, size, size))
    x = _conv(x, 32, 3, stride=2, name="Conv2d_1a_3x3")
    x = _conv(x, 32, 3, name="Conv2d_2a_3x3")
    x = _conv(x, 64, 3, padding=1, name="Conv2d_2b_3x3")
    x = nn.max_pool(x, 3, stride=2)
    x = _conv(x, 80, 1, name="Conv2d_3b_1x1")
    x = _conv(x, 192, 3, name="Conv2d_4a_3x3")
    x = nn.max_pool(x, 3, stride=2)
    for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
        x = _inception_a(x, pooled, name)
    x = _inception_b(x, "Mixed_6a")
    for name, inner in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        x = _inception_c(x, inner, name)
    heads = {"aux": _inception_head(x, num_classes, "AuxLogits")} if aux else {}
    x = _inception_d(x, "Mixed_7a")
    for name in ("Mixed_7b", "Mixed_7c"):
        x = _inception_e(x, name)
    x = nn.flatten(nn.dropout(nn.global_average_pool(x), 0.5))
    return net.build(logits=nn.linear(x, num_classes, name="fc"), **heads)


def _inception_a(x: Value, pooled: int, name: str) -> Value:
    """1x1, 5x5 and two 3x3: figure 5 of the paper, with 5x5 for one of its pairs of 3x3."""
    five = _conv(x, 48, 1, name=f"{name}.branch5x5_1")
    five = _conv(five, 64, 5, padding=2, name=f"{name}.branch5x5_2")
    double = _conv(x, 64, 1, name=f"{name}.branch3x3dbl_1")
    double = _conv(double, 96, 3, padding=1, name=f"{name}.branch3x3dbl_2")
    double = _conv(double, 96, 3, padding=1, name=f"{name}.branch3x3dbl_3")
    return nn.concat([_conv(x, 64, 1, name=f"{name}.branch1x1"), five, double, _project(x, pooled, name)])


def _inception_b(x: Value, name: str) -> Value:
    """To half the resolution: figure 10."""
    three = _conv(x, 384, 3, stride=2, name=f"{name}.branch3x3")
    double = _conv(x, 64, 1, name=f"{name}.branch3x3dbl_1")
    double = _conv(double, 96, 3, padding=1, name=f"{name}.branch3x3dbl_2")
    double = _conv(double, 96, 3, stride=2, name=f"{name}.branch3x3dbl_3")
    return nn.concat([three, double, nn.max_pool(x, 3, stride=2)])


def _inception_c(x: Value, inner: int, name: str) -> Value:
    """7x7 as 1x7 and 7x1: figure 6."""
    seven = _conv(x, inner, 1, name=f"{name}.branch7x7_1")
    seven = _conv(seven, inner, (1, 7), padding=(0, 3), name=f"{name}.branch7x7_2")
    seven = _conv(seven, 192, (7, 1), padding=(3, 0), name=f"{name}.branch7x7_3")
    double = _conv(x, inner, 1, name=f"{name}.branch7x7dbl_1")
    double = _conv(double, inner, (7, 1), padding=(3, 0), name=f"{name}.branch7x7dbl_2")
    double = _conv(double, inner, (1, 7), padding=(0, 3), name=f"{name}.branch7x7dbl_3")
    double = _conv(double, inner, (7, 1), padding=(3, 0), name=f"{name}.branch7x7dbl_4")
    double = _conv(double, 192, (1, 7), padding=(0, 3), name=f"{name}.branch7x7dbl_5")
    return nn.concat([_conv(x, 192, 1, name=f"{name}.branch1x1"), seven, double, _project(x, 192, name)])


def _inception_d(x: Value, name: str) -> Value:
    """To half the resolution again."""
    three = _conv(x, 192, 1, name=f"{name}.branch3x3_1")
    three = _conv(three, 320, 3, stride=2, name=f"{name}.branch3x3_2")
    seven = _conv(x, 192, 1, name=f"{name}.branch7x7x3_1")
    seven = _conv(seven, 192, (1, 7), padding=(0, 3), name=f"{name}.branch7x7x3_2")
    seven = _conv(seven, 192, (7, 1), padding=(3, 0), name=f"{name}.branch7x7x3_3")
    seven = _conv(seven, 192, 3, stride=2, name=f"{name}.branch7x7x3_4")
    return nn.concat([three, seven, nn.max_pool(x, 3, stride=2)])


def _inception_e(x: Value, name: str) -> Value:
    """1x3 and 3x1 side by side: figure 7."""
    three = _conv(x, 384, 1, name=f"{name}.branch3x3_1")
    double = _conv(x, 448, 1, name=f"{name}.branch3x3dbl_1")
    double = _conv(double, 384, 3, padding=1, name=f"{name}.branch3x3dbl_2")
    wide_and_high = [
        _conv(y, 384, kernel, padding=padding, name=f"{name}.{branch}{side}")
        for y, branch in ((three, "branch3x3_2"), (double, "branch3x3dbl_3"))
        for kernel, padding, side in (((1, 3), (0, 1), "a"), ((3, 1), (1, 0), "b"))
    ]
    return nn.concat([_conv(x, 320, 1, name=f"{name}.branch1x1"), *wide_and_high, _project(x, 192, name)])


def _inception_head(x: Value, num_classes: int, name: str) -> Value:
    x = _conv(nn.average_pool(x, 5, stride=3), 128, 1, name=f"{name}.conv0")
    x = nn.flatten(nn.global_average_pool(_conv(x, 768, 5, name=f"{name}.conv1")))
    return nn.linear(x, num_classes, name=f"{name}.fc")


def _project(x: Value, channels: int, name: str) -> Value:
    x = nn.average_pool(x, 3, stride=1, padding=1, count_padding=True)
    return _conv(x, channels, 1, name=f"{name}.branch_pool")


def _conv(x: Value, channels: int, kernel: PairLike, stride: int = 1, padding: PaddingLike = 0, *, name: str) -> Value:
    x = nn.conv2d(x, channels, kernel, stride, padding, bias=False, name=f"{name}.conv")
    return nn.relu(nn.batch_norm(x, epsilon=1e-3, name=f"{name}.bn"))
