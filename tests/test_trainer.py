"""Steps in place: over buffers that stay where they are, whole or with the gradients in between."""

from multiprocessing import get_context
from multiprocessing.connection import Connection

import numpy as np
import pytest
from artefacts import random_image

from graphc import nn, ops, optim
from graphc.driver import compile
from graphc.errors import InputError
from graphc.ir import Array, Builder, Graph, f32
from graphc.learning import Trainer
from graphc.passes.enter_training import enter_training
from graphc.reference import run_reference
from graphc.training import add_cross_entropy, training_step


def make_network(seed: int = 3, norm: bool = True) -> Graph:
    """With batch norm, dropout, a filter that is used twice, and a bias that is not trained."""
    net = Builder("small", seed)
    x = net.input("image", f32("N", 2, "H", "W"))
    x = nn.conv2d(x, 6, 3, padding=1, bias=not norm, name="conv1")
    x = nn.relu(nn.batch_norm(x, name="norm") if norm else x)
    w = net.param("shared.weight", np.random.default_rng(0).standard_normal((6, 6, 3, 3)).astype(np.float32) / 9)
    for i in range(2):
        x = nn.relu(nn.conv2d(x, 6, 3, padding=1, name=f"twice{i}", weight=w, bias=False))
    x = nn.flatten(nn.global_average_pool(x))
    if norm:
        x = nn.dropout(x, 0.25, name="drop")
    return add_cross_entropy(net.build(logits=nn.linear(x, 4, name="fc")))


def make_batch(seed: int, count: int = 6) -> dict[str, Array]:
    labels = np.random.default_rng(seed).integers(0, 4, count)
    return {"image": random_image(count, 2, 9, 11, seed=seed), "labels": labels}


OPTIMIZERS = {"nesterov": optim.SGD(0.9, nesterov=True, weight_decay=0.01), "adamw": optim.AdamW(), "sgd": optim.SGD()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_in_place_are_those_of_the_graph(name: str) -> None:
    graph, optimizer = make_network(), OPTIMIZERS[name]
    trainer = Trainer(graph, optimizer, clip=0.5, seed=7, threads=2)
    step = training_step(enter_training(graph, 7), optimizer, clip=0.5)
    run = compile(step, threads=1)
    places = {name: array.ctypes.data for name, array in trainer.state.items()}
    state = {name: array.copy() for name, array in trainer.state.items()}
    for i in range(4):
        batch = make_batch(i, 6 if i < 3 else 5)
        given = {**state, **batch, "learning_rate": np.float32(0.1).reshape(()), "step": np.asarray(i)}
        results = dict(zip(step.output_names, run(*(given[v.name] for v in step.inputs)), strict=True))
        state = {name: results[f"{name}.next"] for name in state}
        outputs = trainer.step(0.1, **batch)
        assert outputs.keys() == {"loss", "logits"}
        assert outputs["loss"] == results["loss"]
        for key, array in trainer.state.items():
            np.testing.assert_array_equal(array, state[key], err_msg=key)
    assert places == {name: array.ctypes.data for name, array in trainer.state.items()}
    assert trainer.steps == 4
    inference = run_reference(graph.with_params(trainer.parameters()), list(make_batch(9).values()))
    np.testing.assert_allclose(trainer.evaluate(**make_batch(9))["logits"], inference[1], atol=1e-5)


def test_states_that_depend_on_each_other() -> None:
    """What cannot be overwritten at once is kept apart until everything has been read."""
    net = Builder("net")
    a, b, c, d = (net.input(name, f32(3, 3)) for name in "abcd")
    turned = net.apply(ops.Transpose((1, 0)), c)  # a kernel that reads c elsewhere than it writes
    total = nn.add(a, d)
    later = nn.add(total, c)
    outputs = {"a.next": b, "b.next": a, "c.next": turned, "d.next": total, "later": later, "seen": nn.identity(d)}
    run = compile(net.build(**outputs), threads=1)
    before = {name: random_image(3, 3, seed=i) for i, name in enumerate("abcd")}
    arrays = {name: array.copy() for name, array in before.items()}
    step, results = run.bind(arrays)
    step()
    expected = {"a": before["b"], "b": before["a"], "c": before["c"].T, "d": before["a"] + before["d"]}
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)
        assert results[f"{name}.next"] is arrays[name]
    np.testing.assert_array_equal(results["later"], before["a"] + before["d"] + before["c"])
    np.testing.assert_array_equal(results["seen"], before["d"])
    np.testing.assert_array_equal(run(**before)[2], before["c"].T)  # and apart from each other, as any outputs


def test_same_bits_at_any_thread_count() -> None:
    states = []
    for threads in (1, 3):
        trainer = Trainer(make_network(), optim.Adam(), threads=threads, seed=1)
        for i in range(3):
            trainer.step(0.01, **make_batch(i, 32))
        states.append(trainer.state)
    for name in states[0]:
        np.testing.assert_array_equal(states[0][name], states[1][name], err_msg=name)


def test_gradients_between_the_halves() -> None:
    """They are those of the whole step, in one buffer; what is done to them counts."""
    seen: list[Array] = []
    whole, halves, nothing = (
        Trainer(make_network(), optim.SGD(0.9), seed=2, threads=1, clip=1.0, on_gradients=hook)
        for hook in (None, lambda g: seen.append(g.copy()), lambda g: g.fill(0))
    )
    for i in range(3):
        losses = [t.step(0.1, **make_batch(i))["loss"].copy() for t in (whole, halves, nothing)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert [g.shape for g in seen] == [(sum(p.array.size for p in make_network().params.values() if p.trainable),)] * 3
    for name, array in whole.state.items():
        np.testing.assert_allclose(halves.state[name], array, rtol=1e-5, atol=1e-7, err_msg=name)
    graph = make_network()
    for name in graph.params:
        if graph.params[name].trainable:
            np.testing.assert_array_equal(nothing.state[name], graph.params[name].array)
    assert whole.gradients.size == 0


def work(pipe: Connection, batches: list[dict[str, Array]]) -> None:
    """A worker that sends its gradients and gets the mean of everybody's."""

    def average(gradients: Array) -> None:
        pipe.send(gradients)
        gradients[...] = pipe.recv()

    trainer = Trainer(make_network(norm=False), optim.SGD(0.9), threads=1, on_gradients=average)
    for batch in batches:
        trainer.step(0.1, **batch)
    pipe.send(trainer.parameters())


def test_two_workers_are_one_with_twice_the_batch() -> None:
    batches = [make_batch(i, 8) for i in range(3)]
    context = get_context("spawn")
    pipes, workers = [], []
    for rank in range(2):
        ours, theirs = context.Pipe()
        share = [{name: a[4 * rank : 4 * rank + 4] for name, a in batch.items()} for batch in batches]
        workers.append(context.Process(target=work, args=(theirs, share)))
        pipes.append(ours)
    for worker in workers:
        worker.start()
    for _ in batches:
        mean = sum(pipe.recv() for pipe in pipes) / 2
        for pipe in pipes:
            pipe.send(mean)
    found = [pipe.recv() for pipe in pipes]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    alone = Trainer(make_network(norm=False), optim.SGD(0.9), threads=1)
    for batch in batches:
        alone.step(0.1, **batch)
    for name, array in alone.parameters().items():
        np.testing.assert_array_equal(found[0][name], found[1][name], err_msg=name)
        np.testing.assert_allclose(found[0][name], array, rtol=1e-4, atol=1e-6, err_msg=name)


def test_clipping_bounds_the_norm() -> None:
    def hook(gradients: Array) -> None:
        gradients *= 1000

    graph = make_network(norm=False)
    trainer = Trainer(graph, optim.SGD(), clip=0.25, threads=1, on_gradients=hook)
    trainer.step(1.0, **make_batch(0))
    moved = [trainer.state[n] - p.array for n, p in graph.params.items()]
    assert np.sqrt(sum(float(np.square(m, dtype=np.float64).sum()) for m in moved)) == pytest.approx(0.25, rel=1e-4)
    for clip in (0.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="clip: expected a finite norm above 0"):
            training_step(graph, optim.SGD(), clip=clip)


def test_memory_is_known_beforehand() -> None:
    graph = make_network()
    trainer = Trainer(graph, optim.Adam(), threads=1)
    small, large = (trainer.memory(image=(n, 2, 40, 40), labels=(n,)) for n in (1, 8))
    assert small.parameters == large.parameters == sum(p.array.nbytes for p in graph.params.values())
    assert small.optimizer == 2 * sum(p.array.nbytes for p in graph.params.values() if p.trainable)
    assert large.batch == 8 * small.batch == 8 * (2 * 40 * 40 * 4 + 8)
    assert large.workspace > small.workspace > 0
    assert small.total == small.parameters + small.optimizer + small.workspace + small.batch


def test_refusals() -> None:
    trainer = Trainer(make_network(), optim.SGD(), threads=1)
    with pytest.raises(InputError, match="expected inputs image, labels, got image"):
        trainer.step(0.1, image=make_batch(0)["image"])
    for rate in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="learning rate: expected a finite number of at least 0"):
            trainer.step(rate, **make_batch(0))
    with pytest.raises(InputError, match="network 'small': labels: expected i64, got float64"):
        trainer.step(0.1, image=make_batch(0)["image"], labels=np.zeros(6))
    with pytest.raises(InputError, match=r"missing fc.weight; unexpected fc.wait"):
        trainer.restore({("fc.wait" if n == "fc.weight" else n): a for n, a in trainer.state.items()}, 3)
    with pytest.raises(InputError, match=r"fc.bias: expected float32\[4\], got float64\[4\]"):
        trainer.restore({**trainer.state, "fc.bias": np.zeros(4)}, 3)
