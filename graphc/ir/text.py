"""The text form of a graph: what `print(graph)` writes, `parse_graph` reads back.

    graph lenet5(%image: f32[N,1,32,32]) {
      %conv1.weight: f32[6,1,5,5] = param()
      %conv1: f32[N,6,28,28] = conv2d(%image, %conv1.weight)
      %conv1_act: f32[N,6,28,28] = tanh(%conv1)
      return %conv1_act
    }

Attributes appear only where they differ from the op's default. A node is named like its first result unless
` @ "name"` says otherwise; `return logits=%fc` names an output. Names with other characters than letters, digits,
`_ . / : -` are quoted: `%"my layer"`. Parameters carry no data in the text, except constants of at most 8 elements.
"""

import ast
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphc.errors import GraphcError, GraphError
from graphc.ir import dims
from graphc.ir.graph import Builder, Graph, Param, Value
from graphc.ir.op import Array, Op, format_attribute
from graphc.ir.types import TensorType, parse_type, split_commas

PRINTED_ELEMENTS = 8  # a constant up to this size is readable on one line
_PLAIN = r"[\w./:\-]+"
_LABEL = rf'(?:"([^"]*)"|({_PLAIN}))'
_NAME = f"%{_LABEL}"
_TYPED = rf'%(?:"[^"]*"|{_PLAIN}): \w+\[[^\]]*\]'
_LINE = rf'({_TYPED}(?:, {_TYPED})*) = (\w+)\((.*)\)(?: @ "([^"]*)")?'


def format_graph(graph: Graph) -> str:
    """The text form of `graph`."""
    lines = [f"graph {_name(graph.name)}({', '.join(_typed(v) for v in graph.inputs)}) {{"]
    lines += [f"  {_typed(p.value)} = {_format_param(p)}" for p in graph.params.values()]
    for node in graph.nodes:
        attributes = [f"{k}={format_attribute(v)}" for k, v in node.op.attributes().items()]
        call = f"{node.op.name}({', '.join([_ref(v) for v in node.inputs] + attributes)})"
        default = node.outputs[0].name if len(node.outputs) == 1 else node.outputs[0].name.removesuffix(".0")
        suffix = "" if node.name == default else f' @ "{node.name}"'
        lines.append(f"  {', '.join(_typed(v) for v in node.outputs)} = {call}{suffix}")
    results = [
        _ref(v) if v.name == n else f"{_name(n)}={_ref(v)}"
        for n, v in zip(graph.output_names, graph.outputs, strict=True)
    ]
    return "\n".join([*lines, f"  return {', '.join(results)}", "}"])


def parse_graph(
    text: str, ops: Mapping[str, type[Op]], params: Mapping[str, Array] | Callable[[Value], Array]
) -> Graph:
    """Read the text form. `params` gives the data of each `param()`: by name, or as a function of the value."""
    lines = [line.strip() for line in text.strip().split("\n") if line.strip()]
    head = re.fullmatch(rf"graph\s+{_LABEL}\((.*)\)\s*\{{", lines[0]) if lines else None
    if not head or lines[-1] != "}":
        raise GraphError('graph text: expected "graph NAME(%x: f32[...]) {" ... "}"')
    builder, values = Builder(head[1] or head[2]), {}
    for part in split_commas(head[3]):
        name, type_text = _parse_typed(part)
        values[name] = builder.input(name, parse_type(type_text))
    for number, line in enumerate(lines[1:-1], 2):
        try:
            if line.startswith("return "):
                return builder.build(**_parse_return(line.removeprefix("return "), values))
            _parse_line(line, builder, values, ops, params)
        except GraphcError as error:
            raise type(error)(f"graph text line {number}: {error}") from None
    raise GraphError("graph text: expected a return line")


def _parse_line(
    line: str,
    builder: Builder,
    values: dict[str, Value],
    ops: Mapping[str, type[Op]],
    params: Mapping[str, Array] | Callable[[Value], Array],
) -> None:
    match = re.fullmatch(_LINE, line)
    if not match:
        raise GraphError(f"expected %name: type = op(...), got {line!r}")
    defined = [_parse_typed(part) for part in split_commas(match[1])]
    op_name, arguments = match[2], split_commas(match[3])
    if op_name in ("param", "const"):
        ((name, type_text),) = defined
        type = parse_type(type_text)
        if arguments:
            data = _parse_data(arguments[0], name, type)
        elif callable(params):
            data = params(Value(name, type))
        elif name in params:
            data = params[name]
        else:
            raise GraphError(f"parameter '{name}': expected data for {type}, got none")
        values[name] = builder.param(name, data, type, trainable=op_name == "param")
        return
    if op_name not in ops:
        raise GraphError(f"unknown op '{op_name}'")
    inputs = tuple(_lookup(a, values) for a in arguments if a.startswith("%"))
    attributes = {k: _literal(v) for k, _, v in (a.partition("=") for a in arguments if not a.startswith("%"))}
    try:
        op = ops[op_name](**attributes)
    except TypeError as error:
        raise GraphError(f"{op_name}: {error}") from None
    names = [name for name, _ in defined]
    node_name = match[4] or (names[0] if len(names) == 1 else names[0].removesuffix(".0"))
    outputs = builder.add(op, inputs, node_name, names)
    for v, (name, type_text) in zip(outputs, defined, strict=True):
        if v.type != parse_type(type_text):
            raise GraphError(f"{op_name} '{node_name}': the text says {type_text}, the op infers {v.type}")
        values[name] = v


def _parse_return(text: str, values: dict[str, Value]) -> dict[str, Value]:
    results = {}
    for part in split_commas(text):
        match = re.fullmatch(rf"(?:{_LABEL}=)?(%.+)", part)
        if not match:
            raise GraphError(f"return: expected %value or name=%value, got {part!r}")
        value = _lookup(match[3], values)
        results[match[1] or match[2] or value.name] = value
    return results


def _parse_data(text: str, name: str, type: TensorType) -> Array:
    try:
        data = np.asarray(_literal(text), type.dtype.numpy)
        return data.reshape(type.static_shape()) if data.size == type.elements == 0 else data
    except (TypeError, ValueError):
        raise GraphError(f"parameter '{name}': expected data for {type}, got {text}") from None


def _parse_typed(text: str) -> tuple[str, str]:
    match = re.fullmatch(rf"{_NAME}: (.+)", text)
    if not match:
        raise GraphError(f"expected %name: type, got {text!r}")
    return match[1] or match[2], match[3]


def _lookup(text: str, values: dict[str, Value]) -> Value:
    match = re.fullmatch(_NAME, text)
    name = match and (match[1] or match[2])
    if name not in values:
        raise GraphError(f"{text} is used before it is defined")
    return values[name]


def _literal(text: str) -> Any:
    try:
        return _from_ast(ast.parse(text, mode="eval").body)
    except SyntaxError:
        raise GraphError(f"attribute: cannot read {text!r}") from None


def _from_ast(node: ast.expr) -> Any:
    """A Python literal in which inf, nan and dim expressions may stand."""
    match node:
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            return tuple(_from_ast(e) for e in elements)
        case ast.Name(id="inf" | "nan" as name):
            return float(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_from_ast(operand)
        case ast.Constant(value=value):
            return value
    return dims.from_ast(node)


def _format_param(param: Param) -> str:
    if param.trainable:
        return "param()"
    if isinstance(param.value.type.elements, int) and param.value.type.elements <= PRINTED_ELEMENTS:
        return f"const({format_attribute(_nested(param.array.tolist()))})"
    return "const()"


def _nested(data: Any) -> Any:
    return tuple(_nested(d) for d in data) if isinstance(data, list) else data


def _name(name: str) -> str:
    return name if re.fullmatch(_PLAIN, name) else f'"{name}"'


def _ref(value: Value) -> str:
    return f"%{_name(value.name)}"


def _typed(value: Value) -> str:
    return f"{_ref(value)}: {value.type}"
