"""Windows over one, two or three spatial dims. graphc's own have two: a line becomes an image of one row, and a volume
is cut into planes."""

from dataclasses import dataclass

from graphc.errors import ShapeError, UnsupportedError
from graphc.ir import Op, Value
from graphc.onnx.import_ops.padding import Ints, read_pads
from graphc.onnx.reader import NodeReader
from graphc.ops.shape import Concat, Pad, Reshape, Slice, Transpose
from graphc.ops.window import Padding, Pair

Application = tuple[Op, tuple[Value, ...]]  # an op and its operands: the last step, which `emit` gives the node's name
Span = tuple[int, int, int, int, int]  # kernel, stride, dilation, padding before and behind, along one dim
WHOLE: Span = (1, 1, 1, 0, 0)  # along a dim over which no window slides


@dataclass(frozen=True)
class Plane:
    """A window over two dims."""

    kernel: Pair
    stride: Pair
    dilation: Pair
    padding: Padding


@dataclass(frozen=True)
class Frame:
    """Kernel, stride and dilation along each spatial dim; padding before each of them, then behind each."""

    kernel: Ints
    stride: Ints
    dilation: Ints
    padding: Ints

    def along(self, axis: int) -> Span:
        """What holds along one dim."""
        before, behind = self.padding[axis], self.padding[axis + len(self.kernel)]
        return self.kernel[axis], self.stride[axis], self.dilation[axis], before, behind

    @property
    def plane(self) -> Plane:
        """The window over the last two dims, or over the one row of a line."""
        count = len(self.kernel)
        return make_plane(self.along(count - 2) if count > 1 else WHOLE, self.along(count - 1))


def make_plane(rows: Span, columns: Span) -> Plane:
    """The window that rows and columns make."""
    (r, sh, dh, top, bottom), (s, sw, dw, left, right) = rows, columns
    return Plane((r, s), (sh, sw), (dh, dw), (top, left, bottom, right))


def read_ints(n: NodeReader, name: str, default: int, count: int) -> Ints:
    """An attribute with one integer for each of `count` spatial dims."""
    values = n.integers(name, (default,) * count)
    if len(values) != count:
        raise ShapeError(f"{name}: expected {count} integers, got {list(values)}")
    return values


def read_pair(n: NodeReader, name: str, default: int) -> Pair:
    """An attribute with one integer for each of two spatial dims."""
    first, second = read_ints(n, name, default, 2)
    return first, second


def count_dims(x: Value) -> int:
    """The number of spatial dims of x [N,C,...]: one, two or three."""
    count = x.type.rank - 2
    if not 1 <= count <= 3:
        raise UnsupportedError(f"{x.type} has {max(count, 0)} spatial dims; one to three are supported")
    return count


def read_frame(n: NodeReader, x: Value, kernel: Ints | None = None) -> Frame:
    """The window of a convolution or pool over x; the kernel is the node's attribute if it is not given."""
    count = count_dims(x)
    kernel = read_ints(n, "kernel_shape", 0, count) if kernel is None else kernel
    stride, dilation = read_ints(n, "strides", 1, count), read_ints(n, "dilations", 1, count)
    return Frame(kernel, stride, dilation, read_pads(n, x.type.shape[2:], kernel, stride, dilation))


def lay_line(n: NodeReader, x: Value) -> Value:
    """[N,C,W] as [N,C,1,W]."""
    return n.step(Reshape((*x.type.shape[:2], 1, x.type.shape[2])), x)


def take_line(y: Value) -> Application:
    """[N,C,1,W] as [N,C,W]."""
    return Reshape((*y.type.shape[:2], y.type.shape[3])), (y,)


def unfold_depth(n: NodeReader, x: Value, span: Span, flip: bool = False) -> Value:
    """x [N,C,D,H,W] as images [N*P,C*R,H,W]: for each of P places of a window along D, the R planes under it.

    Channel c*R+r holds plane r, or R-1-r with `flip`. A convolution of these images is one of the volume.
    """
    kernel, stride, dilation, before, behind = span
    if before or behind:
        x = n.step(Pad((0, 0, before, 0, 0, 0, 0, behind, 0, 0)), x)
    batch, channels, depth, height, width = x.type.shape
    places = (depth - (dilation * (kernel - 1) + 1)) // stride + 1
    taps = []
    for r in reversed(range(kernel)) if flip else range(kernel):
        first = r * dilation
        cut = n.step(Slice((2,), (first,), (first + (places - 1) * stride + 1,), (stride,)), x)
        taps.append(n.step(Reshape((batch, channels, 1, places, height, width)), cut))
    planes = n.step(Transpose((0, 3, 1, 2, 4, 5)), n.step(Concat(2), *taps))
    return n.step(Reshape((batch * places, channels * kernel, height, width)), planes)


def take_volume(n: NodeReader, images: Value, x: Value) -> Application:
    """[N,K,P,...] from images [N*P,K,...], for x [N,C,D,H,W]."""
    batch, (planes, *rest) = x.type.shape[0], images.type.shape
    return Transpose((0, 2, 1, 3, 4)), (n.step(Reshape((batch, planes // batch, *rest)), images),)
