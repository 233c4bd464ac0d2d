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
from graphc.bench.profile import SYMBOL, Profile, StepTime, bound_to, profile
from graphc.codegen.plan import make_plan
from graphc.codegen.target import make_target
from graphc.driver import lower
from graphc.ir import Builder, Graph, f32
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
    elements = 2 * 2 * 10 * 8, 8 * 2 * 3 * 3, 8, 2 * 8 * 8 * 6  # image, weight, bias, result
    assert conv.moved == 4 * sum(elements)


def test_only_a_profiled_module_has_stamps() -> None:
    for wanted in (False, True):
        text = str(lower(branches(), SYMBOL, "native", profile=wanted).module)
        assert (f"{SYMBOL}_stamps" in text) == ("@clock_gettime" in text) == wanted


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
    rows = {words[0]: words for line in lines if (words := line.split())}
    (found,) = json.loads(file.read_text())["profiles"]
    names = " ".join(s["node"] for s in found["steps"])
    assert names == "conv1 average_pool_1 conv3 average_pool_2 conv5 fc6 output"
    for s in found["steps"]:
        assert rows[s["node"]][1] == s["kernel"]
        assert rows[s["node"]][2] == f"{s['seconds'] * 1e3:.4f}"
    shares = [float(rows[s["node"]][3]) for s in found["steps"]] + [float(rows["(the"][3])]
    np.testing.assert_allclose(sum(shares), 100, atol=0.05 * len(shares))
    assert set(found) == {"network", "shapes", "limits", "run_seconds", "call_seconds", "steps"}


def test_a_profile_compares_nothing() -> None:
    message = fail("bench", "lenet5", "--profile", "--against", "torch")
    assert message == "--against: expected without --profile only"
