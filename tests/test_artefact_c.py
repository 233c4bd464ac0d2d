"""Artefacts from C: programs in tests/c with the header, the library and the object file; and what linkers see."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from artefacts import (
    HERE,
    compile_c,
    make_fixed,
    make_sequence,
    make_small,
    make_two_outputs,
    needs_compiler,
    random_image,
    run,
)  # fmt: skip

import graphc
from graphc.artefact.header import ERRORS
from graphc.ir import Graph
from graphc.runtime.network import Network

pytestmark = needs_compiler
CXX = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


def write_case(folder: Path, net: Network, shape: tuple[int, ...]) -> list[str]:
    """N H W INPUT EXPECTED for check_network.c."""
    image = random_image(*shape, seed=shape[2])
    files = [folder / f"{name}_{shape[2]}.bin" for name in ("input", "expected")]
    for file, array in zip(files, (image, net(image)), strict=True):
        file.write_bytes(array.tobytes())
    return [str(shape[0]), str(shape[2]), str(shape[3]), *map(str, files)]


@pytest.mark.parametrize("weights", ["embed", "file"])
@pytest.mark.parametrize("linked", ["so", "obj"])
def test_c_program(tmp_path: Path, linked: str, weights: Literal["embed", "file"]) -> None:
    graph = make_small()
    net = graphc.compile(graph, threads=1)
    found = graphc.build(graph, tmp_path, ["h", linked], weights=weights)
    program = tmp_path / "check"
    compile_c(
        program,
        f"-I{tmp_path}",
        "-DNET=small",
        '-DHEADER="small.h"',
        HERE / "c" / "check_network.c",
        found[linked],
        f"-Wl,-rpath,{tmp_path}",
    )
    cases = write_case(tmp_path, net, (1, 3, 19, 23)) + write_case(tmp_path, net, (2, 3, 40, 8))
    assert run(program, found.get("weights", "-"), *cases).stdout == ""


def test_two_networks_in_one_program(tmp_path: Path) -> None:
    """Two objects share no name, and C++ reads the headers too."""
    expected = []
    for i, name in enumerate(("first", "second")):
        graph = make_small(seed=i)
        graphc.build(graph, tmp_path, ["h", "obj"], name=name)
        expected.append(graphc.compile(graph, threads=1)(np.zeros((1, 3, 16, 16), np.float32))[0, 0, 0, 0])
    source, objects = HERE / "c" / "two_networks.c", [tmp_path / "first.o", tmp_path / "second.o"]
    compile_c(tmp_path / "in_c", f"-I{tmp_path}", source, *objects)
    words = run(tmp_path / "in_c").stdout.split()
    assert words[:2] == ["8", "0"] and [np.float32(w) for w in words[2:]] == expected
    if CXX:
        strict = ("-x", "c++", "-std=c++11", "-Wall", "-Wextra", "-Werror")
        run(CXX, *strict, f"-I{tmp_path}", "-c", source, "-o", tmp_path / "cxx.o")
        run(CXX, tmp_path / "cxx.o", *objects, "-o", tmp_path / "in_cxx", "-lm", "-lpthread")
        assert run(tmp_path / "in_cxx").stdout.split() == words


@pytest.mark.parametrize("weights", ["embed", "file"])
@pytest.mark.parametrize("make", [make_small, make_two_outputs, make_fixed, make_sequence])
def test_example_in_the_header_runs(
    tmp_path: Path, make: Callable[[], Graph], weights: Literal["embed", "file"], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = graphc.build(make(), tmp_path, ["h", "obj"], name="net", weights=weights)
    example = found["h"].read_text().split("Example:")[1].split("*/")[0]
    source = tmp_path / "example.c"
    source.write_text(re.sub(r"^ \* ? ? ?", "", example, flags=re.MULTILINE))
    compile_c(tmp_path / "example", source, found["obj"])
    monkeypatch.chdir(tmp_path)
    assert run("./example").stderr == ""


def test_wild_names_stay_names(tmp_path: Path) -> None:
    builder = graphc.Builder("*/ int x; /* #error")
    names = ["*/ int y; /*", "net", "int", "größe", "a b", "a-b", "%s??/"]
    values = [builder.input(n, graphc.f32("N", 1, "H", "W")) for n in names]
    total = values[0]
    for v in values[1:]:
        total = graphc.nn.add(total, v)
    found = graphc.build(builder.build(**{"workspace": total, "*/": graphc.nn.relu(total)}), tmp_path, ["h", "exe"])
    source = tmp_path / "use.c"
    source.write_text(f'#include "{found["h"].name}"\nint main(void) {{ return 0; }}\n')
    compile_c(tmp_path / "use", source)
    text = run(found["exe"], "--help").stdout
    assert all(f"'{n}': f32[N,1,H,W]" in text for n in [*names, "*/", "workspace"])


def test_errors_are_those_of_the_library() -> None:
    net = graphc.compile(make_small(), threads=1)  # must outlive its functions
    strerror = net._functions["strerror"]
    assert [text for _, text in ERRORS] == [
        strerror(i).decode().removesuffix(f": {net.cpu}") for i in range(len(ERRORS))
    ]
    assert strerror(len(ERRORS)) == b"unknown error code"


def call_fixed(graph: Graph, folder: Path, sizes: list[tuple[int, int, int]]) -> list[int]:
    """What NAME_output_shape says to each of these n, h, w."""
    graphc.build(graph, folder, ["h", "obj"], name="net")
    calls = " ".join(f'printf("%d ", net_output_shape({n}, {h}, {w}, shape));' for n, h, w in sizes)
    source, head = folder / "sizes.c", '#include "net.h"\n#include <stdio.h>\n'
    source.write_text(f"{head}int main(void) {{ int64_t shape[4]; {calls} return 0; }}\n")
    compile_c(folder / "sizes", source, folder / "net.o")
    return [int(word) for word in run(folder / "sizes").stdout.split()]


def test_sizes_that_the_network_fixes(tmp_path: Path) -> None:
    """Numbers, and dims that depend on others: a square image must be given as one."""
    assert call_fixed(make_fixed(), tmp_path, [(1, 6, 4), (2, 6, 4), (1, 5, 4), (1, 6, 5)]) == [0, 9, 9, 9]
    builder = graphc.Builder("square")
    graph = builder.build(y=graphc.nn.relu(builder.input("x", graphc.f32("N", 3, "W", "W"))))
    assert call_fixed(graph, tmp_path, [(1, 8, 8), (3, 9, 9), (1, 7, 8), (1, 0, 0)]) == [0, 0, 9, 2]


# -- what the linker sees ---------------------------------------------------------------------------------------------


def exported_names(library: Path) -> set[str]:
    return {line.split()[-1] for line in run("nm", "-D", "--defined-only", library).stdout.splitlines()}


@pytest.mark.skipif(not (shutil.which("nm") and shutil.which("readelf")), reason="no binutils on this machine")
def test_library_exports_its_functions_and_needs_only_libc(tmp_path: Path) -> None:
    found = graphc.build(make_small(), tmp_path, ["so", "exe", "obj"])
    assert exported_names(found["so"]) == {f"small_{name}" for name in (
        "abi_version", "metadata", "strerror", "cpu", "create", "create_from_memory", "destroy", "run", "run_in",
        "call", "output_shape", "output_dims", "workspace_bytes", "workspace", "strip", "carried")}  # fmt: skip
    for kind in ("so", "exe"):
        dynamic, segments = run("readelf", "-d", found[kind]).stdout, run("readelf", "-lW", found[kind]).stdout
        needed = {name.split(".")[0] for name in re.findall(r"NEEDED.*\[(.*)\]", dynamic)}
        assert needed <= {"libc", "libm", "libpthread"}
        assert "TEXTREL" not in dynamic and "RPATH" not in dynamic and "RUNPATH" not in dynamic
        assert re.search(r"FLAGS.*NOW", dynamic)
        flags = re.findall(r"^ +(\w+) +(?:0x\w+ +){5}([R ][W ][E ]) ", segments, re.MULTILINE)
        assert ("GNU_STACK", "RW ") in flags and ("LOAD", "R E") in flags
        assert not [segment for segment, flag in flags if flag.endswith("WE")]  # nothing is writable and executable
    assert "SONAME" in run("readelf", "-d", found["so"]).stdout
    undefined = run("nm", "--undefined-only", found["obj"]).stdout.split()
    assert not [name for name in undefined if name.startswith(("graphc_", "small_"))]


def test_library_uses_its_own_functions(tmp_path: Path) -> None:
    """A function of the program with the name of one in the library does not get between the library's own calls."""
    graph = make_small()
    found = graphc.build(graph, tmp_path, ["so", "h"])
    source = tmp_path / "interpose.c"
    source.write_text(
        '#include "small.h"\n#include <stdio.h>\nint small_call(small *net, const void *const *inputs, const int64_t '
        "*sizes, void *const *outputs, void *workspace, int64_t bytes)\n{ (void)net, (void)inputs, (void)sizes, "
        "(void)outputs, (void)workspace, (void)bytes; return 77; }\nstatic float image[3 * 64], scores[5 * 64];\n"
        "int main(void) { small *net; int code = small_create(&net, 1, NULL);\n"
        'printf("%d %d", code, small_run(net, image, 1, 8, 8, scores)); small_destroy(net); return 0; }\n'
    )
    compile_c(tmp_path / "interpose", "-rdynamic", source, found["so"], f"-Wl,-rpath,{tmp_path}")
    assert run(tmp_path / "interpose").stdout == "0 0"
