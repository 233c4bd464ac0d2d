"""The program that graphc.build makes: what it reads, what it writes, and what it says to everything else."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from artefacts import (
    COMPILER,
    make_fixed,
    make_small,
    make_sum,
    make_two_outputs,
    needs_compiler,
    random_image,
    run,
)  # fmt: skip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphc
from graphc.artefact.program import program_macros
from graphc.ir import Array, Graph

pytestmark = needs_compiler
SOURCES = Path(graphc.__file__).parent / "runtime"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The program of each network, by the network's name."""
    folder = tmp_path_factory.mktemp("programs")
    graphs = (make_small(), make_two_outputs(), make_fixed(), make_sum())
    return {graph.name: graphc.build(graph, folder, ["exe"])["exe"] for graph in graphs}


@pytest.fixture
def small(programs: dict[str, Path]) -> Path:
    return programs["small"]


def save(path: Path, array: Array) -> Path:
    np.save(path, array)
    return path


def expected_of(graph: Graph, *inputs: Array) -> Array:
    result: Array = graphc.compile(graph, threads=1)(*inputs)
    return result


def refuse(program: Path, data: bytes, folder: Path) -> str:
    """What the program says of a file with this content; it must fail with one line and write nothing."""
    (folder / "broken").write_bytes(data)
    done = run(program, folder / "broken", folder / "out.npy", status=1)
    assert done.stdout == "" and done.stderr.count("\n") == 1
    assert not list(folder.glob("out*"))
    return done.stderr.removeprefix(f"{program.name}: {folder}/broken: ").removesuffix("\n")


def test_npy_to_npy(small: Path, tmp_path: Path) -> None:
    for shape in ((1, 3, 9, 12), (2, 3, 30, 3)):
        image = random_image(*shape)
        source, target = save(tmp_path / "in.npy", image), tmp_path / "out.npy"
        assert run(small, "--threads", "2", source, target).stdout == ""
        np.testing.assert_array_equal(np.load(target), expected_of(make_small(), image))
        assert target.stat().st_size % 64 == np.load(target).nbytes % 64  # the data is aligned in the file


def test_missing_dims(small: Path, programs: dict[str, Path], tmp_path: Path) -> None:
    image, out = random_image(1, 3, 8, 9), tmp_path / "out.npy"
    run(small, save(tmp_path / "chw.npy", image[0]), out)
    np.testing.assert_array_equal(np.load(out), expected_of(make_small(), image))
    done = run(small, save(tmp_path / "hw.npy", image[0, 0]), out, status=1)
    assert "hw.npy: input 'image' expected f32[N,3,H,W], got [8,9]" in done.stderr
    gray = random_image(6, 8)
    run(programs["two outputs"], save(tmp_path / "gray.npy", gray), out)
    np.testing.assert_array_equal(np.load(out)[0, 0], gray.reshape(3, 2, 4, 2).max((1, 3)))
    done = run(programs["two outputs"], save(tmp_path / "w.npy", gray[0]), out, status=1)
    assert "expected f32[N,1,H,W], got [8]" in done.stderr


def test_npy_versions_and_orders_of_keys(small: Path, tmp_path: Path) -> None:
    image = random_image(1, 3, 5, 4)
    expected = expected_of(make_small(), image)
    header = b"{ 'shape':(1, 3,5, 4),'descr': '<f4' ,'fortran_order': False}"
    for head in (b"\x01\x00" + struct.pack("<H", len(header)), b"\x02\x00" + struct.pack("<I", len(header)),
                 b"\x03\x00" + struct.pack("<I", len(header))):  # fmt: skip
        (tmp_path / "in.npy").write_bytes(b"\x93NUMPY" + head + header + image.tobytes())  # at odd addresses
        run(small, tmp_path / "in.npy", tmp_path / "out.npy")
        np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)


@pytest.mark.parametrize(("most", "dtype"), [(255, "u1"), (1, "u1"), (100, "u1"), (256, ">u2"), (65535, ">u2")])
def test_ppm(small: Path, tmp_path: Path, most: int, dtype: str) -> None:
    pixels = np.random.default_rng(0).integers(0, most + 1, (6, 7, 3)).astype(dtype)
    header = f"P6\n# made by hand\n7 # wide\n#\r6\t{most}\n"
    (tmp_path / "in.ppm").write_bytes(header.encode() + pixels.tobytes())
    run(small, tmp_path / "in.ppm", tmp_path / "out.npy")
    image = (pixels.astype(np.float32) / np.float32(most)).transpose(2, 0, 1)[None]
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected_of(make_small(), np.ascontiguousarray(image)))


def test_pgm_and_several_outputs(programs: dict[str, Path], tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (4, 6)).astype(np.uint8)
    (tmp_path / "in.pgm").write_bytes(b"P5 6 4 255 " + pixels.tobytes())
    run(programs["two outputs"], tmp_path / "in.pgm", tmp_path / "out.npy")
    maxima, positions = np.load(tmp_path / "out.npy"), np.load(tmp_path / "out.1.npy")
    image = (pixels / np.float32(255)).astype(np.float32)[None, None]
    expected = graphc.compile(make_two_outputs(), threads=1)(image)
    np.testing.assert_array_equal(maxima, expected[0])
    np.testing.assert_array_equal(positions, expected[1])
    assert positions.dtype == np.int64
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.pgm", "out.1.npy", "out.npy"]


def test_several_inputs_and_fixed_sizes(programs: dict[str, Path], tmp_path: Path) -> None:
    a, b = (save(tmp_path / f"{i}.npy", random_image(1, 2, 5, 5, seed=i)) for i in range(2))
    run(programs["sum"], a, b, tmp_path / "out.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), np.load(a) + np.load(b))
    done = run(programs["sum"], a, save(tmp_path / "c.npy", random_image(1, 2, 5, 6)), tmp_path / "out.npy", status=1)
    assert "c.npy: input 'right' expected f32[N,2,H,W] with N=1, H=5, W=5, got [1,2,5,6]" in done.stderr
    fixed = random_image(1, 2, 6, 4)
    run(programs["fixed"], save(tmp_path / "in.npy", fixed), tmp_path / "out.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected_of(make_fixed(), fixed))
    done = run(programs["fixed"], a, tmp_path / "out.npy", status=1)
    assert "0.npy: input 'image' expected f32[1,2,6,4], got [1,2,5,5]" in done.stderr


def test_weights_file(tmp_path: Path) -> None:
    found = graphc.build(make_small(), tmp_path / "bin", ["exe"], weights="file")
    image = random_image(1, 3, 8, 8)
    source, out = save(tmp_path / "in.npy", image), tmp_path / "out.npy"
    link = tmp_path / "link"
    link.symlink_to(found["exe"])
    for program in (found["exe"], link):  # beside the program, wherever it is called from
        run(program, source, out)
        np.testing.assert_array_equal(np.load(out), expected_of(make_small(), image))
        out.unlink()
    moved = found["weights"].rename(tmp_path / "elsewhere")
    done = run(found["exe"], source, out, status=1)
    assert done.stderr == f"small: {found['weights']}: the weights file could not be read\n"
    run(found["exe"], f"--weights={moved}", source, out)
    moved.write_bytes(b"other")
    done = run(found["exe"], "--weights", moved, source, out, status=1)
    assert done.stderr == f"small: {moved}: the weights are missing or not those of this network\n"


# -- the command line -------------------------------------------------------------------------------------------------


def test_help_and_version(small: Path, programs: dict[str, Path]) -> None:
    text = run(small, "--help").stdout
    assert text.startswith("usage: small [--threads N] [--weights FILE] INPUT OUTPUT.npy\n")
    assert "input 'image': f32[N,3,H,W]" in text and "output 'scores': f32[N,5," in text
    assert "INPUT1 INPUT2 OUTPUT.npy" in run(programs["sum"], "-h").stdout
    assert "'positions': i64[N,1,H//2,W//2], written to OUTPUT.1.npy" in run(programs["two outputs"], "--help").stdout
    assert run(small, "--version").stdout == "small, interface 4 of graphc\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected 2 files, got 0"),
        (["a", "b", "c.npy"], "expected 2 files, got 3"),
        (["a.npy", "b.png"], "OUTPUT: expected a name that ends in .npy, got 'b.png'"),
        (["a.npy", ".npy"], "OUTPUT: expected a name that ends in .npy, got '.npy'"),
        (["--thread", "2", "a", "b.npy"], "unknown option '--thread'"),
        (["--threads"], "--threads: expected a value"),
        (["--threads", "0", "a", "b.npy"], "--threads: expected 1 to 1024, got '0'"),
        (["--threads=1025"], "--threads: expected 1 to 1024, got '1025'"),
        (["--threads=2x"], "--threads: expected 1 to 1024, got '2x'"),
        (["--threads="], "--threads: expected 1 to 1024, got ''"),
        (["--", "--help"], "expected 2 files, got 1"),
    ],
)
def test_wrong_usage(small: Path, arguments: list[str], message: str) -> None:
    done = run(small, *arguments, status=2)
    assert done.stderr == f"small: {message} (see small --help)\n" and done.stdout == ""


def test_files_that_cannot_be_opened(small: Path, tmp_path: Path) -> None:
    source = save(tmp_path / "in.npy", random_image(1, 3, 8, 8))
    done = run(small, tmp_path / "none.npy", tmp_path / "out.npy", status=1)
    assert done.stderr == f"small: {tmp_path}/none.npy: cannot be read: No such file or directory\n"
    assert "cannot be read: Is a directory" in run(small, tmp_path, tmp_path / "out.npy", status=1).stderr
    done = run(small, source, tmp_path / "none" / "out.npy", status=1)
    assert done.stderr == f"small: {tmp_path}/none/out.npy: cannot be written: No such file or directory\n"


def test_failed_writing_leaves_nothing(programs: dict[str, Path], tmp_path: Path) -> None:
    program, source = programs["two outputs"], save(tmp_path / "in.npy", random_image(1, 1, 8, 8))
    limited = f"trap '' XFSZ; ulimit -f 0; exec '{program}' '{source}' '{tmp_path}/out.npy'"  # no file may have a byte
    assert run("/bin/sh", "-c", limited, status=1).stderr.endswith("/out.npy: cannot be written: File too large\n")
    assert list(tmp_path.iterdir()) == [source]
    (tmp_path / "out.1.npy").mkdir()
    assert "out.1.npy: cannot be written: Is a directory" in run(program, source, tmp_path / "out.npy", status=1).stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.npy", "out.1.npy", "out.npy"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_full_device(small: Path) -> None:
    run("/bin/sh", "-c", f"'{small}' --help > /dev/full", status=1)


def test_small_image(small: Path, tmp_path: Path) -> None:
    done = run(small, save(tmp_path / "in.npy", random_image(1, 3, 1, 5)), tmp_path / "out.npy", status=1)
    assert done.stderr.startswith("small: conv2d 'conv2': its output size ")
    assert done.stderr.endswith("the image is too small for this network with N=1, H=1, W=5\n")


# -- broken files -----------------------------------------------------------------------------------------------------


def npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    size = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode() + data


def npy_of(shape: str, data: bytes = b"", descr: str = "'<f4'", order: str = "False") -> bytes:
    return npy(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n", data)


TYPE = "input 'image' expected elements of type <f4, got "
KEYS = "expected descr, fortran_order and shape, once each"
ONE = "(1, 3, 2, 2)"  # a shape that the network takes


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected .npy, binary PPM (P6) or binary PGM (P5), got something else"),
        (b"P3\n1 1 255\n1 2 3\n", "expected .npy, binary PPM (P6) or binary PGM (P5), got something else"),
        (b"\x89PNG\r\n", "expected .npy, binary PPM (P6) or binary PGM (P5), got something else"),
        (b"\x93NUMPY", "expected .npy of version 1, 2 or 3, got another version or a part of a file"),
        (npy("", b"12345", 4), "expected .npy of version 1, 2 or 3, got another version or a part of a file"),
        (b"\x93NUMPY\x01\x00\xff\xff{}", "broken .npy header: expected 65535 bytes of header, got 2"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}", "broken .npy header: expected 4294967295 bytes of header, got 2"),
        (npy("{}   "), "broken .npy header: " + KEYS),
        (npy_of(ONE, bytes(44)), "expected 48 bytes of data, got 44"),
        (npy_of(ONE, bytes(52)), "expected 48 bytes of data, got 52"),
        (npy_of("(1, 3, 2147483647, 2147483647)", bytes(48)), f"expected {2**64 - 1} bytes of data, got 48"),
        (npy_of("(65536, 65536, 65536, 65536)"), f"expected {2**64 - 1} bytes of data, got 0"),
        (npy_of("(0, 3, 2, 2)"), "input 'image' expected f32[N,3,H,W], got [0,3,2,2]"),
        (npy_of("(1, 4, 2, 2)", bytes(64)), "input 'image' expected f32[N,3,H,W], got [1,4,2,2]"),
        (npy_of("(1, 1, 3, 2, 2)", bytes(48)), "expected at most 4 dims, got more"),
        (npy_of("()", bytes(4)), "input 'image' expected f32[N,3,H,W], got []"),
        (npy_of("(5)"), "broken .npy header: expected ,"),
        (npy_of("(5,,)"), "broken .npy header: expected a dim"),
        (npy_of("(-1,)"), "broken .npy header: expected a dim"),
        (npy_of("(2147483648,)"), "broken .npy header: expected a dim of at most 2147483647"),
        (npy_of("(99999999999999999999999999,)"), "broken .npy header: expected a dim of at most 2147483647"),
        (npy_of("(1, 2"), "broken .npy header: expected a dim"),
        (npy_of(ONE, bytes(48), "'<f8'"), TYPE + "<f8"),
        (npy_of(ONE, bytes(48), "'>f4'"), TYPE + ">f4"),
        (npy_of(ONE, bytes(48), f"'{'x' * 99}'"), f"{TYPE}{'x' * 16}"),
        (npy_of(ONE, bytes(48), "[('a', '<f4')]"), TYPE + "records"),
        (npy_of(ONE, bytes(48), "'\x1b[2J'"), "broken .npy header: expected '"),
        (npy_of(ONE, bytes(48), order="True"), "input 'image' expected C order, got Fortran order"),
        (npy_of(ONE, bytes(48), order="None"), "broken .npy header: expected False"),
        (npy("{'descr': '<f4', 'shape': (1,)}"), "broken .npy header: " + KEYS),
        (npy("{'shape': (1,), 'shape': (1,)}"), "broken .npy header: " + KEYS),
        (npy_of("(1,)")[:-1] + b"x", "broken .npy header: " + KEYS),
        (b"P6", "broken PNM header: expected a space before a width"),
        (b"P6 ", "broken PNM header: expected a width"),
        (b"P6 # no end", "broken PNM header: expected a width"),
        (b"P6 2 -1 255 ", "broken PNM header: expected a height"),
        (b"P6 2 0 255 ", "broken PNM header: expected a height of at least 1"),
        (b"P6 2 2 0 ", "broken PNM header: expected a largest sample of at least 1"),
        (b"P6 2 2 65536 ", "broken PNM header: expected a largest sample of at most 65535"),
        (b"P6 2 2 255", "broken PNM header: expected one space before the samples"),
        (b"P6 2147483648 2 255 ", "broken PNM header: expected a width of at most 2147483647"),
        (b"P6 2147483647 2147483647 65535 " + bytes(9), f"expected {2**64 - 1} bytes of data, got 9"),
        (b"P6 2 2 255 " + bytes(11), "expected 12 bytes of data, got 11"),
        (b"P6 2 2 255 " + bytes(13), "expected 12 bytes of data, got 13"),
        (b"P6 1 1 9 \x01\x0a\x01", "expected samples of at most 9, got 10"),
        (b"P5 2 2 255 " + bytes(4), "input 'image' expected 3 channels, got a PGM image with 1"),
    ],
)
def test_broken_files(small: Path, tmp_path: Path, data: bytes, message: str) -> None:
    assert refuse(small, data, tmp_path) == message


def test_images_are_for_image_inputs(programs: dict[str, Path], tmp_path: Path) -> None:
    assert "expected 2 channels, got a PPM" in refuse(programs["fixed"], b"P6 1 1 255 abc", tmp_path)
    builder = graphc.Builder("vector")
    graph = builder.build(y=graphc.nn.relu(builder.input("x", graphc.f32("N", 3))))
    program = graphc.build(graph, tmp_path / "bin", ["exe"])["exe"]
    message = refuse(program, b"P6 1 1 255 abc", tmp_path)
    assert message == "input 'x' expected a .npy file of f32[N,3], got an image"


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with the compiler's checks for memory errors and undefined behaviour, where it has them."""
    folder, graph = tmp_path_factory.mktemp("checked"), make_small()
    graphc.build(graph, folder, ["h", "obj"])
    sources = [SOURCES / "main.c", SOURCES / "arrays.c", folder / "small.o"]
    options = ["-std=c99", "-g0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-lm", "-lpthread"]
    assert COMPILER
    try:
        run(COMPILER, f"-I{folder}", *program_macros(graph, "small", False), *sources, *options, "-o", folder / "small")
        run(folder / "small", "--version")
    except AssertionError:
        pytest.skip("this compiler has no sanitizers")
    return folder / "small"


MUTATIONS = st.lists(st.tuples(st.integers(0, 140), st.binary(min_size=0, max_size=3)), max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.sampled_from([npy_of(ONE, bytes(48)), b"P6\n# c\n4 5\n255\n" + bytes(60), b"P6 2 3 999 " + bytes(36)]),
    mutations=MUTATIONS,
)
def test_mutated_files(checked: Path, tmp_path: Path, seed: bytes, mutations: list[tuple[int, bytes]]) -> None:
    """Whatever a file holds: success, or status 1 with one line; no memory error, no other end."""
    data = bytearray(seed)
    for at, replacement in mutations:
        data[at : at + max(len(replacement), 1)] = replacement
    (tmp_path / "in").write_bytes(data)
    arguments = [str(checked), "--threads=1", str(tmp_path / "in"), str(tmp_path / "out.npy")]
    status = os.spawnv(os.P_WAIT, checked, arguments)
    assert status in (0, 1)


@pytest.mark.parametrize("make", [make_small, make_two_outputs, make_fixed, make_sum])
def test_sources_compile_without_warnings(tmp_path: Path, make: Callable[[], Graph]) -> None:
    graph = make()
    graphc.build(graph, tmp_path, ["h"], name="some")
    strict = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror")
    for in_file in (True, False):
        for source in ("main.c", "arrays.c"):
            assert COMPILER
            macros = program_macros(graph, "some", in_file)
            run(COMPILER, *strict, f"-I{tmp_path}", *macros, "-c", SOURCES / source, "-o", tmp_path / "out.o")
