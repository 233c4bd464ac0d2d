"""Choosing kernels by measurement: each convolution with more than one candidate takes what is fastest in its network.

All candidates are compiled into networks of their own, one for the first candidate of every convolution, one for the
second and so on. They run in turn, and every step is timed where it stands, with the caches as its neighbours leave
them. Convolutions of one description share what was found. It is kept (runtime/cache.py) and measured once.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256

from graphc.codegen.plan import Plan, make_plan
from graphc.codegen.target import Target
from graphc.errors import InputError
from graphc.ir import Graph, Node
from graphc.runtime import cache
from graphc.strips import find_carry

IMAGE = {"N": 1, "H": 224, "W": 224}  # what is measured where sizes are open: one image of the usual size
MARGIN = 0.97  # of the time of the model's choice: what gains less may be noise
Measure = Callable[[Sequence[Plan], Mapping[str, int]], Sequence[Iterable[float]]]  # seconds of each plan's steps


def choose_sizes(graph: Graph, tune: bool | Mapping[str, int]) -> dict[str, int]:
    """The sizes to measure at: as given, and for the others those of IMAGE. Errors: InputError."""
    given = {} if isinstance(tune, bool) else dict(tune)
    unknown = sorted(given.keys() - set(graph.symbols))
    missing = [s for s in graph.symbols if s not in given and s not in IMAGE]
    if unknown or missing or any(not isinstance(size, int) or size < 1 for size in given.values()):
        wanted, got = ", ".join(graph.symbols) or "none", ", ".join(f"{s}={n}" for s, n in given.items()) or "none"
        raise InputError(f"tune: expected sizes of at least 1 for some of {wanted}, got {got}")
    return {s: given.get(s, IMAGE.get(s, 1)) for s in graph.symbols}


def tune_plan(
    graph: Graph, target: Target, precise: bool, sizes: Mapping[str, int], version: str, measure: Measure
) -> Plan:
    """The plan with the fastest candidate for every convolution. `version` is all that times depend on beside these."""
    described: dict[str, str] = {}  # node -> its description
    candidates: dict[str, Sequence[str]] = {}  # description -> its candidates

    def plan_with(choices: Mapping[str, str]) -> Plan:
        def choose(node: Node, description: str, names: Sequence[str]) -> str:
            described[node.name], candidates[description] = description, names
            return choices.get(description, names[0])

        return make_plan(graph, target, precise=precise, choose=choose, carry=find_carry(graph, not precise))

    plan = plan_with({})
    keys = {d: sha256(f"tune {version} {target.cpu} {d} {sorted(sizes.items())}".encode()).digest() for d in candidates}
    kept = {d: (cache.load(key) or b"").decode() for d, key in keys.items()}
    chosen = {d: name for d, name in kept.items() if name in candidates[d]}
    unsettled = {d: names for d, names in candidates.items() if len(names) > 1 and d not in chosen}
    if unsettled:
        rounds = range(max(map(len, unsettled.values())))
        trials = [{d: names[i] for d, names in unsettled.items() if i < len(names)} for i in rounds]
        plans = [plan_with(chosen | trial) for trial in trials]
        times: dict[tuple[str, str], float] = defaultdict(float)
        for trial, tried, seconds in zip(trials, plans, measure(plans, sizes), strict=True):
            for step, took in zip(tried.steps, seconds, strict=True):
                description = described.get(step.node.name, "")
                if description in trial:
                    times[description, trial[description]] += took
        for d, names in unsettled.items():
            fastest = min(names, key=lambda name: times[d, name])
            chosen[d] = fastest if times[d, fastest] < MARGIN * times[d, names[0]] else names[0]
            cache.store(keys[d], chosen[d].encode())
        plan = plan_with(chosen)
    elif chosen:
        plan = plan_with(chosen)
    return plan
