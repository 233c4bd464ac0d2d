"""Graph -> Graph rewrites, one per file."""

assert __name__ == "graphc.passes", "import graphc.passes, not passes"
