"""Random convolutional networks: DAGs over symbolic N, H and W in which any op may follow any other that fits it."""

from collections.abc import Callable

import numpy as np

from graphc import nn, ops
from graphc.errors import ShapeError
from graphc.ir import Builder, Graph, Node, Value, dims, f32
from graphc.nn.arguments import PaddingLike

N, H, W = (dims.symbol(s) for s in "NHW")
MOST_CHANNELS = 40  # a concat of many is not drawn: the reference is slow


class Sketch:
    """A network while it is drawn: `images` are its values [N,C,H,W], `exact` those that no arithmetic has rounded."""

    def __init__(self, rng: np.random.Generator, seed: int) -> None:
        self.rng, self.net = rng, Builder(f"random{seed}", seed)
        c = self.below(7) + 1
        shapes = [f32(N, c, H, W), f32(N, self.below(4) + 1, H + 1, W), f32(N, 3, 2 * H, 2 * W), f32(2, 3, 6, 9)]
        self.images = [self.net.input("x", shapes[0])]
        if self.flip(0.2):
            self.images.append(self.net.input("second input", shapes[self.below(4)]))
        self.exact, self.others = list(self.images), list[Value]()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """What has been declared so far."""
        return self.net.build(*self.images[-1:]).nodes

    def below(self, bound: int) -> int:
        return int(self.rng.integers(bound))

    def flip(self, share: float = 0.5) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, choices: list[Value]) -> Value:
        """One of them, the later the likelier."""
        return choices[max(self.below(len(choices)), self.below(len(choices)))]

    def pair(self, least: int, most: int) -> tuple[int, int]:
        return least + self.below(most - least + 1), least + self.below(most - least + 1)

    def pads(self, most: int) -> tuple[int, int, int, int]:
        return tuple(self.below(most + 1) if self.flip() else 0 for _ in range(4))  # type: ignore[return-value]


def channels(x: Value) -> int:
    c = x.type.shape[1]
    assert isinstance(c, int)
    return c


def draw_groups(s: Sketch, *counts: int) -> int:
    return int(s.rng.choice([g for g in (1, 1, 2, 3, 4, *counts) if all(c % g == 0 for c in counts)]))


def conv(s: Sketch, x: Value, name: str) -> Value:
    k = s.below(20) + 1 if s.flip(0.8) else channels(x)
    groups = draw_groups(s, channels(x), k)
    padding: PaddingLike = "same" if s.flip() else s.pads(2)
    stride = s.pair(1, 1 if s.flip() else 3)
    return nn.conv2d(x, k, s.pair(1, 4), stride, padding, s.pair(1, 2), groups, s.flip(0.7), name=name)


def conv_shared(s: Sketch, x: Value, name: str) -> Value:
    y = nn.conv2d(x, channels(x), 3, padding=1, name=f"{name}.first")
    weight = s.nodes[-1].inputs[1]
    return nn.conv2d(nn.relu(y), channels(x), 3, padding=1, weight=weight, name=name)


def conv_transpose(s: Sketch, x: Value, name: str) -> Value:
    k, stride = s.below(8) + 1, s.pair(1, 3)
    groups = draw_groups(s, channels(x), k)
    extra = (s.below(stride[0]), s.below(stride[1]))
    return nn.conv_transpose2d(x, k, s.pair(1, 4), stride, s.pads(1), extra, s.pair(1, 2), groups, s.flip(), name=name)


def pool(s: Sketch, x: Value, name: str) -> Value:
    kernel, stride, ceil = s.pair(1, 3), s.pair(1, 3), s.flip(0.3)
    padding = (s.below(kernel[0]), s.below(kernel[1]), s.below(kernel[0]), s.below(kernel[1]))
    dilation = (1, 1) if any(padding) or ceil else s.pair(1, 2)  # of padding alone ONNX Runtime says -FLT_MAX, not -inf
    match s.below(5):
        case 0:
            return nn.max_pool(x, kernel, stride, padding, dilation, ceil)
        case 1:
            return nn.min_pool(x, kernel, stride, padding, dilation, ceil)
        case 2:
            return nn.average_pool(x, kernel, stride, padding, ceil, s.flip())
        case 3:
            return nn.l2_pool(x, kernel, stride, padding, ceil)
    size = s.below(channels(x)) + 1
    return nn.channel_l2_pool(x, size, s.below(3) + 1)


def unpool(s: Sketch, x: Value, name: str) -> Value:
    kernel = s.pair(1, 3)
    y, indices = nn.max_pool_with_indices(s.pick(s.exact), kernel, kernel)
    s.others.append(indices)
    (source,) = s.nodes[-1].inputs
    return nn.max_unpool(nn.tanh(y), indices, kernel, like=source)


def elementwise(s: Sketch, x: Value, name: str) -> Value:
    match s.below(14):
        case 0:
            return nn.relu(x)
        case 1:
            return nn.leaky_relu(x, 0.1)
        case 2:
            return nn.elu(x)
        case 3:
            return nn.sigmoid(x)
        case 4:
            return nn.tanh(x)
        case 5:
            return nn.softplus(x)
        case 6:
            return nn.mul(x, nn.div(nn.clip(nn.add(x, 3.0), 0.0, 6.0), 6.0))
        case 7:
            return nn.exp(nn.clip(x, -2.0, 1.0))
        case 8:
            return nn.log(nn.add(nn.abs(x), 0.5))
        case 9:
            return nn.sqrt(nn.add(nn.abs(x), 0.25))
        case 10:
            return nn.dropout(x) if s.flip() else nn.identity(x)
        case 11:
            return nn.hard_threshold(s.pick(s.exact), 0.2)
        case 12:
            return nn.pow(nn.add(nn.abs(x), 0.5), 1.5)
    return nn.neg(x)


def binary(s: Sketch, x: Value, name: str) -> Value:
    c = channels(x)
    constant = s.rng.uniform(0.5, 1.5, [(c, 1, 1), (1, c, 1, 1), (), (1, 1, 1)][s.below(4)]).astype(np.float32)
    alike = [v for v in s.images if v.type == x.type]
    partner = [
        lambda: s.pick(alike),
        lambda: s.pick(alike),
        lambda: s.net.constant(constant),
        lambda: nn.global_average_pool(x),
        lambda: nn.mean(x, (1,)),
        lambda: s.pick([v for v in s.images if v.type.rank == 4]),
    ][s.below(6)]()
    make = [nn.add, nn.add, nn.sub, nn.mul, nn.maximum, nn.minimum][s.below(6)]
    return make(x, partner) if s.flip() else make(partner, x)


def normalise(s: Sketch, x: Value, name: str) -> Value:
    match s.below(4):
        case 0:
            return nn.softmax(x, s.below(4))
        case 1:
            return nn.log_softmax(x, s.below(4) - 4)
        case 2:
            return nn.local_response_norm(x, s.below(5) + 1, 0.1)
    c = channels(x)
    scale, bias, mean = (s.net.param(f"{name}.{i}", s.rng.uniform(0.5, 1.5, c).astype(np.float32)) for i in range(3))
    variance = s.net.param(f"{name}.3", s.rng.uniform(0.5, 1.5, c).astype(np.float32))
    return s.net.apply(ops.BatchNorm(), x, scale, bias, mean, variance, name=name)


def resize(s: Sketch, x: Value, name: str) -> Value:
    h, w = x.type.shape[2:]
    size = None if s.flip() else [(h + 1, w * 2), (h * 2 + 1, w), (H, W), (5, 7)][s.below(4)]
    match s.below(3):
        case 0:
            return nn.upsample_nearest(x, s.pair(1, 2), size)
        case 1:
            return nn.upsample_bilinear(x, s.pair(1, 2), size, s.flip())
    return nn.bed_of_nails(x, s.pair(1, 2))


def concat(s: Sketch, x: Value, name: str) -> Value:
    axis = 1 if s.flip(0.8) else s.below(4)
    return nn.concat([x, *(s.pick(s.images) for _ in range(s.below(3)))], axis)


def split(s: Sketch, x: Value, name: str) -> Value:
    cut = s.below(channels(x) - 1) + 1 if channels(x) > 1 else 0
    parts = nn.split(x, (cut, channels(x) - cut) if cut else (1,))
    s.images.append(parts[0])
    return parts[-1]


def rearrange(s: Sketch, x: Value, name: str) -> Value:
    n, c, h, w = x.type.shape
    match s.below(8):
        case 0:
            return nn.transpose(x, (0, 1, 3, 2))
        case 1:
            return nn.transpose(nn.transpose(x, (0, 2, 3, 1)), (0, 3, 1, 2))
        case 2:  # a channel shuffle
            g = draw_groups(s, channels(x))
            y = nn.transpose(nn.reshape(x, (n, g, channels(x) // g, h, w)), (0, 2, 1, 3, 4))
            return nn.reshape(y, (n, c, h, w))
        case 3:
            return nn.reshape(x, (n, c, h * w, 1))
        case 4:
            return nn.reshape(x, (-1, 1, h, w))
        case 5:
            step = (s.below(3) + 1) * (1 if s.flip(0.8) else -1)
            bounds = ((s.below(3) - 1,), (2**31 - 1,)) if step > 0 else ((-1,), (-(2**31),))
            return nn.slice(x, (s.below(2) + 2,), *bounds, (step,))
        case 6:
            mode = "edge" if s.flip() else "constant"  # ONNX has no reflected border that is wider than the image
            return nn.pad(x, (0, 0, *s.pair(0, 2), 0, 0, *s.pair(0, 2)), mode)
    return nn.slice(x, (1,), (s.below(channels(x)),), (2**31 - 1,))


def reduce(s: Sketch, x: Value, name: str) -> Value:
    axes = [(2, 3), (1,), (2,), (3,), (1, 2)][s.below(5)]
    match s.below(6):
        case 0:
            return nn.global_average_pool(x)
        case 1:
            return nn.global_max_pool(x)
        case 2:
            return nn.mean(x, axes)
        case 3:
            return nn.reduce_max(x, axes)
        case 4:
            return nn.reduce_min(x, axes)
    return nn.div(nn.sum(x, (1,)), float(channels(x)))


def dense(s: Sketch, x: Value, name: str) -> Value:
    y = nn.linear(nn.flatten(nn.global_average_pool(x)), s.below(9) + 1, s.flip(), name=name)
    s.others += [y, nn.softmax(y)]
    if s.flip():
        s.others.append(nn.mean_squared_error(y, nn.relu(y)))
    return nn.reshape(nn.relu(y), (*y.type.shape, 1, 1))


Draw = Callable[[Sketch, Value, str], Value]
STEPS: tuple[Draw, ...] = (
    *(conv, conv, conv, conv_shared, conv_transpose, pool, pool, unpool, elementwise, elementwise, elementwise),
    *(binary, binary, normalise, resize, concat, split, rearrange, rearrange, reduce, dense),
)
EXACT = (split, concat, rearrange)  # they move elements


def draw_graph(seed: int, steps: int | None = None) -> Graph:
    """A network of about `steps` steps; the same seed draws the same, fewer steps the beginning of it."""
    rng = np.random.default_rng(seed)
    s, count = Sketch(rng, seed), int(rng.integers(1, 14))
    for i in range(count if steps is None else steps):
        draw = STEPS[int(rng.integers(len(STEPS)))]
        x = s.pick(s.exact if draw in EXACT and s.flip(0.3) else s.images)
        before = len(s.nodes)
        try:
            y = draw(s, x, f"step{i}")
        except ShapeError:  # does not fit: a window larger than the map, more channels in one operand than in another
            continue
        if isinstance(y.type.shape[1], int) and y.type.shape[1] <= MOST_CHANNELS and y.type.rank == 4:
            s.images.append(y)
        if all(v in s.exact for n in s.nodes[before:] for v in n.inputs) and draw in EXACT:
            s.exact.append(y)
    candidates = [*s.images, *s.images[-2:], *s.others]
    params = [v for n in s.nodes for v in n.inputs if v.type.symbols == frozenset() and v not in s.images]
    outputs = [s.images[-1], *(s.pick(candidates) for _ in range(s.below(4)))]
    outputs += [s.pick(params)] if params and s.flip(0.1) else []
    return s.net.build(**{f"output {i}": v for i, v in enumerate(outputs)})
