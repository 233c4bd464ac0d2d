"""Weights in files: what fits is taken over, what does not is listed, and nothing is ever run."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import graphc.state
from graphc import Builder, compile, nn, run_reference
from graphc.errors import FileError, InputError
from graphc.ir import Array, Graph, f32


def declare() -> Graph:
    net = Builder("net")
    x = net.input("image", f32("N", 3, "H", "W"))
    return net.build(y=nn.batch_norm(nn.conv2d(x, 4, 3, name="conv"), name="bn"))


def arrays_of(graph: Graph, scale: float = 2) -> dict[str, Array]:
    return {name: (p.array * scale + 1).astype(np.float32) for name, p in graph.params.items()}


def check(graph: Graph, path: Path, expected: dict[str, Array]) -> None:
    loaded = graph.load_state(path)
    assert list(loaded.params) == list(graph.params)
    for name, array in expected.items():
        np.testing.assert_array_equal(loaded.params[name].array, array)
        assert loaded.params[name].trainable == graph.params[name].trainable


@pytest.mark.parametrize("name", ["x.safetensors", "x.npz"])
def test_files_decide_the_parameters(tmp_path: Path, name: str) -> None:
    graph = declare()
    arrays, before = arrays_of(graph), graph.params["conv.weight"].array.copy()
    if name == "x.npz":
        np.savez(tmp_path / name, **arrays)  # type: ignore[arg-type]  # names of arrays
    else:
        save_file(arrays, tmp_path / name)
    check(graph, tmp_path / name, arrays)
    np.testing.assert_array_equal(graph.params["conv.weight"].array, before)


def test_all_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    graph, path = declare(), tmp_path / "x.safetensors"
    arrays = arrays_of(graph)
    del arrays["conv.bias"], arrays["bn.running_mean"]  # a statistic may stay as it is
    arrays["conv.weight"] = np.zeros((4, 3, 5, 5), np.float32)
    save_file({**arrays, "fc.weight": arrays["bn.weight"], "bn.num_batches_tracked": np.array(3)}, path)
    with pytest.raises(InputError) as caught:
        graph.load_state(path)
    assert str(caught.value) == (
        f"{path}: conv.weight: expected f32[4,3,3,3], got [4, 3, 5, 5]; missing conv.bias f32[4]; unexpected fc.weight"
    )


def test_half_precision_is_widened(tmp_path: Path) -> None:
    graph, path = declare(), tmp_path / "x.safetensors"
    halves = {name: array.astype(np.float16) for name, array in arrays_of(graph).items()}
    save_file(halves, path)
    check(graph, path, halves)
    assert graph.load_state(path).params["conv.weight"].array.dtype == np.float32


class Trap:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth", ".txt"])
def test_what_cannot_be_read_is_a_file_error(tmp_path: Path, suffix: str) -> None:
    graph, path, sprung = declare(), tmp_path / f"x{suffix}", tmp_path / "sprung"
    for content in (None, b"", b"nothing of the kind", pickle.dumps(Trap(sprung))):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(FileError, match=rf"x\{suffix}: ") as caught:
            graph.load_state(path)
        assert "\n" not in str(caught.value)
    assert not sprung.exists()


def test_one_array_is_no_state(tmp_path: Path) -> None:
    with (tmp_path / "x.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(FileError, match=r"x\.npz: cannot be read as \.npz \(one array without a name\)"):
        declare().load_state(tmp_path / "x.npz")


def test_without_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphc.state, "find_spec", lambda name: None)
    with pytest.raises(FileError, match=r"x\.pth: expected PyTorch to read it with \(pip install torch\), or a "):
        declare().load_state(tmp_path / "x.pth")


def test_weights_of_pytorch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="reads PyTorch's own files (pip install torch)")
    graph, path = declare(), tmp_path / "x.pth"
    arrays = arrays_of(graph)
    tensors = {name: torch.nn.Parameter(torch.from_numpy(a)) for name, a in arrays.items()}
    torch.save({**tensors, "bn.num_batches_tracked": torch.tensor(3)}, path)
    check(graph, path, arrays)
    torch.save({name: t.detach().bfloat16() for name, t in tensors.items()}, path)
    check(graph, path, {name: t.detach().bfloat16().float().numpy() for name, t in tensors.items()})
    torch.save({"epoch": 3, "state_dict": tensors}, path)
    with pytest.raises(FileError, match="expected tensors by name"):
        graph.load_state(path)
    torch.save({"x": Trap(tmp_path / "sprung")}, path)
    with pytest.raises(FileError, match="cannot be read as PyTorch's weights"):
        graph.load_state(path)
    assert not (tmp_path / "sprung").exists()


def declare_large() -> Graph:
    net = Builder("net")
    x = net.input("image", f32("N", 64, "H", "W"))
    return net.build(y=nn.conv2d(x, 64, 3, name="conv"))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_large_weights_stay_in_their_file(tmp_path: Path, dtype: type[np.floating]) -> None:
    graph, path = declare_large(), tmp_path / "x.safetensors"
    arrays = {name: array.astype(dtype) for name, array in arrays_of(graph).items()}
    save_file(arrays, path)
    check(graph, path, arrays)
    loaded = graph.load_state(path)
    weight, bias = loaded.params["conv.weight"], loaded.params["conv.bias"]
    assert weight.array is not weight.array
    assert bias.array is bias.array
    copy = pickle.loads(pickle.dumps(loaded))
    (tmp_path / "other").write_bytes(b"")
    (tmp_path / "other").replace(path)  # the open file is still there
    x = np.ones((1, 64, 4, 4), np.float32)
    expected = run_reference(graph.with_params(arrays), [x])[0]
    for one in (loaded, copy):
        np.testing.assert_array_equal(one.params["conv.weight"].array, arrays["conv.weight"].astype(np.float32))
        np.testing.assert_allclose(compile(one)(x), expected, rtol=1e-5, atol=1e-4)


def test_a_file_that_was_changed_is_told(tmp_path: Path) -> None:
    graph, path = declare_large(), tmp_path / "x.safetensors"
    save_file(arrays_of(graph), path)
    loaded = graph.load_state(path)
    before = path.stat()
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    with pytest.raises(FileError, match=r"x\.safetensors: expected the file as it was when its weights were loaded"):
        compile(loaded)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(FileError, match="got a changed one"):
        loaded.params["conv.weight"].array  # noqa: B018  # it is read here
