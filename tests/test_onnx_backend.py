"""graphc as an ONNX backend, and the script that counts conformance."""

import os
import sys
from collections import Counter
from typing import Any

import conformance
import numpy as np
import pytest
from conformance import Job, Outcome, list_jobs
from onnx_models import W3, floats, make_model, node

from graphc.errors import InputError, UnsupportedError
from graphc.onnx import backend, from_model
from graphc.reference import run_reference


def test_run_model() -> None:
    model, x = make_model([node("Conv", "x w")], data={"w": W3}), floats(1, 3, 5, 6)
    (y,) = backend.run_model(model, [x])
    (named,) = backend.prepare(model, threads=1).run({"x": x})
    np.testing.assert_array_equal(y, named)
    (expected,) = run_reference(from_model(model), [x])
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_run_node() -> None:
    a, b = floats(2, 3), floats(3)
    for inputs in ([a, b], {"a": a, "b": b}):
        (y,) = backend.run_node(node("Add", "a b"), inputs)
        np.testing.assert_array_equal(y, a + b)
    (y,) = backend.run_node(node("Clip", "a - high"), [a, np.float32(0.5)], opset_version=13)
    np.testing.assert_array_equal(y, np.minimum(a, np.float32(0.5)))


def test_what_is_refused() -> None:
    assert backend.supports_device("CPU")
    assert not backend.supports_device("CUDA:0")
    with pytest.raises(InputError, match="device: expected CPU, got CUDA"):
        backend.prepare(make_model([node("Relu", "x")]), "CUDA")
    with pytest.raises(UnsupportedError, match="graphc has no such op") as caught:
        backend.run_node(node("Det", "x"), [floats(3, 3)])
    assert isinstance(caught.value, backend.UNSUPPORTED_EXCEPTIONS)
    with pytest.raises(UnsupportedError, match="element type COMPLEX64"):
        backend.run_node(node("Relu", "x"), [np.zeros(3, np.complex64)])


def test_a_sample_of_onnx_own_tests() -> None:
    """Every way to run a test that graphc passes; `make conformance` runs them all."""
    jobs = [job for pattern in ("relu", "qlinear", "integer", "quantizelinear_axis") for job in list_jobs(pattern)]
    counts = Counter((job.way, outcome.state) for job, outcome in conformance.run_all(jobs))
    assert all(counts[way, "pass"] > 3 for way in conformance.WAYS)
    assert {state for _, state in counts} == {"pass"}


def test_faults_are_counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A worker that dies takes no other test with it."""

    def behave(job: Job) -> Outcome:
        if job.case.name == "test_relu":
            os._exit(7)
        return Outcome("unclean", "ValueError: bad") if job.case.name == "test_elu" else Outcome("pass")

    monkeypatch.setattr(conformance, "run", behave)
    monkeypatch.setattr(sys, "argv", ["conformance.py", "elu"])
    assert conformance.main() == 1
    report = capsys.readouterr().out
    assert "crash: test_relu [given]: exit status 7" in report
    assert "unclean: test_elu [given]: ValueError: bad" in report
    jobs: list[Any] = conformance.list_jobs("elu")
    assert sum("relu [" in line for line in report.splitlines()) == sum(j.case.name == "test_relu" for j in jobs)


def test_wrong_results_are_found() -> None:
    expected = [np.ones(3, np.float32)]
    assert conformance.compare((np.ones(3, np.float32),), expected, 1e-3, 1e-7).state == "pass"
    assert conformance.compare((np.full(3, 1.1, np.float32),), expected, 1e-3, 1e-7).state == "wrong"
    other = conformance.compare((np.ones(3, np.float64),), expected, 1e-3, 1e-7)
    assert other.state == "wrong" and "dtype" in other.message
