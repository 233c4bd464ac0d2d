"""`python -m graphc` is `graphc`."""

from graphc.cli import main

main(prog_name="graphc")
