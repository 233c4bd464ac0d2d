"""Choosing kernels by measurement: what is measured, what is kept, and that the network computes the same."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from commands import fail, succeed

import graphc
from graphc import nn
from graphc.codegen import target
from graphc.codegen.plan import Plan, make_plan
from graphc.codegen.target import make_target
from graphc.errors import GraphcError, InputError
from graphc.ir import Graph
from graphc.passes import optimize
from graphc.tuning import choose_sizes, tune_plan
from graphc.verify import relative_difference

SIZES = {"N": 1, "H": 40, "W": 40}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "cache"))


def two_convolutions() -> Graph:
    """3x3, for which there are four shapes of Winograd and three tiles; 1x1, for which there are the tiles."""
    net = graphc.Builder("two")
    x = net.input("x", graphc.f32("N", 64, "H", "W"))
    return optimize(net.build(nn.conv2d(nn.conv2d(x, 64, 3, padding=1, name="a"), 192, 1, name="b")))


class Clock:
    """Tells times by kernel name, and counts what it was asked to measure."""

    def __init__(self, times: Mapping[str, float]) -> None:
        self.times, self.plans = times, 0

    def __call__(self, plans: Sequence[Plan], sizes: Mapping[str, int]) -> list[list[float]]:
        assert sizes == SIZES
        self.plans += len(plans)
        return [[self.times.get(s.kernel.name, 1.0) for s in plan.steps] for plan in plans]


def kernels(plan: Plan) -> list[str]:
    return [s.kernel.name for s in plan.steps if s.kernel.name.startswith(("conv", "winograd"))]


def tuned(clock: Clock, precise: bool = False, version: str = "") -> list[str]:
    return kernels(tune_plan(two_convolutions(), make_target("x86-64-v4"), precise, SIZES, version, clock))


def test_the_fastest_is_taken_and_kept() -> None:
    model = ["winograd4x4_3x3_4x6", "conv_pointwise_4x6"]
    assert kernels(make_plan(two_convolutions(), make_target("x86-64-v4"))) == model
    clock = Clock({"conv_blocked_2x10": 0.5, "conv_pointwise_3x8": 0.9})
    assert tuned(clock) == ["conv_blocked_2x10", "conv_pointwise_3x8"] and clock.plans == 7
    silent = Clock({})
    assert tuned(silent) == ["conv_blocked_2x10", "conv_pointwise_3x8"] and silent.plans == 0
    assert tuned(silent, version="another") == model and silent.plans == 7
    close = Clock({"conv_blocked_2x10": 0.98})  # within the noise
    assert tuned(close, version="close") == model
    for shape in ("winograd2x2_3x3_4x6", "winograd4x4_3x3_2x10_late", "winograd2x2_3x3_2x10_late"):
        assert tuned(Clock({shape: 0.5}), version=shape) == [shape, model[1]]


def test_precise_has_no_winograd() -> None:
    clock = Clock({"winograd4x4_3x3_4x6": 0.1})
    assert tuned(clock, precise=True) == ["conv_blocked_4x6", "conv_pointwise_4x6"] and clock.plans == 3


def test_without_a_cache_it_is_measured_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE", "off")
    clock = Clock({})
    assert tuned(clock) == tuned(clock) and clock.plans == 14


def test_a_tuned_network_computes_the_same(tmp_path: Path) -> None:
    graph = two_convolutions()
    x = np.random.default_rng(0).standard_normal((1, 64, 21, 30)).astype(np.float32)
    expected = graphc.compile(graph, threads=1)(x)
    net = graphc.compile(graph, threads=1, tune={"H": 21, "W": 30})
    assert relative_difference(net(x), expected) < 1e-5
    assert relative_difference(graphc.compile(graph, threads=1, tune={"H": 21, "W": 30})(x), expected) < 1e-5


def test_sizes() -> None:
    graph = two_convolutions()
    assert choose_sizes(graph, True) == {"N": 1, "H": 224, "W": 224}
    assert choose_sizes(graph, {"W": 30}) == {"N": 1, "H": 224, "W": 30}
    for wrong, got in (({"D": 3}, "D=3"), ({"H": 0}, "H=0")):
        with pytest.raises(InputError, match=f"tune: expected sizes of at least 1 for some of N, H, W, got {got}"):
            graphc.compile(graph, tune=wrong)


def test_artefacts_are_tuned_for_what_runs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "host_features", lambda: frozenset({"sse2"}))
    with pytest.raises(GraphcError, match="cpu 'x86-64-v4': this machine lacks"):
        graphc.build(two_convolutions(), tmp_path, ["obj"], cpu="x86-64-v4", tune=True)


def test_on_the_command_line(tmp_path: Path) -> None:
    command = ("compile", "lenet5", "-o", tmp_path, "--emit", "obj")
    assert "lenet5.o" in succeed(*command, "--tune", "--shape", "1x1x32x32")[0]
    assert fail(*command, "--shape", "1x1x32x32").startswith("--shape: expected together with --tune only")
