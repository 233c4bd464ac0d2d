"""LLVM's passes over a network's module: all of them for loop nests, a few for kernels that are written as they run."""

from collections.abc import Collection

import llvmlite.binding as llvm


def optimize_code(module: llvm.ModuleRef, machine: llvm.TargetMachine, nests: Collection[str]) -> None:
    """Optimise every function in place; `nests` names those that loop nests became.

    They are written plainly and want what LLVM has: without it a transposed convolution takes 30 % longer. All other
    code is straight lines of vector operations in the order in which they shall run. It only wants tidying: with all
    passes no network was faster (ResNet-50 44 ms, with these 41), and compiling took twice as long.
    """
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = tuning.slp_vectorization = False  # the nests are vector code already
    builder = llvm.create_pass_builder(machine, tuning)
    full, few = builder.getFunctionPassManager(), llvm.create_new_module_pass_manager()
    for function in module.functions:
        if function.name in nests and not function.is_declaration:
            full.run(function, builder)
    # Over the module, so over the nests again, which they leave as they are. To run passes on one function takes time
    # that grows with the module: on 10,000 functions one by one 24 s, like this 1 s.
    few.add_sroa_pass()
    few.add_instruction_combine_pass()
    few.add_simplify_cfg_pass()
    few.add_loop_rotate_pass()
    few.add_instruction_combine_pass()  # of what rotating loops has doubled
    few.add_simplify_cfg_pass()
    few.add_global_dead_code_eliminate_pass()
    few.run(module, builder)
