"""graphc itself, compiled in process: a network, and a step of its training."""

from graphc import __version__
from graphc.bench.problem import MOMENTUM, Loaded, Problem, run_network
from graphc.driver import compile
from graphc.ir import Array
from graphc.learning.trainer import Trainer
from graphc.optim import SGD
from graphc.passes.enter_training import enter_training
from graphc.training import lift_params, trainable


def load(problem: Problem, threads: int) -> Loaded:
    """The compiled network."""
    return Loaded(__version__, run_network(compile(problem.graph(), threads), problem))


def load_step(problem: Problem, threads: int) -> Loaded:
    """A step of SGD with momentum, in place."""
    graph = problem.graph()
    trainer = Trainer(graph, SGD(MOMENTUM), threads=threads)
    named = dict(zip((v.name for v in graph.inputs), problem.inputs, strict=True))
    return Loaded(__version__, lambda: [*trainer.step(0.0, **named).values()])


def load_forward(problem: Problem, threads: int) -> Loaded:
    """The forward half: batch norm in training, weights that are inputs."""
    graph = problem.graph()
    network = compile(lift_params(enter_training(graph), trainable(graph)), threads)
    arrays = {name: p.array for name, p in graph.params.items()}
    arrays |= zip((v.name for v in graph.inputs), problem.inputs, strict=True)
    run, outputs = network.bind({name: arrays[name] for name, _ in network.inputs})

    def forward() -> list[Array]:
        run()
        return [outputs[name] for name in graph.output_names]

    return Loaded(__version__, forward)
