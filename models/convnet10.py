"""The small network for 32x32 colour images of Stanford's CS231n: a stack of 3x3 convolutions with ten maps each."""

from graphc import nn
from graphc.errors import InputError
from graphc.ir import Builder, Graph, f32


def convnet10(ending: str = "fc", seed: int = 0) -> Graph:
    """[conv-relu-conv-relu-pool] three times, then ten classes (Karpathy's ConvNetJS, CIFAR-10).

    [N,3,32,32] -> [N,10]. The `ending` is "fc", a linear layer on the 4x4x10 map (1,610 parameters), or "average", its
    average over the map and a linear layer on that (110).
    """
    if ending not in ("fc", "average"):
        raise InputError(f"convnet10: expected ending 'fc' or 'average', got {ending!r}")
    net = Builder("convnet10", seed)
    x = net.input("image", f32("N", 3, 32, 32))
    for i in range(6):
        x = nn.relu(nn.conv2d(x, 10, 3, padding=1, name=f"conv{i + 1}"))
        if i % 2:
            x = nn.max_pool(x, 2)
    if ending == "average":
        x = nn.global_average_pool(x)
    return net.build(logits=nn.linear(nn.flatten(x), 10, name="fc"))


def convnet10_average(seed: int = 0) -> Graph:
    """convnet10 that ends in an average over the map."""
    return convnet10("average", seed)
