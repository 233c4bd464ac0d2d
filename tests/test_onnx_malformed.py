"""Reading ONNX files that ask too much, are not well formed, damaged, or refer to other files."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from commands import invoke
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, defs, helper
from onnx_models import W3, floats, ints, make_model, node, number, spoil

from graphc.errors import FileError, GraphcError, GraphError, ShapeError, UnsupportedError
from graphc.onnx import from_model, load, to_model


def test_unsupported_nodes_are_listed_at_once() -> None:
    nodes = [
        node("Foo", "x", "a", name="first"),
        node("Relu", "a", "b"),
        node("Det", "b", "c", name="second"),
        node("LpPool", "x", "d", name="third", kernel_shape=[2, 2], p=3, ceil_mode=1),
        node("Add", "c d"),
    ]
    with pytest.raises(UnsupportedError) as caught:
        from_model(make_model(nodes), name="m.onnx")
    assert caught.value.problems == (
        "node 'first' (op Foo): graphc has no such op",
        "node 'second' (op Det): graphc has no such op",
        "node 'third' (op LpPool): p=3, dilations=[1, 1] and ceil_mode=1; only p >= 1, and ceil_mode for p=2 "
        "without dilation",
    )
    assert str(caught.value).startswith("m.onnx: node 'first' (op Foo)")


@pytest.mark.parametrize("command", ["summary", "compile", "export", "verify"])
def test_the_command_line_lists_all_three_and_exits_with_2(command: str, tmp_path: Path) -> None:
    nodes = [node("Foo", "x", "a"), node("Det", "x", "b"), node("Sum", "a b x x", "c"), node("STFT", "c", "y")]
    path = tmp_path / "three.onnx"
    onnx.save(make_model(nodes), path)
    output = ["-o", tmp_path / "out.onnx"] if command in ("compile", "export") else []
    result = invoke(command, path, *output)
    lines = [
        f"  node 'node_{y}' (op {op}): graphc has no such op" for op, y in (("Foo", "a"), ("Det", "b"), ("STFT", "y"))
    ]
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == ["graphc: three.onnx:", *lines]
    assert not (tmp_path / "out.onnx").exists()


UNSUPPORTED = {
    "domain": (make_model([helper.make_node("Relu", ["x"], ["y"], domain="com.microsoft")]), "domain com.microsoft"),
    "attribute": (make_model([node("Relu", "x", novelty=1)]), "attribute 'novelty'"),
    "storage_order": (
        make_model([node("MaxPool", "x", "y i", kernel_shape=[2, 2], storage_order=1)], outputs="y i"),
        "storage_order=1 of an image of open size",
    ),
    "same": (
        make_model([node("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER")]),
        "auto_pad=SAME_UPPER with stride 2 pads by a number that depends on H",
    ),
    "conv4d": (
        make_model([node("Conv", "x w")], {"x": ("N", 3, 4, 4, 4, 4)}, {"w": floats(4, 3, 3, 3, 3, 3)}),
        "4 spatial dims; one to three are supported",
    ),
    "aspect": (
        make_model([node("Resize", "x - - s", keep_aspect_ratio_policy="not_larger")], data={"s": ints(1, 3, 9, 9)}),
        "keep_aspect_ratio_policy=not_larger with sizes that depend on the inputs",
    ),
    "scales": (make_model([node("Exp", "x", "s"), node("Resize", "x - s")]), "scales 's' must be constant"),
    "range": (
        make_model([node("ReduceMax", "x", "m", keepdims=0), node("Range", "m m m")]),
        "start 'm' must be constant",
    ),
    "roi_align": (
        make_model([node("RoiAlign", "x b i")], data={"b": floats(2, 4), "i": ints(0, 0)}),
        "sampling_ratio=0",
    ),
    "depth": (make_model([node("OneHot", "x d v")], data={"d": ints(0), "v": floats(2)}), "a depth of 0"),
    "computed_shape": (
        make_model([node("ReduceMax", "x", "m", keepdims=0), node("Reshape", "x m")]),
        "computed at run time",
    ),
    "training": (
        make_model([node("Dropout", "x r t")], data={"r": number(0.5), "t": np.array(True)}),
        "training_mode is true; only with a seed",
    ),
    "complex": (make_model([node("Add", "x h")], data={"h": np.ones(3, np.complex64)}), "element type COMPLEX64"),
    "float_to_fewer_bits": (make_model([node("Cast", "x", to=24)]), "element type FLOAT8E8M0"),
    "deprecated": (make_model([node("Upsample", "x s")], data={"s": floats(4)}), "opset 18 has this op no more"),
    "big": (
        make_model([node("ConstantOfShape", "s", "z"), node("Add", "x z")], data={"s": ints(10**6, 10**6)}),
        "at most 134217728 elements",
    ),
    "old": (
        make_model([node("Add", "x k", broadcast=1, axis=1)], data={"k": floats(3)}, opset=6),
        "opset 6, which onnx's version converter cannot raise to 7",
    ),
    "input_dtype": (
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 18]> g (complex64[N] x) => (complex64[N] y) {y = Relu(x)}'
        ),
        "input 'x': element type COMPLEX64",
    ),
    "sequence": (
        onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 18]> g (seq(float) x) => (float y) {y = Relu(x)}'),
        "input 'x': expected a tensor of known rank",
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported(name: str) -> None:
    model, reason = UNSUPPORTED[name]
    with pytest.raises(UnsupportedError, match=re.escape(reason)) as caught:
        from_model(model, name="m.onnx")
    assert str(caught.value).startswith("m.onnx: ")


def test_newer_opset_than_onnx_knows() -> None:
    model = make_model([node("Relu", "x")])
    model.opset_import[0].version = defs.onnx_opset_version() + 1
    with pytest.raises(UnsupportedError, match="expected 7 to"):
        from_model(model)


def conv(**attributes: Any) -> onnx.ModelProto:
    return make_model([node("Conv", "x w", **attributes)], data={"w": W3})


def pool(**attributes: Any) -> onnx.ModelProto:
    return make_model([node("MaxPool", "x", **attributes)])


MALFORMED = {
    "cycle": (
        make_model([node("Add", "x c", "a"), node("Relu", "a", "b"), node("Neg", "b", "c"), node("Neg", "c")]),
        r"the graph has a cycle: node 'node_a' \(op Add\) -> node 'node_b' \(op Relu\) -> node 'node_c' \(op Neg\)",
    ),
    "self_loop": (make_model([node("Relu", "y")]), r"cycle: node 'node_y' \(op Relu\)$"),
    "dangling": (make_model([node("Relu", "no")]), r"node 'node_y' \(op Relu\): its input 'no' is not defined"),
    "twice": (make_model([node("Relu", "x"), node("Neg", "x")]), "its output 'y' is already defined"),
    "output": (make_model([node("Relu", "x", "z")]), "output 'y' is not defined"),
    "no_output": (make_model([node("Relu", "x")], outputs=""), "at least one output"),
    "same_output": (make_model([node("Relu", "x")], outputs="y y"), "a different name for each"),
    "missing_data": (spoil(conv(), raw_data=None), r"tensor 'w': expected 108 elements for f32\[4,3,3,3\], got 0"),
    "short_data": (spoil(conv(), raw_data=b"1234"), r"tensor 'w': expected 432 bytes for f32\[4,3,3,3\], got 4"),
    "negative_dim": (spoil(conv(), dims=[4, 3, 3, -3]), r"tensor 'w': expected a whole tensor"),
    "kernel_shape": (conv(kernel_shape=[5, 5]), r"node 'node_y' \(op Conv\): kernel_shape \[5, 5\] is not that of"),
    "zero_stride": (conv(strides=[0, 1]), r"\(op Conv\): stride must be 2 integers of at least 1, got \(0, 1\)"),
    "zero_stride_same": (conv(strides=[0, 1], auto_pad="SAME_UPPER"), "at least 1"),
    "negative_stride": (pool(kernel_shape=[2, 2], strides=[-1, 1]), "stride must be 2 integers"),
    "zero_kernel": (pool(kernel_shape=[0, 2]), "kernel must be 2 integers of at least 1"),
    "no_kernel": (pool(), "expected an attribute 'kernel_shape'"),
    "negative_pads": (conv(pads=[0, 0, -1, 0]), "padding must be 4 integers of at least 0"),
    "groups": (conv(group=2), "wants 3.2 input channels"),
    "no_groups": (conv(group=0), "group"),
    "auto_pad": (conv(auto_pad="SAME"), "auto_pad: expected one of"),
    "nan": (make_model([node("LeakyRelu", "x", alpha=float("nan"))]), "attribute 'alpha': expected a finite number"),
    "nan_bound": (make_model([node("Clip", "x b")], data={"b": number(float("nan"))}), "clip"),
    "attribute_kind": (conv(strides=[1.5, 1.0]), "'strides': expected a list of integers, got a list of floats"),
    "rank": (make_model([node("Conv", "x w")], {"x": ["N", 3]}, {"w": W3}), r"\(op Conv\): expected weights of rank 2"),
    "dtype": (make_model([node("Conv", "x w")], data={"w": W3.astype(np.float64)}), "weight must be f32.*, got f64"),
    "channels": (make_model([node("Conv", "x w")], data={"w": floats(4, 2, 3, 3)}), "wants 2.1 input channels"),
    "dynamic_channels": (
        make_model([node("Relu", "x")], {"x": ["N", "C", "H", "W"]}),
        "input 'x': expected a constant number of channels, got C",
    ),
    "zero_dim": (make_model([node("Softmax", "x")], {"x": [0, 3]}), "expected at least one element, got %x"),
    "no_inputs": (make_model([node("Conv", "")]), "expected 2 to 3 inputs, got 0"),
    "no_operands": (make_model([node("Sum", "")]), "expected at least 1 inputs, got 0"),
    "broadcast": (make_model([node("Add", "x k")], data={"k": floats(4, 1, 1)}), r"\(op Add\): shapes .* broadcast"),
    "reshape": (make_model([node("Reshape", "x s")], {"x": [2, 3]}, {"s": ints(4, 2)}), "must hold the 6 elements"),
    "axis": (make_model([node("Concat", "x x", axis=4)]), "axis 4 does not exist in rank 4"),
    "perm": (make_model([node("Transpose", "x", perm=[0, 0, 1, 2])]), "perm must hold"),
    "no_axes": (make_model([node("Gather", "s i", "z"), node("Reshape", "x z")], data={"s": ints(1), "i": ints(5)}),
                r"\(op Gather\): malformed: index 5"),
    "zero_division": (make_model([node("Div", "s s", "z"), node("Reshape", "x z")], data={"s": ints(0)}), "malformed"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name: str) -> None:
    model, message = MALFORMED[name]
    with pytest.raises((GraphError, ShapeError), match=message) as caught:
        from_model(model, name="m.onnx")
    assert str(caught.value).startswith("m.onnx: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "m.onnx: not an ONNX model: it has no graph"),
        (b"\x89PNG\r\n\x1a\n and so on", "m.onnx: not an ONNX model: "),
        (conv().SerializeToString()[:200], "m.onnx: not an ONNX model: "),
        (conv().SerializeToString().replace(b"node_y", b"node_\xff"), "m.onnx: not an ONNX model: "),
        (make_model([node("Relu", "x")]).graph.SerializeToString(), "m.onnx: not an ONNX model: "),
    ],
)
def test_not_an_onnx_file(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(FileError) as caught:
        load(tmp_path / "m.onnx")
    assert str(caught.value).startswith(message)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"m\.onnx: No such file"):
        load(tmp_path / "m.onnx")
    with pytest.raises(FileError, match="Is a directory"):
        load(tmp_path)


FUZZED = to_model(from_model(conv(pads=[1, 0, 2, 1], strides=[2, 1]))).SerializeToString()


@given(st.lists(st.tuples(st.integers(0, len(FUZZED) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_raises_only_graphc_errors(changes: list[tuple[int, int]]) -> None:
    content = bytearray(FUZZED)
    for at, byte in changes:
        content[at] = byte
    model = onnx.ModelProto()
    try:
        model.ParseFromString(bytes(content))
    except Exception:  # protobuf's own; load turns it into a FileError
        return
    with suppress(GraphcError):
        from_model(model)


def external(folder: Path, location: str, **entries: str) -> Path:
    """A model in `folder` whose weights are said to lie at `location`."""
    model = spoil(conv(), raw_data=None)
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"head" + W3.tobytes())
    graph = load(external(tmp_path, "w.bin", offset="4", length=str(W3.nbytes)))
    np.testing.assert_array_equal(graph.params["w"].array, W3)


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "link.bin", "missing.bin", "", "sub/../../w.bin"])
def test_external_data_stays_in_the_folder(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "w.bin").write_bytes(W3.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(FileError) as caught:
        load(external(folder, location))
    assert str(caught.value).startswith(f"m.onnx: node 'node_y' (op Conv): tensor 'w': external data '{location}': ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("entries", [{"offset": "-4"}, {"offset": "many"}, {"length": "1000000"}, {"length": "8"}])
def test_external_data_of_the_wrong_size(tmp_path: Path, entries: dict[str, str]) -> None:
    (tmp_path / "w.bin").write_bytes(W3.tobytes())
    with pytest.raises((FileError, GraphError), match="tensor 'w'"):
        load(external(tmp_path, "w.bin", **entries))


def test_external_data_without_a_folder(tmp_path: Path) -> None:
    model = onnx.load(external(tmp_path, "w.bin"), load_external_data=False)
    with pytest.raises(FileError, match=r"tensor 'w': external data 'w\.bin': expected the model's folder"):
        from_model(model)
    assert model.graph.initializer[0].data_location == TensorProto.EXTERNAL


def test_a_graph_named_by_a_newline() -> None:
    model = make_model([node("Teleport", "x")])
    model.graph.name = "\n"
    with pytest.raises(UnsupportedError) as caught:
        from_model(model)
    assert "\n" not in str(caught.value)


def test_a_graph_whose_name_is_not_utf_8() -> None:
    """protobuf reads such text as bytes."""
    model = make_model([node("Relu", "x")])
    model.graph.name = "abcdefgh"
    damaged = onnx.ModelProto.FromString(model.SerializeToString().replace(b"abcdefgh", b"abc\xff\xfefgh"))
    with pytest.raises(FileError, match=r"^abc\ufffd\ufffdfgh: not an ONNX model: .*graph"):
        from_model(damaged)
