"""U-Net: down to a coarse map and up again, with the fine maps beside it."""

from graphc import nn
from graphc.ir import Builder, Graph, Value, f32


def unet(num_classes: int = 2, channels: int = 32, seed: int = 0) -> Graph:
    """U-Net (Ronneberger et al. 2015, "U-Net: convolutional networks for biomedical image segmentation").

    [N,3,H,W] -> [N,num_classes,H,W], H and W multiples of 16; 7,760,130 parameters. It has half the paper's channels,
    `channels` to 16 times as many, and its convolutions pad, so that every map keeps its size.
    """
    net = Builder("unet", seed)
    x = net.input("image", f32("N", 3, "H", "W"))
    skipped = []
    for i in range(4):
        skipped.append(_double(x, channels << i, f"down{i + 1}"))
        x = nn.max_pool(skipped[-1], 2)
    x = _double(x, channels << 4, "bottom")
    for i in (3, 2, 1, 0):
        x = nn.conv_transpose2d(x, channels << i, 2, stride=2, name=f"up{i + 1}.upsample")
        x = _double(nn.concat([skipped[i], x]), channels << i, f"up{i + 1}")
    return net.build(scores=nn.conv2d(x, num_classes, 1, name="scores"))


def _double(x: Value, channels: int, name: str) -> Value:
    x = nn.relu(nn.conv2d(x, channels, 3, padding=1, name=f"{name}.conv1"))
    return nn.relu(nn.conv2d(x, channels, 3, padding=1, name=f"{name}.conv2"))
