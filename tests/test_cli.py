"""The command line, but for `run`: what each command writes and tells, and how it fails."""

import json
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import onnx
import pytest
from commands import fail, invoke, succeed

import graphc
import graphc.onnx.exporting
from graphc import ops
from graphc.cli import main, show
from graphc.cli.loading import find_model
from graphc.models import NETWORKS

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def declare(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write the user's module `mine` there and return its name."""

    def write(text: str) -> str:
        monkeypatch.delitem(sys.modules, "mine", raising=False)
        (folder / "mine.py").write_text(textwrap.dedent(text))
        return "mine"

    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two texts of one second would look the same
    return write


TINY = """
    from graphc import nn
    from graphc.ir import Builder, f32

    def tiny():
        net = Builder("tiny")
        x = net.input("image", f32("N", 1, 8, 8))
        return net.build(scores=nn.linear(nn.flatten(nn.tanh(nn.conv2d(x, 2, 3, name="conv"))), 3, name="fc"))

    def free():
        net = Builder("free")
        x = net.input("image", f32("N", 1, "H", "W"))
        return net.build(y=nn.conv2d(x, 2, 3, name="a_layer_with_a_name_of_more_than_eighty_characters" + 40 * "x"))

    def needy(size): ...
    def broken(): raise ValueError("this\\nand that")
    def text(): return "tiny"
    def misshapen(): return nn.conv2d(Builder("b").input("x", f32(1, 2)), 3, 3, name="c")
    number = 3
"""


def test_version() -> None:
    assert succeed("--version") == [f"graphc {graphc.__version__}"]


PICTURES = [f"show {name}" for name in show.commands]


@pytest.mark.parametrize("name", [*main.commands, *PICTURES])
def test_help_and_its_examples(name: str) -> None:
    """Every example of a command can be parsed."""
    text = succeed(*name.split(), "--help")
    examples = [shlex.split(line) for line in text[text.index("  Examples:") + 1 :] if line and line != "Commands:"]
    examples = [words for words in examples if words[0] == "graphc"]  # behind a group's stand its commands
    assert len(examples) >= 2
    for words in examples:
        command: click.Command = main
        for word in name.split():
            assert isinstance(command, click.Group)
            command = command.commands[word]
        assert " ".join(words).startswith(f"graphc {name}")
        command.make_context(name, words[1 + len(name.split()) :])


@pytest.mark.parametrize("group", [[], ["show"]])
def test_short_helps_are_whole(group: list[str]) -> None:
    lines = succeed(*group, "--help")
    assert not any(line.endswith("...") for line in lines[lines.index("Commands:") :])


@pytest.mark.parametrize("module", ["graphc.cli", "graphc.cli.running"])
def test_the_compiler_is_loaded_only_for_compiling(module: str) -> None:
    """Help, and running a library, need neither LLVM nor ONNX; help not even NumPy."""
    heavy = {"llvmlite", "onnx", "networkx"} | ({"numpy", "rich", "PIL"} if module == "graphc.cli" else set())
    code = f"import sys, {module}; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\n", "")


def test_module_is_runnable() -> None:
    done = subprocess.run([sys.executable, "-m", "graphc", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"graphc {graphc.__version__}\n")


# Models


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("lenet", "model 'lenet': did you mean lenet5 or alexnet or segnet? expected an .onnx file, module"),
        ("nothing", "model 'nothing': expected an .onnx file, module:function or one of xor, mlp, lenet5, "),
        ("mine:absent", "model 'mine:absent': module 'mine' has no attribute 'absent'"),
        ("mine:needy", "model 'mine:needy': TypeError: needy() missing 1 required positional argument: 'size'"),
        ("mine:broken", "model 'mine:broken': ValueError: this and that"),
        ("mine:text", "model 'mine:text': expected a function that returns a graphc.Graph, got str"),
        ("mine:number", "model 'mine:number': expected a function that returns a graphc.Graph, got int"),
        ("mine:misshapen", "conv2d 'c': expected a float tensor [N,C,H,W] with constant C, got %x: f32[1,2]"),
        ("theirs:net", "model 'theirs:net': no module 'theirs'"),
        ("net.so", "model 'net.so': a compiled library can only be run; expected what it was compiled from"),
        ("mine.py", "model 'mine.py': expected an .onnx file, a network or module:function"),
        ("absent.onnx", "absent.onnx: No such file or directory"),
    ],
)
def test_what_is_no_model(declare: Callable[[str], str], model: str, message: str) -> None:
    declare(TINY)
    assert message in fail("summary", model)


def test_broken_modules(declare: Callable[[str], str]) -> None:
    declare("import nowhere")
    assert fail("summary", "mine:net") == "model 'mine:net': no module 'nowhere'"
    declare("def net(:")
    assert "SyntaxError: invalid syntax" in fail("summary", "mine:net")


def test_broken_onnx(folder: Path) -> None:
    (folder / "net.onnx").write_bytes(b"\xff\xff")
    assert "net.onnx: not an ONNX model" in fail("summary", "net.onnx")


def test_params(declare: Callable[[str], str], folder: Path) -> None:
    """Parameters from a file decide the result; names that do not fit are listed."""
    graph = find_model(f"{declare(TINY)}:tiny")
    arrays = {name: np.zeros(p.value.type.static_shape(), np.float32) for name, p in graph.params.items()}
    arrays["fc.bias"] += [1, 2, 3]
    np.savez(folder / "state.npz", **arrays)
    np.save(folder / "x.npy", np.ones((1, 1, 8, 8), np.float32))
    succeed("run", "mine:tiny", "x.npy", "-o", "y.npy", "--params", "state.npz")
    np.testing.assert_array_equal(np.load(folder / "y.npy"), [[1, 2, 3]])
    np.savez(folder / "state.npz", other=arrays["fc.bias"])
    message = fail("summary", "mine:tiny", "--params", "state.npz")
    assert "missing fc.weight f32[3,72]" in message
    assert "unexpected other" in message


def test_dense_options(declare: Callable[[str], str]) -> None:
    declare(TINY)
    assert fail("summary", "lenet5", "--gap", "drop") == "--gap: expected together with --dense only"
    assert fail("summary", "lenet5", "--window", "32x32") == "--window: expected together with --dense only"
    result = invoke("summary", "convnet10", "--dense")
    assert result.stderr == (
        "graphc: note: 6 layers pad, so scores are not those of a window alone; "
        "graphc summary --dense tells where they differ\n"
    )
    assert any("1x10x25x25" in line for line in result.stdout.splitlines())  # (224 - 32) / 8 + 1
    assert fail("summary", "lenet5", "--output-stride", 2) == "--output-stride: expected together with --dense only"
    (line,) = (t for t in succeed("summary", "lenet5", "--dense", "--output-stride", "2") if "row 2p" in t)
    assert line == "output pixel (p, q) is about the window of 32x32 pixels from row 2p, column 2q on"
    result = invoke("summary", "digits", "--dense", "--upsample", "--shape", "1x1x45x50")
    assert any("1x11x45x50" in line for line in result.stdout.splitlines())


def test_bad_usage() -> None:
    for arguments in (("verify",), ("summary", "lenet5", "--shape", "1x0"), ("verify", "lenet5", "--tolerance", "0"),
                      ("summary", "lenet5", "--dense", "--window", "3"), ("run", "lenet5", "x", "--mean", "a"),
                      ("compile", "lenet5"), ("verify", "lenet5", "--threads", "0"), ("absent",)):  # fmt: skip
        result = invoke(*arguments)
        assert result.exit_code == 2
        assert "Usage: " in result.stderr
        assert "Error: " in result.stderr


# Commands


def test_compile(declare: Callable[[str], str], folder: Path) -> None:
    declare(TINY)
    lines = succeed("compile", "mine:tiny", "-o", "build", "--emit", "so,h,ll", "--name", "small", "--weights", "file")
    assert [line.split()[0] for line in lines] == [f"build/small.{kind}" for kind in ("so", "h", "ll", "weights")]
    assert sorted(p.name for p in (folder / "build").iterdir()) == ["small.h", "small.ll", "small.so", "small.weights"]
    assert lines[3] == f"build/small.weights  {(folder / 'build/small.weights').stat().st_size / 1024:.1f} KiB"


def test_compile_fails_whole(folder: Path) -> None:
    (folder / "file").touch()
    assert "file" in fail("compile", "xor", "-o", "file")
    assert "expected a list of some of so, h, obj, exe, ll, asm, got" in fail(
        "compile", "xor", "-o", "x", "--emit", "zip"
    )
    assert "expected one of native" in fail("compile", "xor", "-o", "x", "--cpu", "z80")
    assert [p.name for p in folder.iterdir()] == ["file"]


def test_export_in_half_precision(declare: Callable[[str], str], folder: Path) -> None:
    declare(TINY)
    for options in ([], ["--fp16"]):
        succeed("export", "mine:tiny", "-o", f"tiny{len(options)}.onnx", *options)
    full, half = (onnx.load(folder / f"tiny{i}.onnx") for i in (0, 1))
    assert {t.data_type for t in full.graph.initializer} == {onnx.TensorProto.FLOAT}
    assert {t.data_type for t in half.graph.initializer} == {onnx.TensorProto.FLOAT16}


def test_export_beyond_the_limit_of_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphc.onnx.exporting, "MESSAGE_BYTES", 1000)
    assert [line.split()[0] for line in succeed("export", "digits", "-o", "x.onnx")] == ["x.onnx", "x.onnx.data"]
    assert succeed("verify", "x.onnx")[0].endswith("right")


def test_export(declare: Callable[[str], str], folder: Path) -> None:
    """What is exported is a MODEL again, and the same."""
    declare(TINY)
    assert succeed("export", "mine:tiny", "-o", "tiny.onnx", "--opset", "17")[0].startswith("tiny.onnx  ")
    tables = [json.loads("\n".join(succeed("summary", m, "--json"))) for m in ("mine:tiny", "tiny.onnx")]
    assert tables[0] == tables[1]
    assert "nowhere/tiny.onnx" in fail("export", "mine:tiny", "-o", "nowhere/tiny.onnx")
    assert "opset: expected" in fail("export", "mine:tiny", "-o", "x.onnx", "--opset", "3")


def test_summary(declare: Callable[[str], str]) -> None:
    declare(TINY)
    lines = succeed("summary", "mine:free", "--shape", "2x1x10x12")
    assert lines[0].split() == ["free", "at", "N=2,", "H=10,", "W=12"]
    row = next(line for line in lines if "a_layer" in line).split()
    assert row == ["a_layer_with_a_name_of_more_than_eighty_characters" + 40 * "x", "(conv2d)", "2x2x8x10", "20",
                   "2,880", "320", "3,200", "3x3"]  # fmt: skip
    told = json.loads("\n".join(succeed("summary", "mine:free", "--json")))
    assert told["sizes"] == {"N": 1, "H": 224, "W": 224}


def test_shapes_that_do_not_fit() -> None:
    assert "input 'image': expected f32[N,1,32,32], got" in fail("summary", "lenet5", "--shape", "1x1x30x32")
    assert "has 1 inputs, got 2 shapes" in fail("summary", "lenet5", "--shape", "1x1x32x32", "--shape", "1")
    assert "the image is too small" in fail("verify", "lenet5", "--dense", "--shape", "1x1x5x32")


def test_verify(declare: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    declare(TINY)
    arguments = ("verify", "mine:tiny", "--shape", "3x1x8x8", "--seed", 5, "--threads", 2)
    lines = succeed(*arguments)
    assert [line.split()[0] for line in lines] == ["native", "onnxruntime"]
    assert all(line.endswith(", right") for line in lines)
    right = ops.Tanh.eval
    monkeypatch.setattr(ops.Tanh, "eval", lambda self, *arrays: right(self, *arrays) + 0.1)
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert all(line.endswith(", wrong from tanh 'tanh_1' on") for line in result.stdout.splitlines())
    assert succeed(*arguments, "--tolerance", 10)


def test_graph(folder: Path) -> None:
    assert succeed("graph", "lenet5", "-o", "a.svg") == ["a.svg  10 boxes"]
    assert succeed("graph", "lenet5", "-o", "a.svg", "--every-op") == ["a.svg  14 boxes"]
    assert succeed("graph", "lenet5", "-o", "a.dot", "--optimized") == ["a.dot  10 boxes"]
    assert (folder / "a.svg").read_text().startswith("<svg")
    assert (folder / "a.dot").read_text().startswith("digraph")
    assert fail("graph", "lenet5", "-o", "a.png") == "a.png: expected a file that ends in .svg or .dot"
    assert fail("graph", "lenet5", "-o", "no/a.svg") == "no/a.svg: cannot be written: No such file or directory"
    assert sorted(p.name for p in folder.iterdir()) == ["a.dot", "a.svg"]


def test_demo_is_given_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    import graphc.demo

    monkeypatch.setattr(graphc.demo, "run_demo", lambda folder, console: console.print(f"{folder} {console.width}"))
    assert succeed("demo", "-o", "there") == ["there 10000"]


# Failures


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "graphc: interrupted\n"),
        (MemoryError(), 2, "graphc: not enough memory\n"),
        (ZeroDivisionError("no"), 70, "graphc: internal error, please report it with what --debug shows: "
                                      "ZeroDivisionError('no')\n"),
        (graphc.errors.UnsupportedError("net", ["a: no op"]), 2, "graphc: net: a: no op\n"),
        (graphc.errors.UnsupportedError("net", ["a: no op", "b: nor this"]), 2,
         "graphc: net:\n  a: no op\n  b: nor this\n"),
    ],
)  # fmt: skip
def test_errors_are_told_without_traceback(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, message: str
) -> None:
    def interrupted() -> None:
        raise error

    monkeypatch.setitem(NETWORKS, "lenet5", interrupted)  # type: ignore[arg-type]
    result = invoke("summary", "lenet5")
    assert (result.exit_code, result.output) == (status, message)
    if not isinstance(error, KeyboardInterrupt):
        assert invoke("--debug", "summary", "lenet5").exception is error


def test_full_device_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            [sys.executable, "-m", "graphc", "summary", "xor"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (run.returncode, run.stderr) == (2, "graphc: the result cannot be written: No space left on device\n")
