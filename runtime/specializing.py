"""A network whose shapes depend on the values of some inputs: compiled for those of a call, and kept for the next."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import Any

from graphc.errors import InputError, ValueDependentError
from graphc.ir.op import Array
from graphc.ir.types import TensorType
from graphc.runtime.network import Network, arrange_inputs

# Networks that are kept, the last used ones: each has its weights once more. Programs alternate between few shapes.
REMEMBERED_NETWORKS = 8
Values = Mapping[str, Array]
Recipe = tuple[Callable[..., object], tuple[Any, ...]]


class SpecializingNetwork:
    """Called like a `Network`. `specialize(values)` compiles for these values of the inputs that shapes depend on.

    `known` names those inputs. `specialize` finds more of them when the values of the first ones let it read further;
    it tells by ValueDependentError.
    """

    def __init__(
        self,
        name: str,
        inputs: tuple[tuple[str, TensorType], ...],
        known: Iterable[str],
        specialize: Callable[[Values], Network],
        recipe: Recipe,
    ) -> None:
        self.name, self.inputs, self.known = name, inputs, frozenset(known)
        self._specialize, self._recipe = specialize, recipe
        self._networks: OrderedDict[tuple[object, ...], Network] = OrderedDict()
        self._lock = Lock()

    def __reduce__(self) -> Recipe:
        return self._recipe

    def __repr__(self) -> str:
        listed = ", ".join(f"{n}: {t}" for n, t in self.inputs)
        return f"<network {self.name}: ({listed}), compiled for each value of {', '.join(sorted(self.known))}>"

    def __call__(self, *args: Any, **named: Any) -> Any:
        arrays = arrange_inputs(self.name, self.inputs, args, named)
        given = {name: array for (name, _), array in zip(self.inputs, arrays, strict=True)}
        for name, type in self.inputs:
            fits = len(type.shape) == given[name].ndim
            if name in self.known and not (fits and all(map(_fits, type.shape, given[name].shape))):
                got = list(given[name].shape)
                raise InputError(f"input '{name}': expected {type}, got an array of shape {got}")
        with self._lock:
            network = self._find(given)
        return network(**{name: given[name] for name, _ in network.inputs})

    def _find(self, given: Values) -> Network:
        """The network for these values, compiled if it is not there."""
        while True:
            values = {name: array for name, array in given.items() if name in self.known}
            key = tuple((name, array.shape, array.tobytes()) for name, array in values.items())
            if key not in self._networks:
                try:
                    self._networks[key] = self._specialize(values)
                except ValueDependentError as error:
                    if error.inputs <= self.known:
                        raise
                    self.known |= error.inputs
                    self._networks.clear()  # keys have the values of all known inputs
                    continue
            self._networks.move_to_end(key)
            if len(self._networks) > REMEMBERED_NETWORKS:
                self._networks.popitem(last=False)
            return self._networks[key]


def _fits(d: object, length: int) -> bool:
    return not isinstance(d, int) or d == length
