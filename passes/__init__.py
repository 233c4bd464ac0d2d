"""Graph -> Graph rewrites, one per file, and the pipeline that runs them in order."""

from collections.abc import Callable, Sequence

from graphc import settings
from graphc.errors import GraphcError, GraphError
from graphc.grad import PREFIX
from graphc.ir import NEXT, Graph
from graphc.ir.verify import verify
from graphc.passes.dense import dense
from graphc.passes.eliminate_common_subexpressions import eliminate_common_subexpressions
from graphc.passes.eliminate_dead_code import eliminate_dead_code
from graphc.passes.enter_training import enter_training
from graphc.passes.fold_batch_norm import fold_batch_norm
from graphc.passes.fold_constants import fold_constants
from graphc.passes.fully_convolutional import fully_convolutional, padded_layers
from graphc.passes.fuse_elementwise import fuse_elementwise
from graphc.passes.fuse_epilogues import fuse_epilogues
from graphc.passes.fuse_sums import fuse_sums
from graphc.passes.recompute_activations import recompute_activations
from graphc.passes.remove_expands import remove_expands
from graphc.passes.remove_identities import remove_identities
from graphc.passes.spell_batch_norm import spell_batch_norm
from graphc.passes.upsample import upsample
from graphc.passes.windows import find_windows

Pass = Callable[[Graph], Graph]

# For inference: parameters are constants here, and dropout does nothing.
PIPELINE: tuple[Pass, ...] = (
    eliminate_dead_code,  # a value that dead nodes read, too, would not be folded or fused
    remove_identities,
    fold_constants,  # weights that the graph computes become constants, which fold_batch_norm can scale
    eliminate_common_subexpressions,  # two equal batch norms behind a convolution become one, which can be folded
    fold_batch_norm,
    spell_batch_norm,  # those that are left: of a network in training
    remove_expands,
    fuse_epilogues,  # before fuse_elementwise: what a convolution does while it stores costs no walk over memory
    fuse_elementwise,
    fuse_sums,
    eliminate_dead_code,  # parameters that were folded
)


# For steps of training: what is the same in both halves is found first, and then made twice where that saves memory.
_FUSING = PIPELINE.index(fuse_epilogues)
TRAINING_PIPELINE: tuple[Pass, ...] = (*PIPELINE[:_FUSING], recompute_activations, *PIPELINE[_FUSING:])


def optimize(graph: Graph, passes: Sequence[Pass] | None = None) -> Graph:
    """Run the passes in order and verify the graph after each one.

    None stands for PIPELINE, and for TRAINING_PIPELINE if the graph has outputs `NAME.next` or `grad.NAME`.

    A name that a value keeps through all of this still stands for the same tensor, so any value can be compared with
    the reference's. GraphError names the pass that failed; its note is the graph that the pass was given or returned.
    Settings: GRAPHC_DUMP=folder writes 00_input.txt and NN_pass.txt after each pass, GRAPHC_STOP_AFTER=n stops.
    """
    if passes is None:
        passes = (
            TRAINING_PIPELINE if any(n.endswith(NEXT) or n.startswith(PREFIX) for n in graph.output_names) else PIPELINE
        )
    folder = settings.dump_folder()
    if folder:
        (folder / "00_input.txt").write_text(f"{graph}\n", encoding="utf-8")
    for number, rewrite in enumerate(passes[: settings.stop_after()], 1):
        try:
            graph = rewrite(graph)
            verify(graph)
        except GraphcError as error:
            failure = GraphError(f"pass {rewrite.__name__} of network '{graph.name}': {error}")
            failure.add_note(str(graph))
            raise failure from error
        if folder:
            (folder / f"{number:02}_{rewrite.__name__}.txt").write_text(f"{graph}\n", encoding="utf-8")
    return graph


__all__ = [
    "PIPELINE",
    "TRAINING_PIPELINE",
    "Pass",
    "dense",
    "eliminate_common_subexpressions",
    "eliminate_dead_code",
    "enter_training",
    "find_windows",
    "fold_batch_norm",
    "fold_constants",
    "fully_convolutional",
    "fuse_elementwise",
    "fuse_epilogues",
    "fuse_sums",
    "optimize",
    "padded_layers",
    "recompute_activations",
    "remove_expands",
    "remove_identities",
    "spell_batch_norm",
    "upsample",
]
assert __name__ == "graphc.passes", "import graphc.passes, not passes"
