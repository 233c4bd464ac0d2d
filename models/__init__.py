"""The networks, as plain functions that return a Graph."""

assert __name__ == "graphc.models", "import graphc.models, not models"
