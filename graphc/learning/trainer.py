"""Steps of training over parameters and optimiser state that stay in one block of memory, updated in place."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import inf

import numpy as np

from graphc.codegen.plan import ALIGNMENT, align
from graphc.driver import compile
from graphc.errors import InputError
from graphc.grad import PREFIX
from graphc.ir import NEXT, Array, DType, Graph, TensorType
from graphc.ir.sizes import bind_sizes
from graphc.optim import Optimizer
from graphc.passes.enter_training import STEP, enter_training
from graphc.runtime.network import Network
from graphc.training import RATE, gradient_step, lift_params, trainable, training_step, update_step

Run = tuple[Callable[[], None], dict[str, Array]]  # a bound run, and the arrays that it reads and writes


@dataclass(frozen=True)
class StepMemory:
    """What a step of training takes, in bytes. `workspace` holds activations, gradients and what kernels need."""

    parameters: int
    optimizer: int
    workspace: int
    batch: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(int(getattr(self, f.name)) for f in fields(self))


class Trainer:
    """A network while it is trained: its step, compiled once for any batch and image size, and what a step changes.

    `graph` is a network with a loss (add_cross_entropy), `loss` that output's name (None: the first). Batch norm and
    dropout get their training form here; `seed` decides what is dropped. `clip` bounds the norm of the gradients.

    `state` holds every tensor that changes, by name: parameters, running statistics, the optimiser's slots
    `PARAMETER.SLOT`. A step reads and writes them where they lie: nothing is copied, and who keeps a view sees it move.
    `steps` counts the steps so far; dropout and Adam depend on it, so whoever sets a state sets it, too.

    With `on_gradients`, a step has two halves, and between them this is called with `gradients` f32[P], the gradients
    of all parameters in their order, end to end in one buffer: to all-reduce them, to look at them, to change them.

    The same batches give the same bits at any number of threads.
    """

    def __init__(
        self,
        graph: Graph,
        optimizer: Optimizer,
        *,
        loss: str | None = None,
        clip: float | None = None,
        seed: int = 0,
        threads: int | None = None,
        cpu: str = "native",
        on_gradients: Callable[[Array], object] | None = None,
    ) -> None:
        self.graph, self.steps = graph, 0
        self._on_gradients, self._threads, self._cpu = on_gradients, threads, cpu
        training = enter_training(graph, seed)
        whole = training_step(training, optimizer, loss, clip)
        graphs = [gradient_step(training, loss), update_step(training, optimizer, clip)] if on_gradients else [whole]
        self._networks = [compile(g, threads, cpu) for g in graphs]
        self._evaluation: Network | None = None
        self._runs: dict[tuple[object, ...], list[Run]] = {}
        self._clock: dict[str, Array] = {RATE: np.zeros((), np.float32), STEP: np.zeros((), np.int64)}
        self.state = _allocate({name.removesuffix(NEXT): v.type for name, v in whole.updates.items()})
        for name, array in self.state.items():
            array[...] = graph.params[name].array if name in graph.params else 0
        types = {f"{PREFIX}{name}": graph.params[name].value.type for name in trainable(graph)}
        self.gradients, self._gradients = _lay_out(types) if on_gradients else (np.empty(0, np.float32), {})

    def step(self, rate: float, **inputs: Array) -> dict[str, Array]:
        """One step at this learning rate; the outputs of `graph`, before the step, in arrays that the next one reuses.

        `inputs` are those of `graph` by name, such as image=f32[N,C,H,W], labels=i64[N]. InputError if they do not fit.
        """
        if not 0 <= rate < inf:
            raise InputError(f"learning rate: expected a finite number of at least 0, got {rate}")
        self._clock[RATE][...], self._clock[STEP][...] = rate, self.steps
        first, *rest = self._bind("step", self._networks, inputs)
        first[0]()
        if self._on_gradients:
            self._on_gradients(self.gradients)
        for run, _ in rest:
            run()
        self.steps += 1
        return {name: first[1][name] for name in self.graph.output_names}

    def evaluate(self, **inputs: Array) -> dict[str, Array]:
        """The outputs of `graph` as in inference: running statistics, no dropout. The next call reuses the arrays."""
        if self._evaluation is None:
            lifted = lift_params(self.graph, [name for name in self.state if name in self.graph.params])
            self._evaluation = compile(lifted, self._threads, self._cpu)
        ((run, arrays),) = self._bind("evaluate", [self._evaluation], inputs)
        run()
        return {name: arrays[name] for name in self.graph.output_names}

    def parameters(self) -> dict[str, Array]:
        """All parameters of the network, as they are now; those that do not change, too. Copies."""
        return {name: np.array(self.state.get(name, p.array)) for name, p in self.graph.params.items()}

    def restore(self, state: Mapping[str, Array], steps: int) -> None:
        """Go on from what `state` and `steps` were; InputError lists what does not fit."""
        problems = [f"missing {name}" for name in self.state if name not in state]
        problems += [f"unexpected {name}" for name in state if name not in self.state]
        for name in self.state.keys() & state.keys():
            expected, got = self.state[name], state[name]
            if (expected.shape, expected.dtype) != (got.shape, got.dtype):
                problems.append(
                    f"{name}: expected {expected.dtype}{list(expected.shape)}, got {got.dtype}{list(got.shape)}"
                )
        if problems:
            raise InputError(f"state of network '{self.graph.name}': {'; '.join(sorted(problems))}")
        for name, array in self.state.items():
            array[...] = state[name]
        self.steps = steps

    def memory(self, **shapes: Sequence[int]) -> StepMemory:
        """What a step takes whose inputs have these shapes; nothing is run for it."""
        inputs = [(v.name, v.type) for v in self.graph.inputs]
        sizes = bind_sizes(inputs, [tuple(shapes[name]) for name, _ in inputs])
        workspace = self.gradients.nbytes
        for network in self._networks:
            workspace += network.workspace_bytes(**{s: sizes[s] for s in network.symbols})
        batch = sum(int(np.prod(shapes[name])) * t.dtype.size for name, t in inputs)
        kept = [a.nbytes for name, a in self.state.items() if name in self.graph.params]
        fixed = [p.array.nbytes for name, p in self.graph.params.items() if name not in self.state]
        slots = sum(a.nbytes for a in self.state.values()) - sum(kept)
        return StepMemory(sum(kept) + sum(fixed), slots, workspace, batch)

    def _bind(self, what: str, networks: Sequence[Network], inputs: Mapping[str, Array]) -> list[Run]:
        """The runs for inputs of these shapes, whose arrays hold these inputs now."""
        named = {name: np.asarray(a) for name, a in inputs.items()}
        if named.keys() != (wanted := {v.name for v in self.graph.inputs}):
            expected, got = ", ".join(sorted(wanted)), ", ".join(sorted(named)) or "none"
            raise InputError(f"network '{self.graph.name}': expected inputs {expected}, got {got}")
        key = (what, *((name, a.shape) for name, a in sorted(named.items())))
        if key not in self._runs:
            known = {v.name: np.zeros(named[v.name].shape, v.type.dtype.numpy) for v in self.graph.inputs}
            known |= {**self.state, **self._clock, **self._gradients}
            runs = []
            for network in networks:
                run, outputs = network.bind(known)
                runs.append((run, known | outputs))
            self._runs[key] = runs
        for name, array in named.items():
            place = self._runs[key][0][1][name]
            if not np.can_cast(array.dtype, place.dtype, "same_kind"):
                expected = DType.of(place.dtype).value
                raise InputError(f"network '{self.graph.name}': {name}: expected {expected}, got {array.dtype}")
            np.copyto(place, array, casting="same_kind")
        return self._runs[key]


def _allocate(types: Mapping[str, TensorType]) -> dict[str, Array]:
    """Zeros of these types, each on a cache line of its own."""
    sizes = [align(int(np.prod(t.static_shape())) * t.dtype.size) for t in types.values()]
    block = np.zeros(sum(sizes) + ALIGNMENT, np.uint8)
    place = -block.ctypes.data % ALIGNMENT
    arrays = {}
    for (name, type), size in zip(types.items(), sizes, strict=True):
        shape = type.static_shape()
        used = int(np.prod(shape)) * type.dtype.size
        arrays[name] = block[place : place + used].view(type.dtype.numpy).reshape(shape)
        place += size
    return arrays


def _lay_out(types: Mapping[str, TensorType]) -> tuple[Array, dict[str, Array]]:
    """One array without gaps, and the tensors of these types end to end in it. They must have one dtype."""
    dtypes = {t.dtype for t in types.values()}
    if len(dtypes) != 1:
        found = ", ".join(sorted(d.value for d in dtypes))
        raise InputError(f"on_gradients: expected parameters of one element type, got {found}")
    shapes = {name: t.static_shape() for name, t in types.items()}
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
    flat = np.zeros(int(ends[-1]), dtypes.pop().numpy)
    parts = np.split(flat, ends[:-1])
    return flat, {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
