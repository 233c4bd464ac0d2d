"""Every error that graphc raises on purpose. Each message is one line: where, what was expected, what came."""

from collections.abc import Iterable, Sequence


class GraphcError(Exception):
    """Base of all errors that graphc raises on purpose; the command line prints it without a traceback."""


class ShapeError(GraphcError, ValueError):
    """Types, shapes or attributes that do not fit together; the message names the node."""


class GraphError(GraphcError, ValueError):
    """A graph that is not well formed: a cycle, a value used before it is defined, a stored type that is wrong."""


class InputError(GraphcError, ValueError):
    """An argument of a call, such as an array of the wrong rank or a size that the network cannot take."""


class UnsupportedError(GraphcError):
    """Things that graphc cannot do, reported all at once; `problems` holds one line for each."""

    def __init__(self, what: str, problems: Sequence[str] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__(f"{what}: {'; '.join(problems)}" if problems else what)


class ValueDependentError(UnsupportedError):
    """Shapes that depend on the values of `inputs`: known in a run, but not while a model is read."""

    def __init__(self, what: str, inputs: Iterable[str], problems: Sequence[str] = ()) -> None:
        self.inputs = frozenset(inputs)
        super().__init__(what, problems)


class FileError(GraphcError, OSError):
    """A file that cannot be read or written, or does not hold what it should; the message names it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class GradientError(GraphcError):
    """A gradient that differs from the central difference; the message names the element and both numbers."""


class NoGradientError(GraphcError):
    """An op without a gradient rule lies between the loss and what it is differentiated by."""
