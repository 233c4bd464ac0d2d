"""The generic kernel: any loop nest, as graphc/codegen/emit.py emits it."""

from llvmlite import ir

from graphc.codegen.arithmetic import has_code
from graphc.codegen.emit import NestEmitter, buffers_of, sizes_of
from graphc.codegen.kernels.base import Bands
from graphc.codegen.nest import Buffer, Load, Nest, Reduce, Size, Var, walk
from graphc.codegen.schedule import Schedule, make_schedule
from graphc.codegen.sharing import open_sizes
from graphc.codegen.target import Target
from graphc.errors import UnsupportedError
from graphc.ir import Dim, DimLike, dims
from graphc.ops.scalar import Call, Expr, common_dtype


class LoopNestKernel:
    """Runs one nest, where `wanted` is 1, not 0; `op` is the name of the op that it belongs to."""

    scratch = 0
    reason = "the generic kernel: none is made for this op and shape"

    def __init__(self, op: str, nest: Nest, target: Target, wanted: DimLike = 1) -> None:
        for e in walk(nest.value):
            if isinstance(e, Call):
                dtype = common_dtype(e.args[1:] if e.fn == "select" else e.args)
                if not has_code(e.fn, dtype):
                    raise UnsupportedError(f"no code generation for {e.fn} on {dtype.value}")
        self.name = f"nest_{op}"
        schedule = make_schedule(nest, target)
        self._nest, self._schedule, values = open_sizes(nest, schedule, target)
        self._lanes, self.buffers, self.tasks = target.lanes, buffers_of(nest), dims.product([schedule.tasks, wanted])
        self.bands = find_bands(nest, schedule, wanted)
        self._arguments = sizes_of(self._nest)
        self.sizes = [dims.substitute(d, values) for d in self._arguments]
        inside = [v.extent for e in walk(nest.value) if isinstance(e, Reduce) for v in e.vars]
        self.work = dims.product([wanted, *(v.extent for v in nest.loops), *inside])

    @property
    def key(self) -> str:
        """The nest as text, with its buffers and symbolic dims numbered in order of appearance."""
        names = {b.address: f"b{i}" for i, b in enumerate(self.buffers)}
        numbers = {d: f"s{i}" for i, d in enumerate(self._arguments)}

        def dim(d: DimLike) -> str:
            return numbers[d] if isinstance(d, Dim) else str(d)

        def element(buffer: Buffer, index: tuple[Expr, ...]) -> str:
            pitch = "" if buffer.pitch is None else f" pitch {dim(buffer.pitch)}"
            type = f"{buffer.type.dtype.value}[{','.join(map(dim, buffer.shape))}]{buffer.layout}{pitch}"
            return f"{names[buffer.address]}:{type}[{','.join(map(show, index))}]"

        def show(e: Expr) -> str:
            match e:
                case Var():
                    return f"{e.name}<{dim(e.extent)}"
                case Size(dim=d):
                    return numbers[d]
                case Load(buffer=buffer, index=index, fill=fill):
                    return f"{element(buffer, index)} else {fill}"
                case Reduce(kind=kind, vars=vars, body=body):
                    return f"{kind}({','.join(map(show, vars))}: {show(body)})"
                case Call(fn=fn, args=args):
                    return f"{fn}({','.join(map(show, args))})"
            return str(e)

        nest = self._nest
        where = f" where {show(nest.where)}" if nest.where else ""
        head = f"for {' '.join(map(show, nest.loops))} ({nest.parallel}): {element(nest.output, nest.index)}"
        return f"{self.name} {head} = {show(nest.value)}{where}"

    def emit(self, b: ir.IRBuilder, function: ir.Function) -> None:
        """Fill the body of the function."""
        NestEmitter(self._nest, self._schedule, self._lanes, b, function.args[:-1]).emit()


def find_bands(nest: Nest, schedule: Schedule, wanted: DimLike) -> Bands | None:
    """How a nest's tasks follow the rows of images [N,C,H,W], or, stored in blocks, [N,C/c,H,W,c]."""
    if nest.output.type.rank not in (4, 5) or schedule.copied or schedule.chunked:
        return None
    row, outer = nest.index[2], schedule.outer
    if not isinstance(row, Var) or row not in outer:
        return None
    at = outer.index(row)
    before, behind = ([v.extent for v in part] for part in (outer[:at], outer[at + 1 :]))
    return Bands(dims.product([wanted, *before]), row.extent, dims.product(behind))
