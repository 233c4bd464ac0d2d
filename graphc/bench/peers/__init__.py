"""One module for each runtime: `load(problem, threads)` makes the network ready, in a process of its own.

All of them compute in float32, on as many threads as they are told, and know the input's size beforehand where that
lets them plan.
"""
