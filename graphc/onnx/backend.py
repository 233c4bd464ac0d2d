"""graphc as an ONNX backend (onnx.backend.base): what onnx's own test runner, and tools built on it, call.

`onnx.backend.test.BackendTest(graphc.onnx.backend)` runs its suite; `make conformance` counts (tests/conformance.py).
It stands above the driver, unlike the rest of graphc.onnx, because it compiles: `graphc.onnx` does not import it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, defs, helper
from onnx.backend.base import Backend, BackendRep, Device, DeviceType

from graphc.driver import compile
from graphc.errors import GraphcError, InputError
from graphc.ir import Array
from graphc.onnx.small import hold, release
from graphc.runtime.network import Network
from graphc.runtime.specializing import SpecializingNetwork

UNSUPPORTED_EXCEPTIONS = (GraphcError,)  # what a model that graphc cannot run raises, and nothing else


class CompiledModel(BackendRep):
    """A model as machine code in this process."""

    def __init__(self, network: Network | SpecializingNetwork, element_types: Sequence[int]) -> None:
        self.network, self.element_types = network, element_types  # ONNX's, of the outputs

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Array, ...]:
        """The outputs for these inputs: arrays in the model's order, or by name."""
        if isinstance(inputs, dict):
            results = self.network(**{name: hold(np.asarray(a)) for name, a in inputs.items()})
        else:
            results = self.network(*(hold(np.asarray(a)) for a in inputs))
        listed = results if isinstance(results, tuple) else (results,)
        return tuple(release(a, number) for a, number in zip(listed, self.element_types, strict=True))


class GraphcBackend(Backend):
    """Compiles models and nodes for the CPU; GraphcError for those that graphc cannot run."""

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> CompiledModel:
        """Compile a model. `threads` and `cpu` are those of graphc.compile."""
        if not cls.supports_device(device):
            raise InputError(f"device: expected CPU, got {device}")
        return CompiledModel(compile(model, **kwargs), [v.type.tensor_type.elem_type for v in model.graph.output])

    @classmethod
    def run_model(cls, model: ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Array, ...]:
        """Compile a model and run it once."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[Any, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Array, ...]:
        """Compile one node for inputs of these shapes and run it; `opset_version` is the newest by default."""
        names = [name for name in node.input if name]
        arrays = [np.asarray(inputs[n] if isinstance(inputs, dict) else a) for n, a in zip(names, inputs, strict=True)]
        declared = [_declare(n, a) for n, a in zip(names, arrays, strict=True)]
        results = [ValueInfoProto(name=name) for name in node.output if name]
        graph = helper.make_graph([node], node.name or node.op_type, declared, results)
        opset = helper.make_opsetid("", kwargs.pop("opset_version", defs.onnx_opset_version()))
        return cls.run_model(helper.make_model(graph, opset_imports=[opset]), arrays, device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether this is the CPU."""
        return bool(Device(device).type == DeviceType.CPU)


def _declare(name: str, array: Array) -> ValueInfoProto:
    try:
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    except KeyError:
        kind = TensorProto.UNDEFINED
    return helper.make_tensor_value_info(name, kind, array.shape)


prepare = GraphcBackend.prepare
run_model = GraphcBackend.run_model
run_node = GraphcBackend.run_node
supports_device = GraphcBackend.supports_device
