"""Large initialisers of a model's file, and beside it, stay there until they are used; the rest reads as ever."""

import os
import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_models import floats, make_model, node

import graphc
from graphc.errors import FileError, GraphcError, GraphError
from graphc.ir import Graph
from graphc.onnx import lifting, tensors
from graphc.onnx.importing import read_model
from graphc.stored import StoredFile

W = floats(64, 64, 3, 3)  # large
B = floats(64)


def write(folder: Path, outside: bool = False) -> Path:
    """A convolution, a matrix whose transpose is wanted, and indices."""
    nodes = [node("Conv", "x w b", "c"), node("GlobalAveragePool", "c", "g"), node("Flatten", "g", "f")]
    nodes += [node("Gemm", "f m", "s"), node("Gather", "s i", axis=1)]
    data = {"w": W, "b": B, "m": floats(64, 300), "i": np.arange(10000) % 300}
    path = folder / "m.onnx"
    model = make_model(nodes, {"x": ["n", 64, "h", "w"]}, data)
    onnx.save(model, path, save_as_external_data=outside, location="m.data", size_threshold=1000)
    return path


def whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> Graph:
    """As without lifting."""
    with monkeypatch.context() as m:
        m.setattr(lifting, "LARGE", 2**62)
        m.setattr(tensors, "LARGE", 2**62)
        return graphc.load(path)


def stays(graph: Graph, name: str) -> bool:
    return graph.params[name].array is not graph.params[name].array


@pytest.mark.parametrize("outside", [False, True])
def test_they_are_read_when_they_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outside: bool) -> None:
    path = write(tmp_path, outside)
    graph, expected = graphc.load(path), whole(path, monkeypatch)
    assert str(graph) == str(expected)
    assert stays(graph, "w") and not stays(graph, "b") and not stays(expected, "w")
    for name, param in expected.params.items():
        np.testing.assert_array_equal(graph.params[name].array, param.array)
        assert graph.params[name].trainable == param.trainable
    x = floats(1, 64, 5, 6)
    compiled = graphc.compile(graph)
    np.testing.assert_array_equal(compiled(x), graphc.compile(expected)(x))
    np.testing.assert_array_equal(compiled(x), graphc.compile(path)(x))
    for file in tmp_path.iterdir():
        file.unlink()  # the open files are still there
    np.testing.assert_array_equal(graph.params["w"].array, W)


def test_a_file_beside_is_opened_once(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    graph = graphc.load(write(tmp_path, outside=True))
    assert stays(graph, "w") and len(os.listdir("/proc/self/fd")) == before + 1


def test_no_large_data_are_in_the_model(tmp_path: Path) -> None:
    path = write(tmp_path)
    model, lifted = read_model(path)
    assert lifted.keys() == {"w", "m", "i"} and model.ByteSize() < 2000
    assert not any(t.raw_data for t in model.graph.initializer if t.name in lifted)
    kept = onnx.load(path)
    for tensor in kept.graph.initializer:
        if tensor.name in lifted:
            tensor.ClearField("raw_data")
    assert model == kept


def test_a_file_that_was_written_to_is_told(tmp_path: Path) -> None:
    path = write(tmp_path)
    graph = graphc.load(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 100)
    with pytest.raises(FileError, match=r"m\.onnx: expected the file as it was when its weights were loaded"):
        graphc.compile(graph)


def test_the_number_of_bytes_is_checked(tmp_path: Path) -> None:
    path = write(tmp_path)
    model = onnx.load(path)
    model.graph.initializer[0].dims[0] = 63
    path.write_bytes(model.SerializeToString())
    with pytest.raises(GraphError, match=r"tensor 'w': expected 145152 bytes for f32\[63,64,3,3\], got 147456"):
        graphc.load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: setattr(t, "data_type", TensorProto.BFLOAT16),
        lambda t: setattr(t, "data_location", TensorProto.EXTERNAL),
        lambda t: setattr(t.segment, "begin", 3),
        lambda t: t.float_data.append(1.0),
        lambda t: t.ClearField("name"),
    ],
)
def test_what_is_written_in_another_way_is_left_to_protobuf(tmp_path: Path, change: object) -> None:
    path = write(tmp_path)
    model = onnx.load(path)
    change(model.graph.initializer[0])  # type: ignore[operator]
    path.write_bytes(model.SerializeToString())
    read, lifted = read_model(path)
    assert lifted.keys() == {"m", "i"}
    assert read.graph.initializer[0] == model.graph.initializer[0]


def test_a_model_in_two_parts_is_read_whole(tmp_path: Path) -> None:
    """Protobuf merges them."""
    path = write(tmp_path)
    path.write_bytes(path.read_bytes() * 2)
    assert read_model(path)[1] == {}
    with pytest.raises(GraphcError):
        graphc.load(path)


@pytest.mark.parametrize("limit", ["MOST_FIELDS", "MOST_OF_TENSOR"])
def test_a_flood_of_fields_is_left_to_protobuf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    path = write(tmp_path)
    model = onnx.load(path)
    monkeypatch.setattr(lifting, limit, 3)
    assert read_model(path) == (model, {})


def test_two_of_one_name_are_told(tmp_path: Path) -> None:
    path = write(tmp_path)
    model = onnx.load(path)
    model.graph.initializer.append(model.graph.initializer[0])
    path.write_bytes(model.SerializeToString())
    with pytest.raises(GraphcError, match="initializers: expected a different name for each, got 'w' 2 times"):
        graphc.load(path)


@pytest.mark.parametrize("seed", range(8))
def test_damaged_files_end_as_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Mutated bytes: the same graph, or an error in both."""
    monkeypatch.setattr(lifting, "LARGE", 8)
    model = make_model([node("Conv", "x w b")], {"x": ["n", 3, "h", "w"]}, {"w": floats(4, 3, 1, 1), "b": floats(4)})
    intact, path, drawn = model.SerializeToString(), tmp_path / "m.onnx", random.Random(seed)
    lifted = read = 0
    for _ in range(150):
        content = bytearray(intact)
        for _ in range(drawn.randint(1, 3)):
            at = drawn.randrange(len(content))
            if drawn.random() < 0.3:
                del content[at : at + drawn.randint(1, 5)]
            else:
                content[at] = drawn.randrange(256)
        path.write_bytes(bytes(content))
        lifted += bool(lifting.lift_data(StoredFile(path))[1])
        try:
            expected = whole(path, monkeypatch)
        except GraphcError:
            with pytest.raises(GraphcError):
                graphc.load(path)
            continue
        read += 1
        found = graphc.load(path)
        assert str(found) == str(expected)
        for name, param in expected.params.items():
            assert found.params[name].array.tobytes() == param.array.tobytes()
    assert lifted > 20 and read > 5


@pytest.mark.parametrize("location", ["../m.data", "link.data", "sub/link/m.data", "hard.data", "pipe"])
def test_only_files_of_the_folder_are_opened(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "m.data").write_bytes(W.tobytes())
    (folder / "link.data").symlink_to(tmp_path / "m.data")
    (folder / "sub/link").symlink_to(tmp_path)
    (folder / "hard.data").hardlink_to(tmp_path / "m.data")
    os.mkfifo(folder / "pipe")
    with pytest.raises(OSError, match=r"data|link|pipe"):
        tensors.open_inside(folder, location)
    (folder / "sub/good.data").write_bytes(W.tobytes())
    descriptor = tensors.open_inside(folder, "sub/good.data")
    assert os.fstat(descriptor).st_size == W.nbytes
    os.close(descriptor)
