"""How fast is it? The same network on the same input in graphc and in other runtimes, taking turns on this machine.

Every runtime has a process of its own, so that no library's threads or settings disturb another's, and all but the one
that is being timed are stopped.
"""

from graphc.bench.comparison import compare
from graphc.bench.figures import Comparison, Measurement
from graphc.bench.runtimes import PEERS

__all__ = ["PEERS", "Comparison", "Measurement", "compare"]
