"""What a network does when it runs: which kernels, in which order, and where every tensor lies.

The places are the caller's inputs and outputs, the weights (one block, read-only), what is made of weights alone, once,
when the network is created (`packed`: a kernel's weights in its own order), and the workspace, which is divided into
slots. Tensors whose lives do not overlap share a slot; its size is the largest of theirs, an expression in N, H
and W that is evaluated once per shape, so the peak is known before the run and nothing is allocated during it. What the
tiles of a strip carry over (carrying.py) lies apart: each strip has its own, while all run in one workspace.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from graphc import ops
from graphc.codegen.absorbing import find_absorbed
from graphc.codegen.blocking import choose_layouts, wanted_layout
from graphc.codegen.carrying import ALONE, Carry, Span
from graphc.codegen.joining import Part, joins, operand_channels, place_parts
from graphc.codegen.kernels.base import Kernel
from graphc.codegen.kernels.move_channels import MoveChannels
from graphc.codegen.layout import DENSE, Layout
from graphc.codegen.moving import Channels, find_moves
from graphc.codegen.nest import Buffer
from graphc.codegen.select import select_kernels
from graphc.codegen.target import Target
from graphc.errors import GraphcError, UnsupportedError
from graphc.ir import DimLike, Graph, Node, Value, dims

ALIGNMENT = 64  # bytes: a cache line, and the widest vector
NOMINAL = 224  # pixels: the size at which slots are fitted; any would do, the usual one fits best
VIEWS = (ops.Identity, ops.Dropout, ops.Flatten, ops.Reshape)  # ops whose result is their input's bytes, unchanged


@dataclass(frozen=True)
class Place:
    """Where a buffer lies: "input", "output", "weights", "packed", "slot" or "carried"; its number or byte offset."""

    kind: str
    index: int


@dataclass(frozen=True)
class Step:
    """One kernel applied to buffers, on behalf of a node.

    A tile of a strip computes the `rows` alone, where the kernel can; then come the steps `carrying`.
    """

    node: Node
    kernel: Kernel
    rows: Span | None = None
    carrying: tuple["Step", ...] = ()


@dataclass
class Plan:
    """Steps in order, the place of every buffer, and the byte sizes (expressions) that share each slot."""

    graph: Graph
    carry: Carry | None = None
    setup: list[Step] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict)
    slots: list[list[DimLike]] = field(default_factory=list)
    carried: list[DimLike] = field(default_factory=list)  # bytes of each buffer that a strip's tiles pass on
    weights: list[tuple[int, Value]] = field(default_factory=list)
    weight_bytes: int = 0
    packed_bytes: int = 0

    def weight_block(self) -> NDArray[np.uint8]:
        """The weights as they lie in memory, aligned."""
        space = np.zeros(self.weight_bytes + ALIGNMENT, np.uint8)
        block = space[-space.ctypes.data % ALIGNMENT :][: self.weight_bytes]
        for start, value in self.weights:
            self.fill_weight(block, start, value)
        return block

    def fill_weight(self, block: NDArray[np.uint8], start: int, value: Value) -> None:
        """Write a weight where it lies in the block."""
        param = self.graph.constants[value]
        elements = value.type.elements
        assert isinstance(elements, int)
        param.fill(block[start : start + elements * value.type.dtype.size])

    def weight_chunks(self) -> Iterator[memoryview]:
        """The same bytes tensor by tensor, so that a file can be written without a second copy in memory."""
        end = 0
        for start, value in self.weights:
            data = self._weight(value)
            yield memoryview(bytes(start - end))
            yield data.data
            end = start + data.size
        yield memoryview(bytes(self.weight_bytes - end))

    def _weight(self, value: Value) -> NDArray[np.uint8]:
        return self.graph.constants[value].array.reshape(-1).view(np.uint8)

    def peak_bytes(self, sizes: dict[str, int]) -> int:
        """The workspace that a run of these sizes takes."""
        return sum(align(max(dims.evaluate(d, sizes | ALONE) for d in slot)) for slot in self.slots)


def align(size: int) -> int:
    """`size` rounded up to a multiple of ALIGNMENT."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def buffer_bytes(buffer: Buffer) -> DimLike:
    """The bytes that a buffer takes, or the whole that it is a part of."""
    elements = dims.product(buffer.stored_shape) if buffer.pitch is None else buffer.shape[0] * buffer.pitch
    return elements * buffer.type.dtype.size


def make_plan(
    graph: Graph,
    target: Target,
    layouts: Mapping[Value, Layout] | None = None,
    precise: bool = False,
    choose: Callable[[Node, str, Sequence[str]], str] = lambda _, __, candidates: candidates[0],
    carry: Carry | None = None,
) -> Plan:
    """Choose kernels and places; UnsupportedError lists every node for which there is no code.

    `layouts` says how intermediate values lie in memory, where not dense; None chooses. Inputs, outputs and weights
    always are dense. `precise` is as in `graphc.compile`. `choose(node, description, candidates)` names the candidate
    that computes a convolution; by default it is the first, which is the analytic model's. `carry` says which rows the
    tiles of a strip pass on.
    """
    layouts = choose_layouts(graph, target) if layouts is None else layouts
    parts, absorbed = place_parts(graph, layouts), find_absorbed(graph, layouts, target)
    moves = find_moves(graph, layouts, target)
    plan = Plan(graph, carry)
    buffers = _place_constants(plan)
    problems: list[str] = []
    for node in graph.nodes:
        if node.outputs[0] in absorbed:
            continue
        if node in moves.nodes:
            for v in node.outputs:
                if v in moves.made:
                    buffers[v] = _result(v, layouts, parts)
                    _move(plan, node, v, moves.made[v], buffers, target)
            continue
        if joins(graph, node, layouts):
            buffers[node.outputs[0]] = whole = _result(node.outputs[0], layouts, parts)
            _join(plan, node, [buffers[v] for v in node.inputs], whole, target)
            continue
        maker = absorbed.get(node.inputs[0]) if node.inputs else None
        values = [maker.value, *node.inputs[1:]] if maker else node.inputs
        inputs = [
            _converted(plan, v, buffers[v], wanted_layout(node, i, buffers[v].layout, layouts, target), target)
            for i, v in enumerate(values)
        ]
        if isinstance(node.op, VIEWS) and inputs[0].layout == DENSE:
            buffers[node.outputs[0]] = inputs[0].view(*node.outputs[0].type.shape)
            continue
        outputs = [_result(v, layouts, parts) for v in node.outputs]
        buffers |= zip(node.outputs, outputs, strict=True)
        try:
            fresh = len(node.inputs) > 1 and node.inputs[1] not in graph.constants
            before = maker.before(buffers) if maker else None
            kernels = select_kernels(node.op, inputs, outputs, target, precise, fresh, partial(choose, node), before)
        except GraphcError as error:
            problems.append(f"{node}: {error}")
            continue
        steps = [Step(node, kernel) for kernel in kernels]
        plan.steps += _carry_rows(plan, steps, outputs[0], carry) if carry and len(outputs) == 1 else steps
    if problems:
        raise UnsupportedError(f"network '{graph.name}' cannot be compiled", problems)
    _place_outputs(plan, buffers, target)
    _move_to_setup(plan)
    _place_slots(plan)
    return plan


def _place_constants(plan: Plan) -> dict[Value, Buffer]:
    buffers: dict[Value, Buffer] = {}
    for i, v in enumerate(plan.graph.inputs):
        buffers[v] = Buffer(v.name, v.type)
        plan.places[v.name] = Place("input", i)
    for param in plan.graph.params.values():
        v = param.value
        buffers[v] = Buffer(v.name, v.type)
        plan.places[v.name] = Place("weights", plan.weight_bytes)
        plan.weights.append((plan.weight_bytes, v))
        elements = v.type.elements
        assert isinstance(elements, int)
        plan.weight_bytes = align(plan.weight_bytes + elements * v.type.dtype.size)
    return buffers


def _result(value: Value, layouts: Mapping[Value, Layout], parts: Mapping[Value, Part]) -> Buffer:
    if part := parts.get(value):
        whole = Buffer(part.whole.name, part.whole.type, layouts.get(part.whole, DENSE))
        return whole.part(value.name, value.type, part.channel)
    return Buffer(value.name, value.type, layouts.get(value, DENSE))


def _carry_rows(plan: Plan, steps: list[Step], output: Buffer, carry: Carry) -> list[Step]:
    """The steps of a node, of which the last one may be done in part, and carries rows over then."""
    *before, last = steps
    value = last.node.outputs[0]
    carrying = tuple[Step, ...]()
    if found := carry.carry(value, output):
        kept, kernels = found
        plan.places[kept.name] = Place("carried", len(plan.carried))
        plan.carried.append(buffer_bytes(kept))
        carrying = tuple(Step(last.node, kernel) for kernel in kernels)
    return [*before, replace(last, rows=carry.computed(value), carrying=carrying)]


def _join(plan: Plan, node: Node, inputs: list[Buffer], output: Buffer, target: Target) -> None:
    """Copy the operands of a concat that do not lie in its result."""
    for value, x, channel in zip(node.inputs, inputs, operand_channels(node), strict=True):
        place = output.part(x.name, x.type, channel)
        if x.address != place.address:
            plan.steps += _copy(plan, node, value, x, place, target)


def _move(
    plan: Plan, node: Node, value: Value, channels: Channels, buffers: Mapping[Value, Buffer], target: Target
) -> None:
    """Make the value of channels that others have."""
    sources = list(dict.fromkeys(v for v, _ in channels))
    places = [(sources.index(v), c) for v, c in channels]
    rows = plan.carry.used(value) if plan.carry else None
    kernel = MoveChannels(buffers[value], [buffers[v] for v in sources], places, target)
    plan.steps.append(Step(node, kernel, rows))


def _copy(plan: Plan, node: Node, value: Value, x: Buffer, y: Buffer, target: Target) -> list[Step]:
    """The steps that copy the value from x to y."""
    rows = plan.carry.used(value) if plan.carry else None
    return [Step(node, kernel, rows) for kernel in select_kernels(ops.Identity(), [x], [y], target)]


def _converted(plan: Plan, value: Value, buffer: Buffer, layout: Layout, target: Target) -> Buffer:
    """The value's buffer, or a copy of it in another layout, made once."""
    if buffer.layout == layout:
        return buffer
    copy = Buffer(f"{value.name}\\{layout}", buffer.type, layout)
    if not any(copy.name == step.kernel.buffers[0].name for step in plan.steps):
        node = Node(f"{value.name} to {layout}", ops.Identity(), (), ())
        plan.steps += _copy(plan, node, value, buffer, copy, target)
    return copy


def _place_outputs(plan: Plan, buffers: dict[Value, Buffer], target: Target) -> None:
    """Let each output be computed where the caller wants it; copy it there if its bytes already have a place.

    An output NAME.next may have the address of the input NAME: it is written when nothing reads that any more.
    """
    updates, returned = plan.graph.updates, {buffers[v].memory for v in plan.graph.outputs}
    writers: dict[str, list[int]] = {}
    last_read: dict[str, int] = {}
    for i, step in enumerate(plan.steps):
        output, *operands = step.kernel.buffers
        writers.setdefault(output.memory, []).append(i)
        last_read |= dict.fromkeys((b.memory for b in operands), i)
    saved: list[Step] = []
    last: list[Step] = []
    for i, (name, v) in enumerate(zip(plan.graph.output_names, plan.graph.outputs, strict=True)):
        buffer = buffers[v]
        state = buffers[updates[name]] if name in updates else None
        direct = buffer.memory not in plan.places and buffer.layout == DENSE
        if direct and state:
            read = last_read.get(state.memory, -1)
            direct = state.memory not in returned and _may_overwrite(plan, writers[buffer.memory], state, read)
        if direct:
            plan.places[buffer.memory] = Place("output", i)
            continue
        node = Node(f"copy to {name}", ops.Identity(), (v,), ())
        result = buffer.temporary(f"output {i}", v.type)
        plan.places[result.name] = Place("output", i)
        if not state:
            plan.steps += _copy(plan, node, v, buffer, result, target)
            continue
        if buffer.memory in plan.places:  # it may be a state that is overwritten before it has been copied
            copy = buffer.temporary(f"saved {i}", v.type)
            saved += [Step(node, k) for k in select_kernels(node.op, [buffer], [copy], target)]
            buffer = copy
        last += [Step(node, k) for k in select_kernels(node.op, [buffer], [result], target)]
    plan.steps += saved + last


def _may_overwrite(plan: Plan, writers: Sequence[int], state: Buffer, last_read: int) -> bool:
    """Whether what these steps write may lie where the input `state` does, which step `last_read` is the last to read.

    It may if one kernel writes it, after which nothing reads the state, and which itself reads at most the element that
    it writes.
    """
    if len(writers) != 1 or last_read > writers[0]:
        return False
    step = plan.steps[writers[0]]
    output, *operands = step.kernel.buffers
    same = all(b.shape == output.shape and b.layout == output.layout for b in operands if b.memory == state.memory)
    return last_read < writers[0] or (isinstance(step.node.op, ops.Elementwise) and same)


def _move_to_setup(plan: Plan) -> None:
    """Let what reads nothing but weights run once, when the network is created."""
    steps, plan.steps = plan.steps, []
    writers = Counter(step.kernel.buffers[0].memory for step in steps)
    for step in steps:
        output, *operands = step.kernel.buffers
        known = all(b.memory in plan.places and plan.places[b.memory].kind in ("weights", "packed") for b in operands)
        free = output.memory not in plan.places and writers[output.memory] == 1
        size = buffer_bytes(output)
        fixed = all(isinstance(d, int) for d in step.kernel.sizes)  # those of a run are not known yet
        if not (known and operands and free and fixed and isinstance(size, int)):
            plan.steps.append(step)
            continue
        plan.setup.append(step)
        plan.places[output.memory] = Place("packed", plan.packed_bytes)
        plan.packed_bytes = align(plan.packed_bytes + size)
    plan.setup.sort(key=partial(_setup_order, plan))


def _setup_order(plan: Plan, step: Step) -> int:
    """The largest weights first: until they are packed, they are there twice, and least else is there before."""
    _, *operands = step.kernel.buffers
    if any(plan.places[b.memory].kind != "weights" for b in operands):  # it reads what other steps make
        return 1
    sizes = [buffer_bytes(b) for b in operands]
    return -sum(size for size in sizes if isinstance(size, int))


def _place_slots(plan: Plan) -> None:
    """Give every other buffer a slot that is free for as long as the buffer lives."""
    last_use = {b.memory: i for i, step in enumerate(plan.steps) for b in step.kernel.buffers}
    nominal = {s: NOMINAL if s in ("H", "W") else 1 for s in plan.graph.symbols}
    free: list[int] = []
    for i, step in enumerate(plan.steps):
        for buffer in step.kernel.buffers:
            if buffer.memory not in plan.places:
                size = buffer_bytes(buffer)
                slot = _fitting_slot(plan, free, dims.evaluate(size, nominal), nominal)
                plan.slots[slot] = list(dict.fromkeys([*plan.slots[slot], size]))
                plan.places[buffer.memory] = Place("slot", slot)
        released = [b.memory for b in step.kernel.buffers if last_use[b.memory] == i]
        free += sorted({plan.places[n].index for n in released if plan.places[n].kind == "slot"})


def _fitting_slot(plan: Plan, free: list[int], size: int, nominal: dict[str, int]) -> int:
    """The smallest free slot that holds `size` bytes, else the largest one (it grows), else a new one."""
    if not free:
        plan.slots.append([])
        return len(plan.slots) - 1

    def rank(slot: int) -> tuple[bool, int]:
        capacity = max(dims.evaluate(d, nominal) for d in plan.slots[slot])
        return capacity < size, abs(capacity - size)

    best = min(free, key=rank)
    free.remove(best)
    return best
