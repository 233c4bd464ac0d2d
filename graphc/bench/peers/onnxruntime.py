"""ONNX Runtime: its CPU provider with all graph optimisations (the default)."""

import onnxruntime

from graphc.bench.problem import Loaded, Problem


def load(problem: Problem, threads: int) -> Loaded:
    """A session on the exported network, whose sizes are fixed to the problem's."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: it warns of values that it can fold
    for name, size in problem.sizes.items():
        options.add_free_dimension_override_by_name(name, size)
    session = onnxruntime.InferenceSession(str(problem.onnx), options, providers=["CPUExecutionProvider"])
    feeds = dict(zip([i.name for i in session.get_inputs()], problem.inputs, strict=True))
    return Loaded(onnxruntime.__version__, lambda: session.run(None, feeds))
