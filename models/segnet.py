"""SegNet: an encoder whose poolings remember where their maxima lay, for the decoder to put them back."""

from graphc import nn
from graphc.ir import Builder, Graph, Value, f32
from graphc.models.vgg import VGG16


def segnet(num_classes: int = 11, seed: int = 0) -> Graph:
    """SegNet (Badrinarayanan et al. 2015, "A deep convolutional encoder-decoder architecture for image segmentation").

    [N,3,H,W] -> [N,num_classes,H,W] for H and W of 32 or more. The encoder has the convolutions of VGG-16, the decoder
    mirrors it, and each convolution but the last is batch-normalised: 29,449,355 parameters, the paper's 29.45 million.
    """
    net = Builder("segnet", seed)
    x = net.input("image", f32("N", 3, "H", "W"))
    pooled = []
    for i, stage in enumerate(VGG16, 1):
        for j, channels in enumerate(stage, 1):
            x = _conv(x, channels, f"encoder{i}.{j}")
        fine, (x, indices) = x, nn.max_pool_with_indices(x, 2)
        pooled.append((fine, indices))
    for i in (5, 4, 3, 2, 1):
        fine, indices = pooled[i - 1]
        x = nn.max_unpool(x, indices, 2, like=fine)
        stage = VGG16[i - 1]
        for j in range(len(stage), 1, -1):
            x = _conv(x, stage[j - 1], f"decoder{i}.{j}")
        if i > 1:
            x = _conv(x, VGG16[i - 2][-1], f"decoder{i}.1")
    return net.build(scores=nn.conv2d(x, num_classes, 3, padding=1, name="decoder1.1.conv"))


def _conv(x: Value, channels: int, name: str) -> Value:
    x = nn.conv2d(x, channels, 3, padding=1, name=f"{name}.conv")
    return nn.relu(nn.batch_norm(x, name=f"{name}.bn"))
