"""The training step outside of Python: as a native library that a C program calls, and as an ONNX model."""

import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from artefacts import HERE, compile_c, needs_compiler, random_image
from commands import fail, succeed

import graphc
from graphc import nn, optim
from graphc.ir import Array, Builder, Graph, f32
from graphc.learning import Trainer
from graphc.passes.enter_training import enter_training
from graphc.training import add_cross_entropy, training_step

STEPS, RATE = 4, 0.05


def make_network() -> Graph:
    """With batch norm and dropout, so that everything a step can change is there."""
    net = Builder("small", 1)
    x = net.input("image", f32("N", 1, 12, 12))
    x = nn.relu(nn.batch_norm(nn.conv2d(x, 8, 3, bias=False, name="conv1"), name="norm"))
    x = nn.relu(nn.conv2d(nn.max_pool(x, 2), 8, 3, padding=1, name="conv2"))
    x = nn.dropout(nn.flatten(x), 0.25, name="drop")
    return net.build(logits=nn.linear(x, 3, name="fc"))


def make_step(optimizer: optim.Optimizer) -> tuple[Graph, dict[str, Array]]:
    """The step, and its first inputs by name."""
    step = training_step(enter_training(add_cross_entropy(make_network()), 5), optimizer, clip=1.0)
    given = {v.name: np.zeros(v.type.static_shape(), v.type.dtype.numpy) for v in step.inputs if not v.type.symbols}
    given |= {name: p.array for name, p in make_network().params.items() if name in given}
    labels = np.random.default_rng(0).integers(0, 3, 10)
    return step, {**given, "image": random_image(10, 1, 12, 12), "labels": labels,
                  "learning_rate": np.asarray(RATE, np.float32)}  # fmt: skip


def train_here(optimizer: optim.Optimizer, given: dict[str, Array]) -> dict[str, Array]:
    """The state after STEPS steps in this process."""
    trainer = Trainer(add_cross_entropy(make_network()), optimizer, clip=1.0, seed=5, threads=1)
    for _ in range(STEPS):
        trainer.step(RATE, image=given["image"], labels=given["labels"])
    return trainer.state


@needs_compiler
def test_c_program_trains_in_place(tmp_path: Path) -> None:
    step, given = make_step(optim.SGD(0.9))
    found = graphc.build(step, tmp_path, name="step")
    assert "Both may have the same address" in found["h"].read_text()
    program = tmp_path / "train"
    macros = ("-DNET=step", '-DHEADER="step.h"', f"-I{tmp_path}", f"-Wl,-rpath,{tmp_path}")
    compile_c(program, *macros, HERE / "c" / "train_network.c", found["so"])
    names = [v.name for v in step.inputs]
    arrays = [np.ascontiguousarray(given[name]) for name in names]
    updates = [names.index(step.updates[n].name) if n in step.updates else -1 for n in step.output_names]
    words = [len(names), len(updates), *(a.nbytes for a in arrays)]
    words += [word for i in updates for word in (arrays[i].nbytes if i >= 0 else 4 * 10 * 3, i)]
    (tmp_path / "inputs").write_bytes(np.array(words, np.int64).tobytes() + b"".join(a.tobytes() for a in arrays))
    command = [program, str(STEPS), "10", str(names.index("step")), tmp_path / "inputs"]
    done = subprocess.run(command, capture_output=True, check=True)
    data, expected = done.stdout, train_here(optim.SGD(0.9), given)
    for name, array in zip(names, arrays, strict=True):
        got, data = np.frombuffer(data[: array.nbytes], array.dtype).reshape(array.shape), data[array.nbytes :]
        if name in expected:
            np.testing.assert_array_equal(got, expected[name], err_msg=name)
    assert data == b""


@pytest.mark.parametrize("name", ["nesterov", "adam"])
def test_onnx_runtime_takes_the_same_steps(tmp_path: Path, name: str) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="compares with ONNX Runtime")
    optimizer = {"nesterov": optim.SGD(0.9, nesterov=True, weight_decay=0.01), "adam": optim.Adam()}[name]
    step, state = make_step(optimizer)
    graphc.export_onnx(step, tmp_path / "step.onnx")
    session = runtime.InferenceSession(tmp_path / "step.onnx", providers=["CPUExecutionProvider"])
    expected = train_here(optimizer, state)
    for i in range(STEPS):
        state["step"] = np.asarray(i)
        results = session.run(None, {v.name: state[v.name] for v in session.get_inputs()})
        found = dict(zip((o.name for o in session.get_outputs()), results, strict=True))
        state |= {n.removesuffix(".next"): a for n, a in found.items() if n.endswith(".next")}
    for key, array in expected.items():
        np.testing.assert_allclose(state[key], array, rtol=1e-4, atol=2e-5, err_msg=key)


@needs_compiler
def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = succeed("build", "lenet5", "--training-step", "--optimizer", "momentum", "--clip", 1, "-o", "out")
    assert [line.split()[0] for line in lines] == ["out/lenet5_step.so", "out/lenet5_step.h"]
    assert "'conv1.weight.velocity.next'" in Path("out/lenet5_step.h").read_text()
    (line,) = succeed("export", "lenet5", "--training-step", "--optimizer", "adam", "-o", "step.onnx")
    assert line.startswith("step.onnx  ")
    step = onnx.load("step.onnx").graph
    assert "fc6.bias.square.next" in {output.name for output in step.output}
    message = fail("compile", "lenet5", "--clip", 1, "-o", "out")
    assert message == "--clip: expected together with --training-step only"
    message = fail("export", "lenet5", "--optimizer", "sgd", "-o", "out.onnx")
    assert message == "--optimizer: expected together with --training-step only"
