"""What runtime/main.c has to know of a network, as macros on the C compiler's command line."""

from collections.abc import Iterator

from graphc.artefact.names import c_string
from graphc.codegen.module import has_image_sizes
from graphc.errors import UnsupportedError
from graphc.ir import DimLike, DType, Graph, TensorType

# How .npy files call the element types (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html)
_NPY_TYPES = {
    DType.F32: "<f4", DType.F64: "<f8", DType.F16: "<f2", DType.BF16: "<V2",  # bf16 as ml_dtypes writes it
    DType.I8: "|i1", DType.I16: "<i2", DType.I32: "<i4", DType.I64: "<i8",
    DType.U8: "|u1", DType.U16: "<u2", DType.U32: "<u4", DType.U64: "<u8", DType.BOOL: "|b1",
}  # fmt: skip


def check_program(graph: Graph) -> None:
    """UnsupportedError if no program can be made: it reads the sizes off the dims of its inputs."""
    if not has_image_sizes(graph):
        found = ", ".join(graph.symbols) or "a network without inputs"
        raise UnsupportedError(f"network '{graph.name}': exe needs sizes among N, H and W, got {found}")
    for v in graph.inputs:
        for d in v.type.shape:
            if not isinstance(d, int) and str(d) not in graph.symbols:
                raise UnsupportedError(
                    f"network '{graph.name}': exe needs dims that are numbers or symbols, "
                    f"input '{v.name}': {v.type} has {d}"
                )


def program_macros(graph: Graph, name: str, weights_in_file: bool) -> Iterator[str]:
    """The compiler's -D arguments; main.c says what each is for."""
    outputs = zip(graph.output_names, (v.type for v in graph.outputs), strict=True)
    yield f"-DNETWORK={name}"
    yield f'-DHEADER="{name}.h"'
    yield f"-DTITLE={c_string(graph.name)}"
    yield "-DSYMBOLS=" + "".join(f'"{s}", ' for s in graph.symbols)
    yield f"-DMAX_RANK={max(v.type.rank for v in (*graph.inputs, *graph.outputs))}"
    yield "-DINPUTS=" + ", ".join(_describe(graph, v.name, v.type) for v in graph.inputs)
    yield "-DOUTPUTS=" + ", ".join(_describe(graph, n, type) for n, type in outputs)
    if weights_in_file:
        yield f'-DWEIGHTS="{name}.weights"'


def _describe(graph: Graph, name: str, type: TensorType) -> str:
    """The initialiser of main.c's `tensor`; a symbol as a dim is minus its position, counted from 1."""

    def number(d: DimLike) -> int:
        """A dim that is neither a number nor a symbol is an output's, which main.c asks the network for."""
        return d if isinstance(d, int) else -1 - graph.symbols.index(str(d)) if str(d) in graph.symbols else 0

    shape = ", ".join(str(number(d)) for d in type.shape) or "0"
    words = c_string(name), c_string(str(type)), c_string(_NPY_TYPES[type.dtype])
    return f"{{{', '.join(words)}, {type.dtype.size}, {type.rank}, {{{shape}}}}}"
