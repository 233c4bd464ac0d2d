"""The compiled network as a callable: what it takes, what it refuses, threads, fork, pickling."""

import ctypes
import gc
import multiprocessing
import os
import pickle
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.driver import compile, lower
from graphc.errors import GraphcError, InputError
from graphc.ir import Array, Builder, DType, Graph, TensorType, f32
from graphc.reference import run_reference
from graphc.verify import relative_difference


def two_layer() -> Graph:
    net = Builder("two_layer")
    x = net.input("image", f32("N", 3, "H", "W"))
    x = nn.relu(nn.conv2d(x, 8, 3, padding=1, name="conv1"))
    return net.build(scores=nn.conv2d(x, 5, 3, name="conv2"))


def two_in_two_out() -> Graph:
    net = Builder("pair")
    a, b = net.input("a", f32("N", 4)), net.input("b", f32("N", 4))
    return net.build(sum=nn.add(a, b), product=nn.mul(a, b), again=a)


def image(n: int, h: int, w: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((n, 3, h, w)).astype(np.float32)


def test_any_size_from_one_compilation() -> None:
    graph = two_layer()
    net = compile(graph)
    for n, h, w in ((1, 3, 3), (2, 17, 31), (3, 64, 5), (1, 200, 100), (1, 3, 3)):
        x = image(n, h, w)
        (expected,) = run_reference(graph, [x], DType.F64)
        assert relative_difference(net(x), expected) < 1e-5
        assert net.output_shapes(N=n, H=h, W=w) == [expected.shape]


def test_inputs_by_position_and_name_and_several_outputs() -> None:
    net = compile(two_in_two_out())
    a, b = (np.arange(8, dtype=np.float32).reshape(2, 4) + i for i in range(2))
    for results in (net(a, b), net(a, b=b), net(b=b, a=a)):
        assert isinstance(results, tuple)
        for found, expected in zip(results, (a + b, a * b, a), strict=True):
            np.testing.assert_array_equal(found, expected)
    assert repr(net) == (
        "<network pair: (a: f32[N,4], b: f32[N,4]) -> (sum: f32[N,4], product: f32[N,4], again: f32[N,4])>"
    )


class HasArray:
    """An object that is not an array but can become one."""

    def __init__(self, array: Array) -> None:
        self.data = array

    def __array__(self, dtype: object = None, copy: object = None) -> Array:
        return self.data


class HasDlpack:
    """An object of another library, as DLPack sees it."""

    def __init__(self, array: Array) -> None:
        self.data = array

    def __dlpack__(self, **options: object) -> object:
        return self.data.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.data.__dlpack_device__()


def test_other_array_types_and_layouts() -> None:
    net, x = compile(two_layer()), image(2, 12, 9)
    expected = net(x)
    padded = np.zeros((2, 3, 14, 11), np.float32)
    padded[:, :, 1:-1, 1:-1] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    for same in (HasArray(x), HasDlpack(x), padded[:, :, 1:-1, 1:-1], np.asfortranarray(x), read_only, unaligned):
        np.testing.assert_array_equal(net(same), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((image(1, 8, 8).astype(np.float64),), "input 'image': expected float32, got float64"),
        ((image(1, 8, 8)[0],), "input 'image': expected f32[N,3,H,W], got an array of shape [3, 8, 8]"),
        ((image(1, 8, 8)[:, :2],), "input 'image': expected f32[N,3,H,W], got an array of shape [1, 2, 8, 8]"),
        ((image(1, 8, 8)[:0],), "input 'image': expected f32[N,3,H,W], got an array of shape [0, 3, 8, 8]"),
        ((), "network 'two_layer': expected inputs image, got none"),
        ((image(1, 8, 8), image(1, 8, 8)), "network 'two_layer': expected inputs image, got #0, #1"),
        (("cat.png",), "input 'image': expected float32, got <U7"),
        (([[1.0], [2.0, 3.0]],), "input 'image': expected an array, got list"),
        ((image(1, 2, 8),), "conv2d 'conv2': its output size H-2 must be at least 1; the image is too small"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(InputError) as caught:
        compile(two_layer())(*arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_inputs_must_agree_on_sizes() -> None:
    net = compile(two_in_two_out())
    with pytest.raises(InputError, match=r"input 'b': expected f32\[N,4\], got an array of shape \[3, 4\]"):
        net(np.zeros((2, 4), np.float32), np.zeros((3, 4), np.float32))


def test_sizes_that_types_cannot_relate_are_checked_when_it_runs() -> None:
    net = Builder("unet")
    x = net.input("image", f32("N", 3, "H", "W"))
    up = nn.upsample_nearest(nn.max_pool(x, 2))
    run = compile(net.build(nn.concat([x, up], 1)))
    assert run(image(1, 8, 6)).shape == (1, 6, 8, 6)
    with pytest.raises(InputError, match=r"concat 'concat_1': .*H.* must equal .*\(got N=1, H=7, W=6\)"):
        run(image(1, 7, 6))


@pytest.mark.parametrize("threads", [0, -1, 2000, 1.5])
def test_thread_counts_are_checked(threads: int) -> None:
    with pytest.raises(InputError, match="threads: expected 1 to 1024"):
        compile(two_layer(), threads=threads)


def test_an_unknown_cpu_is_refused() -> None:
    with pytest.raises(GraphcError, match=r"cpu: expected one of native, .*got 'z80'"):
        compile(two_layer(), cpu="z80")
    with pytest.raises(InputError, match="compile: expected a graph or an ONNX model, got 'vgg16'"):
        compile("vgg16")


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_change_no_bit(threads: int) -> None:
    net = Builder("mixed")
    x = nn.conv2d(net.input("image", f32("N", 3, "H", "W")), 24, 3, padding=1, name="conv")
    x = nn.softmax(nn.average_pool(nn.tanh(x), 2))
    graph = net.build(x, nn.mean(x), nn.sum(x, axes=(2, 3)))
    inputs = image(2, 75, 101)
    for one, several in zip(compile(graph, threads=1)(inputs), compile(graph, threads=threads)(inputs), strict=True):
        np.testing.assert_array_equal(one, several)


def test_calls_from_several_threads() -> None:
    net = compile(two_layer(), threads=2)
    images = [image(1, 20 + i % 5, 30 + i % 7, seed=i) for i in range(40)]
    expected = [net(x) for x in images]
    with ThreadPoolExecutor(6) as pool:
        for found, right in zip(pool.map(net, images), expected, strict=True):
            np.testing.assert_array_equal(found, right)


def test_a_call_releases_the_gil() -> None:
    """While native code runs in one thread, Python goes on in another."""
    net, x = compile(two_layer(), threads=1), image(8, 500, 500)
    done, turns = threading.Event(), 0
    worker = threading.Thread(target=lambda: (net(x), done.set()))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(10)  # so that no timer can take the GIL away: only the call can give it up
    try:
        worker.start()
        while not done.is_set():
            turns += 1
            done.wait(0.0001)
    finally:
        sys.setswitchinterval(interval)
        worker.join()
    assert turns > 1


def test_pickling() -> None:
    net, x = compile(two_layer(), threads=2), image(1, 9, 9)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(net))(x), net(x))


def test_a_forked_child_goes_on() -> None:
    net, x = compile(two_layer(), threads=2), image(1, 60, 60)
    expected = net(x)

    def child() -> None:
        os._exit(0 if np.array_equal(net(x), expected) and np.array_equal(net(x), expected) else 1)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    np.testing.assert_array_equal(net(x), expected)


def test_networks_come_and_go() -> None:
    """No thread is left behind, and the code outlives its last call."""
    gc.collect()  # networks of other tests
    before = len(os.listdir("/proc/self/task"))
    for _ in range(5):
        net = compile(two_layer(), threads=3)
        net(image(1, 8, 8))
        del net
    gc.collect()
    assert len(os.listdir("/proc/self/task")) == before


def test_scratch_is_zero_at_first() -> None:
    """Lanes whose results nobody wants read it, and denormals, which used memory is full of, take 150 cycles each."""
    net = Builder("planes")
    graph = net.build(nn.conv2d(net.input("x", f32(1, 1, 32, 32)), 6, 5, name="conv"))
    libc = ctypes.CDLL(None)
    libc.mallopt(-6, 1)  # M_PERTURB: what is allocated is full of 0xFE
    try:
        compiled = compile(graph, threads=2)
    finally:
        libc.mallopt(-6, 0)
    plan = lower(graph, "net", "native").plan
    scratch = 2 * max(step.kernel.scratch for step in plan.steps)
    (own,) = (ctypes.c_void_p * 7).from_address(compiled._idle[0].value or 0)[6:]
    assert scratch and own
    assert ctypes.string_at(own + plan.packed_bytes, scratch) == bytes(scratch)


def test_sizes_without_a_network_of_that_size() -> None:
    net = compile(two_layer())
    with pytest.raises(InputError, match=r"expected sizes N, H, W, got N=1, H=8$"):
        net.output_shapes(N=1, H=8)
    for wrong in ({"H": 8, "W": 8, "Q": 4}, {"H": 2**64 + 8, "W": 8}, {"H": 8.5, "W": 8}):
        with pytest.raises(InputError, match="expected sizes N, H, W, got N=1, H="):
            net.workspace_bytes(N=1, **wrong)
    with pytest.raises(InputError, match="a size is less than 1 or more than 2147483647"):
        net.output_shapes(N=1, H=0, W=8)
    with pytest.raises(InputError, match="too large"):
        net.workspace_bytes(N=2**31 - 1, H=2**31 - 1, W=2**31 - 1)


def test_a_size_that_no_input_gives_is_refused() -> None:
    net = Builder("odd")
    x = net.input("x", f32("2*H", 3))
    with pytest.raises(InputError, match=r"input 'x': f32\[2\*H,3\] leaves H open"):
        compile(net.build(nn.relu(x)))(np.zeros((4, 3), np.float32))


def test_integer_and_boolean_tensors() -> None:
    net = Builder("indices")
    x = net.input("x", f32("N", 2, "H", "W"))
    y, indices = nn.max_pool_with_indices(x, 2)
    labels = net.input("labels", TensorType(DType.I64, f32("N").shape))
    graph = net.build(y, indices, nn.identity(labels))
    data = np.random.default_rng(0).standard_normal((2, 2, 5, 6)).astype(np.float32)
    found = compile(graph)(data, np.array([3, 4]))
    for a, b in zip(found, run_reference(graph, [data, np.array([3, 4])]), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


def test_the_dump_holds_graphs_plan_and_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_DUMP", str(tmp_path))
    graphc.compile(two_layer())
    names = {p.name for p in tmp_path.iterdir()}
    assert {"00_input.txt", "plan.txt", "module.s"} <= names
    kernels = re.findall(r"^ +\d+ (\w+) ", (tmp_path / "plan.txt").read_text(), re.MULTILINE)
    assert sum("conv" in k or "winograd" in k for k in kernels) == 2
    assert all(any(re.fullmatch(rf"graphc_{k}_\d+\.ll", n) for n in names) for k in kernels)


@pytest.mark.parametrize("optimized", [True, False])
def test_constants_that_are_no_numbers(optimized: bool) -> None:
    net = Builder("net")
    x = net.input("x", f32("N"))
    nan, inf = (net.constant(np.array(c, np.float32)) for c in (np.nan, np.inf))
    graph = net.build(nn.maximum(x, nan), nn.minimum(nan, x), nn.minimum(x, inf), nn.mul(nn.relu(x), -np.inf))
    image = np.array([-1.5, 0.0, 2.0, np.inf, np.nan], np.float32)
    for a, b in zip(compile(graph, optimized=optimized)(image), run_reference(graph, [image]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_arrays_that_overlap_are_refused() -> None:
    """Code that keeps an operand in registers would read what it has just written."""
    net = Builder("net")
    x, z = net.input("x", f32("N", 8)), net.input("z", f32("N", 8))
    run = compile(net.build(y=nn.add(x, z), **{"x.next": nn.mul(x, z)}), threads=1)
    room = np.ones(64, np.float32)
    of = {"x": room[:16].reshape(2, 8), "z": room[16:32].reshape(2, 8), "y": room[32:48].reshape(2, 8)}
    step, results = run.bind(of)  # x.next lies in x
    step()
    assert results["x.next"] is of["x"] and (of["y"] == 2).all()
    for name, start in (("y", 1), ("y", 31), ("x.next", 1), ("x.next", 33)):
        step, _ = run.bind({**of, name: room[start : start + 16].reshape(2, 8)})
        with pytest.raises(InputError, match="overlaps"):
            step()
