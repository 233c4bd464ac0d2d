"""OpenVINO: its CPU plugin, tuned for the time of one request."""

import numpy as np
import openvino

from graphc.bench.problem import Loaded, Problem
from graphc.ir import Array


def load(problem: Problem, threads: int) -> Loaded:
    """The exported network compiled for the shapes of the inputs. It would compute in bfloat16 where the CPU can."""
    core = openvino.Core()
    model = core.read_model(problem.onnx)
    model.reshape([list(a.shape) for a in problem.inputs] if len(problem.inputs) > 1 else problem.inputs[0].shape)
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def run() -> list[Array]:
        results = request.infer(list(problem.inputs), share_inputs=True, share_outputs=True)
        return [np.asarray(results[i]) for i in range(len(results))]

    return Loaded(openvino.__version__.split("-")[0], run)
