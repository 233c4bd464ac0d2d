"""graphc.build: which files there are, what is in them, and that nothing is left behind when something fails."""

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import llvmlite.binding as llvm
import numpy as np
import pytest
from artefacts import make_fixed, make_sequence, make_small, make_two_outputs, needs_compiler, random_image
from hypothesis import given
from hypothesis import strategies as st

import graphc
from graphc import artefact
from graphc.artefact import KINDS, link, objects
from graphc.artefact.names import artefact_name, c_comment, c_identifier, c_parameters, c_string
from graphc.driver import lower, weights_header
from graphc.errors import FileError, GraphcError, InputError, UnsupportedError
from graphc.ir import Graph

TEXT_KINDS = ("h", "obj", "ll", "asm")  # what needs no C compiler


def list_files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@needs_compiler
def test_build_returns_the_files_by_kind(tmp_path: Path) -> None:
    found = graphc.build(make_small(), tmp_path / "new" / "folder", tuple(KINDS), weights="file")
    assert {kind: path.name for kind, path in found.items()} == {
        "so": "small.so", "h": "small.h", "obj": "small.o", "exe": "small", "ll": "small.ll", "asm": "small.s",
        "weights": "small.weights",
    }  # fmt: skip
    assert list_files(tmp_path / "new" / "folder") == sorted(p.name for p in found.values())


@needs_compiler
def test_build_again_replaces(tmp_path: Path) -> None:
    graphc.build(make_small(seed=1), tmp_path, ["so"])
    before = (tmp_path / "small.so").read_bytes()
    graphc.build(make_small(seed=2), tmp_path, ["so"])
    assert (tmp_path / "small.so").read_bytes() != before
    assert list_files(tmp_path) == ["small.so"]


def test_only_libraries_and_programs_need_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.delenv("CC", raising=False)
    assert graphc.compile(make_small(), threads=1)(random_image(1, 3, 8, 8)).shape == (1, 5, 3, 3)
    graphc.build(make_small(), tmp_path, TEXT_KINDS)
    before = list_files(tmp_path)
    for kind in ("so", "exe"):
        with pytest.raises(GraphcError, match=r"no C compiler found: install gcc or clang .* or use graphc\.compile"):
            graphc.build(make_small(), tmp_path, [kind])
    assert list_files(tmp_path) == before


def test_cc_names_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -m64")
    with pytest.raises(GraphcError, match=r"CC: expected a C compiler, got 'no-such-compiler', which is not found"):
        graphc.build(make_small(), tmp_path)
    monkeypatch.setenv("CC", "gcc 'unfinished")
    with pytest.raises(InputError, match="CC: expected a C compiler's command"):
        graphc.build(make_small(), tmp_path)
    monkeypatch.setenv("CC", f"{sys.executable} -I")
    assert link.find_compiler() == [sys.executable, "-I"]


def write_script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_failing_compiler_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = write_script(tmp_path / "cc", "echo \"In function 'main':\" >&2; echo 'ld: disk on fire' >&2; exit 1")
    monkeypatch.setenv("CC", script)
    with pytest.raises(GraphcError, match=r"cc failed on small\.so: ld: disk on fire$"):
        graphc.build(make_small(), tmp_path / "out", ["h", "obj", "so"])
    assert list_files(tmp_path / "out") == []
    monkeypatch.setenv("CC", write_script(tmp_path / "silent", "exit 3"))
    with pytest.raises(GraphcError, match=r"silent failed on small\.so: exit status 3$"):
        graphc.build(make_small(), tmp_path / "out", ["so"])


def test_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphc.build(make_small(seed=1), tmp_path, ["h", "obj"], weights="file")
    before = {name: (tmp_path / name).read_bytes() for name in list_files(tmp_path)}

    def fill_disk(path: Path, *_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artefact, "write_weights", fill_disk)
    with pytest.raises(FileError, match=r"small cannot be written: No space left on device$"):
        graphc.build(make_small(seed=2), tmp_path, ["h", "obj"], weights="file")
    assert {name: (tmp_path / name).read_bytes() for name in list_files(tmp_path)} == before


def test_unwritable_places(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"file/sub: small cannot be written: Not a directory"):
        graphc.build(make_small(), tmp_path / "file" / "sub", ["h"])
    (tmp_path / "small.o").mkdir()
    with pytest.raises(FileError, match=r"small\.o: expected a file or nothing, got a directory"):
        graphc.build(make_small(), tmp_path, ["h", "obj"])
    assert list_files(tmp_path) == ["file", "small.o"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FileError, match=r"small cannot be written: Permission denied"):
        graphc.build(make_small(), tmp_path, ["h"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"emit": []}, "emit: expected a list of some of so, h, obj, exe, ll, asm, got "),
        ({"emit": "so"}, "emit: .* got 'so'"),
        ({"emit": ["so", "dll"]}, "emit: .* got .*dll"),
        ({"weights": "none"}, 'weights: expected "embed" or "file", got \'none\''),
        ({"name": "int"}, "name: expected a C identifier .* got 'int'"),
        ({"name": "a-b"}, "name: .* got 'a-b'"),
        ({"name": "pthread"}, "name: .* got 'pthread'"),
        ({"cpu": "z80"}, "cpu: expected one of native, .*got 'z80'"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(GraphcError, match=message):
        graphc.build(make_small(), tmp_path / "out", **({"emit": ["h"]} | arguments))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="build: expected a graph, got str"):
        graphc.build("small", tmp_path / "out")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_programs_need_image_sizes(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="network 'sequence': exe needs sizes among N, H and W, got T"):
        graphc.build(make_sequence(), tmp_path, ["exe"])
    builder = graphc.Builder("doubled")
    graph = builder.build(y=graphc.nn.relu(builder.input("x", graphc.f32("N", 3, "2*H", "W"))))
    with pytest.raises(UnsupportedError, match=r"dims that are numbers or symbols, input 'x': .* has 2\*H"):
        graphc.build(graph, tmp_path, ["exe"])


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("graph_name", "expected"),
    [
        ("LeNet-5 (MNIST)", "LeNet_5__MNIST_"), ("2d", "net_2d"), ("", "net"), ("größe", "gr__e"), ("_x", "net_x"),
        ("class", "net_class"), ("main", "net_main"), ("graphc_pool", "net_graphc_pool"), ("数", "net"),
    ],
)  # fmt: skip
def test_names_are_made_from_the_graph(graph_name: str, expected: str) -> None:
    assert artefact_name(graph_name, None) == expected


@given(st.text())
def test_made_names_are_accepted(text: str) -> None:
    name = c_identifier(text, "net")
    assert artefact_name("other", name) == name


@given(st.lists(st.text()))
def test_parameters_differ(names: list[str]) -> None:
    found = c_parameters(names, ["net", "tensor"])
    assert len({*found, "net", "tensor"}) == len(names) + 2


def test_texts_cannot_leave_their_place() -> None:
    assert c_comment("a */ system(); /* b\n#define") == "a * / system(); / * b?#define"
    assert c_string('a"\\\n?') == r'"a\042\134\012\077"'


# -- contents ---------------------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("weights", ["embed", "file"])
def test_the_same_graph_gives_the_same_bytes(tmp_path: Path, weights: Literal["embed", "file"]) -> None:
    """In other folders, in other processes, with other hash seeds; and no path of this machine is inside."""
    code = (
        "import sys, graphc, artefacts\n"
        f"graphc.build(artefacts.make_small(), sys.argv[1], {tuple(KINDS)}, weights={weights!r})"
    )
    contents = []
    for seed in ("1", "2"):
        folder = tmp_path / f"folder{seed}"
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", code, folder], env=environment, check=True, timeout=120)
        contents.append({name: (folder / name).read_bytes() for name in list_files(folder)})
    assert contents[0].keys() == contents[1].keys()
    for name, data in contents[0].items():
        assert data == contents[1][name], name
        assert str(tmp_path).encode() not in data and b"folder1" not in data, name


def test_which_kinds_are_asked_for_changes_no_bytes(tmp_path: Path) -> None:
    graphc.build(make_small(), tmp_path / "all", TEXT_KINDS)
    for kind in TEXT_KINDS:
        file = graphc.build(make_small(), tmp_path / kind, [kind])[kind]
        assert file.read_bytes() == (tmp_path / "all" / file.name).read_bytes()


def test_text_has_no_weights(tmp_path: Path) -> None:
    """However many weights there are, the text is the same but for their number and hash."""
    sizes = {}
    for channels in (1, 40):
        builder = graphc.Builder("wide", seed=0)
        x = builder.input("x", graphc.f32("N", 64, "H", "W"))
        for i in range(channels // 10 + 1):
            x = graphc.nn.conv2d(x, 64, 3, name=f"conv{i}")
        found = graphc.build(builder.build(y=x), tmp_path / str(channels), ["ll", "asm", "obj"])
        sizes[channels] = {kind: path.stat().st_size for kind, path in found.items()}
        for kind in ("ll", "asm"):
            head = found[kind].read_text().splitlines()[0]
            assert "weights are not in this text: the external graphc_weights_data stands for them" in head
            assert "incbin" not in found[kind].read_text()
    grown = 4 * 64 * 64 * 9 * 4
    assert sizes[40]["obj"] - sizes[1]["obj"] >= grown
    assert sizes[40]["ll"] < grown and sizes[40]["asm"] < grown


def test_text_is_the_code(tmp_path: Path) -> None:
    found = graphc.build(make_small(), tmp_path, ["ll", "asm"], weights="file")
    module = llvm.parse_assembly(found["ll"].read_text())
    module.verify()
    assert module.get_function("small_run_in").linkage.name == "external"
    assert "small_create reads them" in found["asm"].read_text().splitlines()[0]
    assert "small_run_in:" in found["asm"].read_text()


def test_weights_file(tmp_path: Path) -> None:
    plan = lower(make_small(), "small", "native").plan
    data = graphc.build(make_small(), tmp_path, ["obj"], weights="file")["weights"].read_bytes()
    assert data == weights_header(plan) + plan.weight_block().tobytes()
    assert b"".join(plan.weight_chunks()) == plan.weight_block().tobytes()
    assert data[:17] == b"graphc weights 1\n" and len(data) == 64 + plan.weight_bytes


def test_object_holds_the_weights_once_and_aligned(tmp_path: Path) -> None:
    plan = lower(make_small(), "small", "native").plan
    block = bytes(plan.weight_block())
    data = bytearray(graphc.build(make_small(), tmp_path, ["obj"])["obj"].read_bytes())
    assert data.count(block) == 1 and data.index(block) % 64 == 0
    (at,) = (at for at, name in objects._section_headers(data) if name == b".rodata.graphc_weights")
    kind, flags, _, offset, size = struct.unpack_from("<IQQQQ", data, at + 4)
    assert (kind, flags, offset, size) == (1, 2, data.index(block), len(block))
    without = graphc.build(make_small(), tmp_path, ["obj"], weights="file")["obj"].read_bytes()
    assert block not in without


def test_embedding_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_LARGEST", 1000)
    with pytest.raises(UnsupportedError, match=r"at most 1000 bytes of weights can be embedded, got \d+; .*\"file\""):
        graphc.build(make_small(), tmp_path, ["obj"])
    assert list_files(tmp_path) == []
    graphc.build(make_small(), tmp_path, ["obj"], weights="file")


@pytest.mark.parametrize("make", [make_small, make_two_outputs, make_fixed, make_sequence])
def test_header_has_the_same_functions_as_the_object(tmp_path: Path, make: Callable[[], Graph]) -> None:
    graph = make()
    found = graphc.build(graph, tmp_path, ["h", "ll"], name="net")
    defined = {
        f.name
        for f in llvm.parse_assembly(found["ll"].read_text()).functions
        if not f.is_declaration and f.linkage.name == "external"
    }
    code = found["h"].read_text().split("*/", 1)[1]
    declared = {
        word.split("(")[0].lstrip("*")
        for line in code.splitlines()
        if not line.startswith((" ", "/"))
        for word in line.split()
        if word.lstrip("*").startswith("net_") and "(" in word
    }
    assert declared == defined
    assert ("net_run" in declared) == (graph.name != "sequence")


def test_random_weights_are_those_of_the_graph(tmp_path: Path) -> None:
    graph = make_fixed()
    block = graphc.build(graph, tmp_path, ["obj"], weights="file")["weights"].read_bytes()[64:]
    for param in graph.params.values():
        assert np.ascontiguousarray(param.array).tobytes() in block
