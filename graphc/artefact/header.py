"""NAME.h: the C interface of an artefact, with all that its user has to know.

The functions themselves are in runtime/api.ll, calls.ll and graphc/codegen/module.py.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from graphc.artefact.names import c_comment, c_parameters
from graphc.codegen.module import ERROR_CPU, fixed_sizes, has_image_sizes
from graphc.ir import DType, Graph, TensorType, dims
from graphc.ir.verify import requirements
from graphc.runtime.network import ABI_VERSION

C_TYPES = {
    DType.F32: "float", DType.F64: "double", DType.F16: "uint16_t", DType.BF16: "uint16_t",  # C99 has no halves: bits
    DType.I8: "int8_t", DType.I16: "int16_t", DType.I32: "int32_t", DType.I64: "int64_t",
    DType.U8: "uint8_t", DType.U16: "uint16_t", DType.U32: "uint32_t", DType.U64: "uint64_t", DType.BOOL: "uint8_t",
}  # fmt: skip
# The codes of runtime/api.ll, from 0 on: name and NAME_strerror's text
ERRORS = (
    ("OK", "ok"),
    ("ERROR_ARGUMENT", "an argument is null, not aligned, negative or out of range"),
    ("ERROR_SIZE", "a size is less than 1 or more than 2147483647"),
    ("ERROR_TOO_LARGE", "the sizes are too large: a tensor exceeds 2^62 bytes"),
    ("ERROR_MEMORY", "out of memory"),
    ("ERROR_WORKSPACE", "the workspace is too small or not aligned to 64 (see workspace_bytes)"),
    ("ERROR_THREAD", "a thread could not be started"),
    ("ERROR_FILE", "the weights file could not be read"),
    ("ERROR_WEIGHTS", "the weights are missing or not those of this network"),
    ("ERROR_FIXED_SIZE", "the batch, height or width differs from the one the network is fixed to"),
    ("ERROR_CPU", ERROR_CPU),
    ("ERROR_OVERLAP", "an output or the workspace overlaps an input, the weights or another one of these"),
)
# What prototypes and the example call things, so that no tensor may be called so
_LOCALS = ("net", "n", "h", "w", "workspace", "workspace_bytes", "code", "inputs", "outputs", "sizes")
_USUAL_SIZES = (224, 256, 299, 32)  # pixels; the first that the network takes stands in the example

_GENERAL = """\
/* NAME.h: the neural network '@title@', compiled by graphc. For C99 and C++.
 *
@tensors@
 *
 * @symbols@
 * Tensors are dense arrays in C order, the last dim varying fastest; their addresses are multiples of the element's
 * size, and outputs overlap nothing else@but@. Images are N C H W: batch, channels, height, width.
@updates@ *
 * Link with NAME.so, or with NAME.o -lm -lpthread. @weights@
 *
 * Example:
 *
@example@
 */
#ifndef UPPER_H
#define UPPER_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this interface. A library fits this header if NAME_abi_version() returns the same. */
#define UPPER_ABI_VERSION @version@
int NAME_abi_version(void);

/* What functions return. Other codes, from 100 on, tell that the sizes do not fit the network: NAME_strerror names the
 * layer and what it needs. */
enum {
@errors@
};

/* The text of a code; never null, not to be freed. */
const char *NAME_strerror(int code);

/* JSON in UTF-8: "name"; "inputs" and "outputs", each a list of [name, type]; "symbols"; "meta". Not to be freed. */
const char *NAME_metadata(void);

/* What the code that runs on this CPU was compiled for: @cpus@. Null if this CPU has not the
 * instructions of any. The environment variable GRAPHC_CPU, a level such as x86-64-v2, allows none above it. It is read
 * when one of these functions is first called. Not to be freed. */
const char *NAME_cpu(void);

/* A network, ready to run: threads, workspace, and the address of the weights. Runs of one such object wait for
 * each other, those of different objects do not. */
typedef struct NAME NAME;

/* Make a network. threads: 1 to 1024, the caller included, or 0 for one on each CPU that the process may use.
 * weights_file: @weights_file@. *net is null on an error. */
int NAME_create(NAME **net, int threads, const char *weights_file);

/* The same with weights in memory: what NAME.weights holds after its first 64 bytes, at an address that is a multiple
 * of 8 (64, a cache line, is faster), to be kept until NAME_destroy. */
int NAME_create_from_memory(NAME **net, int threads, const void *weights, int64_t bytes);

/* Free a network that no run uses; null is allowed. */
void NAME_destroy(NAME *net);
"""

_IMAGES = """
/* Run the network.
@sizes@
 * The workspace is the network's own: it grows when a larger image comes, and is freed by NAME_destroy. */
int NAME_run(NAME *net@ins@,
    int64_t n, int64_t h, int64_t w@outs@);

/* The same with the caller's workspace, of at least NAME_workspace_bytes(n, h, w, threads) bytes at an address that is
 * a multiple of 64; nothing is allocated. (A null workspace stands for the network's own.) */
int NAME_run_in(NAME *net@ins@,
    int64_t n, int64_t h, int64_t w@outs@,
    void *workspace, int64_t workspace_bytes);

/* The bytes of workspace that a run takes with this many threads, or minus an error code. */
int64_t NAME_workspace_bytes(int64_t n, int64_t h, int64_t w, int threads);
"""

_OUTPUT_SHAPE = """
/* The dims of output '@first@' for these sizes; those beyond its rank, @rank@, are 1. */
int NAME_output_shape(int64_t n, int64_t h, int64_t w, int64_t out[4]);
"""

_UPDATES = """\
 *
 * An output 'X.next' is what the input 'X' is in the next run. Both may have the same address: then it is updated in
 * place.
"""

_ANY_SIZES = """
/* The functions below take all sizes as one array, in this order: @order@.
 * inputs and outputs are arrays of addresses, in the order of the list at the top. */

/* Run the network; a null workspace stands for the network's own, else see NAME_workspace. */
int NAME_call(NAME *net, const void *const *inputs, const int64_t *sizes, void *const *outputs,
    void *workspace, int64_t workspace_bytes);

/* The dims of the output of this number, from 0 on; dims has room for as many as its rank. */
int NAME_output_dims(const int64_t *sizes, int output, int64_t *dims);

/* The bytes of workspace, aligned to 64, that a run takes, or minus an error code. */
int64_t NAME_workspace(const int64_t *sizes);

/* Run a tile of a strip: a column of tiles, from the top of an image to its bottom. They differ in their height alone.
 * What one passes on to the next lies in carried, of NAME_carried bytes, aligned to 64, which between them is the
 * strip's; the workspace is not. part is 1 if a tile continues the one before it, whose last rows it sees again, as
 * many as the metadata tell, and 2 more if another one continues it. It computes those rows of each value that the one
 * before it has not. 1 is returned if the network's images are not cut so. */
int NAME_strip(NAME *net, const void *const *inputs, const int64_t *sizes, void *const *outputs,
    void *workspace, int64_t workspace_bytes, void *carried, int64_t carried_bytes, int part);
int64_t NAME_carried(const int64_t *sizes);

#ifdef __cplusplus
}
#endif

#endif
"""


def header_text(graph: Graph, name: str, weights_in_file: bool, cpus: Sequence[str]) -> str:
    """The header of `graph`'s artefact, whose functions are called `name_*`."""
    images, first, tensors = has_image_sizes(graph), graph.outputs[0], _list_tensors(graph, name)
    parts = [_GENERAL, _IMAGES if images else "", _OUTPUT_SHAPE if images and first.type.rank <= 4 else "", _ANY_SIZES]
    symbols = ", ".join(graph.symbols)
    if weights_in_file:
        where, path = f"The weights are in {name}.weights.", f"the path of {name}.weights, which is mapped, not read"
    else:
        where, path = "Nothing else is needed.", "null, for the weights are embedded"
    fields = {
        "NAME": name,
        "UPPER": name.upper(),
        "@title@": c_comment(graph.name),
        "@tensors@": _tensor_lines(tensors),
        "@cpus@": " or ".join(cpus),
        "@symbols@": f"Chosen anew in every run: {symbols}. // rounds down." if symbols else "All sizes are fixed.",
        "@weights@": where,
        "@weights_file@": path,
        "@example@": _example(graph, tensors, name, weights_in_file),
        "@version@": str(ABI_VERSION),
        "@errors@": "\n".join(f"    {name.upper()}_{e} = {i}, /* {text} */" for i, (e, text) in enumerate(ERRORS)),
        "@sizes@": _size_lines(graph) if images else "",
        "@ins@": "".join(f", {t.declaration}" for t in tensors if t.kind == "input"),
        "@outs@": "".join(f", {t.declaration}" for t in tensors if t.kind == "output"),
        "@first@": c_comment(graph.output_names[0]),
        "@rank@": str(first.type.rank),
        "@order@": symbols or "none",
        "@but@": ", but as said below" if graph.updates else "",
        "@updates@": _UPDATES if graph.updates else "",
    }
    return re.sub(r"NAME|UPPER|@\w+@", lambda found: fields[found[0]], "".join(parts))


@dataclass(frozen=True)
class _Tensor:
    """An input or output (`kind`), and what it is called in C."""

    kind: str
    name: str
    type: TensorType
    c_name: str

    @property
    def c_type(self) -> str:
        return C_TYPES[self.type.dtype]

    @property
    def declaration(self) -> str:
        return f"{'const ' if self.kind == 'input' else ''}{self.c_type} *{self.c_name}"


def _list_tensors(graph: Graph, name: str) -> list[_Tensor]:
    """Inputs and outputs in the order of the interface."""
    tensors = [("input", v.name, v.type) for v in graph.inputs]
    tensors += [("output", n, v.type) for n, v in zip(graph.output_names, graph.outputs, strict=True)]
    c_names = c_parameters([n for _, n, _ in tensors], {name, *_LOCALS})
    return [_Tensor(*t, c_name) for t, c_name in zip(tensors, c_names, strict=True)]


def _tensor_lines(tensors: Sequence[_Tensor]) -> str:
    rows = [(t.kind, c_comment(f"'{t.name}'"), str(t.type), t.declaration) for t in tensors]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(" *   " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _size_lines(graph: Graph) -> str:
    """What n, h and w are: symbols, or what the first input fixes them to."""
    fixed = fixed_sizes(graph)
    meanings = {s: f"must be {fixed[s]}" if s in fixed else f"{s} of the types above" for s in "NHW"}
    return "\n".join(f" * {s.lower()}: {meaning}" for s, meaning in meanings.items())


def _example(graph: Graph, tensors: Sequence[_Tensor], name: str, weights_in_file: bool) -> str:
    """A whole program that runs the network once on zeros."""
    sizes = _example_sizes(graph)
    inputs = [t.c_name for t in tensors if t.kind == "input"]
    outputs = [t.c_name for t in tensors if t.kind == "output"]
    if has_image_sizes(graph):
        given = fixed_sizes(graph) | sizes
        nhw = [str(dims.evaluate(given[s], sizes)) for s in "NHW"]
        setup, run = [], f"{name}_run(net, {', '.join([*inputs, *nhw, *outputs])})"
    else:
        setup = [
            f"const void *inputs[] = {{{', '.join(inputs)}}};",
            f"void *outputs[] = {{{', '.join(outputs)}}};",
            f"const int64_t sizes[] = {{{', '.join(str(sizes[s]) for s in graph.symbols)}}};",
        ]
        run = f"{name}_call(net, inputs, sizes, outputs, NULL, 0)"
    ok, file = f"{name.upper()}_OK", f'"{name}.weights"' if weights_in_file else "NULL"
    lines = [
        "#include <stdio.h>",
        f'#include "{name}.h"',
        "",
        *(f"static {t.c_type} {t.c_name}[{dims.evaluate(t.type.elements, sizes)}]; // {t.type}" for t in tensors),
        "",
        "int main(void)",
        "{",
        *(f"    {line}" for line in setup),
        f"    {name} *net;",
        f"    int code = {name}_create(&net, 0, {file});",
        f"    if (code == {ok}) code = {run};",
        f'    if (code != {ok}) fprintf(stderr, "%s\\n", {name}_strerror(code));',
        f"    {name}_destroy(net);",
        f"    return code != {ok};",
        "}",
    ]
    return "\n".join(f" *   {line}".rstrip() for line in lines)


def _example_sizes(graph: Graph) -> dict[str, int]:
    """Sizes that the network takes, as far as a few usual ones show: one image, height and width alike."""
    conditions = requirements(graph)
    candidates = [{s: 1 if s == "N" else size for s in graph.symbols} for size in _USUAL_SIZES]
    return next((sizes for sizes in candidates if all(c.holds(sizes) for c in conditions)), candidates[0])
