"""ONNX Runtime behind the interface of compiled code; what is not there is an error, and never another provider."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from graphc.driver import compile
from graphc.errors import InputError, UnsupportedError
from graphc.geometry import read_geometry
from graphc.models import digits
from graphc.models.pages import digit_windows
from graphc.onnx import exporting
from graphc.passes import fully_convolutional
from graphc.runtime.onnxruntime import OnnxRuntimeNetwork

onnxruntime = pytest.importorskip("onnxruntime")


def test_it_is_called_like_compiled_code() -> None:
    graph = fully_convolutional(digits())
    native, other = compile(graph, threads=1), OnnxRuntimeNetwork(graph, threads=1)
    assert (other.name, other.inputs, other.outputs) == (native.name, native.inputs, native.outputs)
    assert other.meta == {key: text for key, text in native.meta.items() if key != "tiling"}
    assert read_geometry(other.meta, "logits") is not None
    for shape in ((1, 1, 32, 32), (2, 1, 40, 57)):
        x = np.random.default_rng(0).random(shape, np.float32)
        np.testing.assert_allclose(other(x), native(image=x), atol=1e-4)
        np.testing.assert_array_equal(other(image=x), other(x[:, :, :, ::-1][:, :, :, ::-1]))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 1, 32, 32)), "input 'image': expected float32, got float64"),
        (np.zeros((1, 3, 32, 32), np.float32), r"input 'image': expected f32\[N,1,H,W\], got an array of shape"),
        (np.zeros((1, 1, 9, 32), np.float32), "network 'digits': ONNX Runtime: "),
    ],
)
def test_inputs_that_do_not_fit(x: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        OnnxRuntimeNetwork(fully_convolutional(digits()), threads=1)(x)


def test_half_precision_reads_digits() -> None:
    """Trained weights: within 2e-3 of the largest score, and every one of the 364 scans read alike."""
    windows, _ = digit_windows("test")
    full, half = (OnnxRuntimeNetwork(digits(), threads=1, fp16=fp16)(windows) for fp16 in (False, True))
    assert half.dtype == np.float32
    assert 0 < np.abs(full - half).max() < 2e-3 * np.abs(full).max()
    np.testing.assert_array_equal(full.argmax(axis=1), half.argmax(axis=1))


def test_models_beyond_the_limit_of_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "MESSAGE_BYTES", 1000)
    x = np.ones((1, 1, 32, 32), np.float32)
    np.testing.assert_array_equal(
        OnnxRuntimeNetwork(digits(), threads=1)(x), OnnxRuntimeNetwork(digits(), threads=1)(x)
    )


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_providers_that_are_not_there(monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["AProvider", "CPUExecutionProvider"])
    with pytest.raises(UnsupportedError, match=rf"^provider {provider}: .* it has AProvider, CPUExecutionProvider$"):
        OnnxRuntimeNetwork(digits(), provider)


def test_a_provider_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where ONNX Runtime was built for CUDA, and CUDA's libraries are not found: it takes the CPU without a word."""
    real, asked = onnxruntime.InferenceSession, []

    def open_session(path: str, options: Any, providers: Sequence[str], **given: Any) -> Any:
        asked.append((list(providers), given))
        return real(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    message = "^ONNX Runtime cannot start CUDAExecutionProvider, it has CPUExecutionProvider$"
    with pytest.raises(UnsupportedError, match=message):
        OnnxRuntimeNetwork(digits(), "cuda")
    assert asked == [(["CUDAExecutionProvider"], {"enable_fallback": 0})]


def test_unknown_providers() -> None:
    with pytest.raises(InputError, match="provider: expected one of cpu, cuda, tensorrt, got 'gpu'"):
        OnnxRuntimeNetwork(digits(), "gpu")


def test_what_onnxruntime_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **given: Any) -> Any:
        raise ValueError("no\nkernel")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(UnsupportedError, match=r"^ONNX Runtime refuses the exported model: no kernel$"):
        OnnxRuntimeNetwork(digits())
