"""The profile: every step is there, its figures follow from the plan, and the rows add up. No time is judged."""

import json
import os
from dataclasses import replace
from math import isclose
from pathlib import Path

import numpy as np
from commands import fail, succeed

from graphc import nn
from graphc.bench.limits import Limits, measure_limits
from graphc.bench.profile import Profile, StepTime, bound_to, profile
from graphc.codegen.plan import buffer_bytes, make_plan
from graphc.codegen.target import make_target
from graphc.driver import lower
from graphc.ir import Builder, Graph, dims, f32
from graphc.models import lenet5
from graphc.passes import optimize

LIMITS = Limits(1, 100e9, {"L2": 50e9, "L3": 20e9, "memory": 10e9}, {"L2": 2**20, "L3": 2**24})
SIZES = {"N": 2, "H": 10, "W": 8}


def branches() -> Graph:
    """A convolution is read twice, and an input is also an output, which takes a step that belongs to no node."""
    net = Builder("branches")
    x = net.input("image", f32("N", 2, "H", "W"))
    y = nn.conv2d(x, 8, 3, name="a")
    return net.build(same=x, y=nn.sigmoid(y), mean=nn.softmax(nn.flatten(nn.global_average_pool(y))))


def test_every_step_has_a_row() -> None:
    graph = branches()
    found = profile(graph, SIZES, 1, 0)
    plan = make_plan(optimize(graph), make_target())
    assert [(s.node, s.kernel, s.reason) for s in found.steps] == [
        (step.node.name, step.kernel.name, step.kernel.reason) for step in plan.steps
    ]
    assert all(s.seconds > 0 and s.moved > 0 and s.least_seconds > 0 for s in found.steps)
    assert (found.network, found.shapes) == ("branches", ((2, 2, 10, 8),))
    assert found.call_seconds > 0  # so all steps lie within their run
    assert found.run_seconds > 0
    assert isclose(found.row_seconds, found.call_seconds + sum(s.seconds for s in found.steps))


def test_operations_count_once_for_each_node() -> None:
    found = profile(branches(), SIZES, 1, 0)
    assert {s.node: s.flops for s in found.steps if s.flops} == {"a": 2 * (2 * 8 * 8 * 6) * (2 * 3 * 3)}
    conv = next(s for s in found.steps if s.flops)
    kernel = next(s.kernel for s in make_plan(optimize(branches()), make_target()).steps if s.node.name == "a")
    assert conv.moved == sum(dims.evaluate(buffer_bytes(b), SIZES) for b in kernel.buffers)


def test_only_a_profiled_module_has_stamps() -> None:
    for wanted in (False, True):
        text = str(lower(branches(), "net", "native", profile=wanted).module)
        assert ("net_stamps" in text) == ("@clock_gettime" in text) == wanted


def test_what_binds_a_step() -> None:
    assert LIMITS.bound(1e9, 2**10) == ("compute", 0.01)
    assert LIMITS.bound(0, 2**20) == ("L2", 2**20 / 50e9)
    assert LIMITS.bound(0, 2**20 + 1) == ("L3", (2**20 + 1) / 20e9)
    assert LIMITS.bound(1e9, 2**30) == ("memory", 2**30 / 10e9)
    assert replace(LIMITS, capacity={}).bound(0, 1)[0] == "memory"


def test_limits_are_measured() -> None:
    limits = measure_limits(2)
    assert limits.threads == 2
    assert limits.flops > 0
    assert list(limits.bandwidth)[-1] == "memory"
    assert all(b > 0 for b in limits.bandwidth.values())
    assert set(limits.capacity) == set(limits.bandwidth) - {"memory"}


def test_kernels_are_summed() -> None:
    steps = [StepTime(n, k, "", s, 0, 1, "L2", 1e-9) for n, k, s in (("a", "x", 1.0), ("b", "y", 5.0), ("c", "x", 2.0))]
    found = Profile("net", (), LIMITS, 9.0, 1.0, tuple(steps))
    assert found.by_kernel() == {"y": (1, 5.0), "x": (2, 3.0)}
    assert list(found.by_kernel()) == ["y", "x"]
    assert found.row_seconds == 9.0


def test_threads_are_bound_and_set_free() -> None:
    before = os.sched_getaffinity(0)
    with bound_to([min(before)]):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before


def test_command(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    lines = succeed("bench", "lenet5", "--profile", "--rounds", 1, "--time", 0.01, "--json", file)
    rows = [" ".join(line.split()) for line in lines]
    (found,) = json.loads(file.read_text())["profiles"]
    names = " ".join(s["node"] for s in found["steps"])
    assert names == " ".join(s.node.name for s in make_plan(optimize(lenet5()), make_target()).steps)
    shares = [float(next(r for r in rows if r.startswith("(the call) ")).split()[3])]
    for s in found["steps"]:
        head = f"{s['node']} {s['kernel']} {s['seconds'] * 1e3:.4f} "
        shares.append(float(next(r for r in rows if r.startswith(head)).removeprefix(head).split()[0]))
    np.testing.assert_allclose(sum(shares), 100, atol=0.05 * len(shares))
    assert set(found) == {"network", "shapes", "limits", "run_seconds", "call_seconds", "steps"}


def test_a_profile_compares_nothing() -> None:
    message = fail("bench", "lenet5", "--profile", "--against", "torch")
    assert message == "--against: expected without --profile only"
