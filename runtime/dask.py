"""One huge image on the workers of a cluster: a Dask array through a network, tile by tile."""

from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import InputError
from graphc.ir import Array
from graphc.ir.sizes import bind_sizes
from graphc.runtime.network import Network
from graphc.runtime.tiling import Span, length, make_tile_plan
from graphc.runtime.windows import need
from graphc.runtime.workers import WorkerNetwork

if TYPE_CHECKING:
    import dask.array


def map_image(
    network: Network,
    array: "dask.array.Array",
    tile: int | tuple[int, int] | None = None,
    max_memory: int | str | None = "1GiB",
    threads: int = 1,
) -> Any:
    """The network's output over a Dask array [H,W], [C,H,W] or [N,C,H,W]: a Dask array [N,K,P,Q], not yet computed.

    It has the bits of a run over the whole image. Its chunks are tiles, of `tile` pixels or as large as `max_memory`
    allows a worker; each is a task of its own, so that what a lost worker had done is done again elsewhere. Several
    outputs are a tuple. `threads` are those of a run. Workers open the network once; what `graphc.runtime.load` has
    loaded travels as its path, which must be there on every worker. Errors: as of `Network.tiled`.
    """
    dask, arrays = need("dask"), need("dask.array")
    if array.ndim not in (2, 3, 4):
        raise InputError(f"map_image: expected an array [H,W], [C,H,W] or [N,C,H,W], got {list(array.shape)}")
    images = array[(None,) * (4 - array.ndim)]
    (name, type), *_ = network.inputs
    if images.dtype != type.dtype.numpy:
        raise InputError(f"input '{name}': expected {type.dtype.numpy}, got {images.dtype}")
    # staging: the parts of a window, and it whole; tiles are run anywhere, in any order
    plan = make_tile_plan(network, images.shape, max_memory, tile, staging=2, alone=True)
    shapes = network.output_shapes(**bind_sizes(network.inputs, [plan.shape]))
    worker, size = dask.delayed(WorkerNetwork(network, threads), pure=True), (plan.shape[2], plan.shape[3])
    blocks: list[dict[tuple[int, int, int], Any]] = [{} for _ in shapes]
    for one in plan:
        strides = [plan.rule.strides[output] for output, _ in network.outputs]
        places = [one.results(s, shape, size) for s, shape in zip(strides, shapes, strict=True)]
        if all(place.empty for place in places):
            continue
        window = images[slice(*one.images), :, slice(*one.seen[0]), slice(*one.seen[1])]
        # As they are: what Dask merges for one tile, it makes again for the next (read and scaled 54 times, not once).
        seen = window.to_delayed(optimize_graph=False).tolist()
        cuts = [place.source for place in places]
        parts = dask.delayed(_run, pure=True, nout=len(shapes))(worker, seen, cuts)
        for i, place in enumerate(places):
            if not place.empty:
                shape = (length(one.images), shapes[i][1], *map(length, place.target))
                begin = (one.images[0], place.target[0][0], place.target[1][0])
                dtype = network.outputs[i][1].dtype.numpy
                blocks[i][begin] = arrays.from_delayed(parts[i], shape, dtype=dtype, meta=np.empty((0,) * 4, dtype))
    results = tuple(arrays.block(_nest(found)) for found in blocks)
    return results[0] if len(results) == 1 else results


def _nest(blocks: dict[tuple[int, int, int], Any]) -> list[list[list[list[Any]]]]:
    """Blocks by image, row and column as lists in lists, one for each of the dims N, K, P and Q."""
    images, rows, columns = (sorted({key[i] for key in blocks}) for i in range(3))
    return [[[[blocks[n, row, column] for column in columns] for row in rows]] for n in images]


def _run(worker: WorkerNetwork, seen: list[Any], cuts: list[tuple[Span, Span]]) -> tuple[Array, ...]:
    """A tile on a worker: its part of each output. The window that it sees comes in chunks, in lists of lists."""
    found = worker.open()(np.ascontiguousarray(np.block(seen)))
    outputs = found if isinstance(found, tuple) else (found,)
    pairs = zip(outputs, cuts, strict=True)
    return tuple(np.ascontiguousarray(y[:, :, slice(*rows), slice(*columns)]) for y, (rows, columns) in pairs)
