"""From an ONNX model to a Graph: reads the file, sorts the nodes, and has each read by its handler.

Every failure is a GraphcError of one line that names the file and the node; everything that graphc cannot do is
reported at once, in one UnsupportedError.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, NodeProto, ValueInfoProto, defs, version_converter

from graphc.errors import FileError, GraphcError, GraphError, UnsupportedError, ValueDependentError
from graphc.ir import Array, Builder, DType, Graph, TensorType, Value
from graphc.onnx.damage import find_damage
from graphc.onnx.import_ops import FOLDERS, HANDLERS, Handler, fold_node
from graphc.onnx.import_ops.folding import FOLDED_IN_ALL, folded_elements
from graphc.onnx.import_ops.shapes import FOLDED_ELEMENTS
from graphc.onnx.inlining import Inliner, key_of
from graphc.onnx.lifting import lift_data
from graphc.onnx.names import Names, clean, one_line, rename_all
from graphc.onnx.ordering import describe, read_names, sort_nodes
from graphc.onnx.reader import NodeReader
from graphc.onnx.scope import Constant, Mask, Operand, Scope
from graphc.onnx.signature import read_input_types
from graphc.onnx.tensors import CONSTANT, DTYPES, PRODUCER, RENAMED, check_size, open_tensor
from graphc.stored import Span, StoredFile

OLDEST_OPSET = 7  # where broadcasting got NumPy's rules; older files are raised to it by onnx's version converter
LARGEST_FILE = 2**31 - 1  # bytes: protobuf's own limit
SEARCHED = 2**26  # bytes of a model that is written again to find what is damaged in it
UNBOUNDED = 2**31 - 1  # as the most inputs of an op: any number
DEPRECATED = ("GroupNormalization",)  # from opset 18 to 20, for its factors of groups; runtimes run it all the same
# What a value of the wrong kind in a file can raise in the code that reads it.
MALFORMED = (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError)


def load(path: str | os.PathLike[str]) -> Graph:
    """Read an ONNX file as a Graph; opsets before 7 as far as onnx's version converter raises them.

    ValueDependentError if shapes depend on the values of inputs: `graphc.compile(path)` compiles for those of a call.
    FileError if it cannot be read or is no ONNX model, UnsupportedError with everything that graphc cannot do,
    GraphError or ShapeError if the model is not well formed. External data must lie in the model's folder. Large
    weights are read whenever they are used: the files may be removed or replaced, but must not be written to.
    """
    file = Path(path)
    model, lifted = read_model(file)
    return _import(model, file.name, None, file.parent, {}, lifted)


def read_model(file: Path) -> tuple[ModelProto, Mapping[str, Span]]:
    """The model in a file, without the data of large initialisers, and where these lie; FileError if there is none."""
    model = ModelProto()
    if file.is_file() and (size := file.stat().st_size) > LARGEST_FILE:
        raise FileError(f"{file.name}: expected at most {LARGEST_FILE} bytes, got {size}; weights may lie beside it")
    try:
        data, lifted = lift_data(StoredFile(file)) if file.is_file() else (file.read_bytes(), {})
    except OSError as error:
        raise FileError(f"{file.name}: {error.strerror or error}") from None
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        where = find_damage(memoryview(file.read_bytes() if lifted else data))
        raise FileError(f"{file.name}: not an ONNX model: {where or error}") from None
    if not model.HasField("graph"):
        raise FileError(f"{file.name}: not an ONNX model: it has no graph")
    if lifted and _written_opset(model) < OLDEST_OPSET:  # the version converter wants all data
        return ModelProto.FromString(file.read_bytes()), {}
    return model, lifted


def from_model(
    model: ModelProto,
    name: str | None = None,
    folder: Path | None = None,
    known: Mapping[str, Array] | None = None,
    lifted: Mapping[str, Span] | None = None,
) -> Graph:
    """Like `load`, from a model in memory; `folder` is where its external data lies, `name` replaces its name.

    The inputs in `known` are these constants, and no inputs of the graph. The data of the initialisers in `lifted` lie
    in a file.
    """
    return _import(model, name or _read_name(model), name, folder, known or {}, lifted or {})


def _read_name(model: ModelProto) -> str:
    """What errors call the model."""
    name: str | bytes = model.graph.name  # protobuf gives text that is not UTF-8 as bytes
    return (name if isinstance(name, str) else name.decode(errors="replace")) or "model"


def read_inputs(model: ModelProto) -> tuple[tuple[str, TensorType], ...]:
    """The inputs of a model that can be imported: names as in its graph, and types."""
    importer = _Import(model, "model", None, {}, {})
    types = read_input_types(importer.inputs)
    return tuple((importer.labels[v.name], type) for v, type in zip(importer.inputs, types, strict=True))


def _import(
    model: ModelProto,
    label: str,
    name: str | None,
    folder: Path | None,
    known: Mapping[str, Array],
    lifted: Mapping[str, Span],
) -> Graph:
    label = one_line(label)
    try:
        importer = _Import(model, clean(name or model.graph.name or Path(label).stem), folder, known, lifted)
        graph = importer.read()
    except GraphcError as error:
        raise type(error)(one_line(f"{label}: {error}")) from None
    except MALFORMED as error:  # text that is not UTF-8, and whatever else a damaged file may hold
        small = model.ByteSize() <= SEARCHED
        where = find_damage(memoryview(model.SerializeToString())) if small else None
        raise FileError(f"{label}: not an ONNX model: {where or f'a damaged field ({one_line(str(error))})'}") from None
    if graph is None:
        problems = [one_line(p) for p in importer.problems]
        if importer.only_values:
            raise ValueDependentError(label, importer.needed, problems)
        raise UnsupportedError(label, problems)
    return graph


def _read_opset(model: ModelProto) -> int:
    opsets: set[int] = {o.version for o in model.opset_import if o.domain in ("", "ai.onnx")}
    if len(opsets) != 1:
        got = " and ".join(map(str, sorted(opsets))) or "none"
        raise FileError(f"not an ONNX model: expected one opset of ONNX's own domain, got {got}")
    (opset,) = opsets
    if 1 <= opset < OLDEST_OPSET and _is_unchanged(model.graph.node, opset):
        return OLDEST_OPSET
    if opset < OLDEST_OPSET:
        raise UnsupportedError(f"opset {opset}, which onnx's version converter cannot raise to {OLDEST_OPSET}")
    newest = defs.onnx_opset_version()
    if opset > newest:
        raise UnsupportedError(f"opset {opset}, expected {OLDEST_OPSET} to {newest}")
    return opset


def _is_unchanged(nodes: Iterable[NodeProto], opset: int) -> bool:
    """Whether the ops of these nodes are in OLDEST_OPSET what they are in this older opset."""
    try:
        return all(defs.get_schema(n.op_type, OLDEST_OPSET).since_version <= opset for n in nodes)
    except defs.SchemaError:
        return False


def _written_opset(model: ModelProto) -> int:
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), OLDEST_OPSET)


def _raise_opset(model: ModelProto, opset: int) -> ModelProto:
    """A model of an older opset in the oldest that the import reads, if onnx's version converter knows how."""
    if not 1 <= opset < OLDEST_OPSET or _is_unchanged(model.graph.node, opset):
        return model
    try:
        return version_converter.convert_version(model, OLDEST_OPSET)
    except (RuntimeError, version_converter.ConvertError):  # it says what in several lines
        return model


def _check_signature(node: NodeProto, opset: int) -> None:
    """GraphError unless the node has as many inputs and outputs as its op, and the attributes that it must have."""
    try:
        schema = defs.get_schema(node.op_type, opset)
    except defs.SchemaError:
        raise UnsupportedError(f"opset {opset} has no such op") from None
    if schema.deprecated and node.op_type not in DEPRECATED:
        raise UnsupportedError(f"opset {opset} has this op no more")
    counts = (("inputs", len(node.input), schema.min_input, schema.max_input),
              ("outputs", len(node.output), schema.min_output, schema.max_output))  # fmt: skip
    for what, got, least, most in counts:
        if not least <= got <= most:
            wanted = f"{least} to {most}" if most < UNBOUNDED else f"at least {least}"
            raise GraphError(f"expected {wanted} {what}, got {got}")
    given = {a.name for a in node.attribute}
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in given:
            raise GraphError(f"expected an attribute '{name}'")


def check_names(what: str, names: Sequence[str]) -> None:
    """GraphError unless these names differ, and none is empty."""
    name, count = max(Counter(names).items(), key=lambda item: (not item[0], item[1]), default=("-", 0))
    if count > 1 or not name:
        raise GraphError(f"{what}: expected a different name for each, got '{name}' {count} times")


def _check_attributes(node: NodeProto) -> None:
    """GraphError if an attribute is given twice: readers would differ in which counts."""
    if len({a.name for a in node.attribute}) < len(node.attribute):
        twice = Counter(a.name for a in node.attribute).most_common(1)[0][0]
        raise GraphError(f"attribute '{twice}' is given more than once")


class _Import:
    """One model on its way to a graph; `problems` collects what graphc cannot do."""

    def __init__(
        self, model: ModelProto, name: str, folder: Path | None, known: Mapping[str, Array], lifted: Mapping[str, Span]
    ) -> None:
        written = _written_opset(model)
        model = _raise_opset(model, written)
        opset, graph = _read_opset(model), model.graph
        self.graph, self.known, self.lifted, self.problems = graph, known, lifted, list[str]()
        self.beside: dict[str, StoredFile] = {}  # files of data, by their paths
        self.needed: set[str] = set()  # inputs whose values would solve problems
        self.only_values = True  # whether they would solve all
        self.read_bytes = self.folded = 0  # bytes of initialisers so far, elements of folded results
        self.tensors = {t.name: t for t in graph.initializer}
        self.inputs = [v for v in graph.input if v.name not in self.tensors]
        if graph.sparse_initializer:
            raise UnsupportedError(
                f"sparse initializer '{graph.sparse_initializer[0].values.name}', expected dense ones"
            )
        given = [*(v.name for v in self.inputs), *self.tensors]
        check_names("inputs", [v.name for v in graph.input])
        check_names("initializers", [t.name for t in graph.initializer])
        self.nodes = sort_nodes(graph.node, given)
        defined = [*given, *(o for n in self.nodes for o in n.output if o)]
        self.labels = dict(zip(defined, rename_all(defined), strict=True))
        names = self.labels | self._read_own_names(model)
        self.node_names = rename_all([n.name or names.get(next(iter(n.output), ""), "") for n in self.nodes])
        used = {i for n in self.nodes for i in read_names(n)} | {o.name for o in graph.output}
        builder = Builder(name, meta={clean(p.key): p.value for p in model.metadata_props})
        self.scope = Scope(builder, names, Names((*names.values(), *self.node_names)), used, opset, written, folder)
        functions = {("" if f.domain == "ai.onnx" else f.domain, f.name, f.overload): f for f in model.functions}
        keys = Names(defined)
        self.inliner = Inliner(self.scope, self.tensors, functions, keys, self._read_node, self._find_value)

    def _read_own_names(self, model: ModelProto) -> dict[str, str]:
        """The names that values had before they became outputs, as graphc's own export notes them."""
        if model.producer_name != PRODUCER:
            return {}
        noted = {o.name: o.doc_string.removeprefix(RENAMED) for o in model.graph.output if o.doc_string[:1] == RENAMED}
        taken = set(self.labels.values())
        return {output: name for output, name in noted.items() if output in self.labels and name not in taken}

    def read(self) -> Graph | None:
        """The graph; None if there are problems."""
        for v, type in zip(self.inputs, read_input_types(self.inputs), strict=True):
            name = self.scope.names[v.name]
            check_size(f"input '{v.name}'", type.shape, type.dtype)
            self.scope.element_types[v.name] = v.type.tensor_type.elem_type
            if name in self.known:
                self.scope.define(v.name, Constant(name, self.known[name]))
            else:
                self.scope.define(v.name, self.scope.builder.input(name, type))
        for node, name in zip(self.nodes, self.node_names, strict=True):
            self._read_node(node, name)
        check_names("outputs", [o.name for o in self.graph.output])
        outputs = {self.labels.get(o.name, o.name): self._read_output(o) for o in self.graph.output}
        found = {name: v for name, v in outputs.items() if v is not None}
        return None if self.problems else self.scope.builder.build(**found)

    def _read_node(self, node: NodeProto, name: str) -> None:
        try:
            handler = self._find_handler(node)
            if handler is not None:
                reader = NodeReader(self.scope, node, name)
                with np.errstate(divide="raise", invalid="raise", over="ignore", under="ignore"):
                    handler(reader)
                if reader.unread:
                    raise UnsupportedError(f"attribute '{min(reader.unread)}' is not supported")
        except ValueDependentError as error:
            self.needed |= error.inputs
            self.problems.append(f"{describe(node)}: {error}")
        except UnsupportedError as error:
            self.only_values = False
            self.problems.append(f"{describe(node)}: {error}")
        except GraphcError as error:
            raise type(error)(f"{describe(node)}: {error}") from None
        except MALFORMED as error:
            raise GraphError(f"{describe(node)}: malformed: {error}") from None
        except MemoryError:
            raise GraphcError(f"{describe(node)}: out of memory") from None
        for output in filter(None, node.output):
            self.scope.operands.setdefault(output, None)

    def _find_handler(self, node: NodeProto) -> Handler | None:
        """What reads the node; None if it follows from a problem before it. Its initialisers are read here."""
        _check_attributes(node)
        inlined = self.inliner.find(node)
        if inlined is None and node.domain not in ("", "ai.onnx"):
            raise UnsupportedError(f"domain {node.domain}, expected ONNX's own")
        if inlined is None and node.op_type not in HANDLERS and node.op_type not in FOLDERS:
            raise UnsupportedError("graphc has no such op")
        if key_of(node) not in self.inliner.functions:
            _check_signature(node, self.scope.opset)
        for i in filter(None, node.input):
            self._read_initializer(i)
        operands = [self.scope.operands[i] for i in node.input if i]
        if None in operands:
            return None
        if inlined is not None:
            return inlined
        constants = [o for o in operands if isinstance(o, Constant)]
        known = bool(operands) and len(constants) == len(operands)
        # what sizes are scaled by is no weight, although nothing else tells it from one
        known = known and (any(c.symbolic for c in constants) or not any(c.trainable for c in constants))
        if known and node.op_type in FOLDERS and self._may_fold(node, [c.array for c in constants]):
            return fold_node
        if node.op_type not in HANDLERS:
            raise UnsupportedError("its inputs must be constants or shapes")
        return HANDLERS[node.op_type]

    def _may_fold(self, node: NodeProto, arrays: Sequence[Array]) -> bool:
        """Whether the result is known while the model is read; larger ones are left to the run, or a pass."""
        count = folded_elements(node, arrays)
        self.folded += count
        return count <= max(FOLDED_ELEMENTS, *(a.size for a in arrays)) and self.folded <= FOLDED_IN_ALL

    def _read_initializer(self, name: str) -> None:
        if name in self.tensors and name not in self.scope.operands:
            tensor = self.tensors[name]
            self.scope.element_types[name] = tensor.data_type
            data = open_tensor(tensor, self.scope.folder, self.read_bytes, self.lifted.get(name), self.beside)
            self.read_bytes += data.nbytes
            # a single number is a factor or a bound; what training changes has at least one dim
            trainable = tensor.doc_string != CONSTANT and data.dtype.kind == "f" and len(data.shape) > 0
            self.scope.define(name, Constant(self.scope.names[name], data, trainable))

    def _find_value(self, name: str) -> Operand | None:
        self._read_initializer(name)
        if name not in self.scope.operands:
            raise GraphError(f"its result '{name}' is not defined")
        return self.scope.operands[name]

    def _read_output(self, output: ValueInfoProto) -> Value | None:
        name, declared = output.name, DTYPES.get(output.type.tensor_type.elem_type, DType.F32)
        if name not in self.labels:
            raise GraphError(f"output '{name}' is not defined")
        self._read_initializer(name)
        operand = self.scope.operands[name]
        try:
            if isinstance(operand, Mask):
                return self.scope.comparison(operand)
            value = self.scope.parameter(operand) if isinstance(operand, Constant) else operand
            return value and self.scope.narrow(value, declared)
        except UnsupportedError as error:
            self.only_values = False
            self.problems.append(f"output '{name}': {error}")
            return None
