"""What runs: the JIT holder, the artefact loader, memory slots, the thread pool, tiling."""

# Not on demand: once anything imports the module `load`, it would stand where the function should.
from graphc.runtime.load import load

__all__ = ["load"]

assert __name__ == "graphc.runtime", "import graphc.runtime, not runtime"
