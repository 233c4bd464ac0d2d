"""Constants of a module, which its own code alone sees."""

from llvmlite import ir

from graphc.codegen.blocks import I8


def constant(module: ir.Module, name: str, value: ir.Value) -> ir.GlobalVariable:
    """`value` under a name."""
    variable = ir.GlobalVariable(module, value.type, name)
    variable.linkage, variable.global_constant, variable.initializer = "internal", True, value
    return variable


def string(module: ir.Module, name: str, text: str) -> ir.GlobalVariable:
    """A text in UTF-8 that ends in a zero byte; one inside it becomes a question mark."""
    data = bytearray(text.replace("\0", "?").encode() + b"\0")
    return constant(module, name, ir.Constant(ir.ArrayType(I8, len(data)), data))
