"""Measuring against other runtimes: workers, what is left out, the arithmetic of the table, JSON. No time is judged."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from math import isclose
from pathlib import Path

import bench_fakes as fakes
import numpy as np
import performance
import pytest
from commands import fail, succeed

from graphc import nn
from graphc.bench.comparison import compare
from graphc.bench.figures import Comparison, Measurement, geometric_mean, mean_ratios
from graphc.bench.machine import choose_cpus, describe_machine
from graphc.bench.problem import read_arrays, write_problem
from graphc.bench.process import Worker, WorkerError
from graphc.bench.runtimes import GRAPHC, PEERS, Peer
from graphc.bench.tables import format_shapes, list_left_out, to_json
from graphc.bench.training import Halves, compare_training
from graphc.errors import InputError
from graphc.ir import Builder, Graph, f32
from graphc.models import NETWORKS
from graphc.reference import random_inputs, run_reference

SIZES = {"N": 1, "H": 6, "W": 5}


def small(name: str = "small") -> Graph:
    net = Builder(name)
    x = net.input("image", f32("N", 2, "H", "W"))
    x = nn.relu(nn.conv2d(x, 3, 3, name="a"))
    return net.build(y=x, mean=nn.global_average_pool(x))


def measure(runtime: str, *seconds: float, error: float = 1e-6) -> Measurement:
    return Measurement(runtime, "1", seconds, error, 10**6, 0.5)


def test_median_quartiles_and_spread() -> None:
    m = measure("a", 5, 1, 2, 4, 3)
    assert (m.median, m.quartiles, m.spread) == (3, (2, 4), 1 / 3)


def test_a_ratio_is_the_median_of_each_round() -> None:
    """In the second round everything takes ten times as long: the ratio there is the same, that of medians is not."""
    own, peer = measure("graphc", 1, 10, 4), measure("peer", 3, 30, 4)
    assert Comparison("net", (), 1, (own, peer), {}).ratio(peer) == 3
    assert peer.median / own.median == 1


def test_geometric_means_and_the_best_peer() -> None:
    assert isclose(geometric_mean([0.5, 4, 4]), 2)
    own = measure("graphc", 1)
    first = Comparison("a", (), 1, (own, measure("x", 2), measure("y", 8)), {})
    second = Comparison("b", (), 1, (own, measure("x", 8)), {"y": "refused"})
    third = Comparison("c", (), 1, (own,), {"x": "died", "y": "refused"})
    assert (first.best_ratio, second.best_ratio, third.best_ratio) == (2, 8, None)
    means = mean_ratios([first, second, third])
    assert list(means) == ["x", "y", "best peer"]
    assert [round(ratio, 9) for ratio, _ in means.values()] == [4, 8, 4]
    assert [count for _, count in means.values()] == [2, 1, 2]
    assert list_left_out([first, second, third]) == ["left out of b, c: y: refused", "left out of c: x: died"]
    assert list_left_out([third]) == ["left out: x: died", "left out: y: refused"]


def residual() -> Graph:
    """What the networks that are measured consist of, in small."""
    net = Builder("residual")
    x = image = net.input("image", f32("N", 4, "H", "W"))
    x = nn.clip(nn.batch_norm(nn.conv2d(x, 8, 3, padding="same", name="a"), name="a.bn"), 0, 6)
    x = nn.max_pool(x, 3, 2, padding=1, ceil_mode=True)
    y = nn.relu(nn.conv2d(x, 8, 3, padding=1, groups=4, name="b"))
    x = nn.add(nn.conv2d(y, 8, 1, name="c"), x)
    x = nn.conv_transpose2d(nn.average_pool(x, 2, 2), 4, 4, stride=4, name="up")
    x = nn.concat([nn.tanh(image), x])
    return net.build(y=x, scores=nn.linear(nn.dropout(nn.flatten(nn.global_average_pool(x)), 0.5), 5, name="fc"))


@pytest.mark.parametrize("peer", [fakes.OWN, fakes.SLOW, GRAPHC, *PEERS.values()], ids=lambda peer: peer.loader)
def test_workers_answer(peer: Peer, tmp_path: Path) -> None:
    if peer.missing:
        pytest.skip(peer.missing)
    graph, sizes = residual(), {"N": 2, "H": 16, "W": 24}
    inputs = random_inputs(graph, sizes)
    write_problem(graph, sizes, inputs, tmp_path)
    with Worker(peer, tmp_path, choose_cpus(1)) as worker:
        assert worker.load_seconds > 0
        assert worker.time(0) > (fakes.DELAY if peer is fakes.SLOW else 0)
        assert worker.save(tmp_path / "outputs.npz") > 2**20  # bytes; an interpreter alone takes more
    for a, b in zip(read_arrays(tmp_path / "outputs.npz"), run_reference(graph, inputs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_workers_that_cannot_load_or_die_say_why(tmp_path: Path) -> None:
    graph = small()
    write_problem(graph, SIZES, random_inputs(graph, SIZES), tmp_path)
    with pytest.raises(WorkerError, match="ValueError: no such operator"):
        Worker(fakes.REFUSING, tmp_path, choose_cpus(1))
    with Worker(fakes.MORTAL, tmp_path, choose_cpus(1)) as worker:
        with pytest.raises(WorkerError, match="its process ended with status 3: fatal: out of luck"):
            worker.time(0)
        with pytest.raises(WorkerError, match="its process ended with status 3"):
            worker.time(0)


def test_waiting_workers_are_stopped_and_end_with_their_block(tmp_path: Path) -> None:
    graph = small()
    write_problem(graph, SIZES, random_inputs(graph, SIZES), tmp_path)
    with Worker(fakes.OWN, tmp_path, choose_cpus(1)) as worker:
        status = Path(f"/proc/{worker.pid}/stat")
        while status.read_text().rsplit(")")[1].split()[0] != "T":  # the signal takes its time
            time.sleep(0.001)
    assert not status.exists()


def test_compare_names_what_it_leaves_out() -> None:
    peers = [fakes.WRONG, fakes.ABSENT, fakes.FLAT, fakes.NAN, fakes.REFUSING, fakes.MORTAL, fakes.SLOW]
    told: list[str] = []
    (c,) = compare(small(), SIZES, peers, [1], rounds=3, seconds=0, tell=told.append, own=fakes.OWN)
    assert [m.runtime for m in c.measurements] == ["graphc", "wrong", "slow"]
    assert [m.version for m in c.measurements] == ["1.0", "3.0", "2.0"]
    assert all(len(m.seconds) == 3 for m in c.measurements)
    right, wrong, slow = (m.error for m in c.measurements)
    assert 0 < right == slow < 1e-6
    assert round(wrong, 3) == 0.5
    assert c.shapes == ((1, 2, 6, 5),)
    assert c.left_out == {
        "absent": "no_such_module not installed (pip install graphc[bench])",
        "flat": "expected outputs of the shapes [(1, 3, 4, 3), (1, 3, 1, 1)], got [(36,), (3,)]",
        "nan": "expected finite outputs where float64 has them, got others",
        "refusing": "ValueError: no such operator",
        "mortal": "its process ended with status 3: fatal: out of luck",
    }
    assert told[-1] == "small, threads 1: round 3 of 3"


def test_compare_fails_if_the_network_itself_does() -> None:
    with pytest.raises(WorkerError, match="refusing: ValueError: no such operator"):
        compare(small(), SIZES, [fakes.SLOW], [1], own=fakes.REFUSING)


def test_threads_get_a_cpu_each() -> None:
    allowed = os.sched_getaffinity(0)
    assert sorted(choose_cpus(len(allowed))) == sorted(allowed)
    with pytest.raises(InputError, match=f"threads: expected 1 to {len(allowed)}, a CPU for each, got 4097"):
        choose_cpus(4097)


def test_json_holds_everything() -> None:
    comparisons = compare(small(), SIZES, [fakes.SLOW, fakes.ABSENT], [1], rounds=3, seconds=0, own=fakes.OWN)
    told = json.loads(json.dumps(to_json(describe_machine(), comparisons)))
    assert set(told) == {"machine", "comparisons", "geometric_means"}
    assert set(told["machine"]) == {
        *("cpu", "level", "cores", "cpus", "caches", "memory_bytes", "system", "versions", "load")
    }
    assert set(told["machine"]["versions"]) == {"Python", "graphc", "numpy", "llvmlite"}
    (c,) = told["comparisons"]
    assert (c["network"], c["shapes"], c["threads"]) == ("small", [[1, 2, 6, 5]], 1)
    assert set(c["left_out"]) == {"absent"}
    assert c["ratios"] == {"slow": c["best_ratio"]}
    assert set(c["runtimes"]) == {"graphc", "slow"}
    for runtime in c["runtimes"].values():
        assert set(runtime) == {
            *("version", "seconds", "median_seconds", "quartile_seconds", "error", "peak_bytes", "load_seconds")
        }
        assert len(runtime["seconds"]) == 3
    assert set(told["geometric_means"]) == {"slow", "best peer"}


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "slow", fakes.SLOW)
    monkeypatch.setitem(PEERS, "absent", fakes.ABSENT)
    file = tmp_path / "bench.json"
    lines = succeed(
        *("bench", "lenet5", "--against", "slow,absent", "--batch", 2, "--rounds", 2, "--time", 0, "--json", file)
    )
    table = [line.split() for line in lines]
    headings = ["network", "input", "threads", "runtime", "ms", "±", "ms", "÷", "graphc", "error", "peak", "MB"]
    assert headings in table
    rows = table[table.index(headings) + 2 :]
    assert rows[0][:4] == ["lenet5", "2x1x32x32", "1", "graphc"]
    assert rows[1][0] == "slow"
    assert lines[-1] == "left out: absent: no_such_module not installed (pip install graphc[bench])"
    (c,) = json.loads(file.read_text())["comparisons"]
    assert c["shapes"] == [[2, 1, 32, 32]]


def test_command_errors() -> None:
    assert fail("bench", "lenet5", "--against", "tvm").startswith("--against: expected some of onnxruntime, ")
    assert fail("bench", "xor", "--batch", 2, "--threads", 4097).startswith("threads: expected 1 to ")


@pytest.mark.parametrize(("number", "message"), [(signal.SIGINT, "graphc: interrupted"), (signal.SIGTERM, "")])
def test_interrupted_it_ends_quietly_and_leaves_nothing(number: int, message: str, tmp_path: Path) -> None:
    """Ctrl-C, or `kill`, while workers are being timed: one line at most; no process or file of graphc's is left."""
    command = [sys.executable, "-m", "graphc", "bench", "lenet5", "--rounds", "10000"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    # a shell starts what runs in the background with SIGINT ignored, and a child keeps that
    listen = partial(signal.signal, number, signal.SIG_DFL)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True, preexec_fn=listen
    ) as bench:
        children = Path(f"/proc/{bench.pid}/task/{bench.pid}/children")
        while len(workers := children.read_text().split()) < 2:
            assert bench.poll() is None
            time.sleep(0.01)
        time.sleep(0.5)
        bench.send_signal(number)
        out, error = bench.communicate(timeout=60)
    assert (bench.returncode, out, error.strip()) == (128 + number, "", message)
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]
    assert not list(tmp_path.glob("graphc*"))  # (ONNX Runtime leaves a file of its own)


def test_the_table_of_the_readme() -> None:
    own, peers = measure("graphc", 2e-3), (measure("ncnn", 3e-3, error=2e-6), measure("torch", 8e-3))
    first = Comparison("a", ((1, 3, 8, 8),), 1, (own, *peers), {"openvino": "refused"})
    second = Comparison("b", ((1, 3, 8, 8),), 2, (own,), {"openvino": "refused", "ncnn": "died", "torch": "died"})
    libraries = {"a": measure("graphc library", 2e-3), "b": measure("graphc library", 2e-3)}
    lines = performance.format_markdown(describe_machine(), [first, second], libraries, "2025-06-01").splitlines()
    assert lines[0].startswith("Measured on 2025-06-01: ")
    assert lines[0].endswith("; ncnn 1, PyTorch 1.")
    assert lines[2:] == [
        "| network | input | threads | graphc, ms | ncnn, ms | PyTorch, ms | best peer ÷ graphc |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
        "| a | 1x3x8x8 | 1 | 2 | 3 (1.50) | 8 (4.00) | 1.50 |",
        "| b | 1x3x8x8 | 2 | 2 | - | - | - |",
        "",
        "* Time ÷ graphc's, geometric mean, 1 thread: ncnn 1.50, PyTorch 4.00, best peer 1.50.",
        "* Largest difference from float64, as a share of the largest output: graphc 1e-06, ncnn 2e-06, PyTorch 1e-06.",
        "* Peak memory of the whole process in MB, geometric mean: graphc 1, ncnn 1, PyTorch 1; of one that loads the "
        "library that `graphc compile` made, 1.",
        "* Left out: openvino: refused.",
        "* Left out of b: ncnn: died.",
        "* Left out of b: torch: died.",
    ]


def test_the_table_of_training() -> None:
    step = Comparison("a step", ((8, 3, 4, 4), (8,)), 1, (measure("graphc", 3e-3), measure("torch", 6e-3)), {})
    forward = Comparison("a forward", ((8, 3, 4, 4), (8,)), 1, (measure("graphc", 1e-3),), {"torch": "died"})
    assert performance.format_training([Halves(step, forward)]).splitlines()[3:] == [
        "| network | input | threads | graphc, ms | PyTorch, ms | backward and update ÷ forward: graphc | PyTorch |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
        "| a | 8x3x4x4 | 1 | 3 | 6 (2.00) | 2.00 | - |",
        "",
        "* Time ÷ graphc's, geometric mean, 1 thread: PyTorch 2.00, best peer 2.00.",
    ]


def test_the_readme_has_a_place_for_the_table() -> None:
    readme = (performance.ROOT / "README.md").read_text()
    again = performance.replace_section(performance.replace_section(readme, "old\n"), "new\n")
    before, _, rest = again.partition(performance.BEGIN)
    assert rest.startswith(f"new\n{performance.END}")
    assert readme.startswith(before)
    assert readme.endswith(rest.partition(performance.END)[2])
    with pytest.raises(AssertionError, match=r"README\.md: expected the marks"):
        performance.replace_section("no marks", "new\n")


def test_networks_and_peers_of_the_table_exist() -> None:
    assert {*performance.SIDES, *(name for name, *_ in performance.TRAINED)} <= set(NETWORKS)
    assert set(performance.LABELS) == {"graphc", *PEERS}


def test_workers_load_no_more_than_their_runtime() -> None:
    """So that the memory of a peer is its own."""
    code = (
        "import sys, graphc.bench.worker, graphc.bench.peers.onnxruntime;"
        "assert not {'llvmlite', 'onnx', 'networkx', 'PIL', 'rich'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_format_shapes() -> None:
    assert format_shapes([(1, 3, 224, 224), (5,)]) == "1x3x224x224, 5"


def test_a_step_of_training_is_compared_with_float64() -> None:
    """The learning rate is 0, so that every step has the outputs of the first; a runtime that is absent is named."""
    net = Builder("classifier")
    x = nn.batch_norm(nn.conv2d(net.input("image", f32("N", 2, 8, 8)), 16, 3, name="conv"), name="norm")
    graph = net.build(scores=nn.linear(nn.flatten(nn.dropout(nn.relu(x), 0.5)), 4, name="fc"))
    (halves,) = compare_training(graph, {"N": 3}, ["torch"], [1], rounds=2, seconds=0)
    for comparison in (halves.step, halves.forward):
        own, *_ = comparison.measurements
        assert own.error < 1e-5
        assert {m.runtime for m in comparison.measurements} | set(comparison.left_out) == {"graphc", "torch"}
    assert halves.step.network == "classifier step"
    assert set(halves.backward_ratios()) == {m.runtime for m in halves.step.measurements}


def test_only_some_runtimes_train() -> None:
    assert fail("bench", "lenet5", "--training", "--against", "ncnn").startswith("--against: expected some of torch ")
    assert fail("bench", "lenet5", "--training", "--profile").startswith("--training: expected without --profile")
