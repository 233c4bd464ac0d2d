"""ONNX Runtime as an executor: a graph is exported, and run on a CPU or a GPU behind compiled code's own interface."""

from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from graphc.errors import InputError, UnsupportedError
from graphc.geometry import describe_geometry
from graphc.ir import Array, Graph
from graphc.ir.sizes import bind_sizes
from graphc.onnx import export_onnx
from graphc.runtime.network import arrange_inputs, check_threads

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
FATAL_ONLY = 4  # of the log: errors are raised as well, and become one line


class OnnxRuntimeNetwork:
    """Call it as a `Network`: with arrays, by position or by input name; it returns an array, or a tuple of several.

    `provider` is a key of PROVIDERS; one that this ONNX Runtime lacks, or cannot start, is an UnsupportedError that
    lists what there is. What a GPU's provider has no kernel for, ONNX Runtime computes on the CPU. `fp16` exports in
    half precision.
    """

    def __init__(self, graph: Graph, provider: str = "cpu", threads: int | None = None, fp16: bool = False) -> None:
        self.name, self.meta = graph.name, dict(describe_geometry(graph).meta)
        self.inputs = tuple((v.name, v.type) for v in graph.inputs)
        self.outputs = tuple((name, v.type) for name, v in zip(graph.output_names, graph.outputs, strict=True))
        with TemporaryDirectory(prefix="graphc.") as folder:  # a model in memory may have 2 GiB at most
            path = Path(folder) / "net.onnx"
            wanted = find_provider(provider)
            export_onnx(graph, path, fp16=fp16)
            self._session = _open_session(path, wanted, check_threads(threads))

    def __call__(self, *args: Any, **named: Any) -> Any:
        arrays = arrange_inputs(self.name, self.inputs, args, named)
        bind_sizes(self.inputs, [a.shape for a in arrays])
        feed = {name: a for (name, _), a in zip(self.inputs, arrays, strict=True)}
        try:
            results: list[Array] = self._session.run(None, feed)
        except Exception as error:  # its classes have no common base of their own
            raise InputError(f"network '{self.name}': ONNX Runtime: {_one_line(error)}") from None
        return results[0] if len(results) == 1 else tuple(results)


def find_provider(name: str) -> str:
    """ONNX Runtime's name of the provider; InputError for an unknown one, UnsupportedError if it is not there."""
    if name not in PROVIDERS:
        raise InputError(f"provider: expected one of {', '.join(PROVIDERS)}, got {name!r}")
    if find_spec("onnxruntime") is None:
        raise UnsupportedError("ONNX Runtime is not installed (pip install graphc[onnxruntime])")
    import onnxruntime

    available = onnxruntime.get_available_providers()
    if PROVIDERS[name] not in available:
        raise UnsupportedError(
            f"provider {name}: this ONNX Runtime has no {PROVIDERS[name]}, it has {', '.join(available)}"
        )
    return PROVIDERS[name]


def _open_session(path: Path, provider: str, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = FATAL_ONLY, threads
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider], enable_fallback=0)
    except Exception as error:  # its classes have no common base of their own
        raise UnsupportedError(f"ONNX Runtime refuses the exported model: {_one_line(error)}") from None
    if provider not in session.get_providers():  # such as CUDA's, whose libraries were not found
        raise UnsupportedError(f"ONNX Runtime cannot start {provider}, it has {', '.join(session.get_providers())}")
    return session


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
