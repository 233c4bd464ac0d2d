"""graphc.runtime.load: the library in Python, and everything that may be wrong with a file."""

import ctypes
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from artefacts import (
    COMPILER,
    make_fixed,
    make_sequence,
    make_small,
    make_sum,
    make_two_outputs,
    needs_compiler,
    random_image,
    run,
)  # fmt: skip

import graphc
from graphc import ops
from graphc.errors import FileError, InputError
from graphc.ir import Builder, DType, TensorType
from graphc.runtime import load

pytestmark = needs_compiler


@pytest.mark.parametrize("weights", ["embed", "file"])
@pytest.mark.parametrize("threads", [None, 1, 3])
def test_loaded_equals_compiled(tmp_path: Path, weights: Literal["embed", "file"], threads: int | None) -> None:
    graph = make_small()
    library = load(graphc.build(graph, tmp_path, weights=weights)["so"], threads)
    compiled = graphc.compile(graph, threads=2)
    for shape in ((1, 3, 3, 3), (2, 3, 33, 21), (1, 3, 64, 65)):
        image = random_image(*shape)
        np.testing.assert_array_equal(library(image), compiled(image))
    assert repr(library) == repr(compiled)
    assert library.output_shapes(N=2, H=9, W=9) == [(2, 5, 4, 4)]
    assert library.workspace_bytes(N=1, H=50, W=40) == compiled.workspace_bytes(N=1, H=50, W=40)
    with pytest.raises(InputError, match=r"conv2d 'conv2': .* must be at least 1; .* \(got N=1, H=1, W=9\)"):
        library(random_image(1, 3, 1, 9))


def test_other_signatures(tmp_path: Path) -> None:
    image = random_image(1, 1, 6, 8)
    maxima, positions = load(graphc.build(make_two_outputs(), tmp_path)["so"])(image)
    assert positions.dtype == np.int64
    np.testing.assert_array_equal(maxima, image.reshape(1, 1, 3, 2, 4, 2).max((3, 5)))
    image = random_image(2, 2, 5, 5)
    np.testing.assert_array_equal(load(graphc.build(make_sum(), tmp_path)["so"])(left=image, right=image), 2 * image)
    for graph, shape in ((make_fixed(), (1, 2, 6, 4)), (make_sequence(), (5, 4))):
        expected = graphc.compile(graph, threads=1)(random_image(*shape))
        np.testing.assert_array_equal(load(graphc.build(graph, tmp_path)["so"])(random_image(*shape)), expected)


def test_load_needs_numpy_only(tmp_path: Path) -> None:
    library = graphc.build(make_small(), tmp_path)["so"]
    code = (
        "import sys, graphc, numpy\n"
        "net = graphc.runtime.load(sys.argv[1])\n"
        "print(net(numpy.zeros((1, 3, 8, 8), numpy.float32)).shape)\n"
        "others = {'llvmlite', 'onnx', 'networkx', 'click', 'rich', 'PIL', 'safetensors', 'ml_dtypes'}\n"
        "print(others & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, library],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout == "(1, 5, 3, 3)\nset()\n"


def test_load_is_a_function_however_it_is_imported() -> None:
    import graphc.runtime.load

    assert graphc.runtime.load is load


def test_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = graphc.build(make_small(), tmp_path)["so"]
    for threads in (0, -1, 1025, 1.5, "2"):
        with pytest.raises(InputError, match="threads: expected 1 to 1024, got"):
            load(library, threads)  # type: ignore[arg-type]
    monkeypatch.setenv("GRAPHC_NUM_THREADS", "none")
    with pytest.raises(InputError, match="GRAPHC_NUM_THREADS"):
        load(library)
    assert load(library, 1)(random_image(1, 3, 8, 8)).shape == (1, 5, 3, 3)


def test_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = graphc.build(make_small(), tmp_path, weights="file")
    monkeypatch.chdir(tmp_path)
    image = random_image(1, 3, 9, 9)
    net = load("small.so", 2)
    expected = net(image)
    data = pickle.dumps([net, load(found["so"], None, "small.weights")])
    monkeypatch.chdir("/")
    for copy in pickle.loads(data):
        np.testing.assert_array_equal(copy(image), expected)
    found["so"].unlink()
    with pytest.raises(FileError, match=r"small\.so: cannot be read: No such file"):
        pickle.loads(data)


def test_rebuilt_library_is_loaded_anew(tmp_path: Path) -> None:
    image, nets = random_image(1, 3, 9, 9), []
    for seed in (1, 2, 3):
        graph = make_small(seed=seed)
        nets.append((graphc.compile(graph, threads=1), load(graphc.build(graph, tmp_path)["so"], 1)))
    for compiled, loaded in [*nets, *((c, pickle.loads(pickle.dumps(n))) for c, n in nets[-1:])]:
        np.testing.assert_array_equal(loaded(image), compiled(image))
    assert not np.array_equal(nets[0][1](image), nets[1][1](image))


def test_renamed_library(tmp_path: Path) -> None:
    found = graphc.build(make_small(), tmp_path, weights="file")
    other = shutil.copy(found["so"], tmp_path / "lib with spaces.so.1")
    assert load(other).name == "small"
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copy(found["so"], moved / "small.so")
    with pytest.raises(FileError, match=r"moved/small\.weights: expected the weights of .*, got no readable"):
        load(moved / "small.so")
    assert load(moved / "small.so", weights=found["weights"]).name == "small"


def test_library_of_two_networks(tmp_path: Path) -> None:
    """The file's name says which is meant."""
    objects = [graphc.build(make_small(), tmp_path, ["obj"], name=n)["obj"] for n in ("one", "two")]
    assert COMPILER
    run(COMPILER, "-shared", "-o", tmp_path / "two.so", *objects)
    shutil.copy(tmp_path / "two.so", tmp_path / "one.so")
    for name in ("one", "two"):
        net = load(tmp_path / f"{name}.so")
        assert net._functions["metadata"].__name__ == f"{name}_metadata"


def test_wrong_weights(tmp_path: Path) -> None:
    right = graphc.build(make_small(seed=1), tmp_path / "a", weights="file")
    wrong = graphc.build(make_small(seed=2), tmp_path / "b", weights="file")
    with pytest.raises(FileError, match=r"b/small\.weights: expected the weights of .*a/small\.so, got something else"):
        load(right["so"], weights=wrong["weights"])
    data = right["weights"].read_bytes()
    for broken in (data[:-1], data + b"\0", b"", data[:64]):
        right["weights"].write_bytes(broken)
        with pytest.raises(FileError, match="got something else"):
            load(right["so"])
    embedded = graphc.build(make_small(seed=1), tmp_path / "c")["so"]
    (tmp_path / "c" / "small.weights").write_bytes(b"left over from another build")
    assert load(embedded).name == "small"
    right["weights"].write_bytes(data)
    assert load(embedded, weights=right["weights"]).name == "small"


def make_library(folder: Path, source: str) -> Path:
    assert COMPILER
    (folder / "fake.c").write_text(source)
    run(COMPILER, "-shared", "-fPIC", "-o", folder / "fake.so", folder / "fake.c")
    return folder / "fake.so"


def test_files_that_are_no_artefacts(tmp_path: Path) -> None:
    file = tmp_path / "net.so"
    for data in (b"", b"\x7fELF", b"text", b"_abi_version\0", b"\0 _abi_version\0"):
        file.write_bytes(data)
        with pytest.raises(FileError, match=r"net\.so: expected a shared library made by graphc\.build, got"):
            load(file)
    file.write_bytes(b"\0net_abi_version\0")
    with pytest.raises(FileError, match=r"net\.so: cannot be loaded: "):
        load(file)
    with pytest.raises(FileError, match=r"none\.so: cannot be read: No such file or directory"):
        load(tmp_path / "none.so")
    with pytest.raises(FileError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_foreign_library_does_not_run(tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    source = '#include <stdio.h>\n__attribute__((constructor)) static void start(void) { fclose(fopen("%s", "w")); }\n'
    with pytest.raises(FileError, match="expected a shared library made by graphc"):
        load(make_library(tmp_path, source % flag))
    assert not flag.exists()


def test_other_interface(tmp_path: Path) -> None:
    library = make_library(tmp_path, "int fake_abi_version(void) { return 1; }\n")
    with pytest.raises(FileError, match=r"fake\.so: expected interface version 4, got 1; build it again"):
        load(library)
    library = make_library(tmp_path, "int fake_abi_version(void) { return 4; }\n")
    with pytest.raises(FileError, match=r"fake\.so: expected a library made .*, got one without fake_metadata"):
        load(library)


def test_addresses_are_aligned_to_their_elements() -> None:
    """8 bytes for f64, whose address may then not be an odd multiple of 4."""
    builder = graphc.Builder("double")
    graph = builder.build(y=graphc.nn.neg(builder.input("x", TensorType(DType.F64, (4,)))))
    net = graphc.compile(graph, threads=1)
    handle = net._idle[0]
    memory = [np.zeros(6), np.zeros(6)]

    def call(*offsets: int) -> int:
        ins, outs = ((ctypes.c_void_p * 1)(m.ctypes.data + o) for m, o in zip(memory, offsets, strict=True))
        return int(net._functions["call"](handle, ins, None, outs, None, 0))

    assert [call(0, 0), call(8, 8), call(4, 0), call(0, 4), call(0, 1)] == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("dtype", list(DType))
def test_every_element_type(tmp_path: Path, dtype: DType) -> None:
    """In and out of the library and of the executable, and the type that the header gives the array."""
    net = Builder("moved")
    graph = net.build(y=net.apply(ops.Transpose((0, 2, 1)), net.input("x", TensorType(dtype, (1, 3, 5)))))
    x = np.arange(-7, 8).reshape(1, 3, 5).astype(dtype.numpy)
    files = graphc.build(graph, tmp_path, emit=("so", "h", "exe"))
    found = load(files["so"])(x)
    assert found.dtype == dtype.numpy
    np.testing.assert_array_equal(found, x.transpose(0, 2, 1))
    np.save(tmp_path / "x.npy", x)
    run(files["exe"], tmp_path / "x.npy", tmp_path / "y.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy").view(dtype.numpy), x.transpose(0, 2, 1))
