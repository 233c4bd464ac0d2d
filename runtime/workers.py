"""A compiled network for the processes of a pool or a cluster: opened once in each, however often it arrives."""

import hashlib
import os
import pickle
import threading
from pathlib import Path

from graphc.runtime.network import Network

_opened: dict[tuple[object, ...], Network] = {}
_lock = threading.Lock()


class WorkerNetwork:
    """It travels as what `Network` pickles as: of a library its path, else what it was compiled from.

    `threads` are those of a run in a worker. One is best where there is a worker for each CPU.
    """

    def __init__(self, network: Network, threads: int = 1) -> None:
        make, (source, _, *rest) = network.__reduce__()  # the number of threads stands second in all of them
        self._recipe = pickle.dumps((make, (source, threads, *rest)))
        self._file = source if isinstance(source, Path) else None

    def open(self) -> Network:
        """The network of this process."""
        version = os.stat(self._file).st_mtime_ns if self._file else 0  # a library that was built again is another one
        key = hashlib.sha256(self._recipe).digest(), version
        with _lock:
            if key not in _opened:
                make, arguments = pickle.loads(self._recipe)
                _opened[key] = make(*arguments)
            return _opened[key]
