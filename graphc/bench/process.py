"""The parent's side of a worker: starts it, asks it, stops it while others are timed."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any, Self

from graphc.bench.runtimes import Peer
from graphc.errors import GraphcError


class WorkerError(GraphcError):
    """A worker could not load its network, or died."""


class Worker:
    """A process with the problem in `folder` loaded in one runtime, on these CPUs with a thread for each.

    Between two questions the process is stopped, so that threads which wait by spinning take nothing from the others.
    It does not hear the terminal's Ctrl-C: it ends with its `with` block.
    """

    def __init__(self, peer: Peer, folder: Path, cpus: Sequence[int]) -> None:
        self._log = folder / f"{peer.name}.{len(cpus)}.log"
        words = [peer.loader, str(folder), str(len(cpus)), ",".join(map(str, cpus))]
        environment = os.environ | {
            "OMP_NUM_THREADS": str(len(cpus)),  # read by OpenMP when it is loaded
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),  # the same graphc and peers as here
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "graphc.bench.worker", *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                start_new_session=True,
            )
        self.pid = self._process.pid
        try:
            told = self._read()
        except BaseException:
            self.__exit__()
            raise
        self.version: str = told["version"]
        self.load_seconds: float = told["load_seconds"]

    def time(self, seconds: float) -> float:
        """Seconds of a run: the median of as many as take `seconds`."""
        return float(self._ask({"run": seconds})["seconds"])

    def save(self, path: Path) -> int:
        """Write the outputs; the most bytes that the process had resident."""
        return int(self._ask({"save": str(path)})["peak_bytes"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        self._process.send_signal(SIGCONT)
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._describe_end()) from None
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(self._describe_end())
        told: dict[str, Any] = json.loads(line)
        if "error" in told:
            raise WorkerError(told["error"])
        self._process.send_signal(SIGSTOP)
        return told

    def _describe_end(self) -> str:
        status = self._process.wait()
        told = self._log.read_text(errors="replace").strip().splitlines()
        return f"its process ended with status {status}" + (f": {told[-1]}" if told else "")
