"""What runs: the JIT holder, the artefact loader, memory slots, the thread pool, tiling."""

assert __name__ == "graphc.runtime", "import graphc.runtime, not runtime"
