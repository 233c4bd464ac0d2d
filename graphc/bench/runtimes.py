"""Which runtimes can be measured, and where each is loaded."""

from dataclasses import dataclass
from importlib.util import find_spec

from graphc.bench.figures import OWN
from graphc.errors import InputError


@dataclass(frozen=True)
class Peer:
    """A runtime: `loader` is module:function, called in the worker; `modules` are what it needs installed."""

    name: str
    loader: str
    modules: tuple[str, ...] = ()

    @property
    def missing(self) -> str | None:
        """Why it cannot be loaded, or None."""
        absent = [name for name in self.modules if find_spec(name) is None]
        return f"{' and '.join(absent)} not installed (pip install graphc[bench])" if absent else None


GRAPHC = Peer(OWN, "graphc.bench.peers.native:load")
PEERS = {
    peer.name: peer
    for peer in (
        Peer("onnxruntime", "graphc.bench.peers.onnxruntime:load", ("onnxruntime",)),
        Peer("openvino", "graphc.bench.peers.openvino:load", ("openvino",)),
        Peer("ncnn", "graphc.bench.peers.ncnn:load", ("ncnn", "pnnx")),
        Peer("torch", "graphc.bench.peers.torch:load", ("torch",)),
    )
}
ARTEFACT = Peer("graphc library", "graphc.bench.peers.artefact:load")
# of training: the whole step, and its forward half
TRAINING = {part: Peer(OWN, f"graphc.bench.peers.native:load_{part}") for part in ("step", "forward")}
TRAINERS = {
    "torch": {part: Peer("torch", f"graphc.bench.peers.torch_training:load_{part}", ("torch",)) for part in TRAINING}
}


def find_peers(names: tuple[str, ...]) -> list[Peer]:
    """The peers of these names. Errors: InputError."""
    for name in names:
        if name not in PEERS:
            raise InputError(f"--against: expected some of {', '.join(PEERS)}, got '{name}'")
    return [PEERS[name] for name in dict.fromkeys(names)]
