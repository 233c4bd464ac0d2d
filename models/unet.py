"""U-Net: down to a coarse map and up again, with the fine maps beside it."""

from dataclasses import replace
from importlib import resources

from graphc import nn
from graphc.ir import Builder, Graph, Value, f32
from graphc.models.lenet import INK
from graphc.state import read_metadata


def unet(
    num_classes: int = 2, channels: int = 32, seed: int = 0, in_channels: int = 3, depth: int = 4, norm: bool = False
) -> Graph:
    """U-Net (Ronneberger et al. 2015, "U-Net: convolutional networks for biomedical image segmentation").

    [N,in_channels,H,W] -> [N,num_classes,H,W], H and W multiples of 2^depth; 7,760,130 parameters. It has half the
    paper's channels, `channels` to 2^depth times as many, and its convolutions pad, so that every map keeps its size.
    With `norm`, each has a batch norm behind it in the place of its bias.
    """
    net = Builder("unet", seed)
    x = net.input("image", f32("N", in_channels, "H", "W"))
    skipped = []
    for i in range(depth):
        skipped.append(_double(x, channels << i, f"down{i + 1}", norm))
        x = nn.max_pool(skipped[-1], 2)
    x = _double(x, channels << depth, "bottom", norm)
    for i in reversed(range(depth)):
        x = nn.conv_transpose2d(x, channels << i, 2, stride=2, name=f"up{i + 1}.upsample")
        x = _double(nn.concat([skipped[i], x]), channels << i, f"up{i + 1}", norm)
    return net.build(scores=nn.conv2d(x, num_classes, 1, name="scores"))


def digit_masks(seed: int = 0, trained: bool = True) -> Graph:
    """A small U-Net trained on scanned pages: for each pixel, which digit's ink lies there, or none.

    [N,1,H,W], ink from 0 (paper) to 1 -> [N,11,H,W], H and W multiples of 8; 120,771 parameters. The weights' file
    tells how they were trained; `seed` draws random ones if not `trained`.
    """
    graph = replace(unet(11, 8, seed, in_channels=1, depth=3, norm=True), name="digit_masks", meta=INK)
    if not trained:
        return graph
    with resources.as_file(resources.files("graphc.models").joinpath("digit_masks.safetensors")) as path:
        return replace(graph.load_state(path), meta={**read_metadata(path), **INK})


def _double(x: Value, channels: int, name: str, norm: bool) -> Value:
    for i in (1, 2):
        x = nn.conv2d(x, channels, 3, padding=1, bias=not norm, name=f"{name}.conv{i}")
        x = nn.relu(nn.batch_norm(x, name=f"{name}.norm{i}") if norm else x)
    return x
