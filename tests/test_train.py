"""`graphc train`: what it learns, writes and tells; stopping and going on; what is wrong with its input."""

import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import fail, invoke, succeed
from PIL import Image

import graphc.cli.training as command
from graphc.cli.recipes import make_optimizer
from graphc.errors import InputError
from graphc.learning.checkpoint import Epoch, read_checkpoint
from graphc.learning.curve import draw_curve
from graphc.learning.loop import split_batches
from graphc.optim import SGD, AdamW
from graphc.state import read_metadata, read_state

MINE = """
    from graphc import nn
    from graphc.ir import Builder, f32

    def small(num_classes=3, seed=0):
        net = Builder("small", seed)
        x = net.input("image", f32("N", 1, 6, 6))
        x = nn.relu(nn.batch_norm(nn.conv2d(x, 4, 3, name="conv"), name="norm"))
        x = nn.dropout(nn.flatten(x), 0.1, name="drop")
        return net.build(scores=nn.linear(x, num_classes, name="fc"))

    def gate(seed=0):
        net = Builder("gate", seed)
        x = nn.tanh(nn.linear(net.input("bits", f32("N", 2)), 4, name="hidden"))
        return net.build(scores=nn.linear(x, 2, name="output"))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the module `mine`, and data.npz: a bright row says which class it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(textwrap.dedent(MINE))
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 90)
    x = rng.standard_normal((90, 1, 6, 6)).astype(np.float32)
    x[np.arange(90), 0, 2 * y] += 2
    np.savez(tmp_path / "data.npz", x=x, y=y)
    return tmp_path


def train(*options: object, out: str = "net.safetensors") -> tuple[object, ...]:
    return ("train", "mine:small", "--data", "data.npz", "-o", out, "--lr", "0.02", "--batch", "16", *options)


def test_learns_and_tells(folder: Path) -> None:
    lines = succeed(*train("--epochs", 8, "--seed", 5, "--clip", 1, "--threads", 1))
    assert lines[0] == "small: 243 parameters to train, 79 samples an epoch, 11 held out"
    assert lines[1].startswith("memory of a step: ")
    assert lines[1].count("KiB") + lines[1].count("bytes") + lines[1].count("MiB") == 5
    assert lines[2].startswith("epoch 1/8  loss ") and "  held out: loss " in lines[2]
    assert [line.split()[0] for line in lines[10:]] == ["net.safetensors", "net.checkpoint.safetensors", "net.png"]
    history = read_checkpoint(folder / "net.checkpoint.safetensors").history
    assert history[-1].loss < 0.5 * history[0].loss
    assert history[-1].test_accuracy >= 0.9
    meta = read_metadata(folder / "net.safetensors")
    assert meta["training"].startswith(
        "graphc train mine:small --data data.npz --epochs 8 --batch 16 --lr 0.02 --clip 1.0 --seed 5 (epoch 8, held-out"
    )
    assert {p.name for p in folder.iterdir()} - {"mine.py"} == {
        *("data.npz", "net.safetensors", "net.checkpoint.safetensors", "net.png")
    }
    state = read_state(folder / "net.safetensors")
    assert state.keys() == {*(f"conv.{n}" for n in ("weight", "bias")), "fc.weight", "fc.bias",
                            *(f"norm.{n}" for n in ("weight", "bias", "running_mean", "running_var"))}  # fmt: skip
    Image.new("L", (6, 6), 30).save("grey.png")
    assert len(succeed("run", "mine:small", "--params", "net.safetensors", "grey.png")) == 4  # its name, three classes


def test_same_bits_at_any_thread_count_and_when_it_was_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--epochs", 4, "--seed", 2, "--optimizer", "nesterov", "--warmup", 1)
    succeed(*train(*options, "--threads", 1, out="whole.safetensors"))

    def stop(*args: Any, **named: Any) -> Epoch:
        if args[6] == 2:  # the third epoch
            raise KeyboardInterrupt
        return original(*args, **named)

    original = command.train_epoch
    monkeypatch.setattr(command, "train_epoch", stop)
    stopped = invoke(*train(*options, "--threads", 2))
    assert stopped.exit_code == 130
    assert stopped.stderr.splitlines() == [
        "graphc: net.checkpoint.safetensors holds what was there after epoch 2",
        "graphc: interrupted",
    ]
    assert len(read_checkpoint(folder / "net.checkpoint.safetensors").history) == 2
    assert "there already; --resume goes on" in fail(*train(*options))
    monkeypatch.setattr(command, "train_epoch", original)
    assert "was made with --seed 2, got 3" in fail(*train(*options[:2], "--seed", 3, *options[4:], "--resume"))
    lines = succeed(*train(*options, "--resume", "--threads", 2))
    assert [line.split()[1] for line in lines[2:4]] == ["3/4", "4/4"]
    for suffix in (".safetensors", ".checkpoint.safetensors", ".png"):
        assert (folder / f"net{suffix}").read_bytes() == (folder / f"whole{suffix}").read_bytes(), suffix


@pytest.mark.parametrize(("steps_before", "where"), [
    (5, "epoch 2, batch 2 of 5 (data.npz, sample "),
    (9, "epoch 2, samples held out: "),  # the last step of an epoch
])  # fmt: skip
def test_a_loss_that_is_no_number_keeps_the_last_epoch(
    steps_before: int, where: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(options: object, steps: int) -> Any:
        return lambda step: 0.01 if step < steps_before else 1e30

    monkeypatch.setattr(command, "make_schedule", explode)
    result = invoke(*train("--epochs", 3, "--optimizer", "sgd"))
    assert result.exit_code == 2
    kept, message = result.stderr.splitlines()
    assert kept == "graphc: net.checkpoint.safetensors holds what was there after epoch 1"
    assert message.startswith(f"graphc: {where}")
    assert "expected a finite loss, got " in message
    found = read_checkpoint(folder / "net.checkpoint.safetensors")
    assert len(found.history) == 1
    assert all(np.isfinite(array).all() for array in found.state.values())


def test_fine_tuning(folder: Path) -> None:
    """Another last layer, the rest from a file, and of that the first layer as it was."""
    succeed(*train("--epochs", 1, out="first.safetensors"))
    arrays = dict(np.load(folder / "data.npz"))
    np.savez("data.npz", x=arrays["x"], y=arrays["y"] % 2)
    options = ("--classes", 2, "--weights", "first.safetensors", "--freeze", "conv.*", "--epochs", 2)
    assert invoke(*train(*options, "--freeze", "norm.*", out="head.safetensors")).exit_code == 0
    head, first = read_state(folder / "head.safetensors"), read_state(folder / "first.safetensors")
    for name in ("weight", "bias", "running_mean", "running_var"):
        np.testing.assert_array_equal(head[f"norm.{name}"], first[f"norm.{name}"], err_msg=name)
    result = invoke(*train(*options))
    assert result.exit_code == 0, result.output
    note = "graphc: note: first.safetensors does not fit fc.weight, fc.bias, which begin with random weights"
    assert result.stderr.splitlines() == [note]
    before, after = read_state(folder / "first.safetensors"), read_state(folder / "net.safetensors")
    np.testing.assert_array_equal(after["conv.weight"], before["conv.weight"])
    np.testing.assert_array_equal(after["conv.bias"], before["conv.bias"])
    assert not np.array_equal(after["norm.weight"], before["norm.weight"])
    assert not np.array_equal(after["norm.running_mean"], before["norm.running_mean"])
    assert after["fc.weight"].shape == (2, 64)
    succeed("summary", "mine:small", "--classes", 2, "--params", "net.safetensors")
    assert "expected a pattern that fits a parameter (conv.weight, " in fail(
        *train("--freeze", "cov*", out="b.safetensors")
    )


def test_exclusive_or(folder: Path) -> None:
    """From random weights; all four samples are trained with, and looked at."""
    bits = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    np.savez("gate.npz", x_train=bits, y_train=np.array([0, 1, 1, 0]), x_test=bits, y_test=np.array([0, 1, 1, 0]))
    options = ("--epochs", 200, "--optimizer", "adam", "--lr", 0.1, "--batch", 4, "--threads", 1)
    lines = succeed("train", "mine:gate", "--data", "gate.npz", "-o", "gate.safetensors", *options)
    assert lines[201].startswith("epoch 200/200") and lines[201].endswith("accuracy 100.00%")


def test_lenet5_reads_digits(folder: Path) -> None:
    pytest.importorskip("sklearn", reason="the scans are scikit-learn's")
    succeed(
        "train", "lenet5", "--data", "digits", "--epochs", 10, "--lr", 4e-3, "--batch", 32, "-o", "lenet5.safetensors"
    )
    last = read_checkpoint(folder / "lenet5.checkpoint.safetensors").history[-1]
    assert last.test_accuracy >= 0.96  # after 40 epochs 0.98
    meta = read_metadata(folder / "lenet5.safetensors")
    assert (meta["mean"], meta["std"]) == ("[1.0]", "[-1.0]")  # pictures are read as ink from now on
    message = fail("train", "lenet5", "--data", "digits", "--mean", "0.5", "-o", "other.safetensors")
    assert message == "--mean: data 'digits' is not read from pictures"


def test_bad_data(folder: Path) -> None:
    for k, name in enumerate(("cat", "dog", "owl")):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("L", (6, 6), 60 * k + i).save(folder / "photos" / name / f"{i}.png")
    arguments = ("train", "mine:small", "--data", "photos", "--epochs", 2, "-o", "net.safetensors")
    assert invoke(*arguments).exit_code == 0
    assert read_metadata(folder / "net.safetensors")["labels"] == '["cat", "dog", "owl"]'
    (folder / "net.checkpoint.safetensors").unlink()
    (folder / "photos" / "dog" / "2.png").write_bytes(b"\x89PNG")
    assert fail(*arguments, silent=False).startswith("photos/dog/2.png: cannot be read as a picture")
    (folder / "photos" / "ant").mkdir()
    assert fail(*arguments) == "photos/ant: expected pictures of class 'ant', got none"
    assert fail(*arguments[:2], "--data", "absent", "-o", "x.safetensors").startswith("absent: expected a folder")
    absent = "absent/net.safetensors"
    assert fail(*arguments[:4], "-o", absent) == f"{absent}: expected a folder to write into, got none"
    assert fail(*arguments[:4], "-o", "net.pth") == "net.pth: expected a file that ends in .safetensors"


def test_options_that_do_not_go_together() -> None:
    assert make_optimizer("sgd", None, 0.1) == SGD(weight_decay=0.1)
    assert make_optimizer("nesterov", None, None) == SGD(0.9, nesterov=True)
    assert make_optimizer("momentum", 0.5, None) == SGD(0.5)
    assert make_optimizer("adamw", None, 0.0) == AdamW(weight_decay=0.0)
    with pytest.raises(InputError, match="--momentum: expected with --optimizer momentum or nesterov, got adam"):
        make_optimizer("adam", 0.5, None)
    assert fail(*train("--decay-every", 3)) == "--decay-every: expected with --schedule step only, got cosine"
    assert fail(*train("--warmup", 10)) == "--warmup: expected fewer epochs than the 10 in all, got 10"
    assert "expected a network whose function takes num_classes, got 'xor'" in fail(
        "train", "xor", "--classes", 3, "--data", "data.npz", "-o", "net.safetensors"
    )


def test_batches_are_even() -> None:
    assert [len(b) for b in split_batches(np.arange(65), 64)] == [33, 32]
    assert [len(b) for b in split_batches(np.arange(5), 64)] == [5]
    assert [len(b) for b in split_batches(np.arange(128), 64)] == [64, 64]


def test_curve() -> None:
    history = [Epoch(2.0 / (i + 1), 0.5 + i / 50, 2.2 / (i + 1), 0.4 + i / 50) for i in range(25)]
    for epochs in (history, history[:1], [Epoch(0.0, 1.0, 0.0, 1.0)] * 3):
        picture = draw_curve(epochs, "small")
        assert picture.shape == (360, 960, 3)
        blue = (picture[:, :, 2].astype(int) - picture[:, :, 0]) > 100
        orange = (picture[:, :, 0].astype(int) - picture[:, :, 2]) > 100
        assert orange[64:].any()
        assert blue[64:].any() or epochs[0].loss == 0  # all equal: one line lies on the other
